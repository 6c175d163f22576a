//! Texts that come again and again: tenants, keys, models, prices. Read once, they are shared from then on.

use std::sync::Arc;

/// Bound: texts remembered, some tens of kilobytes. One that falls into another's place pushes it out.
const PLACES: usize = 1024;
/// Bound: a longer text is no name and hardly comes again.
const LONG: usize = 128;

/// Texts read before.
#[derive(Debug)]
pub(super) struct Words(Box<[Option<Arc<str>>]>);

impl Default for Words {
    fn default() -> Self {
        Self(std::iter::repeat_with(|| None).take(PLACES).collect())
    }
}

impl Words {
    /// The text, shared with those who read the same before where that is known.
    pub(super) fn share(&mut self, text: &str) -> Arc<str> {
        if text.len() > LONG {
            return text.into();
        }
        let place = crc32fast::hash(text.as_bytes()) as usize % PLACES;
        match self.0.get_mut(place) {
            Some(Some(known)) if **known == *text => Arc::clone(known),
            Some(other) => Arc::clone(other.insert(text.into())),
            None => text.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_is_one_and_another_in_its_place_is_itself() {
        let mut words = Words::default();
        let first = words.share("acme");
        assert!(Arc::ptr_eq(&first, &words.share("acme")));
        for nth in 0..5 * PLACES {
            let text = format!("tenant-{nth}");
            assert_eq!(*words.share(&text), text);
        }
        assert_eq!(*words.share("acme"), *"acme");
        assert_eq!(words.share(&"x".repeat(LONG + 1)).len(), LONG + 1);
    }
}
