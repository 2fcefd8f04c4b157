//! `rooms`, `members`, `users` and `nodes`.

use std::time::Duration;

use presence::store::{ClearMode, NodeStore, Write};
use serde_json::json;

use super::database::{LEASE, TestDatabase, change, crowd, node, presence, with_meta};

#[tokio::test]
async fn where_nothing_is_it_says_so() {
    let database = TestDatabase::new().await;
    assert_eq!(database.run(&["rooms"]).done(), "no rooms\n");
    assert_eq!(database.run(&["nodes"]).done(), "no nodes\n");
    assert_eq!(database.run(&["members", "lobby"]).done(), "nobody is in this room\n");
    assert_eq!(database.run(&["users", "lobby"]).done(), "no users\n");
    assert_eq!(database.run(&["rooms", "--json"]).json(), json!({"rooms": []}));
    assert_eq!(database.run(&["nodes", "--json"]).json(), json!({"nodes": []}));
    let members = json!({"room": "lobby", "epoch": null, "version": null, "members": []});
    assert_eq!(database.run(&["members", "lobby", "--json"]).json(), members);
    let users = json!({"room": "lobby", "users": [], "anonymous": 0});
    assert_eq!(database.run(&["users", "lobby", "--json"]).json(), users);
}

#[tokio::test]
async fn rooms_are_a_table_for_people_and_a_document_for_programs() {
    let database = TestDatabase::new().await;
    let here = node(&database.store, "here").await;
    let three = [presence(here, "1", "ann"), presence(here, "2", "ann"), presence(here, "3", "")];
    let commit = change(&database.store, here, "lobby", three.into_iter().map(Write::Join)).await;
    crowd(&database.store, here, "名前 👩‍👩‍👧", 12).await;
    let table = "\
ROOM     USERS  ANONYMOUS  PRESENCES  HELD  VERSION
lobby        1          1          3     0        1
名前 👩‍👩‍👧      0         12         12     0        1
";
    assert_eq!(database.run(&["rooms"]).done(), table);
    let document = database.run(&["rooms", "--json"]).json();
    let lobby = json!({
        "room": "lobby", "epoch": commit.epoch, "version": 1, "users": 1, "anonymous": 1, "presences": 3, "held": 0
    });
    assert_eq!((&document["rooms"][0], document["rooms"].as_array().unwrap().len()), (&lobby, 2));
}

#[tokio::test]
async fn hostile_names_break_no_line_and_are_exact_for_programs() {
    let database = TestDatabase::new().await;
    let here = node(&database.store, "here").await;
    let names =
        ["\u{2028}evil", "שלום", "a\u{2028}b", " x ", "\"q\"", "a\\b", "\u{200b}x", "🦀", "e\u{301}", &"x".repeat(255)];
    for name in names {
        change(&database.store, here, name, [Write::Join(presence(here, name, name))]).await;
    }
    let table = database.run(&["rooms"]).done();
    assert_eq!(table.lines().count(), 1 + names.len());
    for line in table.lines().skip(1) {
        let numbers: Vec<_> = line.split(' ').rev().filter(|cell| !cell.is_empty()).take(5).collect();
        assert_eq!(numbers, ["1", "0", "1", "0", "1"], "{line:?}");
    }
    assert!(table.contains(&format!("{}…  ", "x".repeat(59))), "what is long is cut: {table}");
    assert!(table.lines().all(|line| line.chars().count() < 120), "{table}");
    for name in ["שלום", "\"q\"", "a\\b", "🦀"] {
        assert!(table.lines().any(|line| line.starts_with(&format!("{name}  "))), "{name}: {table}");
    }
    let mut told: Vec<_> = database.run(&["rooms", "--json"]).json()["rooms"]
        .as_array()
        .unwrap()
        .iter()
        .map(|room| room["room"].as_str().unwrap().to_owned())
        .collect();
    let mut expected = names.map(str::to_owned);
    told.sort();
    expected.sort();
    assert_eq!(told, expected);
    for name in names {
        let users = database.run(&["users", "--json", "--", name]).json();
        assert_eq!(users, json!({"room": name, "users": [{"user": name, "presences": 1}], "anonymous": 0}));
        assert_eq!(database.run(&["members", "--", name]).done().lines().count(), 2);
    }
    change(&database.store, here, "--json", [Write::Join(presence(here, "a", "ann"))]).await;
    assert_eq!(database.run(&["users", "--", "--json"]).done(), "USER  PRESENCES\nann           1\n");
}

