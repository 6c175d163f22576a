//! What is wanted, and what has been decided about it so far.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::fleet::Deployment;
use crate::{InstanceId, ModelName, Moment, Permit, Tokens};

/// Which kind of work a call asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// A chat completion.
    Chat,
    /// A plain text completion.
    Completion,
    /// Embedding vectors.
    Embedding,
    /// Whatever a plain service behind Sluice does.
    Service,
}

impl Operation {
    /// The word used in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completion => "completion",
            Self::Embedding => "embedding",
            Self::Service => "service",
        }
    }
}

/// What a client wants, in canonical words, with the body as it came. Cheap to clone: bodies are shared.
#[derive(Debug, Clone)]
pub struct Call {
    /// The model name the client asked for.
    pub model: ModelName,
    /// Which kind of work.
    pub operation: Operation,
    /// Whether the client wants the answer as a stream.
    pub stream: bool,
    /// Whether the client asked for usage in its stream; otherwise a usage chunk is taken out again.
    pub wants_usage: bool,
    /// The body, and where in it the fields that Sluice may edit stand.
    pub payload: Arc<Payload>,
    /// What keeps a conversation on one instance under `balance: consistent_hash`: the session header, else the
    /// body's `user`, hashed.
    pub affinity: Option<u64>,
    /// The most tokens it may generate, where its body says so.
    pub output_max: Option<Tokens>,
    /// How many answers are generated for it, each as long as `output_max` lets; at least 1.
    pub choices: u16,
    /// Request headers a provider may see, on the door's allow-list, as (lower-case name, value).
    pub forward: Arc<[(&'static str, Bytes)]>,
    /// The request's head, where it goes to a plain service as it is.
    pub plain: Option<Arc<Plain>>,
}

/// The head of a request that is passed on as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plain {
    /// The method.
    pub method: Bytes,
    /// Path and query.
    pub target: Bytes,
    /// Headers, lower-case, without those that are between two neighbours only.
    pub headers: Vec<(Bytes, Bytes)>,
    /// Whether it may be sent again when it is not known what became of it.
    pub repeatable: bool,
}

/// A request body as it came, and the places in it that may be edited. Byte ranges index `bytes`.
#[derive(Debug, Clone)]
pub struct Payload {
    /// The body, untouched.
    pub bytes: Bytes,
    /// The value of the top-level `model`, quotes included.
    pub model: std::ops::Range<usize>,
    /// What the model is to read: the value of `messages`, `prompt` or `input`.
    pub prompt: std::ops::Range<usize>,
    /// The value of `tools`, which models read before the prompt; empty without.
    pub tools: std::ops::Range<usize>,
    /// How to make the body ask for usage in its stream: replace this range by this text. `None` when it
    /// asks already or is no stream.
    pub force_usage: Option<Edit>,
    /// What the model is to read, as a chain of hashes of its blocks. Empty until a balance reads prompts; kept here
    /// because a call that waits asks for an instance again and again. A call has one tenant, so the chain is its.
    pub blocks: OnceLock<Box<[u64]>>,
}

/// Replace this byte range by this text.
pub type Edit = (std::ops::Range<usize>, &'static str);

/// One try of a call: which deployment, and what has been tried before.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// What is wanted.
    pub call: Call,
    /// The model and version that shall answer.
    pub deployment: Arc<Deployment>,
    /// Instances that have failed this call already.
    pub tried: Vec<InstanceId>,
    /// When the whole call must be over.
    pub deadline: Moment,
}

/// An attempt that holds a slot of an instance: proof of admission.
#[derive(Debug)]
pub struct Placed {
    /// What is to be done.
    pub attempt: Attempt,
    /// Who is to do it.
    pub instance: InstanceId,
    /// The slot, held until the answer's last byte.
    pub permit: Permit,
}
