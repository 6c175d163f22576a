//! The admin API's description, as a running Sluice serves it.

use anyhow::{Context, ensure};
use serde_json::Value;

use super::binary::{Binary, ask};

/// Enough to start: nothing in it shows in the description.
const CONFIG: &str = "\
listen: { http: 127.0.0.1:0, admin: 127.0.0.1:0, threads: 1 }
auth: none
models: [ { model_name: any, provider: sim } ]
";

/// The document, indented so that changes of it can be read.
pub(super) fn page(binary: &Binary) -> anyhow::Result<String> {
    let serving = binary.serve(CONFIG)?;
    let (status, text) = ask(&serving.control, "GET", "/admin/v1/openapi.json", "")?;
    ensure!(status == 200, "/admin/v1/openapi.json was answered {status}");
    let document: Value = serde_json::from_str(&text).context("/admin/v1/openapi.json is no JSON")?;
    Ok(format!("{}\n", serde_json::to_string_pretty(&document)?))
}
