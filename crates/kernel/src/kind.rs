//! Rows of the tables that list what a config file can name.

/// One row: a name users write, a line of documentation, and how to make the thing.
///
/// Every extension point is a `const KINDS: &[Kind<…>]`; adding to it is one file and one row. The generated
/// config reference lists the rows as they stand in the table.
#[derive(Debug, Clone, Copy)]
pub struct Kind<Build: 'static> {
    /// The word users write in the config.
    pub name: &'static str,
    /// One line for the reference.
    pub about: &'static str,
    /// Makes the thing.
    pub build: Build,
}

/// The row with this name.
pub fn find<Build>(kinds: &'static [Kind<Build>], name: &str) -> Option<&'static Kind<Build>> {
    kinds.iter().find(|kind| kind.name == name)
}

/// All names in a table, for "expected one of" messages and schemas.
pub fn names<Build>(kinds: &'static [Kind<Build>]) -> Vec<&'static str> {
    kinds.iter().map(|kind| kind.name).collect()
}
