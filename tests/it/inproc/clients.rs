//! Clients of other makers, with their default settings, in large rooms. They know nothing of parts, and end up right.

use super::host::{Host, room};
use super::puppet::Did;
use crate::support::frame::ReceivedFrame;
use crate::support::member::encoded;
use crate::support::{Duration, alone, eventually, millis, secs, within};
use futures_util::StreamExt;
use presence::{
    ChannelName, ConfigBuilder, Meta, NodeId, NodeName, Notify, Presence, PresenceId, PruningSupervisor, UserId,
    actor::Reconcile,
    store::{Attempt, NodeStore, RoomStore, RoomWrites, Write},
};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpSocket};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

/// The default of `max_frame_sent`.
const MAX_FRAME_SENT: usize = 32_000;
/// So many come and go while the clients are in the room: for 10 s, if the machine lets them come that fast.
const PASSERS_BY: usize = 500;
const PASSERS_BY_A_SECOND: u64 = 50;
/// As `tests/clients` has them, and one whose library sends pings of its own and is lost without the answers.
const LIBRARIES: [&str; 4] = ["websockets", "aiohttp", "ws", "undici"];
const KEEPALIVE: &str = "keepalive";

/// PresencesByUser, and the ids of their presences.
type PresencesByUser = BTreeMap<String, BTreeSet<String>>;

/// Who is here, as a client that read all frames has it.
#[derive(Debug, Deserialize)]
struct LastView {
    users: PresencesByUser,
    /// How many presences it saw leave.
    left: usize,
    /// The largest text that it got, in bytes.
    largest: usize,
}

