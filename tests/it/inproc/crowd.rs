//! Many in one room: first frames of ten thousand, and faults among two hundred.

use super::host::{Host, room};
use super::puppet::Did;
use crate::support::frame::Frame;
use crate::support::{BOUND, alone, secs, within};
use presence::config::Notify;
use presence::name::{ChannelName, NodeId, NodeName, PresenceId, UserId};
use presence::store::{RoomWrites, Store, Write};
use presence::{Presence, PruningSupervisor, Reconcile};
use std::sync::Arc;
use tokio::time::Instant;

/// Adds members on another node, which this one learns of from the store.
async fn fill(host: &Host, name: &str, members: usize) {
    let (store, node) = (host.store.inner(), NodeId::random());
    store.register(node, &NodeName::new("elsewhere").unwrap(), secs(3600)).await.unwrap();
    let presence = |n: usize| {
        let channel = ChannelName::new(format!("elsewhere.{n}")).unwrap();
        let user = UserId::new(format!("member-{n:05}-{}", "x".repeat(40))).unwrap();
        Write::Join(Arc::new(Presence::new(PresenceId::random(), channel, Some(user), node)))
    };
    let writes = (0..members).map(presence).collect();
    store.commit(node, &[RoomWrites { room: room(name), writes }]).await.unwrap();
    let supervisor = PruningSupervisor::spawn(&host.rooms, NodeName::new("here").unwrap());
    supervisor.send(Reconcile).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_first_frame_of_ten_thousand_members_arrives_whole_and_costs_the_others_one_notice() {
    let _alone = alone().await;
    let plan = Host::plan().config(|config| config.notify(Notify::Diff).max_age(secs(600)));
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
    let Frame::Text(state) = state else { panic!("a text, not {state:.40?}") };
    assert!(state.len() > 1 << 20, "{} bytes", state.len());
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    assert_eq!(state["members"].as_array().map(Vec::len), Some(10_000));
    let diff = ann.value().await;
    assert_eq!((diff["from"].as_u64(), &diff["joins"][0]["user"]), (Some(version), &"bob".into()));
    assert!(begun.elapsed() < secs(10), "{:?}", begun.elapsed());
    ann.ping(b"the next thing she hears").await;
    assert_eq!(ann.next().await, Frame::Pong("the next thing she hears".into()), "one notice");
    host.saw("bob", Did::Connected).await;
}
