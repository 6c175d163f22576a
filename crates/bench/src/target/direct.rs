//! Direct access: no proxy, the floor under every other figure.

use super::{Kind, Target};

pub(super) const KIND: Kind = Kind {
    name: "direct",
    about: "The load client talks to the stub upstream itself.",
    proxy: false,
    start: |site| Ok(Target::direct(site.upstream)),
    version: |_| Ok("the stub upstream".to_owned()),
};
