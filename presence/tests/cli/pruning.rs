//! `prune-presences`, beside nodes that live, are silent, or are dead.

use std::{process::Stdio, time::Duration};

use presence::{
    ChannelName, Clock, Config, ConfigBuilder, NodeName, PruningSupervisor, RoomName, Rooms, UserId,
    store::{NodeState, NodeStore, Order, RequestStore, RoomStore, Write},
    testing::bare::join_without_socket,
};
use serde_json::json;

use super::{
    command::{Ran, run, signal, until},
    database::{LEASE, TestDatabase, change, crowd, node, presence, room},
};

const SECOND: Duration = Duration::from_secs(1);

// behaviour: 5 commands
#[tokio::test]
async fn what_no_live_node_answers_for_is_pruned_by_the_tool_itself() {
    let database = TestDatabase::new().await;
    let past = database.ago(SECOND * 120);
    let dead = node(&past, "dead").await;
    crowd(&past, dead, "lobby", 3).await;
    // Of the node's last touches, those of up to 18.75 s may not be in the database.
    let recent = database.ago(SECOND * 100);
    crowd(&recent, dead, "bar", 2).await;
    let pruned = database.run(&["prune-presences", "--age", "90s", "--wait", "100ms"]).done();
    assert_eq!(pruned, "held or of no live node: pruned 3\npruned 3 presences not seen for 1m 30s\n");
    let snapshot = database.store.load(room("lobby")).await.unwrap().unwrap();
    assert_eq!((snapshot.version.0, snapshot.presences.len()), (2, 0));
    // The other name, and the setting of the nodes.
    let mut command = database.command(&["prune-presence", "--wait=0", "--json"]);
    command.env("PRESENCE_MAX_AGE", "1m 15s");
    let expected = json!({"max_age_ms": 75_000, "pruned": 2, "nodes": [], "orphaned": 2});
    assert_eq!(run(command).json(), expected);
    let nothing = json!({"max_age_ms": 60_000, "pruned": 0, "nodes": [], "orphaned": 0});
    assert_eq!(database.run(&["prune-presences", "--json"]).json(), nothing, "there is nobody to wait for");
    let nodes = database.store.nodes().await.unwrap();
    assert_eq!(nodes.iter().map(|node| node.node).collect::<Vec<_>>(), [dead], "no trace of the tool's own lives");
}

#[tokio::test]
async fn a_touch_that_a_dead_node_may_not_have_written_counts_unless_the_age_is_zero() {
    let database = TestDatabase::new().await;
    let past = database.ago(SECOND * 300);
    let dead = node(&past, "dead").await;
    crowd(&past, dead, "lobby", 3).await;
    let lost = presence(dead, "lost", "");
    let hold = Write::Hold { id: lost.id, channel: lost.channel.clone(), grace: SECOND * 3600 };
    change(&past, dead, "lobby", [Write::Join(lost)]).await;
    change(&past, dead, "lobby", [hold]).await;
    let pruned = |arguments: &[&str], variable: Option<&str>| {
        let mut command = database.command(&[&["prune-presences", "--wait=0", "--json"], arguments].concat());
        command.envs(variable.map(|interval| ("PRESENCE_TOUCH_FLUSH_INTERVAL", interval)));
        run(command).json()["orphaned"].clone()
    };
    assert_eq!(pruned(&["--age=90s", "--touch-flush-interval=10m"], None), 1, "the one that is held");
    assert_eq!(pruned(&["--age=90s"], Some("4m")), 0);
    assert_eq!(pruned(&["--age=0", "--touch-flush-interval=10m"], None), 3);
}

#[tokio::test]
async fn a_node_whose_lease_ran_out_has_time_to_come_back() {
    let database = TestDatabase::new().await;
    let past = database.ago(LEASE * 2);
    let here = node(&past, "here").await;
    crowd(&past, here, "lobby", 3).await;
    let mut child = database.command(&["prune-presences", "--age=1s", "--wait=60s", "--json"]);
    let child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("the tool is a node", async || database.store.nodes().await.unwrap().len() == 2).await;
    // As after an outage of the database: nobody fenced it, and it renews its lease.
    database.store.renew(here, LEASE).await.unwrap();
    until("it is asked", async || !database.store.open_requests(here).await.unwrap().is_empty()).await;
    let request = database.store.open_requests(here).await.unwrap().remove(0);
    assert_eq!(request.order, Order::Prune { max_age: SECOND });
    database.store.answer(here, request.id, 2).await.unwrap();
    let pruned = Ran::from(child.wait_with_output().unwrap()).json();
    let asked = json!([{"node": "here", "node_id": here, "outcome": "answered", "pruned": 2}]);
    assert_eq!(pruned, json!({"max_age_ms": 1000, "pruned": 2, "nodes": asked, "orphaned": 0}));
}