/// A program in another language that enters a room; see `tests/clients`. Ended when dropped.
struct ClientProgram {
    library: &'static str,
    lines: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl ClientProgram {
    fn enter(library: &'static str, url: &str) -> Self {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
        let tools = tools();
        let (program, script) = match library {
            "websockets" | "aiohttp" | KEEPALIVE => (tools.join("python/bin/python"), "enter.py"),
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

/// tokio-tungstenite, up to the same end as the programs. It stays as long as what this gives.
async fn tungstenite(url: String) -> (LastView, impl Sized) {
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let mut users = PresencesByUser::new();
    let (mut version, mut left, mut largest) = (None, 0, 0);
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
                left += 1;
            }
            users.retain(|_, ids| !ids.is_empty());
        } else {
            continue;
        }
        version = frame["version"].as_u64();
        if frame["more"] != true && users.contains_key("last") {
            return (LastView { users, left, largest }, socket);
        }
    }
}

/// Members of another node, whom this one learns of from the store.
async fn fill(host: &Host, members: impl Iterator<Item = (String, Meta)>) {
    let (store, node) = (host.store.inner(), NodeId::random());
    store.register(node, NodeName::new("elsewhere").unwrap(), secs(3600)).await.unwrap();
    let mut writes = Vec::new();
    for (n, (name, meta)) in members.enumerate() {
        let channel = ChannelName::new(format!("elsewhere.{n}")).unwrap();
        let mut presence = Presence::new(PresenceId::random(), channel, Some(UserId::new(&*name).unwrap()), node);
        presence.meta = meta;
        writes.push(Write::Join(Arc::new(presence)));
    }
    store.commit(node, Attempt::next(), [RoomWrites { room: room("lobby"), writes }].into()).await.unwrap();
    let supervisor = PruningSupervisor::spawn(&host.rooms);
    supervisor.send(Reconcile).await.unwrap().unwrap();
}

/// Who is in the room, as the server has it.
async fn users(host: &Host) -> PresencesByUser {
    let members = host.rooms.members(&room("lobby")).await.unwrap();
    let known = members.into_iter().map(|member| {
        let Some(user) = member.user() else { panic!("nobody here is without a name: {member:?}") };
        (user.to_string(), member.presences().iter().map(|one| one.id.to_string()).collect())
    });
    known.collect()
}

/// Others enter, are sent the beginning of the room, and go without a word, so many a second, until all have been there.
async fn others_come_and_go(host: &Host) {
    let mut ticks = tokio::time::interval(secs(1) / u32::try_from(PASSERS_BY_A_SECOND).unwrap());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut visits = JoinSet::new();
    for n in 0..PASSERS_BY {
        ticks.tick().await;
        let (upgrade, address) = (host.upgrade(&format!("passer-by-{n}"), "join lobby"), host.address);
        visits.spawn(async move {
            let mut socket =
                upgrade.open(address).await.unwrap_or_else(|refused| panic!("{n} is refused: {refused:?}"));
            assert!(matches!(socket.next().await, ReceivedFrame::Text(_)));
        });
    }
    while let Some(visit) = visits.join_next().await {
        visit.unwrap();
    }
}

/// The room becomes one with just these users.
async fn becomes(host: &Host, names: &BTreeSet<String>) {
    eventually(secs(120), "that all others have left", async || {
        let users = users(host).await;
        let strangers: Vec<_> = users.keys().filter(|&user| !names.contains(user)).take(3).collect();
        if users.keys().eq(names) { Ok(()) } else { Err(format!("{} users, among them {strangers:?}", users.len())) }
    })
    .await;
}

async fn host() -> Host {
    // How long a join may wait for the database of a busy machine is not what is asked here.
    let config = |config: ConfigBuilder| config.notify(Notify::Diff).max_age(secs(600)).store_timeout(secs(60));
    Host::plan().config(config).start().await
}

fn url(address: SocketAddr, name: &str) -> String {
    format!("ws://{address}/puppet?name={name}&connect={}", encoded("join lobby"))
}

/// All clients enter a room with these members, stay while others come and go and a large text is sent, and list the members correctly.
async fn all_clients_enter(members: impl Iterator<Item = (String, Meta)>) {
    let _alone = alone().await;
    let mut host = host().await;
    fill(&host, members).await;
    let mut names: BTreeSet<_> = users(&host).await.into_keys().collect();
    let rust = tokio::spawn(tungstenite(url(host.address, "tungstenite")));
    let mut programs = LIBRARIES.map(|library| ClientProgram::enter(library, &url(host.address, library)));
    for program in &mut programs {
        assert_eq!(program.line().await, "entered", "{}", program.library);
    }
    others_come_and_go(&host).await;
    names.extend(LIBRARIES.iter().chain(&["tungstenite"]).map(|&name| name.to_owned()));
    becomes(&host, &names).await;
    let text = serde_json::json!({"type": "message", "text": "x".repeat(MAX_FRAME_SENT - 100)}).to_string();
    host.rooms.send(&room("lobby"), text).await.unwrap();
    let _last = host.open("last", "join lobby").await;

    let mut seen = Vec::new();
    for program in &mut programs {
        seen.push((program.library, serde_json::from_str::<LastView>(&program.line().await).unwrap()));
    }
    let (of_rust, _stays) = within(secs(120), "tungstenite", rust).await.unwrap();
    seen.push(("tungstenite", of_rust));
    let expected = users(&host).await;
    assert!(expected.contains_key("last"));
    for (library, LastView { users, left, largest }) in seen {
        assert!(largest <= MAX_FRAME_SENT, "{library} got {largest} bytes");
        // A presence that joins and leaves within one notice is not in it.
        assert!((1..=PASSERS_BY).contains(&left), "{library} saw {left} leave");
        let wrong: Vec<_> =
            expected.iter().filter(|&(user, ids)| users.get(user) != Some(ids)).map(|(user, _)| user).collect();
        assert!(wrong.is_empty(), "{library} is wrong about {} users: {:.300?}", wrong.len(), wrong);
        assert_eq!(users.len(), expected.len(), "{library} knows users who are not here");
        let did = host.did(library);
        assert!(
            !did.iter().any(|did| matches!(did, Did::Disconnecting(_))),
            "{library} was not there all the time: {did:?}"
        );
    }
}

#[tokio::test]
async fn clients_with_default_settings_enter_a_room_of_twenty_thousand_with_long_names_and_stay_while_others_come_and_go()
 {
    all_clients_enter((0..20_000).map(long)).await;
}

#[tokio::test]
async fn clients_with_default_settings_enter_a_room_of_three_hundred_with_full_metas_and_stay_while_others_come_and_go()
{
    let full = |n: usize| {
        let meta = serde_json::json!({"a": "x".repeat(4096 - r#"{"a":""}"#.len())});
        (format!("member-{n}"), Meta::new(&meta).unwrap())
    };
    all_clients_enter((0..300).map(full)).await;
}

/// The name of one of many, as long as names may be.
fn long(n: usize) -> (String, Meta) {
    (format!("{n:05}{}", "x".repeat(250)), Meta::default())
}

/// What the line of `slow_line` carries to the client each `SLOW_LINE_PIECE_EVERY`: 0.5 MB/s, so that the state of `LARGE` long names takes 13 s.
const SLOW_LINE_PIECE: usize = 25_000;
const SLOW_LINE_PIECE_EVERY: Duration = millis(50);
const LARGE: usize = 20_000;

/// A line to the server that carries little a second to the client. Ends with the test.
async fn slow_line(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        // Little waits in the kernels.
        socket.set_recv_buffer_size(u32::try_from(SLOW_LINE_PIECE).unwrap()).unwrap();
        let (mut from_server, mut to_server) = socket.connect(server).await.unwrap().into_split();
        let (mut from_client, mut to_client) = client.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
        let mut ticks = tokio::time::interval(SLOW_LINE_PIECE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut piece = vec![0; SLOW_LINE_PIECE];
        loop {
            ticks.tick().await;
            match from_server.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(bytes) => to_client.write_all(&piece[..bytes]).await.unwrap(),
            }
        }
    });
    address
}

#[tokio::test]
async fn a_library_that_waits_5_s_for_the_answers_to_its_pings_enters_a_large_room_over_a_line_that_needs_longer() {
    let _alone = alone().await;
    let mut host = host().await;
    fill(&host, (0..LARGE).map(long)).await;
    let mut program = ClientProgram::enter(KEEPALIVE, &url(slow_line(host.address).await, KEEPALIVE));
    assert_eq!(program.line().await, "entered");
    let _last = host.open("last", "join lobby").await;
    let seen: LastView = serde_json::from_str(&program.line().await).unwrap();
    assert!(seen.users == users(&host).await, "it knows who is here");
    let did = host.did(KEEPALIVE);
    assert!(!did.iter().any(|did| matches!(did, Did::Disconnecting(_))), "{did:?}");
}
