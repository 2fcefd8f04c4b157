//! When a connection is taken over from the HTTP server.

use super::{prelude::*, support};
use crate::delivery::{Outbound, ServerTrust};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, task::noop_waker_ref};
use std::{
    pin::Pin,
    task::{Context, Poll},
};
use tokio::task::JoinHandle;

/// The age at which a connection is taken over, and the most by which the hub may be late.
const SETTLED: Duration = secs(1);
const LATE: Duration = ms(55);

/// A node whose HTTP server has let go of a connection before.
async fn node() -> TestNode {
    let node = support::node().await;
    node.hubs().here().filling.server.set(ServerTrust::LetsGo);
    node
}

/// A client whose handshake is answered now, and the body of the response.
fn answered(node: &TestNode, name: &str) -> (FakeClient, Outbound) {
    let client = node.client(name);
    client.kernel.can_be_taken_over.set(true);
    let response = client.response();
    assert!(response.announce_take_over());
    (client, response)
}

/// Polls the response whenever it wakes, as the HTTP server does while the kernel accepts everything. Ends when the response ends.
fn serve(response: Outbound) -> JoinHandle<Vec<u8>> {
    actix::spawn(response.map(|piece| piece.unwrap().to_vec()).concat())
}

/// Polls the response once.
fn poll(response: &mut Outbound) -> Poll<Option<Bytes>> {
    Pin::new(response).poll_next(&mut Context::from_waker(noop_waker_ref())).map(|piece| piece.map(Result::unwrap))
}

fn text(n: usize, size: usize) -> Outgoing {
    Outgoing::text(format!("{n:0size$}"))
}

#[actix::test]
async fn a_connection_is_taken_over_when_its_handshake_was_answered_a_second_ago() {
    let node = node().await;
    let mut served = Vec::new();
    // The ages are watched again after a time without any that is young.
    for name in ["ann", "bob"] {
        let (client, response) = answered(&node, name);
        served.push((client, serve(response)));
        leap(SETTLED - ms(1)).await;
        let (client, response) = &served[served.len() - 1];
        assert!(client.kernel.requests.borrow().is_empty());
        assert!(!response.is_finished());
        leap(LATE).await;
        assert_eq!(client.kernel.requests.take(), [true]);
        assert!(response.is_finished(), "the response ends when {name} is taken over");
        pass(secs(5)).await;
    }
    for (client, _) in &served {
        assert!(client.kernel.requests.take().is_empty(), "once is enough");
        assert!(client.connection_messages().is_empty(), "the end of the response is not the end of the socket");
    }
}

#[actix::test]
async fn of_connections_that_come_one_after_another_each_is_taken_over_in_its_time() {
    let node = node().await;
    let (mut clients, begun) = (Vec::new(), Instant::now());
    for n in 0..100 {
        let (client, response) = answered(&node, &format!("user{n}"));
        clients.push((client, serve(response), begun.elapsed()));
        pass(ms(n % 30)).await;
    }
    while clients.iter().any(|(_, response, _)| !response.is_finished()) {
        pass(ms(1)).await;
        for (client, response, since) in &clients {
            let age = begun.elapsed() - *since;
            assert_eq!(response.is_finished(), !client.kernel.requests.borrow().is_empty());
            assert!(age >= SETTLED || !response.is_finished(), "too early: {age:?}");
            assert!(age <= SETTLED + LATE || response.is_finished(), "too late: {age:?}");
        }
    }
}

#[actix::test]
async fn the_first_connections_are_taken_over_one_by_one_until_the_server_has_let_go_of_one() {
    // A middleware may keep the server from that, and then each connection that was taken over is lost.
    let node = support::node().await;
    let clients: Vec<_> = (0..20).map(|n| answered(&node, &format!("user{n}"))).collect();
    let (clients, responses): (Vec<_>, Vec<_>) = clients.into_iter().unzip();
    let responses: Vec<_> = responses.into_iter().map(serve).collect();
    let count = || responses.iter().filter(|response| response.is_finished()).count();
    leap(SETTLED).await;
    for taken in 1..5 {
        assert_eq!(count(), taken);
        leap(LATE).await;
    }
    node.hubs().here().filling.server.set(ServerTrust::LetsGo);
    leap(LATE).await;
    assert_eq!(count(), clients.len());
}

