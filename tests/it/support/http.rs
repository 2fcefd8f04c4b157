//! Plain HTTP/1.1, one request to a connection: for the handshake, the health checks and the browser's driver.

use super::server::ChatServer;
use super::{BOUND, Duration, eventually, within};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer that was not an upgrade.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Reads a head that is complete, without its body; `None` while it is not. The second is where the body begins.
    pub(crate) fn head(bytes: &[u8]) -> Option<(Self, usize)> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).expect("the head of an answer is UTF-8");
        let mut lines = head.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(':'));
        let response = Self {
            status: status.unwrap_or_else(|| panic!("a status line, not {first:?}")),
            headers: headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect(),
            body: String::new(),
        };
        Some((response, end + 4))
    }
}

/// Sends the request as it stands and reads the answer to the end.
pub(crate) async fn exchange(address: SocketAddr, request: &str) -> Response {
    let what = request.lines().next().unwrap_or_default().to_owned();
    within(BOUND * 3, &what, async {
        let mut stream = TcpStream::connect(address).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        loop {
            if let Some(response) = complete(&bytes) {
                return response;
            }
            if stream.read_buf(&mut bytes).await.unwrap() == 0 {
                let (mut response, start) = Response::head(&bytes).unwrap_or_else(|| panic!("{what}: no answer"));
                response.body = String::from_utf8_lossy(&bytes[start..]).into_owned();
                return response;
            }
        }
    })
    .await
}

/// The whole answer, if it says how long it is and all of that is here.
fn complete(bytes: &[u8]) -> Option<Response> {
    let (mut response, start) = Response::head(bytes)?;
    let length: usize = response.header("content-length")?.parse().ok()?;
    let body = bytes.get(start..start + length)?;
    response.body = String::from_utf8_lossy(body).into_owned();
    Some(response)
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Response {
    exchange(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")).await
}

/// Waits until the path answers with this status.
pub(crate) async fn becomes(server: &ChatServer, path: &str, status: u16, bound: Duration) {
    eventually(bound, &format!("a {status} of {path}"), async || match get(server.address(), path).await {
        response if response.status == status => Ok(()),
        response => Err(format!("{response:?}")),
    })
    .await;
}

pub(crate) async fn post(address: SocketAddr, path: &str, json: &serde_json::Value) -> Response {
    let body = json.to_string();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json");
    exchange(address, &format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await
}
