//! Live values for `/metrics`, read when somebody looks.
//!
//! What a finished request left behind is counted from its receipt; this is for what *is*: slots taken, calls
//! waiting, connections idle, instances up.

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Metric name, with the unit as its last word.
    pub name: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// Whether it only ever grows.
    pub counter: bool,
    /// Label names and values.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: f64,
}

/// A stage that has live values to show. Must not block.
pub trait Gauges: Send + Sync + 'static {
    /// Shows each value once.
    fn show(&self, to: &mut dyn FnMut(Sample));
}
