use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Answers one request with these bytes; gives the URL, and in the end what was asked.
async fn server(answer: &'static str, hang: bool) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = vec![0; 4096];
        let read = stream.read(&mut seen).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        if hang {
            std::future::pending::<()>().await;
        }
        String::from_utf8_lossy(&seen[..read]).into_owned()
    });
    (url, served)
}

fn ask(url: &str) -> Ask {
    Ask { url: url.into(), form: None, basic: None, most: 16, within: Duration::from_millis(500) }
}

#[tokio::test]
async fn a_document_is_fetched_and_a_form_is_posted_with_credentials() {
    let fetcher = Fetcher::new(None).unwrap();
    let (url, seen) = server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", false).await;
    let fetched = fetcher.fetch(ask(&url)).await.unwrap();
    assert_eq!((fetched.status, &fetched.body[..]), (200, &b"{}"[..]));
    assert!(seen.await.unwrap().starts_with("GET /x HTTP/1.1\r\n"));
    let (url, seen) = server("HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n", false).await;
    let form = Some(vec![("token", Secret::new("a b&c=ü"))]);
    let basic = Some(("me:".to_owned(), Secret::new("s%t")));
    let fetched = fetcher.fetch(Ask { form, basic, ..ask(&url) }).await.unwrap();
    assert_eq!(fetched.status, 401, "what a status means is for the asker to say");
    let seen = seen.await.unwrap();
    assert!(seen.starts_with("POST /x HTTP/1.1\r\n") && seen.ends_with("token=a%20b%26c%3D%C3%BC"), "{seen}");
    assert!(seen.contains("authorization: Basic bWUlM0E6cyUyNXQ="), "{seen}");
}

#[tokio::test]
async fn what_is_too_large_too_slow_moved_away_or_gone_is_not_fetched() {
    let fetcher = Fetcher::new(None).unwrap();
    let (url, _seen) = server("HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n12345678901234567", false).await;
    assert_eq!(fetcher.fetch(ask(&url)).await, Err(Fault::TooLarge));
    let (url, _seen) = server("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n1", true).await;
    let since = Instant::now();
    assert_eq!(fetcher.fetch(ask(&url)).await, Err(Fault::Slow));
    assert!(since.elapsed() < Duration::from_secs(3));
    let (url, _seen) = server("HTTP/1.1 302 Found\r\nlocation: /y\r\ncontent-length: 0\r\n\r\n", false).await;
    assert_eq!(fetcher.fetch(ask(&url)).await.unwrap().status, 302, "redirects are not followed");
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert!(matches!(fetcher.fetch(ask(&format!("http://{closed}/"))).await, Err(Fault::Unreachable(_))));
    assert_eq!(fetcher.fetch(ask("http://idp.example/")).await, Err(Fault::Url));
}

#[tokio::test]
async fn roots_that_are_none_are_refused_with_their_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    assert!(Fetcher::new(Some(&path)).unwrap_err().to_string().contains("ca.pem"));
    std::fs::write(&path, "nothing").unwrap();
    assert!(Fetcher::new(Some(&path)).unwrap_err().to_string().ends_with("it holds no certificate"));
}
