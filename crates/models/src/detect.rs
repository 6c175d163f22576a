//! Finding out what answers at a URL, for `--backend`.

use std::time::Duration;

use kernel::settings::Secret;
use serde::Deserialize;

use crate::endpoint::Endpoint;
use crate::health::active::get;
use crate::settings::ModelSettings;

/// Bound: one question to the backend.
const WITHIN: Duration = Duration::from_secs(3);

/// A kind of server, told by a path only it answers.
struct Mark {
    kind: &'static str,
    path: &'static str,
    /// What the answer must contain.
    says: &'static [u8],
    /// Where it tells its health.
    health: &'static str,
}

/// In this order: the first that fits wins. All of them speak OpenAI on `/v1`.
const MARKS: &[Mark] = &[
    Mark { kind: "llama.cpp", path: "/props", says: b"default_generation_settings", health: "/health" },
    Mark { kind: "SGLang", path: "/get_server_info", says: b"tp_size", health: "/health" },
    Mark { kind: "SGLang", path: "/get_model_info", says: b"model_path", health: "/health" },
    Mark { kind: "Ollama", path: "/api/version", says: b"version", health: "/api/version" },
    Mark { kind: "vLLM", path: "/version", says: b"version", health: "/health" },
];

#[derive(Deserialize)]
struct ModelList {
    data: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    id: String,
}

/// What was found at a URL.
#[derive(Debug)]
pub struct Detected {
    /// The server's kind, as a person would say it.
    pub kind: &'static str,
    /// One model per name it serves.
    pub models: Vec<ModelSettings>,
}

/// Asks the server at `url` what it is and which models it has.
///
/// # Errors
/// A sentence for the operator: not a URL, nobody there, or nothing Sluice can speak with.
pub async fn detect(url: &str, key: Option<&Secret>) -> Result<Detected, String> {
    let endpoint = Endpoint::parse(url)?;
    let base = endpoint.openai_base();
    let list = format!("{}/models", base.strip_prefix(endpoint.root()).unwrap_or(&base));
    let Some((status, body)) = get(&endpoint, &list, key, WITHIN).await else {
        return Err(format!("nothing answers at {url}: is the model server running?"));
    };
    let Ok(models) = serde_json::from_slice::<ModelList>(&body) else {
        return Err(no_list(&endpoint, url, &list, status).await);
    };
    if models.data.is_empty() {
        return Err(format!("{url} serves no model yet: load one and try again"));
    }
    // Clouds are no servers of a kind, and strange paths on them tell nothing.
    let mark = if key.is_none() { mark(&endpoint).await } else { None };
    let models = models.data.into_iter().map(|model| {
        let mut settings = ModelSettings::short(model.id, Some(url.to_owned()), "openai");
        settings.health.path = mark.map(|mark| mark.health.to_owned());
        settings
    });
    Ok(Detected { kind: mark.map_or("OpenAI-compatible", |mark| mark.kind), models: models.collect() })
}

/// Why there is no model list.
async fn no_list(endpoint: &Endpoint, url: &str, list: &str, status: u16) -> String {
    let triton = get(endpoint, "/v2", None, WITHIN)
        .await
        .is_some_and(|(status, body)| status == 200 && body.windows(6).any(|window| window == b"triton"));
    if triton {
        return format!(
            "{url} is a Triton server: Sluice speaks with its OpenAI frontend, not yet with its own protocol"
        );
    }
    format!(
        "{url} answered {list} with status {status} and no model list: Sluice needs an OpenAI-compatible server there"
    )
}

async fn mark(endpoint: &Endpoint) -> Option<&'static Mark> {
    for mark in MARKS {
        if let Some((200, body)) = get(endpoint, mark.path, None, WITHIN).await
            && body.windows(mark.says.len()).any(|window| window == mark.says)
        {
            return Some(mark);
        }
    }
    None
}