#[tokio::test]
async fn a_live_node_that_does_not_answer_is_named_and_its_presences_stay() {
    let database = TestDatabase::new().await;
    let past = database.ago(LEASE / 2);
    let here = node(&past, "silent").await;
    crowd(&past, here, "lobby", 3).await;
    let ran = database.run(&["prune-presences", "--age=1s", "--wait=300ms"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(4), "error: node `silent` did not answer within 300ms\n"));
    assert_eq!(
        ran.out,
        "node silent: no answer\nheld or of no live node: pruned 0\npruned 0 presences not seen for 1s\n"
    );
    let ran = database.run(&["prune-presences", "--age=1s", "--wait=0", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &document["nodes"][0]["outcome"]), (Some(4), &json!("silent")));
    assert_eq!(document["nodes"][0]["pruned"], json!(null));
    assert_eq!(database.store.load(room("lobby")).await.unwrap().unwrap().presences.len(), 3);
    assert_eq!(database.store.open_requests(here).await.unwrap(), [], "the request ended with the tool");
}

#[tokio::test]
async fn a_node_that_ends_while_it_is_asked_is_not_waited_for() {
    let database = TestDatabase::new().await;
    let here = node(&database.store, "here").await;
    crowd(&database.store, here, "lobby", 3).await;
    let mut child = database.command(&["prune-presences", "--wait=60s"]);
    let child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("it is asked", async || !database.store.open_requests(here).await.unwrap().is_empty()).await;
    database.store.retire(here, Duration::ZERO).await.unwrap();
    let told = Ran::from(child.wait_with_output().unwrap()).done();
    assert!(told.starts_with("node here: ended before it answered\n"), "{told}");
}

#[tokio::test]
async fn one_that_is_stopped_retires_and_takes_its_request_back() {
    let database = TestDatabase::new().await;
    let here = node(&database.store, "here").await;
    crowd(&database.store, here, "lobby", 1).await;
    for (sent, code, name) in [("INT", 130, "Ctrl-C"), ("TERM", 143, "SIGTERM")] {
        let mut child = database.command(&["prune-presences", "--wait=60s"]);
        let child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        until("the node is asked", async || !database.store.open_requests(here).await.unwrap().is_empty()).await;
        signal(child.id(), sent);
        let error = Ran::from(child.wait_with_output().unwrap()).failed(code);
        assert_eq!(error, format!("error: stopped by {name} before it was done\n"));
        assert_eq!(database.store.nodes().await.unwrap().len(), 1);
        assert_eq!(database.store.open_requests(here).await.unwrap(), []);
    }
}

#[tokio::test]
async fn one_that_is_killed_is_a_dead_node_without_presences() {
    let database = TestDatabase::new().await;
    let here = node(&database.store, "here").await;
    crowd(&database.store, here, "lobby", 1).await;
    let mut child = database.command(&["prune-presences", "--wait=60s"]);
    let mut child = child.stdout(Stdio::null()).spawn().unwrap();
    until("the node is asked", async || !database.store.open_requests(here).await.unwrap().is_empty()).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let nodes = database.store.nodes().await.unwrap();
    let left = nodes.iter().find(|node| node.node != here).unwrap();
    assert!(left.name.as_str().starts_with("presence-cli:"), "{left:?}");
    assert!(matches!(left.state, NodeState::Live { .. }) && left.presences == 0, "{left:?}");
    let later = database.ahead(SECOND * 15);
    assert_eq!(later.open_requests(here).await.unwrap(), [], "nobody waits for the answer");
    assert_eq!(later.fence(here).await.unwrap(), [], "there is nothing to clear");
    assert_eq!(later.nodes().await.unwrap().len(), 1, "it is forgotten");
}

/// A node in this process and on this database.
async fn live(database: &TestDatabase, config: ConfigBuilder) -> Rooms {
    let rooms = Rooms::with_clock(
        config.build().unwrap(),
        database.ago(Duration::ZERO),
        NodeName::new("web-1").unwrap(),
        Clock::system(),
    );
    PruningSupervisor::spawn(&rooms);
    rooms.ready().await;
    rooms
}

fn sweeps_often() -> ConfigBuilder {
    Config::builder().sweep_interval(Duration::from_millis(50))
}

async fn join(rooms: &Rooms, room: &RoomName, user: &str) {
    let mut changes = rooms.changes_of(room);
    join_without_socket(rooms, room, Some(UserId::new(user).unwrap())).await.unwrap();
    let _ = changes.next().await;
}

