//! What is counted per period of the calendar: for the one that is, and for those just before.
//!
//! Clocks are set, back and forth. What was counted for a period is kept beside, so that a clock that comes back to it finds
//! it as it was: nothing is spent anew, and nothing is forgotten. A period that nothing is known of begins empty.

use smallvec::SmallVec;

/// Bound: periods kept beside the one that is: the one before, for what ends late, and one that a clock has strayed to.
const BESIDE: usize = 2;

/// A value per period.
#[derive(Debug, Default)]
pub(super) struct Dated<T> {
    /// Which period the clock is in; `None`: nobody has looked at the clock yet.
    number: Option<i64>,
    now: T,
    /// The latest one first.
    beside: SmallVec<[(i64, T); BESIDE]>,
}

impl<T: Default> Dated<T> {
    /// In a period, with nothing counted.
    pub(super) fn begun(number: i64) -> Self {
        Self { number: Some(number), ..Self::default() }
    }

    /// Which period the clock is in.
    pub(super) fn number(&self) -> Option<i64> {
        self.number
    }

    /// What is counted for the period that is.
    pub(super) fn now(&self) -> &T {
        &self.now
    }

    /// The same, to be changed.
    pub(super) fn now_mut(&mut self) -> &mut T {
        &mut self.now
    }

    /// The clock is in this period. Where that is a later one than any before, `begin` makes it of the one that was.
    pub(super) fn turn(&mut self, number: i64, begin: impl FnOnce(&T) -> T) {
        let Some(was) = self.number.replace(number) else { return };
        if was == number {
            return;
        }
        if let Some((other, value)) = self.beside.iter_mut().find(|(other, _)| *other == number) {
            *other = was;
            std::mem::swap(&mut self.now, value);
            return;
        }
        let latest = was < number && self.beside.iter().all(|(other, _)| *other < number);
        let new = if latest { begin(&self.now) } else { T::default() };
        self.keep(was, new);
    }

    fn keep(&mut self, was: i64, new: T) {
        let old = std::mem::replace(&mut self.now, new);
        self.beside.truncate(BESIDE - 1);
        self.beside.insert(0, (was, old));
    }

    /// What is counted for a period, if it is kept.
    pub(super) fn at(&mut self, number: i64) -> Option<&mut T> {
        if self.number == Some(number) {
            return Some(&mut self.now);
        }
        self.beside.iter_mut().find(|(other, _)| *other == number).map(|(_, value)| value)
    }

    /// All that is kept, with which period it is of.
    pub(super) fn all(&mut self) -> impl Iterator<Item = (i64, &mut T)> {
        let now = self.number.map(|number| (number, &mut self.now));
        now.into_iter().chain(self.beside.iter_mut().map(|(number, value)| (*number, value)))
    }

    /// The same; what is not kept begins empty, beside the one that is.
    pub(super) fn made_at(&mut self, number: i64) -> &mut T {
        if self.number.is_none_or(|now| now == number) {
            self.number = Some(number);
            return &mut self.now;
        }
        if !self.beside.iter().any(|(other, _)| *other == number) {
            self.beside.truncate(BESIDE - 1);
            self.beside.insert(0, (number, T::default()));
        }
        match self.beside.iter_mut().find(|(other, _)| *other == number) {
            Some((_, value)) => value,
            None => &mut self.now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_comes_back_finds_what_was_counted() {
        let mut counted: Dated<u32> = Dated::begun(10);
        *counted.now_mut() = 1;
        counted.turn(11, |_| 0);
        *counted.now_mut() = 2;
        counted.turn(10, |_| panic!("an earlier period does not begin"));
        assert_eq!((counted.number(), *counted.now()), (Some(10), 1));
        counted.turn(11, |_| panic!("known"));
        assert_eq!(*counted.now(), 2);
        counted.turn(99, |before| before + 5);
        assert_eq!(*counted.now(), 7);
        counted.turn(11, |_| panic!("known"));
        assert_eq!((*counted.now(), counted.at(99).copied(), counted.at(10).copied()), (2, Some(7), Some(1)));
        counted.turn(3, |_| panic!("earlier"));
        assert_eq!((*counted.now(), counted.at(11).copied()), (0, Some(2)), "of a long gone one nothing is known");
    }

    #[test]
    fn what_ends_late_is_counted_beside() {
        let mut counted: Dated<u32> = Dated::begun(10);
        *counted.made_at(9) += 4;
        assert_eq!((*counted.now(), counted.at(9).copied(), counted.at(8)), (0, Some(4), None));
        let mut new: Dated<u32> = Dated::default();
        *new.made_at(5) += 1;
        new.turn(5, |_| 0);
        assert_eq!((new.number(), *new.now()), (Some(5), 1));
    }
}
