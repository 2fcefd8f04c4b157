//! What consumers and applications send to sockets and to one another: events, frames to one channel, closes, rooms.

use super::host::{Host, room, told};
use super::puppet::Did;
use crate::support::frame::ReceivedFrame;
use crate::support::member::encoded;
use crate::support::{BOUND, eventually, millis, secs, within};
use presence::{ChannelName, Event, EventName, OnStale};
use serde_json::json;

fn event(name: &str, payload: &serde_json::Value) -> Event {
    Event::new(EventName::new(name).unwrap(), payload).unwrap()
}

#[tokio::test]
async fn an_event_to_a_room_reaches_the_consumers_of_its_members_and_of_nobody_else() {
    let mut host = Host::plan().workers(2).start().await;
    let mut sockets = Vec::new();
    for name in ["ann", "bob", "cat"] {
        sockets.push(host.open(name, "join lobby").await);
    }
    let _dan = host.open("dan", "join other").await;
    host.rooms.send_event(&room("lobby"), event("news", &json!(["a", 1]))).unwrap();
    for name in ["ann", "bob", "cat"] {
        host.saw(name, Did::Event("news".into(), r#"["a",1]"#.into())).await;
    }
    host.rooms.send_event(&room("other"), event("do", &json!("reply yours"))).unwrap();
    host.saw("dan", Did::Event("do".into(), r#""reply yours""#.into())).await;
    assert_eq!(host.count("dan", |did| matches!(did, Did::Event(name, _) if name == "news")), 0);
}

// behaviour: 7 send-to-channel
#[tokio::test]
async fn an_event_and_a_frame_to_one_channel_reach_it_alone() {
    let mut host = Host::start().await;
    let mut ann = host.open("ann", "join lobby; channel").await;
    let mut bob = host.open("bob", "join lobby; channel").await;
    let channel = host.channel("ann").await;
    host.channel("bob").await;
    host.rooms.send_event_to(&channel, event("do", &json!("reply from the event"))).unwrap();
    assert_eq!(ann.next().await, ReceivedFrame::Text("from the event".into()));
    within(BOUND, "the send", host.rooms.send_to(&channel, "just you")).await.unwrap();
    assert_eq!(ann.next().await, ReceivedFrame::Text("just you".into()));
    host.rooms.send(&room("lobby"), "all").await.unwrap();
    assert_eq!(bob.next().await, ReceivedFrame::Text("all".into()), "Bob had nothing before");
    ann.leave().await;
    bob.leave().await;
    host.empty().await;
    // Its socket is gone: nothing happens.
    host.rooms.send_event_to(&channel, event("do", &json!("panic"))).unwrap();
    within(BOUND, "the send to a channel that is gone", host.rooms.send_to(&channel, "anyone?")).await.unwrap();
}

#[tokio::test]
async fn a_frame_to_a_channel_that_never_was_or_to_a_room_without_members_is_sent_at_once() {
    // A send to a channel of another process waited for ever.
    let host = Host::start().await;
    for name in ["nobody", "ws.elsewhere.0!1", "ws..!", "!", "ws.x.99999999999999999999!1"] {
        let channel = ChannelName::new(name).unwrap();
        within(secs(5), &format!("a send to {name}"), host.rooms.send_to(&channel, "anyone?")).await.unwrap();
        host.rooms.send_event_to(&channel, event("news", &json!(0))).unwrap();
    }
    within(secs(5), "a send to nobody", host.rooms.send(&room("nowhere"), "anyone?")).await.unwrap();
    host.empty().await;
}

#[tokio::test]
async fn the_payload_of_an_event_is_decoded_to_what_the_consumer_asks_for() {
    let event = event("moved", &json!({"x": 1, "y": 2}));
    assert_eq!(event.decode::<std::collections::BTreeMap<String, u8>>().unwrap()["y"], 2);
    assert!(event.decode::<Vec<u8>>().is_err());
    assert_eq!((event.name().as_str(), event.json()), ("moved", r#"{"x":1,"y":2}"#));
}

// behaviour: 7 close-codes
#[tokio::test]
async fn a_close_with_a_code_that_nobody_may_send_is_refused_and_changes_nothing() {
    let mut host = Host::start().await;
    let mut ann = host.open("ann", "").await;
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        ann.text(&format!("try close {code} x")).await;
        let why = format!("{code} is not a close code that may be sent");
        host.saw("ann", Did::Refused(format!("close {code} x"), why)).await;
    }
    ann.text("reply still here").await;
    assert_eq!(ann.next().await, ReceivedFrame::Text("still here".into()));
}

#[tokio::test]
async fn a_close_reason_is_cut_at_a_character_within_123_bytes() {
    let mut host = Host::start().await;
    for (reason, length) in [("x".repeat(200), 123), ("é".repeat(100), 122), ("🦀".repeat(40), 120), ("x".into(), 1)]
    {
        let mut ann = host.open("ann", "").await;
        ann.text(&format!("close 4000 {reason}")).await;
        assert_eq!(ann.next().await, ReceivedFrame::Close(Some(4000), reason[..length].to_owned()));
        ann.close(4000).await;
        host.saw("ann", Did::Disconnected(4000)).await;
    }
}

#[tokio::test]
async fn a_socket_may_be_in_so_many_rooms_and_in_no_more() {
    let mut host = Host::plan().config(|config| config.max_rooms_per_socket(2)).start().await;
    let mut ann = host.open("ann", "join a; join b").await;
    ann.text("try join c; join a; leave b; join c; try join b").await;
    let why = "a socket may be in at most 2 rooms, and as many groups".to_owned();
    host.saw("ann", Did::Refused("join c".into(), why.clone())).await;
    host.saw("ann", Did::Done("join c".into())).await;
    host.saw("ann", Did::Refused("join b".into(), why)).await;
    ann.leave().await;
    host.empty().await;
}

#[tokio::test]
async fn a_join_by_a_member_changes_nothing_also_if_both_are_under_way_at_once() {
    // Each took the other's answer away; one failed in the end, and took the presence of both back.
    let mut host = Host::start().await;
    let mut changes = host.rooms.changes();
    let mut ann = host.open("ann", "join lobby").await;
    let calls = host.store.calls();
    host.store.hang();
    ann.text("join lobby; both other; say lobby to one; say other to other; leave other; leave lobby").await;
    eventually(BOUND, "the joins to reach the store", async || {
        if host.store.calls() > calls { Ok(()) } else { Err("not yet".into()) }
    })
    .await;
    host.store.release();
    assert_eq!(ann.next().await, ReceivedFrame::Text("to one".into()));
    assert_eq!(ann.next().await, ReceivedFrame::Text("to other".into()));
    host.saw("ann", Did::Done("leave lobby".into())).await;
    let mut heard = Vec::new();
    for _ in 0..4 {
        heard.push(told(&mut changes).await);
    }
    assert_eq!(heard, ["+ann", "+ann", "-ann", "-ann"]);
    ann.leave().await;
    host.empty().await;
}

#[tokio::test]
async fn a_join_that_is_given_up_on_is_no_membership_and_one_of_a_member_stays_one() {
    // Whoever gave up waiting for a join that changes nothing was no member any more, and did not know it.
    let mut host = Host::start().await;
    let mut ann = host.open("ann", "join lobby").await;
    ann.text("brief lobby; say lobby still a member").await;
    assert_eq!(ann.next().await, ReceivedFrame::Text("still a member".into()));
    host.store.hang();
    ann.text("brief other; inside other").await;
    host.saw("ann", Did::Refused("inside other".into(), "no".into())).await;
    host.store.release();
    ann.text("join other; inside other; say other in both").await;
    host.saw("ann", Did::Done("inside other".into())).await;
    assert_eq!(ann.next().await, ReceivedFrame::Text("in both".into()));
    ann.leave().await;
    host.empty().await;
}

#[tokio::test]
async fn a_socket_that_is_closed_joins_no_room() {
    let mut host = Host::start().await;
    let mut changes = host.rooms.changes();
    let mut ann = host.open("ann", "").await;
    ann.text("wait gate; try join lobby").await;
    host.saw("ann", Did::Began("wait gate".into())).await;
    ann.close(1000).await;
    assert_eq!(ann.closing().await, Some(1000));
    host.strings.open("gate");
    host.saw("ann", Did::Refused("join lobby".into(), "the socket is closed".into())).await;
    host.empty().await;
    let _bob = host.open("bob", "join lobby").await;
    assert_eq!(told(&mut changes).await, "+bob", "nothing was told of Ann");
}

// behaviour: 7 subprotocol
#[tokio::test]
async fn the_subprotocol_is_the_one_that_the_consumer_accepted() {
    let host = Host::start().await;
    let offered = [("Sec-WebSocket-Protocol", "chat.v1, chat.v2")];
    let head = host.head("/puppet?name=ann&connect=accept%20chat.v2", &offered).await;
    assert_eq!((head.status, head.header("sec-websocket-protocol")), (101, Some("chat.v2")));
    let head = host.head("/puppet?name=bob", &offered).await;
    assert_eq!((head.status, head.header("sec-websocket-protocol")), (101, None));
    let offered = [("Sec-WebSocket-Protocol", "chat.v1"), ("Sec-WebSocket-Protocol", "chat.v2")];
    let head = host.head("/puppet?name=cat&connect=accept%20chat.v2", &offered).await;
    assert_eq!((head.status, head.header("sec-websocket-protocol")), (101, Some("chat.v2")), "in a second header");
}

#[tokio::test]
async fn a_subprotocol_that_the_client_did_not_offer_is_not_answered() {
    // A browser fails a handshake that is answered with one which it did not offer.
    let host = Host::start().await;
    for accepted in ["chat.v2", "chat.v1%2Cchat.v2", "a%07", "%C3%A9", "Chat.v1"] {
        let path = format!("/puppet?name=ann&connect=accept%20{accepted}");
        let head = host.head(&path, &[("Sec-WebSocket-Protocol", "chat.v1")]).await;
        assert_eq!((head.status, head.header("sec-websocket-protocol")), (101, None), "{accepted}");
    }
    let head = host.head("/puppet?name=ann&connect=accept%20chat.v1", &[]).await;
    assert_eq!((head.status, head.header("sec-websocket-protocol")), (101, None));
}

// behaviour: 7 origin
#[tokio::test]
async fn pages_of_the_own_origin_and_of_those_allowed_are_let_in() {
    let host = Host::start().await;
    let own = format!("http://{}", host.address);
    for (origin, allowed, status) in [
        (&*own, "", 101),
        ("http://evil.example", "", 403),
        ("null", "", 403),
        ("https://app.example", "https://app.example", 101),
        ("https://app.example.evil", "https://app.example", 403),
        ("http://evil.example", "*", 101),
        ("null", "*", 101),
    ] {
        let path = format!("/puppet?name=ann&allow={}", encoded(allowed));
        assert_eq!(host.head(&path, &[("Origin", origin)]).await.status, status, "{origin} with {allowed:?}");
    }
    assert_eq!(host.head("/puppet?name=ann", &[]).await.status, 101, "no browser");
    host.empty().await;
}

#[tokio::test]
async fn a_socket_that_joined_again_is_not_told_that_it_was_pruned_before() {
    // The news of the old presence's end was taken for that of the new one, which nobody then made leave.
    let config = |config: presence::ConfigBuilder| config.max_age(millis(300)).on_stale(OnStale::Keep);
    let mut host = Host::plan().config(config).start().await;
    let mut changes = host.rooms.changes();
    let mut ann = host.open("ann", "join lobby; channel").await;
    let channel = host.channel("ann").await;
    // Its thread learns of the prune only when it has joined again.
    let steps = json!("block 3000; brief-leave lobby; join lobby; inside lobby; say lobby again");
    host.rooms.send_event_to(&channel, event("do", &steps)).unwrap();
    assert_eq!(ann.next().await, ReceivedFrame::Text("again".into()));
    host.saw("ann", Did::Done("inside lobby".into())).await;
    assert_eq!(
        [told(&mut changes).await, told(&mut changes).await, told(&mut changes).await],
        ["+ann", "!ann", "+ann"]
    );
    ann.leave().await;
    host.saw("ann", Did::Disconnected(1000)).await;
    host.empty().await;
    assert_eq!(host.count("ann", |did| matches!(did, Did::Pruned(_))), 0);
}
