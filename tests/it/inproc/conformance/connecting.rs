//! What a consumer knows of its socket, and how it lets it in.

use super::{Host, open, serving, text};
use crate::inproc::puppet::Did;
use crate::support::socket::HandshakeRequest;
use presence::{Consumer, Frame, Result, Socket};

/// Says what it knows.
struct Knows;

impl Consumer for Knows {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        let scope = socket.handshake().clone();
        let peer = scope.peer.map_or("nobody".to_owned(), |peer| peer.to_string());
        let room = scope.params.get("room").cloned().unwrap_or_default();
        let tab = scope.header("x-tab").unwrap_or("none");
        let user = socket.user().map_or("anonymous", |user| user.as_str());
        socket.send(format!("{} {} {room} {tab} {user} {peer}", scope.path, scope.query)).await
    }

    async fn receive(&mut self, _: &mut Socket, _: Frame) -> Result<()> {
        Ok(())
    }
}

// behaviour: 7 route-params; 7 scope; 7 identity
#[tokio::test]
async fn path_query_route_headers_user_and_peer_are_those_of_the_request() {
    let host = Host::plan().route(serving(|_| Knows)).start().await;
    let upgrade = HandshakeRequest::to("/chat/a%2Db%20c?user=ann").with("X-Tab", "2");
    let mut ann = upgrade.open(host.address).await.unwrap();
    let peer = ann.local();
    assert_eq!(text(&mut ann).await, format!("/chat/a%2Db%20c user=ann a-b c 2 ann {peer}"));
    let mut nobody = open(&host, "/chat/x").await;
    let peer = nobody.local();
    assert_eq!(text(&mut nobody).await, format!("/chat/x  x none anonymous {peer}"));
}

/// Accepts with headers of its own.
struct Greets;

impl Consumer for Greets {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        socket.set_subprotocol("v2");
        socket.append_header("Set-Cookie", "tab=1")?;
        socket.append_header("set-cookie", "seen=yes")?;
        for (name, value) in
            [("Upgrade", "h2c"), ("Sec-WebSocket-Accept", "x"), ("no name", "x"), ("x-split", "a\r\nb: c")]
        {
            let refused = socket.append_header(name, value);
            assert!(matches!(&refused, Err(presence::Error::Header { name: said }) if said == name), "{refused:?}");
        }
        Ok(())
    }

    async fn receive(&mut self, _: &mut Socket, _: Frame) -> Result<()> {
        Ok(())
    }
}

// behaviour: 7 accept-headers; 7 subprotocol
#[tokio::test]
async fn a_socket_is_accepted_with_a_subprotocol_and_headers_and_with_nothing_that_would_break_it() {
    let host = Host::plan().route(serving(|_| Greets)).start().await;
    let head = host.head("/chat/lobby", &[("Sec-WebSocket-Protocol", "v1, v2")]).await;
    let cookies = head.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
    assert_eq!(cookies.map(|(_, value)| &**value).collect::<Vec<_>>(), ["tab=1", "seen=yes"]);
    assert_eq!(
        (head.status, head.header("sec-websocket-protocol"), head.header("upgrade")),
        (101, Some("v2"), Some("websocket"))
    );
    assert!(head.header("x-split").is_none() && head.header("b").is_none());
}

// behaviour: 9 channels-1102
#[tokio::test]
async fn a_close_that_the_server_decides_on_has_a_code_and_a_reason() {
    let plan = Host::plan().config(|config| config.max_age(crate::support::millis(300)));
    let mut host = plan.start().await;
    let mut reasons = Vec::new();
    for (name, steps) in [("stale", "join lobby"), ("fails", "join other")] {
        let mut client = host.open(name, steps).await;
        if name == "fails" {
            client.text("fail").await;
        }
        match client.next().await {
            crate::support::frame::ReceivedFrame::Close(Some(code), reason) => reasons.push((code, reason)),
            frame => panic!("a close, not {frame:?}"),
        }
        client.close(1000).await;
        client.drained().await;
    }
    assert_eq!(reasons, [(4408, "stale".into()), (1011, "the consumer failed".into())]);
    host.saw("stale", Did::Disconnected(4408)).await;
    let mut huge = host.open("huge", "").await;
    huge.text(&"x".repeat(70_000)).await;
    assert!(
        matches!(huge.next().await, crate::support::frame::ReceivedFrame::Close(Some(1009), reason) if !reason.is_empty())
    );
    let last = host.open("last", "").await;
    let rooms = host.rooms.clone();
    let shutdown = tokio::spawn(async move { rooms.shutdown().await });
    let mut last = last;
    assert!(
        matches!(last.next().await, crate::support::frame::ReceivedFrame::Close(Some(1012), reason) if !reason.is_empty())
    );
    last.close(1012).await;
    shutdown.await.unwrap();
}
