//! `disconnect` runs exactly once for every accepted socket, whatever ended it, with the code of the reason; and then, or
//! before, every room is left.

use super::host::{Host, HostPlan, room, told};
use super::puppet::Did;
use crate::support::frame::{Raw, ReceivedFrame};
use crate::support::socket::ClientSocket;
use crate::support::{BOUND, millis, secs, within};
use presence::CloseCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Ann has joined; `end` ends her socket; her consumer is notified once, with `code`, and her leave is published.
async fn ends(plan: HostPlan, code: u16, end: impl AsyncFnOnce(&mut Host, ClientSocket) -> Option<ClientSocket>) {
    let mut host = plan.start().await;
    let mut changes = host.rooms.changes();
    let ann = host.open("ann", "join lobby").await;
    assert_eq!(told(&mut changes).await, "+ann");
    let ann = end(&mut host, ann).await;
    host.saw("ann", Did::Disconnecting(code)).await;
    let leaves = told(&mut changes).await;
    assert!(matches!(&*leaves, "-ann" | "!ann"), "{leaves}");
    drop(ann);
    host.empty().await;
    host.saw("ann", Did::Disconnected(code)).await;
    assert_eq!(host.count("ann", |did| matches!(did, Did::Disconnecting(_))), 0, "once");
}

/// As `ends`, but the server sends a Close with this code, which the client answers.
async fn is_closed(plan: HostPlan, code: u16, end: impl AsyncFnOnce(&mut Host, &mut ClientSocket)) {
    let end = async |host: &mut Host, mut ann: ClientSocket| {
        end(host, &mut ann).await;
        assert_eq!(ann.closing().await, Some(code));
        drop(ann.try_send(&Raw::close(code, b"")).await);
        ann.drained().await;
        Some(ann)
    };
    ends(plan, code, end).await;
}

// behaviour: 7 disconnect-code
#[tokio::test]
async fn the_clients_close_with_a_code() {
    for code in [1000, 1001, 3000, 4300, 4999] {
        is_closed(Host::plan(), code, async |_, ann| ann.close(code).await).await;
    }
}

// behaviour: 7 disconnect-code
#[tokio::test]
async fn the_clients_close_without_a_code_is_1005() {
    let end = async |_: &mut Host, mut ann: ClientSocket| {
        ann.close_empty().await;
        assert_eq!(ann.closing().await, None);
        Some(ann)
    };
    ends(Host::plan(), 1005, end).await;
}

// behaviour: 7 disconnect-code
#[tokio::test]
async fn a_reset_or_an_end_without_a_close_is_1006() {
    ends(Host::plan(), 1006, async |_, ann| {
        ann.reset();
        None
    })
    .await;
    ends(Host::plan(), 1006, async |_, ann| {
        drop(ann);
        None
    })
    .await;
}

#[tokio::test]
async fn a_client_that_only_shuts_down_its_sending_side_is_1006() {
    let mut host = Host::start().await;
    let mut ann = host.raw("/puppet?name=ann&connect=join%20lobby", 65536).await;
    ann.shutdown().await.unwrap();
    host.saw("ann", Did::Disconnected(1006)).await;
    let mut rest = Vec::new();
    let end = within(BOUND, "the end of the connection", ann.read_to_end(&mut rest)).await;
    assert!(rest.is_empty(), "{end:?}");
    host.empty().await;
}

#[tokio::test]
async fn a_violation_of_the_protocol() {
    is_closed(Host::plan(), 1002, async |_, ann| ann.send(Raw::text("x").unmasked()).await).await;
    is_closed(Host::plan(), 1007, async |_, ann| ann.send(Raw::text([0xff])).await).await;
    let plan = Host::plan().config(|config| config.max_frame_bytes(10));
    is_closed(plan, 1009, async |_, ann| ann.text("more than ten").await).await;
}

#[tokio::test]
async fn after_a_violation_the_client_sees_the_end_at_once() {
    // It was kept for the whole `close_timeout`, although nothing that the client sent was read any more.
    let host = Host::plan().config(|config| config.close_timeout(secs(60)).max_frame_bytes(10)).start().await;
    let mut ann = host.open("ann", "join lobby").await;
    // Much more than fits on the way.
    let sent = ann.try_bytes(&Raw::text("x".repeat(16 << 20)).encode()).await;
    assert!(sent.is_ok(), "{sent:?}");
    assert_eq!(ann.closing().await, Some(1009));
    ann.ended().await;
    drop(ann);
    host.empty().await;
}

#[tokio::test]
async fn after_a_violation_a_client_that_does_not_go_is_reset() {
    let host = Host::plan().config(|config| config.close_timeout(millis(300))).start().await;
    let mut ann = host.open("ann", "join lobby").await;
    ann.send(Raw::text("x").unmasked()).await;
    assert_eq!(ann.closing().await, Some(1002));
    host.connection_gone(ann.local()).await;
    host.empty().await;
}

// behaviour: 7 unhandled-exception; 4 passes-the-result-on; W12 no-dead-sockets
#[tokio::test]
async fn a_consumer_that_fails_or_panics_in_receive() {
    is_closed(Host::plan(), 1011, async |_, ann| ann.text("fail").await).await;
    is_closed(Host::plan(), 1011, async |_, ann| ann.text("panic").await).await;
}

#[tokio::test]
async fn a_consumer_that_fails_or_panics_in_event() {
    for fault in ["fail", "panic"] {
        let end = async |host: &mut Host, _: &mut ClientSocket| {
            let event = presence::Event::new(presence::EventName::new("do").unwrap(), &fault).unwrap();
            host.rooms.send_event(&room("lobby"), event).unwrap();
        };
        is_closed(Host::plan(), 1011, end).await;
    }
}

