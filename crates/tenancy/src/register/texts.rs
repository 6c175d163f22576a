//! Texts that many rows share, each kept once.

use std::collections::HashMap;
use std::sync::Arc;

/// A text's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Text(u32);

/// Texts by their place.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    list: Vec<Arc<str>>,
    places: HashMap<Arc<str>, u32>,
}

impl Texts {
    /// The place of a text; the same for the same text.
    pub(crate) fn place(&mut self, text: &str) -> Text {
        if let Some(place) = self.places.get(text) {
            return Text(*place);
        }
        let text: Arc<str> = text.into();
        // Bound: more texts than numbers would not fit into memory.
        let place = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        self.list.push(Arc::clone(&text));
        self.places.insert(text, place);
        Text(place)
    }

    /// The text at a place.
    pub(crate) fn at(&self, place: Text) -> &str {
        self.list.get(place.0 as usize).map_or("", |text| text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_has_one_place() {
        let mut texts = Texts::default();
        let (a, b) = (texts.place("a"), texts.place("b"));
        assert_eq!((texts.place("a"), texts.at(a), texts.at(b)), (a, "a", "b"));
    }
}