#[tokio::test]
async fn members_are_told_with_their_nodes_and_metas() {
    let database = TestDatabase::new().await;
    let here = node(&database.store, "web-1").await;
    let busy = with_meta(&presence(here, "1", "bob"), "{ \"at\" : 1e2,\n \"says\":\"a b \u{9b}2J\" }");
    let (ann, anonymous) = (presence(here, "2", "ann"), presence(here, "3", ""));
    let joins = [&busy, &ann, &anonymous].map(|one| Write::Join(one.clone()));
    let commit = change(&database.store, here, "lobby", joins).await;
    let table = format!(
        "\
USER         NODE   STATE  {}  CHANNEL  META
ann          web-1  here   {}  2        {{}}
bob          web-1  here   {}  1        {{\"at\":1e2,\"says\":\"a b \\u009b2J\"}}
(anonymous)  web-1  here   {}  3        {{}}
",
        format_args!("{:36}", "ID"),
        ann.id,
        busy.id,
        anonymous.id
    );
    assert_eq!(database.run(&["members", "lobby"]).done(), table);
    let one = |id, channel, meta| json!([{"id": id, "channel": channel, "node": "web-1", "node_id": here, "held": false, "meta": meta}]);
    let expected = json!({"room": "lobby", "epoch": commit.epoch, "version": 1, "members": [
        {"user": "ann", "presences": one(ann.id, "2", json!({}))},
        {"user": "bob", "presences": one(busy.id, "1", json!({"at": 100.0, "says": "a b \u{9b}2J"}))},
        {"user": null, "presences": one(anonymous.id, "3", json!({}))},
    ]});
    assert_eq!(database.run(&["members", "lobby", "--json"]).json(), expected);
    let users = json!({"room": "lobby", "users": [
        {"user": "ann", "presences": 1}, {"user": "bob", "presences": 1}
    ], "anonymous": 1});
    assert_eq!(database.run(&["users", "lobby", "--json"]).json(), users);
}

#[tokio::test]
async fn nodes_are_told_by_the_state_of_their_lease() {
    let database = TestDatabase::new().await;
    // One that was killed a lease and a half ago, one that was replaced and still holds a presence, and one that lives.
    let past = database.ago(LEASE * 3 / 2);
    let dead = node(&past, "dead").await;
    crowd(&past, dead, "lobby", 1).await;
    let former = node(&database.store, "web").await;
    crowd(&database.store, former, "bar", 2).await;
    let live = node(&database.store, "web").await;
    let held = ClearMode::HoldAll(Duration::from_secs(600));
    assert_eq!(database.store.clear(live, former, held, 1).await.unwrap().handled, 1);

    let table = database.run(&["nodes"]).done();
    let lines: Vec<Vec<_>> = table.lines().map(|line| line.split("  ").map(str::trim).collect()).collect();
    let cells = |row: usize| lines[row].iter().filter(|cell| !cell.is_empty()).copied().collect::<Vec<_>>();
    assert_eq!(cells(0), ["NODE", "STATE", "LEASE", "STARTED", "PRESENCES", "HELD", "PROCESS", "ID"]);
    assert_eq!(cells(1)[..2], ["dead", "expired"]);
    assert!(cells(1)[2].starts_with("expired 3") && cells(1)[2].ends_with("s ago"), "{table}");
    assert!(cells(1)[3].starts_with("1m 3"), "{table}");
    assert_eq!(cells(2)[..3], ["web", "superseded", "-"]);
    assert_eq!(cells(2)[4..6], ["2", "1"]);
    let process = format!("pid {} on ", std::process::id());
    assert!(cells(2)[6].starts_with(&process) && cells(2)[7] == former.to_string(), "{table}");
    assert_eq!(cells(3)[..2], ["web", "live"]);
    assert!(cells(3)[2].ends_with("s left"), "{table}");

    let document = database.run(&["nodes", "--json"]).json();
    let nodes = document["nodes"].as_array().unwrap();
    let told = |at: usize| {
        let node = &nodes[at];
        (node["node"].as_str().unwrap(), node["state"].as_str().unwrap(), node["presences"].as_u64().unwrap())
    };
    assert_eq!([told(0), told(1), told(2)], [("dead", "expired", 1), ("web", "fenced", 2), ("web", "live", 0)]);
    assert_eq!([&nodes[0]["node_id"], &nodes[1]["node_id"]], [&json!(dead), &json!(former)]);
    assert!(nodes[0]["lease_left_ms"].as_i64().unwrap() < -20_000, "{document}");
    assert_eq!(nodes[1]["process"], cells(2)[6]);
    assert_eq!((&nodes[1]["lease_left_ms"], &nodes[1]["superseded"]), (&json!(null), &json!(true)));
    assert!(nodes[1]["fenced_ms_ago"].as_u64().unwrap() < 60_000, "{document}");
    assert!(nodes[2]["lease_left_ms"].as_i64().unwrap() > 0 && nodes[2]["age_ms"].is_u64(), "{document}");
    assert_eq!(nodes[2]["held"], json!(0));
}
