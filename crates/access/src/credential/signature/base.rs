//! The text that is signed (RFC 9421 §2.5), made of a request's head.

use std::borrow::Cow;

use http::header::HOST;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderName};

use super::fields::List;

/// Makes the text of what a list covers; `secure` says whether the request came by TLS.
///
/// # Errors
/// What of it cannot be had.
pub(super) fn of(head: &Parts, secure: bool, list: &List) -> Result<String, &'static str> {
    let mut text = String::with_capacity(512);
    for name in &list.items {
        let value: Cow<'_, str> = match name.as_str() {
            "@method" => head.method.as_str().into(),
            "@authority" => authority(head, secure)?.into(),
            "@path" => match head.uri.path() {
                "" => "/".into(),
                path => path.into(),
            },
            "@query" => format!("?{}", head.uri.query().unwrap_or_default()).into(),
            name if name.starts_with('@') => {
                return Err("The signature covers something else than @method, @authority, @path, @query and headers.");
            }
            name => header(&head.headers, name)?,
        };
        line(name, &value, &mut text);
    }
    text.push_str("\"@signature-params\": ");
    list.write(&mut text);
    Ok(text)
}

fn line(name: &str, value: &str, to: &mut String) {
    to.push('"');
    to.push_str(name);
    to.push_str("\": ");
    to.push_str(value);
    to.push('\n');
}

/// A header's value, its lines joined (RFC 9421 §2.1).
fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Cow<'a, str>, &'static str> {
    // A name in capitals is not the name of a header here: RFC 9421 §2.1 wants it in lower case.
    let known = HeaderName::from_lowercase(name.as_bytes()).ok();
    known.and_then(|name| combined(headers, &name)).ok_or("The signature covers a header that did not arrive.")
}

/// All lines of a header as one: each without spaces around it, with `, ` between them. `None` where there is none, or
/// one that is no ASCII. A line folded over several is no header to hyper, so none arrives here.
pub(super) fn combined<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, str>> {
    let mut lines = headers.get_all(name).iter();
    let plain = |value: &'a http::HeaderValue| value.to_str().ok().map(|text| text.trim_matches([' ', '\t']));
    let first = plain(lines.next()?)?;
    let Some(second) = lines.next() else { return Some(first.into()) };
    let mut whole = first.to_owned();
    for value in std::iter::once(second).chain(lines) {
        whole.push_str(", ");
        whole.push_str(plain(value)?);
    }
    Some(whole.into())
}

/// Whom the request is for (RFC 9421 §2.2.3): `:authority` or `Host`, in lower case, without the scheme's own port.
fn authority(head: &Parts, secure: bool) -> Result<String, &'static str> {
    const UNCLEAR: &str = "The request names no host, or two: the signature's @authority is unclear.";
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (None, _) => None,
        (Some(host), None) => Some(host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()).ok_or(UNCLEAR)?),
        _ => return Err(UNCLEAR),
    };
    let named = match (head.uri.authority(), &host) {
        (Some(named), Some(host)) if !named.as_str().eq_ignore_ascii_case(host.as_str()) => return Err(UNCLEAR),
        (Some(named), _) => named,
        (None, Some(host)) => host,
        (None, None) => return Err(UNCLEAR),
    };
    normal(named, secure).ok_or(UNCLEAR)
}

/// An authority in lower case, without the scheme's own port; `None` with a user's name in it.
pub(super) fn normal(authority: &Authority, secure: bool) -> Option<String> {
    if authority.as_str().contains('@') {
        return None;
    }
    let mut text = authority.host().to_ascii_lowercase();
    let own = if secure { 443 } else { 80 };
    if let Some(port) = authority.port_u16().filter(|port| *port != own) {
        text.push(':');
        text.push_str(&port.to_string());
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn check(uri: &str, hosts: &[&str], secure: bool) -> Result<String, &'static str> {
        let mut request = Request::builder().uri(uri);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        authority(&request.body(()).unwrap().into_parts().0, secure)
    }

    #[test]
    fn an_authority_has_one_form_and_two_that_differ_have_none() {
        assert_eq!(check("/", &["API.Example.COM"], true).unwrap(), "api.example.com");
        assert_eq!(check("/", &["api.example.com:443"], true).unwrap(), "api.example.com");
        assert_eq!(check("/", &["api.example.com:443"], false).unwrap(), "api.example.com:443");
        assert_eq!(check("/", &["api.example.com:80"], false).unwrap(), "api.example.com");
        assert_eq!(check("/", &["[::1]:8080"], false).unwrap(), "[::1]:8080");
        assert_eq!(check("http://a.example/x", &[], false).unwrap(), "a.example");
        assert_eq!(check("http://a.example/x", &["A.example"], false).unwrap(), "a.example");
        for (uri, hosts) in
            [("/", &[][..]), ("/", &["a", "a"]), ("http://a/x", &["b"]), ("/", &["u@a"]), ("/", &["a b"])]
        {
            assert!(check(uri, hosts, false).is_err(), "{uri} {hosts:?}");
        }
    }

    #[test]
    fn lines_of_a_header_are_one_value() {
        let mut headers = HeaderMap::new();
        for value in ["  a ", "b,c", ""] {
            headers.append("x-list", value.parse().unwrap());
        }
        headers.append("x-empty", "".parse().unwrap());
        assert_eq!(header(&headers, "x-list").unwrap(), "a, b,c, ");
        assert_eq!(header(&headers, "x-empty").unwrap(), "");
        for name in ["X-List", "x-none", "", "x list"] {
            assert!(header(&headers, name).is_err(), "{name}");
        }
    }
}