#[actix::test]
async fn a_connection_that_closes_or_is_lost_within_a_second_is_never_taken_over() {
    let node = node().await;
    let close = |client: &FakeClient| client.outbox.push_close(Bytes::from_static(&[0x88, 0]));
    type End<'a> = &'a dyn Fn(&FakeClient);
    let ends: [(&str, End<'_>); 4] = [
        ("closes", &close),
        ("closes and finishes", &|client| {
            close(client);
            client.outbox.finish();
        }),
        ("ends", &|client| client.outbox.end()),
        ("is cut off", &|client| client.outbox.abort()),
    ];
    for (what, end) in ends {
        let (client, mut response) = answered(&node, "ann");
        assert!(poll(&mut response).is_pending());
        pass(SETTLED - ms(1)).await;
        end(&client);
        pass(SETTLED).await;
        // A failure, an end or a Close; and after a Close nothing more.
        let mut cx = Context::from_waker(noop_waker_ref());
        for _ in 0..100 {
            if matches!(Pin::new(&mut response).poll_next(&mut cx), Poll::Ready(None | Some(Err(_)))) {
                break;
            }
        }
        assert!(client.kernel.requests.take().is_empty(), "a socket that {what}");
    }
    let (client, response) = answered(&node, "bob");
    drop(response);
    pass(SETTLED * 2).await;
    assert!(client.kernel.requests.take().is_empty(), "a socket whose response is dropped");
}

#[actix::test]
async fn a_connection_is_not_taken_over_between_the_pieces_that_the_server_writes() {
    // Between two pieces the server does not read, so what it has read could be lost.
    let node = node().await;
    let (client, mut response) = answered(&node, "ann");
    assert!(poll(&mut response).is_pending());
    let texts: Vec<_> = (0..3).map(|n| text(n, PIECE)).collect();
    texts.iter().for_each(|text| client.outbox.push(text.frames(), None));
    let Poll::Ready(Some(first)) = poll(&mut response) else { panic!("the first piece") };
    let mut written = first.to_vec();
    pass(SETTLED).await;
    while let Poll::Ready(piece) = poll(&mut response) {
        written.extend(piece.expect("the response goes on"));
    }
    assert!(written == texts.iter().flat_map(|text| text.frames().bytes.to_vec()).collect::<Vec<_>>());
    let requests = client.kernel.requests.take();
    assert!(requests.len() >= 3 && !requests.contains(&true), "{requests:?}");
    assert_eq!(poll(&mut response), Poll::Ready(None));
    assert_eq!(client.kernel.requests.take(), [true]);
}

#[actix::test]
async fn after_the_last_piece_the_response_is_polled_again_to_be_taken_over() {
    let node = node().await;
    let (client, mut response) = answered(&node, "ann");
    assert!(poll(&mut response).is_pending());
    let text = text(1, PIECE * 3);
    client.outbox.push(text.frames(), None);
    let Poll::Ready(Some(first)) = poll(&mut response) else { panic!("the first piece") };
    // The client reads nothing meanwhile, so the server does not poll.
    pass(SETTLED).await;
    let served = serve(response);
    settle().await;
    assert!(served.is_finished(), "nothing else would wake it");
    assert!([&first[..], &served.await.unwrap()].concat() == text.frames().bytes);
    assert_eq!(client.kernel.requests.take().iter().filter(|has_read| **has_read).count(), 1);
}

#[actix::test]
async fn what_waits_when_a_connection_is_taken_over_is_written_by_the_hub_and_in_order() {
    let node = node().await;
    let (client, mut response) = answered(&node, "ann");
    assert!(poll(&mut response).is_pending());
    pass(SETTLED).await;
    client.kernel.accepts.set(Some(usize::MAX));
    let texts: Vec<_> = (0..4).map(|n| text(n, 5000)).collect();
    texts[..2].iter().for_each(|text| client.outbox.push(text.frames(), None));
    assert_eq!(poll(&mut response), Poll::Ready(None));
    texts[2..].iter().for_each(|text| client.outbox.push(text.frames(), None));
    settle().await;
    let bytes: Vec<_> = texts.iter().flat_map(|text| text.frames().bytes.to_vec()).collect();
    assert!(client.kernel.writes.take().concat() == bytes);
}
