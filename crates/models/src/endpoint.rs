//! Where a backend lives.

use std::sync::Arc;

/// A backend's base URL, taken apart once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether to speak TLS.
    pub tls: bool,
    /// Host name or address, without brackets.
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
    /// Host and port as written, for the `Host` header.
    pub authority: Arc<str>,
    /// Path prefix without a trailing slash; may be empty.
    pub prefix: Arc<str>,
}

impl Endpoint {
    /// Reads `http://host:port/prefix` or `https://…`.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let example = "write it like http://127.0.0.1:8000";
        let uri: http::Uri = text.parse().map_err(|_| format!("`{text}` is no URL: {example}"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(other) => return Err(format!("`{other}` is not supported: {example}")),
            None => return Err(format!("`{text}` has no scheme: {example}")),
        };
        let authority = uri.authority().ok_or_else(|| format!("`{text}` has no host: {example}"))?;
        if authority.as_str().contains('@') {
            return Err("keep credentials out of the URL: use `api_key` or `headers`".into());
        }
        if uri.query().is_some() {
            return Err("must not have a query".into());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(format!("`{text}` has no host: {example}"));
        }
        Ok(Self {
            tls,
            host: host.into(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            authority: authority.as_str().into(),
            prefix: uri.path().trim_end_matches('/').into(),
        })
    }

    /// The same host, and the same path, at another port.
    pub fn at(&self, port: u16) -> Self {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.to_string() };
        Self { port, authority: format!("{host}:{port}").into(), ..self.clone() }
    }

    /// The path prefix without the version at its end: where a server keeps what is not part of its API.
    pub fn root(&self) -> &str {
        match self.prefix.rsplit_once('/') {
            Some((root, last)) if is_version(last) => root,
            _ => &self.prefix,
        }
    }

    /// The OpenAI base path: the prefix as it is if it ends in a version or in `openai`, otherwise with `/v1` added.
    pub fn openai_base(&self) -> String {
        let last = self.prefix.rsplit('/').next().unwrap_or_default();
        if is_version(last) || last == "openai" { self.prefix.to_string() } else { format!("{}/v1", self.prefix) }
    }
}

fn is_version(segment: &str) -> bool {
    segment.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_in_the_path_makes_it_the_base_url() {
        for (url, base) in [
            ("http://h:1", "/v1"),
            ("http://h:1/", "/v1"),
            ("http://h:1/v1", "/v1"),
            ("http://h:1/v1/", "/v1"),
            ("https://h/prefix", "/prefix/v1"),
            ("https://h/api/paas/v4", "/api/paas/v4"),
            ("https://h/v1beta/openai", "/v1beta/openai"),
        ] {
            assert_eq!(Endpoint::parse(url).unwrap().openai_base(), base, "{url}");
        }
    }

    #[test]
    fn the_root_is_the_prefix_without_its_version() {
        for (url, root) in
            [("http://h", ""), ("http://h/v1", ""), ("http://h/prefix/v1", "/prefix"), ("http://h/prefix", "/prefix")]
        {
            assert_eq!(Endpoint::parse(url).unwrap().root(), root, "{url}");
        }
    }

    #[test]
    fn hosts_and_ports_are_read() {
        let at = |url: &str| Endpoint::parse(url).map(|e| (e.tls, e.host.to_string(), e.port)).unwrap();
        assert_eq!(at("http://h"), (false, "h".into(), 80));
        assert_eq!(at("https://h"), (true, "h".into(), 443));
        assert_eq!(at("http://[::1]:8000/x"), (false, "::1".into(), 8000));
    }

    #[test]
    fn another_port_of_the_same_host_keeps_everything_else() {
        for (url, moved) in [("http://h:8000/v1", "http://h:8002/v1"), ("https://[::1]", "https://[::1]:8002")] {
            assert_eq!(Endpoint::parse(url).unwrap().at(8002), Endpoint::parse(moved).unwrap());
        }
    }

    #[test]
    fn what_is_no_backend_is_refused() {
        for url in ["", "h:80", "ftp://h", "http://", "http://u:p@h", "http://h/?a=b", "10.0.0.1"] {
            assert!(Endpoint::parse(url).is_err(), "{url}");
        }
    }
}
