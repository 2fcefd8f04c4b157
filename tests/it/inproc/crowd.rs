//! Many in one room: first frames of ten thousand, and faults among two hundred.

use super::host::{Host, room};
use super::puppet::Did;
use crate::support::frame::ReceivedFrame;
use crate::support::roster::ClientRoster;
use crate::support::socket::ClientSocket;
use crate::support::{BOUND, alone, secs, within};
use presence::{
    ChannelName, NodeId, NodeName, Notify, Presence, PresenceId, PruningSupervisor, UserId,
    actor::Reconcile,
    store::{Attempt, NodeStore, RoomStore, RoomWrites, Write},
};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::time::Instant;

/// Adds members on another node, which this one learns of from the store.
async fn fill(host: &Host, name: &str, members: usize) {
    let (store, node) = (host.store.inner(), NodeId::random());
    store.register(node, NodeName::new("elsewhere").unwrap(), secs(3600)).await.unwrap();
    let presence = |n: usize| {
        let channel = ChannelName::new(format!("elsewhere.{n}")).unwrap();
        let user = UserId::new(format!("member-{n:05}-{}", "x".repeat(40))).unwrap();
        Write::Join(Arc::new(Presence::new(PresenceId::random(), channel, Some(user), node)))
    };
    let writes = (0..members).map(presence).collect();
    store.commit(node, Attempt::next(), [RoomWrites { room: room(name), writes }].into()).await.unwrap();
    let supervisor = PruningSupervisor::spawn(&host.rooms);
    supervisor.send(Reconcile).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_first_frame_of_ten_thousand_members_arrives_whole_and_costs_the_others_one_notice() {
    let _alone = alone().await;
    // In one frame: the largest that anybody may ask for.
    let plan = Host::plan().config(|config| config.notify(Notify::Diff).max_age(secs(600)).max_frame_sent(4_000_000));
    let mut host = plan.start().await;
    let mut ann = host.open("ann", "join lobby").await;
    let first = ann.value().await;
    assert_eq!(first["members"].as_array().map(Vec::len), Some(1));
    // Members without sockets: rows of another node's, as the store would tell of them.
    fill(&host, "lobby", 9_998).await;
    let mut version = 0;
    let mut known = 1;
    while known < 9_999 {
        let diff = ann.value().await;
        known += diff["joins"].as_array().map_or(0, Vec::len);
        version = diff["version"].as_u64().unwrap();
    }
    let begun = Instant::now();
    let mut bob = host.open("bob", "join lobby").await;
    let state = bob.next().await;
    let ReceivedFrame::Text(state) = state else { panic!("a text, not {state:.40?}") };
    assert!(state.len() > 1 << 20, "{} bytes", state.len());
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    assert_eq!(state["members"].as_array().map(Vec::len), Some(10_000));
    let diff = ann.value().await;
    assert_eq!((diff["from"].as_u64(), &diff["joins"][0]["user"]), (Some(version), &"bob".into()));
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    ann.ping(b"the next thing she hears").await;
    assert_eq!(ann.next().await, ReceivedFrame::Pong("the next thing she hears".into()), "one notice");
    host.saw("bob", Did::Connected).await;
}

/// Reads to the text `end`: what it heard of each speaker must be all that was said, in order and once; what it was told of
/// the room must chain. Then until so many are in the room.
async fn listen(
    mut socket: ClientSocket,
    said: HashMap<String, usize>,
    members: usize,
) -> (ClientSocket, ClientRoster) {
    let mut roster = ClientRoster::first(&socket.value().await);
    let mut heard: HashMap<String, usize> = said.keys().map(|name| (name.clone(), 0)).collect();
    let mut ended = false;
    while !ended || roster.users.len() != members {
        let ReceivedFrame::Text(text) = socket.next().await else { panic!("a text") };
        if let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) {
            if value["type"] == "presence.state" {
                roster = ClientRoster::first(&value);
            } else {
                roster.apply(&value);
            }
        } else if let Some((name, n)) = text.split_once(' ') {
            let next = heard.get_mut(name).expect("a speaker");
            assert_eq!(n.parse(), Ok(*next), "of {name}: nothing lost, repeated or out of order");
            *next += 1;
        } else {
            assert_eq!(text, "end");
            ended = true;
            assert_eq!(heard, said, "all that was said before");
        }
    }
    (socket, roster)
}

/// Two hundred sockets listen, four of them speak, and others come and go, while `faults` happen.
async fn breaks(faults: &str) {
    let _alone = alone().await;
    let mut host = Host::plan().config(|config| config.notify(Notify::Diff)).workers(2).start().await;
    let said: HashMap<_, _> = (0..4).map(|n| (format!("speaker{n}"), 60)).collect();
    let mut listeners = Vec::new();
    for n in 0..196 {
        let (upgrade, address, said) = (host.upgrade(&format!("m{n}"), "join lobby"), host.address, said.clone());
        listeners.push(tokio::spawn(async move { listen(upgrade.open(address).await.unwrap(), said, 200).await }));
    }
    let mut speakers = Vec::new();
    for n in 0..4 {
        let name = format!("speaker{n}");
        let steps =
            format!("join lobby; wait start; chatter lobby 20; {faults}; chatter lobby 20; {faults}; chatter lobby 20");
        let faults = if n == 0 { faults } else { "" };
        let steps = if n == 0 { steps } else { steps.replace(faults, "") };
        let mut socket = host.open(&name, "").await;
        socket.text(&steps).await;
        host.saw(&name, Did::Began("wait start".into())).await;
        speakers.push(tokio::spawn(listen(socket, said.clone(), 200)));
    }
    for n in 0..196 {
        host.saw(&format!("m{n}"), Did::Done("join lobby".into())).await;
    }
    for _ in 0..4 {
        host.strings.open("start");
    }
    for n in 0..10 {
        let mut guest = host.open(&format!("guest{n}"), "join lobby").await;
        guest.text("leave lobby").await;
        host.saw(&format!("guest{n}"), Did::Done("leave lobby".into())).await;
        guest.reset();
    }
    for n in 0..4 {
        for _ in 0..3 {
            host.saw(&format!("speaker{n}"), Did::Done("chatter lobby 20".into())).await;
        }
    }
    host.rooms.send(&room("lobby"), "end").await.unwrap();
    let truth = host.rooms.users(&room("lobby")).await.unwrap();
    let truth: Vec<_> = truth.iter().map(|user| user.as_str()).collect();
    assert_eq!(truth.len(), 200);
    let mut sockets = Vec::new();
    for listener in listeners.into_iter().chain(speakers) {
        let (socket, roster) = within(BOUND * 2, "a listener to have it all", listener).await.unwrap();
        assert_eq!(roster.names(), truth);
        sockets.push(socket);
    }
    assert_eq!(host.rows("lobby").await, 200);
    drop(sockets);
    host.empty().await;
}

#[tokio::test]
async fn a_room_that_fails_under_two_hundred_sockets_loses_and_repeats_no_frame() {
    breaks("break room lobby").await;
}

#[tokio::test]
async fn hubs_that_fail_under_two_hundred_sockets_lose_and_repeat_no_frame() {
    breaks("break hubs").await;
}

#[tokio::test]
async fn a_child_that_fails_under_two_hundred_sockets_costs_nobody_anything() {
    breaks("break child lobby").await;
}
