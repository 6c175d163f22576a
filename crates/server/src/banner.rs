//! What is said at the start.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use crate::config::Config;

/// The addresses in use, the models, and one curl that works.
///
/// `open`: anyone may call. `token` is the file of the admin token, where the config has none.
pub(crate) fn text(
    config: &Config,
    about: &str,
    open: bool,
    (data, admin): (SocketAddr, SocketAddr),
    token: Option<&Path>,
) -> String {
    let scheme = if config.listen.tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", reachable(data));
    let mut out = format!("\nSluice {}\n\n", env!("CARGO_PKG_VERSION"));
    let keys = match (open, data.ip().is_loopback()) {
        (true, true) => "no key needed; this machine only",
        (true, false) => "NO KEY NEEDED: open to everyone who can connect",
        (false, _) => "a key is needed",
    };
    let _ = writeln!(out, "  data plane     {url}/v1   ({keys})");
    let _ = writeln!(out, "  control plane  http://{}/metrics", reachable(admin));
    if let Some(token) = token {
        let _ = writeln!(out, "  admin API      /admin/v1 on the control plane, with the token in {}", token.display());
    }
    let _ = writeln!(out, "  store          {}", config.storage.url);
    let _ = writeln!(out, "  behind it      {about}");
    let names: Vec<&str> = config.models.iter().map(|model| model.model_name.as_str()).collect();
    let shown = names.iter().take(8).copied().collect::<Vec<_>>().join(", ");
    let more = names.len().saturating_sub(8);
    let _ =
        writeln!(out, "  models         {shown}{}", if more > 0 { format!(" and {more} more") } else { String::new() });
    let key = if open { "" } else { " -H \"authorization: Bearer $SLUICE_KEY\"" };
    let insecure = if config.listen.tls.is_some() { " -k" } else { "" };
    let body = serde_json::json!({ "model": names.first(), "messages": [{ "role": "user", "content": "Hello" }] });
    // A quote in a model's name would end the shell's.
    let body = body.to_string().replace('\'', "'\\''");
    let _ = writeln!(
        out,
        "\nTry it:\n\n  curl{insecure} {url}/v1/chat/completions -H 'content-type: application/json'{key} -d '{body}'\n"
    );
    if !open {
        out.push_str("with SLUICE_KEY set to a key made by: sluice key create --tenant NAME\n\n");
    }
    out
}

/// An address a client on this machine can use: nobody can connect to 0.0.0.0 everywhere.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => SocketAddr::from(([127, 0, 0, 1], v4.port())),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, v6.port())),
        other => other,
    }
}
