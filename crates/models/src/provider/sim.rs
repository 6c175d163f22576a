//! `sim`: the simulated model server, inside this process. For trying Sluice out and for load tests.

use kernel::Kind;

use super::Row;
use super::openai::{Backend, OpenAi};
use crate::settings::ModelSettings;

pub(super) const KIND: Kind<Row> = Kind {
    name: "sim",
    about: "The built-in simulator: made-up words at a given pace. Needs no endpoint; `sim:` tunes it.",
    build: Row {
        needs_endpoint: false,
        make: |model, instance| Box::new(OpenAi::new(model, instance, simulator(model))),
    },
};

fn simulator(model: &ModelSettings) -> Backend {
    // An empty list answers to every name: which models there are is decided before a call comes here.
    let settings = sim::Settings { models: Vec::new(), ..model.sim.clone().unwrap_or_default() };
    Backend::Simulator(sim::Sim::new(settings))
}
