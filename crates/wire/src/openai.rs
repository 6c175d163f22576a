//! The OpenAI dialect: what clients send, what backends answer, and how errors are said.

pub mod answer;
mod choices;
pub mod fault;
pub mod preprocess;
pub mod request;
pub mod stream;
mod usage;
pub mod words;
