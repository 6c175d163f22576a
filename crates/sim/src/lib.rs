//! A simulated OpenAI-compatible model server, for demos and load tests on machines without a model.
//!
//! [`Sim`] is the engine: a request in, a [`Plan`] out, which says what is answered, in which pieces and
//! when. It has no sockets and no clock, so the gateway can also answer from it in-process;
//! [`Plan::start`] plays a plan in (real or virtual) time, [`serve`] plays plans over HTTP/1.1. Text, vectors,
//! timing and faults follow from the seed, so a run can be repeated.
//!
//! It deliberately understands nothing: words are made up, tokens are words, prompts are measured in bytes.
//! Nothing that must hold for real model servers is proved with it alone.

mod chat;
mod completion;
mod embedding;
mod engine;
mod fault;
mod overrides;
mod plan;
mod playback;
mod prompt;
mod random;
mod refusal;
mod request;
mod script;
mod server;
mod settings;
mod terms;
mod words;

pub use engine::Sim;
pub use overrides::HEADERS;
pub use plan::{End, Head, Plan, Step, Steps};
pub use playback::{Ended, Playback};
pub use server::{BODY_LIMIT, serve};
pub use settings::{Fault as SettingsFault, Settings};
