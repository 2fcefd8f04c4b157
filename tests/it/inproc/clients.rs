//! Clients of other makers, with their default settings, in large rooms. They know nothing of parts, and end up right.

use super::host::{Host, room};
use crate::support::member::encoded;
use crate::support::{alone, secs, within};
use futures_util::StreamExt;
use presence::config::Notify;
use presence::name::{ChannelName, NodeId, NodeName, PresenceId, UserId};
use presence::store::{Attempt, RoomWrites, Store, Write};
use presence::{Meta, Presence, PruningSupervisor, Reconcile};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// The default of `max_frame_sent`.
const MAX_FRAME_SENT: usize = 32_000;
/// So many come and go while the clients are in the room.
const PASSERS_BY: usize = 50;

/// Who is here, as a client that read all frames has it.
#[derive(Debug, Deserialize)]
struct Seen {
    users: BTreeSet<String>,
    /// The largest text that it got, in bytes.
    largest: usize,
}

/// A program in another language that enters a room; see `tests/clients`. Ended when dropped.
struct Program {
    library: &'static str,
    lines: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl Program {
    fn enter(library: &'static str, url: &str) -> Self {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
        let tools = tools();
        let (program, script) = match library {
            "websockets" | "aiohttp" => (tools.join("python/bin/python"), "enter.py"),
            _ => ("node".into(), "enter.mjs"),
        };
        let process = Command::new(&program)
            .arg(sources.join(script))
            .args([library, url])
            .current_dir(&tools)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut process = process.unwrap_or_else(|error| panic!("{program:?}: {error}; `tests/run` installs it"));
        let lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        Self { library, lines, _process: process }
    }

    async fn line(&mut self) -> String {
        let what = format!("a line of {}", self.library);
        let line = within(secs(120), &what, self.lines.next_line()).await.unwrap();
        line.unwrap_or_else(|| panic!("{} ended; its error is above", self.library))
    }
}

/// Where `tests/run` installs the clients.
fn tools() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(target).join("tools/clients");
    assert!(
        folder.exists(),
        "the clients of other languages are not in {}: `tests/run` installs them",
        folder.display()
    );
    folder
}

/// tokio-tungstenite, up to the same end as the programs.
async fn tungstenite(url: String) -> Seen {
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let mut users = BTreeMap::<String, BTreeSet<String>>::new();
    let (mut version, mut largest) = (None, 0);
    loop {
        let message = socket.next().await.expect("it stays in the room").unwrap();
        let tokio_tungstenite::tungstenite::Message::Text(text) = message else { continue };
        largest = largest.max(text.len());
        let frame: serde_json::Value = serde_json::from_str(&text).unwrap();
        let text_of = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        if frame["type"] == "presence.state" {
            users.clear();
            for member in frame["members"].as_array().unwrap() {
                let ids = member["presences"].as_array().unwrap().iter().map(|one| text_of(&one["id"]));
                users.entry(text_of(&member["user"])).or_default().extend(ids);
            }
        } else if frame["type"] == "presence.diff" {
            assert_eq!(frame["from"].as_u64(), version, "a step is missing");
            for list in ["joins", "updates"] {
                for entry in frame[list].as_array().unwrap() {
                    users.entry(text_of(&entry["user"])).or_default().insert(text_of(&entry["id"]));
                }
            }
            for entry in frame["leaves"].as_array().unwrap() {
                users.get_mut(entry["user"].as_str().unwrap()).unwrap().remove(entry["id"].as_str().unwrap());
            }
            users.retain(|_, ids| !ids.is_empty());
        } else {
            continue;
        }
        version = frame["version"].as_u64();
        if frame["more"] != true && users.contains_key("last") {
            return Seen { users: users.into_keys().collect(), largest };
        }
    }
}

/// Members of another node, whom this one learns of from the store.
async fn fill(host: &Host, members: impl Iterator<Item = (String, Meta)>) -> BTreeSet<String> {
    let (store, node) = (host.store.inner(), NodeId::random());
    store.register(node, &NodeName::new("elsewhere").unwrap(), secs(3600)).await.unwrap();
    let mut names = BTreeSet::new();
    let mut writes = Vec::new();
    for (n, (name, meta)) in members.enumerate() {
        let channel = ChannelName::new(format!("elsewhere.{n}")).unwrap();
        let mut presence = Presence::new(PresenceId::random(), channel, Some(UserId::new(&*name).unwrap()), node);
        presence.meta = meta;
        writes.push(Write::Join(Arc::new(presence)));
        names.insert(name);
    }
    store.commit(node, Attempt::next(), &[RoomWrites { room: room("lobby"), writes }]).await.unwrap();
    let supervisor = PruningSupervisor::spawn(&host.rooms, NodeName::new("here").unwrap());
    supervisor.send(Reconcile).await.unwrap().unwrap();
    names
}

/// All clients enter a room with these members, stay while others come and go and a large text is sent, and know who is here.
async fn all_clients_enter(members: impl Iterator<Item = (String, Meta)>) {
    let _alone = alone().await;
    let host = Host::plan().config(|config| config.notify(Notify::Diff).max_age(secs(600))).start().await;
    let mut expected = fill(&host, members).await;
    let url = |name: &str| format!("ws://{}/puppet?name={name}&connect={}", host.address, encoded("join lobby"));
    let rust = tokio::spawn(tungstenite(url("tungstenite")));
    let libraries = ["websockets", "aiohttp", "ws", "undici"];
    let mut programs: Vec<_> = libraries.iter().map(|library| Program::enter(library, &url(library))).collect();
    for program in &mut programs {
        assert_eq!(program.line().await, "entered", "{}", program.library);
    }
    for n in 0..PASSERS_BY {
        drop(host.open(&format!("passer-by-{n}"), "join lobby").await);
    }
    let text = serde_json::json!({"type": "message", "text": "x".repeat(MAX_FRAME_SENT - 100)}).to_string();
    host.rooms.send(&room("lobby"), text).await;
    let _last = host.open("last", "join lobby").await;
    expected.extend(libraries.iter().chain(&["tungstenite", "last"]).map(|&name| name.to_owned()));

    let mut seen = Vec::new();
    for program in &mut programs {
        seen.push((program.library, serde_json::from_str::<Seen>(&program.line().await).unwrap()));
    }
    seen.push(("tungstenite", within(secs(120), "tungstenite", rust).await.unwrap()));
    for (library, Seen { users, largest }) in seen {
        assert!(largest <= MAX_FRAME_SENT, "{library} got {largest} bytes");
        let strangers: Vec<_> = users.difference(&expected).filter(|name| !name.starts_with("passer-by-")).collect();
        assert!(strangers.is_empty(), "{library} knows {strangers:?}");
        // Those whose library is named before this one may have read the end, and left.
        let missing: Vec<_> = expected.difference(&users).filter(|name| !libraries.contains(&&***name)).collect();
        assert!(missing.is_empty(), "{library} does not know {} of them: {:.300?}", missing.len(), missing);
    }
}

#[tokio::test]
async fn clients_with_default_settings_enter_a_room_of_twenty_thousand_with_long_names() {
    let long = |n: usize| (format!("{n:05}{}", "x".repeat(250)), Meta::default());
    all_clients_enter((0..20_000).map(long)).await;
}

#[tokio::test]
async fn clients_with_default_settings_enter_a_room_of_three_hundred_with_full_metas() {
    let full = |n: usize| {
        let meta = serde_json::json!({"a": "x".repeat(4096 - r#"{"a":""}"#.len())});
        (format!("member-{n}"), Meta::new(&meta).unwrap())
    };
    all_clients_enter((0..300).map(full)).await;
}
