//! `watch`.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdout, Stdio},
};

use presence::{
    NodeId, Presence, SqlStore,
    store::{NodeStore, RoomStore, Write},
};
use serde_json::{Value, json};

use super::{
    command::{signal, until},
    database::{TestDatabase, change, leave, node, presence, with_meta},
};

/// One that watches, and what it prints.
struct Watch {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Watch {
    fn start(database: &TestDatabase, arguments: &[&str]) -> Self {
        let mut command = database.command(arguments);
        command.args(["--interval", "20ms"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end_matches('\n').to_owned()
    }

    fn object(&mut self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    /// Stops it; it must have printed nothing more.
    fn stop(mut self, sent: &str) {
        signal(self.child.id(), sent);
        let (mut out, mut err) = (String::new(), String::new());
        self.lines.read_to_string(&mut out).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!((self.child.wait().unwrap().code(), &*out, &*err), (Some(0), "", ""));
    }
}

async fn joins(store: &SqlStore, node: NodeId, room: &str, presence: &std::sync::Arc<Presence>) {
    change(store, node, room, [Write::Join(presence.clone())]).await;
}

#[tokio::test]
async fn who_joins_changes_and_leaves_is_told_one_object_a_line_until_it_is_stopped() {
    let database = TestDatabase::new().await;
    let store = &database.store;
    let here = node(store, "here").await;
    joins(store, here, "bar", &presence(here, "0", "zoe")).await;
    let mut watch = Watch::start(&database, &["watch", "--json"]);
    assert_eq!(watch.object(), json!({"event": "watching", "rooms": 1, "presences": 1}));

    let ann = presence(here, "1", "ann");
    let commit = change(store, here, "lobby", [Write::Join(ann.clone())]).await;
    let told = |event: &str, version: u64, meta: Value| {
        json!({
            "event": event, "room": "lobby", "epoch": commit.epoch, "version": version, "user": "ann", "id": ann.id,
            "channel": "1", "node_id": here, "meta": meta
        })
    };
    assert_eq!(watch.object(), told("joined", 1, json!({})));
    joins(store, here, "lobby", &with_meta(&ann, "{\n\"n\": [1]\n}")).await;
    assert_eq!(watch.object(), told("updated", 2, json!({"n": [1]})));
    change(store, here, "lobby", [leave(&ann)]).await;
    assert_eq!(watch.object(), told("left", 3, json!({"n": [1]})));

    joins(store, here, "bar", &presence(here, "2", "")).await;
    let anonymous = watch.object();
    assert_eq!((&anonymous["room"], &anonymous["user"]), (&json!("bar"), &json!(null)));
    watch.stop("INT");
}

#[tokio::test]
async fn one_room_is_followed_before_it_is_there_and_across_its_lives() {
    let database = TestDatabase::new().await;
    let store = &database.store;
    let here = node(store, "here").await;
    let mut watch = Watch::start(&database, &["watch", "lobby"]);
    assert_eq!(watch.line(), "watching: rooms 0, presences 0");
    joins(store, here, "bar", &presence(here, "0", "zoe")).await;
    let ann = with_meta(&presence(here, "1", "\u{2028}ann"), "{\"a\" : 1}");
    joins(store, here, "lobby", &ann).await;
    assert_eq!(watch.line(), "joined   lobby  �ann  {\"a\":1}");
    // It leaves, and the room is pruned and made anew, between two looks or not.
    change(store, here, "lobby", [leave(&ann)]).await;
    store.prune_rooms(here).await.unwrap();
    joins(store, here, "lobby", &presence(here, "2", "")).await;
    assert_eq!(watch.line(), "left     lobby  �ann  {\"a\":1}");
    assert_eq!(watch.line(), "joined   lobby  (anonymous)");
    watch.stop("TERM");
}

#[tokio::test]
async fn what_cancels_out_between_two_looks_is_not_told() {
    let database = TestDatabase::new().await;
    let store = &database.store;
    let here = node(store, "here").await;
    let ann = presence(here, "1", "ann");
    joins(store, here, "lobby", &ann).await;
    let mut command = database.command(&["watch", "--json", "--interval", "1h"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    lines.read_line(&mut first).unwrap();
    assert!(first.contains("watching"), "{first}");
    // The next look is far away, and a stop does not wait for it.
    change(store, here, "lobby", [leave(&ann)]).await;
    signal(child.id(), "INT");
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert_eq!((child.wait().unwrap().code(), rest.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn a_reader_that_goes_ends_the_watch() {
    let database = TestDatabase::new().await;
    let here = node(&database.store, "here").await;
    let mut watch = Watch::start(&database, &["watch"]);
    let _ = watch.line();
    drop(watch.lines);
    joins(&database.store, here, "lobby", &presence(here, "1", "ann")).await;
    let output = watch.child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
}

#[tokio::test]
async fn a_removal_by_another_hand_is_told_too() {
    let database = TestDatabase::new().await;
    let store = &database.store;
    let here = node(store, "here").await;
    for name in ["a", "b"] {
        joins(store, here, name, &presence(here, "1", "ann")).await;
    }
    let mut watch = Watch::start(&database, &["watch"]);
    assert_eq!(watch.line(), "watching: rooms 2, presences 2");
    store.retire(here, std::time::Duration::ZERO).await.unwrap();
    assert_eq!([watch.line(), watch.line()], ["left     a  ann", "left     b  ann"]);
    until("nothing is left", async || store.nodes().await.unwrap().is_empty()).await;
    watch.stop("INT");
}
