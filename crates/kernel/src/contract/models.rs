//! Which models may be called.

use std::sync::Arc;

use crate::ModelName;

/// Which models may be called: those that every list names. No list: all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Allow(Arc<[Arc<[Box<str>]>]>);

/// Whether a name is what a pattern means: the name itself, or with `*` at its end its beginning.
pub fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |beginning| name.starts_with(beginning))
}

impl Allow {
    /// What several lists of patterns allow together; empty lists say nothing.
    pub fn lists<'a>(lists: impl IntoIterator<Item = &'a [String]>) -> Self {
        let said = lists.into_iter().filter(|list| !list.is_empty());
        Self(said.map(|list| list.iter().map(|pattern| pattern.as_str().into()).collect()).collect())
    }

    /// Whether a model may be called.
    pub fn allows(&self, model: &ModelName) -> bool {
        self.0.iter().all(|list| list.iter().any(|pattern| matches(pattern, model.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_name_or_a_beginning() {
        assert!(matches("gpt-4o", "gpt-4o") && matches("gpt-*", "gpt-4o") && matches("*", "x"));
        assert!(!matches("gpt-4", "gpt-4o") && !matches("gpt-*", "gp") && !matches("", "x"));
    }

    #[test]
    fn what_is_allowed_stands_in_every_list() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let (plan, key) = (list(&["gpt-*", "llama"]), list(&["gpt-4o"]));
        let both = Allow::lists([&plan[..], &[], &key[..]]);
        let check = |name: &str| both.allows(&ModelName::new(name));
        assert!(check("gpt-4o") && !check("llama") && !check("gpt-5"));
        assert!(Allow::lists([]).allows(&ModelName::new("x")) && Allow::default().allows(&ModelName::new("x")));
    }
}
