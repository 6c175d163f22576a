//! JSON that is passed on: looked at without parsing it, edited in place with every other byte kept.

pub(crate) mod scan;

use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// Bodies up to this size are joined into one buffer after an edit; larger ones stay slices of the original.
/// Bound: below it one copy is cheaper than the extra write vectors, above it the copy would dominate.
const JOIN_MAX: usize = 32 * 1024;

/// Replaces `edits` (disjoint, any order; what is put in where another begins goes before it) in `body`. The result, joined, is the edited body.
pub fn splice(body: &Bytes, mut edits: Vec<(Range<usize>, Bytes)>) -> Vec<Bytes> {
    edits.sort_by_key(|(range, _)| (range.start, range.end));
    let total = edits.iter().fold(body.len(), |sum, (range, text)| sum + text.len() - range.len());
    if total <= JOIN_MAX {
        let mut joined = BytesMut::with_capacity(total);
        each(body, edits, |piece| joined.extend_from_slice(&piece));
        return vec![joined.freeze()];
    }
    let mut pieces = Vec::with_capacity(edits.len() * 2 + 1);
    each(body, edits, |piece| pieces.push(piece));
    pieces
}

/// Gives the pieces of the edited body in order.
fn each(body: &Bytes, edits: Vec<(Range<usize>, Bytes)>, mut give: impl FnMut(Bytes)) {
    let mut from = 0;
    for (range, text) in edits {
        give(body.slice(from..range.start));
        give(text);
        from = range.end;
    }
    give(body.slice(from..));
}

/// Where `part`, a sub-slice of `whole`, stands in it.
pub(crate) fn place(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + part.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, edits: Vec<(Range<usize>, &'static str)>, expected: &str) {
        let edits = edits.into_iter().map(|(range, text)| (range, Bytes::from_static(text.as_bytes()))).collect();
        let pieces = splice(&Bytes::copy_from_slice(body.as_bytes()), edits);
        assert_eq!(pieces.concat(), expected.as_bytes());
    }

    #[test]
    fn edits_replace_their_ranges_and_nothing_else() {
        check("abcdef", vec![], "abcdef");
        check("abcdef", vec![(4..6, "X"), (0..1, "YY")], "YYbcdX");
        check("abcdef", vec![(3..3, "-")], "abc-def");
    }

    #[test]
    fn a_large_body_is_sliced_and_not_copied() {
        let body = Bytes::from(vec![b'x'; JOIN_MAX + 1]);
        let pieces = splice(&body, vec![(10..11, Bytes::from_static(b"y"))]);
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[2].as_ptr(), body[11..].as_ptr());
    }
}