#[tokio::test]
async fn a_consumer_that_takes_longer_than_a_handler_may() {
    let plan = Host::plan().config(|config| config.handler_timeout(millis(200)));
    is_closed(plan, 1011, async |_, ann| ann.text("stall").await).await;
}

// behaviour: 7 close-with-code
#[tokio::test]
async fn a_close_by_the_consumer() {
    is_closed(Host::plan(), 4000, async |_, ann| ann.text("close 4000 enough").await).await;
}

#[tokio::test]
async fn a_stale_socket() {
    let plan = Host::plan().config(|config| config.max_age(millis(300)));
    is_closed(plan, CloseCode::STALE.0, async |_, _| {}).await;
}

#[tokio::test]
async fn a_client_that_does_not_read() {
    let plan = Host::plan().config(|config| config.write_timeout(millis(400)).close_timeout(millis(200)));
    let end = async |_: &mut Host, mut ann: ClientSocket| {
        ann.text("burst 400 65536").await;
        Some(ann)
    };
    ends(plan, CloseCode::TOO_SLOW.0, end).await;
}

#[tokio::test]
async fn a_client_that_answers_no_ping() {
    let plan = Host::plan().config(|config| config.ping_interval(millis(100)).pong_timeout(millis(200)));
    ends(plan, 1006, async |_, ann| Some(ann)).await;
}

#[tokio::test]
async fn a_shutdown() {
    let mut host = Host::start().await;
    let mut changes = host.rooms.changes();
    let mut ann = host.open("ann", "join lobby").await;
    assert_eq!(told(&mut changes).await, "+ann");
    let rooms = host.rooms.clone();
    let shutdown = tokio::spawn(async move { rooms.shutdown().await });
    assert_eq!(ann.closing().await, Some(1012));
    ann.close(1012).await;
    ann.ended().await;
    host.saw("ann", Did::Disconnected(1012)).await;
    assert_eq!(told(&mut changes).await, "-ann");
    within(BOUND, "the shutdown", shutdown).await.unwrap();
    assert_eq!(host.count("ann", |did| matches!(did, Did::Disconnecting(1012))), 1, "once");
}

// behaviour: 4 failing-body; W11 removed-though-failing
#[tokio::test]
async fn rooms_are_left_even_if_disconnect_fails_panics_or_takes_too_long() {
    for fault in ["fail", "panic", "stall"] {
        let plan = Host::plan().config(|config| config.handler_timeout(millis(300)));
        let mut host = plan.start().await;
        let mut changes = host.rooms.changes();
        let upgrade = host.upgrade_to_end("ann", "join lobby; join other", fault);
        upgrade.open(host.address).await.unwrap().leave().await;
        host.saw("ann", Did::Disconnecting(1000)).await;
        let mut heard = Vec::new();
        while heard.len() < 4 {
            heard.push(told(&mut changes).await);
        }
        assert_eq!(heard, ["+ann", "+ann", "-ann", "-ann"], "{fault}");
        host.empty().await;
    }
}

#[tokio::test]
async fn without_the_attribute_rooms_are_left_after_disconnect() {
    let mut host = Host::start().await;
    let upgrade = host.upgrade_to_end("ann", "join lobby", "wait gate");
    upgrade.open(host.address).await.unwrap().leave().await;
    host.saw("ann", Did::Began("wait gate".into())).await;
    assert_eq!(host.rows("lobby").await, 1, "still here");
    host.strings.open("gate");
    host.saw("ann", Did::Disconnected(1000)).await;
    host.empty().await;
}

#[tokio::test]
async fn a_disconnect_that_takes_long_keeps_its_presence_no_longer_than_a_close_may_take() {
    let mut host = Host::plan().config(|config| config.close_timeout(millis(200))).start().await;
    let mut changes = host.rooms.changes();
    let upgrade = host.upgrade_to_end("ann", "join lobby", "wait gate");
    upgrade.open(host.address).await.unwrap().leave().await;
    host.saw("ann", Did::Began("wait gate".into())).await;
    assert_eq!([told(&mut changes).await, told(&mut changes).await], ["+ann", "-ann"]);
    host.strings.open("gate");
    host.saw("ann", Did::Disconnected(1000)).await;
    host.empty().await;
}

#[tokio::test]
async fn what_a_client_sent_before_its_close_is_handled_before_disconnect() {
    let mut host = Host::start().await;
    let mut ann = host.open("ann", "").await;
    ann.text("wait gate").await;
    for n in 0..10 {
        ann.text(&format!("say lobby {n}")).await;
    }
    ann.close(1000).await;
    assert_eq!(ann.closing().await, Some(1000), "its consumer need not be done for that");
    host.strings.open("gate");
    host.saw("ann", Did::Disconnected(1000)).await;
    let did: Vec<_> =
        host.did("ann").into_iter().filter(|did| matches!(did, Did::Done(step) if step.starts_with("say"))).collect();
    let expected: Vec<_> = (0..10).map(|n| Did::Done(format!("say lobby {n}"))).collect();
    assert_eq!(did, expected, "in order");
}

// behaviour: 7 send-then-close
#[tokio::test]
async fn nothing_follows_a_close() {
    let mut host = Host::start().await;
    let mut ann = host.open("ann", "join lobby").await;
    ann.text("reply before; close 4000; try reply after; say lobby late").await;
    assert_eq!(ann.next().await, ReceivedFrame::Text("before".into()));
    assert_eq!(ann.next().await, ReceivedFrame::Close(Some(4000), String::new()));
    ann.close(4000).await;
    ann.ended().await;
    host.saw("ann", Did::Refused("reply after".into(), "the socket is closed".into())).await;
}
