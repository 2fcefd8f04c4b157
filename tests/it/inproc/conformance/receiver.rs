//! The receiver of the usage guide, as the list that members are sent.

use super::{Host, channel, open, room, serving};
use crate::support::{BOUND, secs, within};
use presence::{
    CloseCode, Consumer, Frame, NodeId, NodeName, Notify, Presence, PresenceId, PruningSupervisor, Result, Socket,
    actor::Reconcile,
    remove_presence,
    store::{Attempt, NodeStore, RoomStore, RoomWrites, Write},
    touch_presence,
};
use serde_json::{Value, json};
use std::sync::Arc;

/// The consumer of the usage guide.
struct Chat;

impl Consumer for Chat {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        socket.join(&room("lobby")).await
    }

    #[touch_presence]
    async fn receive(&mut self, _: &mut Socket, _: Frame) -> Result<()> {
        Ok(())
    }

    #[remove_presence]
    async fn disconnect(&mut self, _: &mut Socket, _: CloseCode) -> Result<()> {
        Ok(())
    }
}

async fn guide() -> Host {
    let plan = Host::plan().config(|config| config.notify(Notify::List)).route(serving(|_| Chat));
    plan.start().await
}

fn list(members: &[&str], lurkers: u64) -> Value {
    json!({"type": "presence", "payload": {"channel_name": "lobby", "members": members, "lurkers": lurkers}})
}

// behaviour: 3 documented-receiver
#[tokio::test]
async fn each_change_sends_every_member_the_list_of_the_usage_guide() {
    let host = guide().await;
    let mut ann = open(&host, "/chat/lobby?user=ann").await;
    ann.hears(list(&["ann"], 0)).await;
    let mut bob = open(&host, "/chat/lobby?user=bob").await;
    for client in [&mut ann, &mut bob] {
        client.hears(list(&["ann", "bob"], 0)).await;
    }
    // A second tab changes nothing to be seen, and is told all the same.
    let mut tab = open(&host, "/chat/lobby?user=ann").await;
    for client in [&mut ann, &mut bob, &mut tab] {
        client.hears(list(&["ann", "bob"], 0)).await;
    }
    let mut nobody = open(&host, "/chat/lobby").await;
    for client in [&mut ann, &mut bob, &mut tab, &mut nobody] {
        client.hears(list(&["ann", "bob"], 1)).await;
    }
    tab.leave().await;
    for client in [&mut ann, &mut bob, &mut nobody] {
        client.hears(list(&["ann", "bob"], 1)).await;
    }
    ann.reset();
    for client in [&mut bob, &mut nobody] {
        client.hears(list(&["bob"], 1)).await;
    }
    nobody.leave().await;
    bob.hears(list(&["bob"], 0)).await;
}

// behaviour: 3 leaver-hears-no-leave
#[tokio::test]
async fn who_leaves_gets_nothing_more_of_the_room() {
    let host = guide().await;
    let mut ann = open(&host, "/chat/lobby?user=ann").await;
    ann.hears(list(&["ann"], 0)).await;
    let mut bob = open(&host, "/chat/lobby?user=bob").await;
    ann.hears(list(&["ann", "bob"], 0)).await;
    bob.hears(list(&["ann", "bob"], 0)).await;
    bob.leave().await;
    ann.hears(list(&["ann"], 0)).await;
}

// behaviour: 3 first-frame
#[tokio::test]
async fn the_list_is_the_first_frame_also_if_others_speak_while_it_joins() {
    let host = guide().await;
    let rooms = host.rooms.clone();
    let speaker = tokio::spawn(async move {
        loop {
            rooms.send(&room("lobby"), "\"chatter\"").await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..20 {
        let mut ann = open(&host, "/chat/lobby?user=ann").await;
        assert_eq!(ann.value().await["type"], "presence");
        ann.reset();
    }
    speaker.abort();
}

// behaviour: W17 resync
#[tokio::test]
async fn who_missed_something_sees_it_by_the_version_and_is_sent_the_whole_state() {
    // There a message that was dropped is missed for ever, and nobody knows.
    let plan = Host::plan().config(|config| config.notify(Notify::Diff)).route(serving(|_| Chat));
    let host = plan.start().await;
    let mut ann = open(&host, "/chat/lobby?user=ann").await;
    let first = ann.value().await;
    // Another node changes the room twice behind this one's back, which learns of it only when it compares.
    let (node, name) = (NodeId::random(), NodeName::new("elsewhere").unwrap());
    host.store.register(node, name.clone(), secs(60)).await.unwrap();
    for name in ["bob", "cat"] {
        let presence = Presence::new(PresenceId::random(), channel(name), None, node);
        let writes = vec![Write::Join(Arc::new(presence))];
        host.store.commit(node, Attempt::next(), [RoomWrites { room: room("lobby"), writes }].into()).await.unwrap();
    }
    let supervisor = PruningSupervisor::spawn(&host.rooms);
    within(BOUND, "a comparison", supervisor.send(Reconcile)).await.unwrap().unwrap();
    let news = ann.value().await;
    assert_eq!((&news["epoch"], &news["anonymous"]), (&first["epoch"], &json!(2)), "{news}");
    let version = |frame: &Value| frame["version"].as_u64().unwrap();
    assert_eq!(version(&news), version(&first) + 2, "nothing between was lost");
    if news["type"] == "presence.diff" {
        assert_eq!(news["from"], first["version"], "the chain has no hole");
    }
}
