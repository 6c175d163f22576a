//! Names and identifiers. Each is a newtype, so that one cannot be handed over for another.

use std::fmt;
use std::sync::Arc;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps a text; cloning the name later costs one reference count.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// A tenant: the party that owns keys and pays.
    TenantId
);
name!(
    /// The public part of an API key; safe to log.
    KeyId
);
name!(
    /// The name a client asks for.
    ModelName
);
name!(
    /// One version of a model; versions share its traffic by weight.
    Version
);
name!(
    /// One request, as told to the client in `x-request-id` and written in every log line about it.
    RequestId
);

/// An instance within one published roster: an index, valid only together with that roster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InstanceId(pub u32);
