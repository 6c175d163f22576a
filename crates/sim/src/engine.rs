//! The engine: a request in, a plan of the answer out.
//!
//! It does no I/O and asks no clock; the only things that change in it are a number per arrival, so that
//! equal calls can fare differently, and the count of calls in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::overrides::Overrides;
use crate::plan::{Plan, Running};
use crate::refusal::Refusal;
use crate::request::Fields;
use crate::script::CREATED;
use crate::settings::Settings;
use crate::terms::Terms;
use crate::{chat, completion, embedding};

/// A simulated model server.
#[derive(Debug)]
pub struct Sim {
    settings: Settings,
    arrivals: AtomicU64,
    running: Arc<AtomicU64>,
}

/// Plans the answer to one model call, or refuses it.
type Call = fn(&mut Terms, &Fields, String) -> Result<Plan, Refusal>;
/// Answers a question about the server itself.
type Look = fn(&Sim) -> Plan;

enum Endpoint {
    Call(Call),
    Look(Look),
}

/// Every path there is, but for `/v1/models/{name}`.
const ENDPOINTS: [(&str, Endpoint); 6] = [
    ("/v1/chat/completions", Endpoint::Call(chat::plan)),
    ("/v1/completions", Endpoint::Call(completion::plan)),
    ("/v1/embeddings", Endpoint::Call(embedding::plan)),
    ("/v1/models", Endpoint::Look(Sim::models)),
    ("/health", Endpoint::Look(|_| Plan::json(&json!({"status": "ok"})))),
    ("/metrics", Endpoint::Look(Sim::metrics)),
];

impl Sim {
    /// An engine that behaves as the settings say. Values out of range are clamped: see [`Settings::faults`].
    pub fn new(settings: Settings) -> Self {
        Self { settings, arrivals: AtomicU64::new(0), running: Arc::default() }
    }

    /// How it behaves.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Model calls in flight: plans and playbacks that have not been dropped.
    pub fn running(&self) -> u64 {
        self.running.load(Ordering::Relaxed)
    }

    /// Plans the answer to one request. `path` may carry a query, which is ignored; `header` finds a header's value by
    /// its lower-case name. Bad requests get a plan too: an OpenAI-shaped error.
    pub fn plan<'h>(&self, method: &Method, path: &str, header: impl Fn(&str) -> Option<&'h str>, body: &[u8]) -> Plan {
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        self.answer(method, path, header, body).unwrap_or_else(Plan::from)
    }

    fn answer<'h>(
        &self,
        method: &Method,
        path: &str,
        header: impl Fn(&str) -> Option<&'h str>,
        body: &[u8],
    ) -> Result<Plan, Refusal> {
        let endpoint = ENDPOINTS.iter().find(|(known, _)| *known == path).map(|(_, endpoint)| endpoint);
        let model = path.strip_prefix("/v1/models/").filter(|name| !name.is_empty());
        let takes = match (endpoint, model) {
            (Some(Endpoint::Call(_)), _) => Method::POST,
            (Some(Endpoint::Look(_)), _) | (None, Some(_)) => Method::GET,
            (None, None) => return Err(Refusal::unknown_path(method, path)),
        };
        if *method != takes && !(takes == Method::GET && *method == Method::HEAD) {
            let allow = if takes == Method::POST { "POST" } else { "GET, HEAD" };
            return Err(Refusal::wrong_method(method, path, allow));
        }
        let overrides = Overrides::read(header)?;
        if let Some(status) = overrides.status {
            return Err(Refusal::simulated(status).retry_after(overrides.retry_after));
        }
        let mut plan = match (endpoint, model) {
            (Some(Endpoint::Call(call)), _) => return self.call(*call, &overrides, body),
            (Some(Endpoint::Look(look)), _) => look(self),
            (None, model) => self.model(model.unwrap_or_default())?,
        };
        if let Some(fault) = overrides.fault {
            fault.spoil(&mut plan);
        }
        Ok(plan)
    }

    fn call(&self, call: Call, overrides: &Overrides, body: &[u8]) -> Result<Plan, Refusal> {
        let fields = Fields::parse(body)?;
        fields.required("model")?;
        let model = fields.text("model")?.unwrap_or_default();
        if !self.settings.knows(model) {
            return Err(Refusal::unknown_model(model));
        }
        let arrival = self.arrivals.fetch_add(1, Ordering::Relaxed);
        let mut terms = Terms::new(&self.settings, overrides, arrival);
        let mut plan = call(&mut terms, &fields, model.to_owned())?;
        // A fault that was asked for comes alone: no dice are rolled on top of it.
        let fault = match overrides.fault {
            Some(fault) => Some(fault),
            None => Fault::draw(&self.settings, &mut terms.chance)
                .map_err(|refusal| refusal.retry_after(overrides.retry_after))?,
        };
        if let Some(fault) = fault {
            fault.spoil(&mut plan);
        }
        Ok(plan.holding(Running::new(&self.running)))
    }

    fn models(&self) -> Plan {
        let data: Vec<Value> = self.settings.models.iter().map(|name| model_card(name)).collect();
        Plan::json(&json!({"object": "list", "data": data}))
    }

    fn model(&self, name: &str) -> Result<Plan, Refusal> {
        // Clients may escape the slash of names such as org/model; no other escape is of use in a name.
        let name = name.replace("%2F", "/");
        if !self.settings.knows(&name) {
            return Err(Refusal::unknown_model(&name));
        }
        Ok(Plan::json(&model_card(&name)))
    }

    /// The load in Prometheus text, under the names vLLM uses.
    fn metrics(&self) -> Plan {
        let name = self.settings.models.first().map_or("sim", String::as_str);
        let name = name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let running = self.running();
        let text = format!(
            "# HELP vllm:num_requests_running Calls being answered.\n\
             # TYPE vllm:num_requests_running gauge\n\
             vllm:num_requests_running{{model_name=\"{name}\"}} {running}\n\
             # HELP vllm:num_requests_waiting Calls waiting; always 0, the simulator has no queue.\n\
             # TYPE vllm:num_requests_waiting gauge\n\
             vllm:num_requests_waiting{{model_name=\"{name}\"}} 0\n"
        );
        Plan::whole("text/plain; version=0.0.4; charset=utf-8", text.into())
    }
}

fn model_card(name: &str) -> Value {
    json!({"id": name, "object": "model", "created": CREATED, "owned_by": "sim"})
}
