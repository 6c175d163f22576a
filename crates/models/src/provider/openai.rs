//! `openai`: any backend that speaks the OpenAI dialect over HTTP/1.1: vLLM, SGLang, llama.cpp, Ollama, clouds.

pub(super) mod exchange;
mod stream;

use std::sync::Arc;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use kernel::{Call, Ctx, Kind, Operation, Placed, Serving};

use super::{Provider, Row};
use crate::connection::Outbound;
use crate::endpoint::Endpoint;
use crate::instance::Instance;
use crate::settings::{InstanceSettings, ModelSettings};

pub(super) const KIND: Kind<Row> = Kind {
    name: "openai",
    about: "Any OpenAI-compatible server: vLLM, SGLang, llama.cpp, Ollama, OpenAI, DeepSeek, …",
    build: Row {
        needs_endpoint: true,
        make: |model, instance| Box::new(OpenAi::new(model, instance, Backend::Server)),
    },
};

/// What is the same for every request to one instance.
pub(super) struct OpenAi {
    /// By operation.
    chat: http::Uri,
    completion: http::Uri,
    embedding: http::Uri,
    /// For answers as a whole, and as a stream.
    headers: [HeaderMap; 2],
    /// Where answers come from.
    backend: Backend,
}

/// What answers: a server at the other end of a connection, or the simulator in this process.
pub(super) enum Backend {
    Server,
    Simulator(sim::Sim),
}

impl OpenAi {
    pub(super) fn new(model: &ModelSettings, instance: &InstanceSettings, backend: Backend) -> Self {
        let endpoint = instance.endpoint.as_deref().and_then(|text| Endpoint::parse(text).ok());
        let mut headers = HeaderMap::new();
        let authority = endpoint.as_ref().and_then(|endpoint| HeaderValue::from_str(&endpoint.authority).ok());
        headers.extend(authority.map(|value| (HOST, value)));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("sluice/", env!("CARGO_PKG_VERSION"))));
        if let Some(key) = instance.api_key.as_ref().or(model.api_key.as_ref())
            && let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {}", key.expose()))
        {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        for (name, value) in &model.headers {
            if let (Ok(name), Ok(mut value)) =
                (HeaderName::try_from(name.as_str()), HeaderValue::from_str(value.expose()))
            {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
        }
        let base = endpoint.map_or_else(|| "/v1".into(), |endpoint| endpoint.openai_base());
        let uri = |path: &str| format!("{base}{path}").parse().unwrap_or_default();
        let accepting = |kind: &'static str| {
            let mut headers = headers.clone();
            headers.insert(ACCEPT, HeaderValue::from_static(kind));
            headers
        };
        Self {
            chat: uri("/chat/completions"),
            completion: uri("/completions"),
            embedding: uri("/embeddings"),
            headers: [accepting("application/json"), accepting("text/event-stream")],
            backend,
        }
    }

    /// The request for a call, as bytes to be sent; made anew for each try.
    fn request(&self, ctx: &Ctx, call: &Call, instance: &Instance) -> http::Request<Outbound> {
        let uri = match call.operation {
            Operation::Chat => &self.chat,
            Operation::Completion => &self.completion,
            Operation::Embedding | Operation::Service => &self.embedding,
        };
        let [whole, stream] = &self.headers;
        let body = wire::openai::request::write(&call.payload, instance.upstream_model.as_ref(), instance.force_usage);
        let mut request = http::Request::new(Outbound::new(body));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = if call.stream { stream.clone() } else { whole.clone() };
        if let Ok(id) = HeaderValue::from_str(ctx.facts().id.as_str()) {
            request.headers_mut().insert(HeaderName::from_static("x-request-id"), id);
        }
        for (name, value) in call.forward.iter() {
            if let Ok(value) = HeaderValue::from_maybe_shared(value.clone()) {
                request.headers_mut().insert(HeaderName::from_static(name), value);
            }
        }
        request
    }
}

impl Provider for OpenAi {
    fn serve<'a>(&'a self, ctx: &'a Ctx, placed: Placed, instance: &'a Arc<Instance>) -> Serving<'a> {
        Box::pin(exchange::run(self, ctx, placed, instance))
    }
}