/// Runs the tool without standing in the way of what lives on this thread.
async fn beside(database: &TestDatabase, arguments: &'static [&'static str]) -> Ran {
    let command = database.command(arguments);
    actix_web::rt::task::spawn_blocking(move || run(command)).await.unwrap()
}

/// How many a run of the tool removed at the nodes that it asked, all of which answered.
fn pruned(document: &serde_json::Value) -> u64 {
    // One that came when all had gone had nobody to ask.
    let asked = document["nodes"].as_array().unwrap();
    assert!(asked.iter().all(|node| node["outcome"] == "answered"), "{document}");
    document["pruned"].as_u64().unwrap()
}

#[actix_web::test]
async fn a_live_node_prunes_by_its_own_clock_and_answers_with_its_count() {
    let database = TestDatabase::new().await;
    let rooms = live(&database, sweeps_often()).await;
    let lobby = room("lobby");
    for user in ["ann", "bob"] {
        join(&rooms, &lobby, user).await;
    }
    // The database would learn of a touch after 15 s: only the node itself can know that Eve is not silent.
    let (eve, channel) = (UserId::new("eve").unwrap(), ChannelName::new("eve-s").unwrap());
    rooms.add(&lobby, &channel, Some(&eve)).await.unwrap();
    let (touching, mut beat) = (rooms.clone(), actix_web::rt::time::interval(Duration::from_millis(100)));
    let touches = actix_web::rt::spawn(async move {
        loop {
            beat.tick().await;
            touching.touch(&channel);
        }
    });
    let node = rooms.node().unwrap();
    let mut total = 0;
    until("both who are silent have been pruned", async || {
        let ran = beside(&database, &["prune-presences", "--age", "3s", "--json"]).await.json();
        let pruned = pruned(&ran);
        let asked = json!([{"node": "web-1", "node_id": node, "outcome": "answered", "pruned": pruned}]);
        assert_eq!(ran, json!({"max_age_ms": 3000, "pruned": pruned, "nodes": asked, "orphaned": 0}));
        total += pruned;
        total == 2
    })
    .await;
    assert_eq!(rooms.users(&lobby).await.unwrap(), [eve]);
    let text = beside(&database, &["prune-presences"]).await.done();
    assert_eq!(text, "node web-1: pruned 0\nheld or of no live node: pruned 0\npruned 0 presences not seen for 1m\n");
    touches.abort();
    rooms.shutdown().await;
}

#[actix_web::test]
async fn runs_at_once_get_answers_of_their_own_and_count_each_presence_once() {
    let database = TestDatabase::new().await;
    let rooms = live(&database, sweeps_often()).await;
    let places = [room("lobby"), room("bar")];
    for place in &places {
        join(&rooms, place, "ann").await;
    }
    let mut total = 0;
    until("both have been pruned", async || {
        let runs = (0..4).map(|_| beside(&database, &["prune-presences", "--age", "1s", "--json"]));
        let documents = futures_util::future::join_all(runs).await.into_iter().map(Ran::json);
        total += documents.map(|document| pruned(&document)).sum::<u64>();
        let mut left = 0;
        for place in &places {
            left += rooms.count(place).await.unwrap().presences;
        }
        left == 0
    })
    .await;
    assert_eq!(total, 2);
    rooms.shutdown().await;
}

#[actix_web::test]
async fn a_running_node_notices_what_the_tool_removed_at_its_next_look() {
    let database = TestDatabase::new().await;
    let past = database.ago(LEASE * 2);
    let dead = node(&past, "dead").await;
    change(&past, dead, "lobby", [Write::Join(presence(dead, "a", "ann"))]).await;
    // It sweeps too rarely to answer; what is dead is the tool's own to remove all the same.
    let config = Config::builder().sweep_interval(SECOND * 600).reconcile_interval(Duration::from_millis(50));
    let rooms = live(&database, config).await;
    let lobby = room("lobby");
    join(&rooms, &lobby, "bob").await;
    assert_eq!(rooms.users(&lobby).await.unwrap().len(), 2);
    let ran = beside(&database, &["prune-presences", "--age=60s", "--wait=100ms"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (Some(4), "error: node `web-1` did not answer within 100ms\n"));
    assert_eq!(
        ran.out,
        "node web-1: no answer\nheld or of no live node: pruned 1\npruned 1 presence not seen for 1m\n"
    );
    until("the node has noticed", async || rooms.users(&lobby).await.unwrap().len() == 1).await;
    rooms.shutdown().await;
}
