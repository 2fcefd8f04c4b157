//! How large what a client is sent can get: a state and a diff come in parts, and a text that is too large is not passed on.

use crate::support::frame::ReceivedFrame;
use crate::support::member::{RoomClient, Told, path};
use crate::support::roster::ClientRoster;
use crate::support::server::ChatServer;
use crate::support::socket::{ClientSocket, HandshakeRequest};
use crate::support::{secs, within};
use serde_json::{Value, json};

/// The least that a frame may be bounded to.
const LEAST: usize = 6_000;

/// A receive buffer that holds next to nothing.
const TINY: u32 = 4096;

/// A name as long as names get, which JSON makes almost twice as long.
fn long_name(n: usize) -> String {
    format!("{n:03}{}", "\"".repeat(252))
}

/// The next frame as JSON, which must be small enough.
async fn bounded(socket: &mut ClientSocket) -> Value {
    let ReceivedFrame::Text(text) = socket.next().await else { panic!("a text") };
    assert!(text.len() <= LEAST, "a frame of {} bytes", text.len());
    serde_json::from_str(&text).unwrap()
}

/// Reads whole states and diffs until the roster is as asked; returns how many frames were only a part.
async fn reads(member: &mut RoomClient, what: &str, is_so: impl Fn(&ClientRoster) -> bool) -> usize {
    let mut parts = 0;
    within(secs(60), what, async {
        while member.roster.more || !is_so(&member.roster) {
            let before = member.roster.more;
            let frame = bounded(&mut member.socket).await;
            let told = member.apply(&frame);
            assert!(!before || matches!(told, Told::Diff(_)), "between two parts: {frame}");
            parts += usize::from(member.roster.more);
        }
    })
    .await;
    parts
}

/// Reads frames of any size until the roster is as asked.
async fn until(member: &mut RoomClient, what: &str, is_so: impl Fn(&ClientRoster) -> bool) {
    member.until(what, |roster| !roster.more && is_so(roster)).await;
}

/// How many have a full meta.
fn full(roster: &ClientRoster) -> usize {
    let metas = roster.users.values().flat_map(|presences| presences.values());
    metas.filter(|meta| meta["a"].is_string()).count()
}

#[tokio::test]
async fn a_large_state_and_a_large_diff_come_in_small_frames_and_end_in_the_truth() {
    const CROWD: usize = 40;
    let server = ChatServer::start(&["--max-frame-sent", &LEAST.to_string()]).await;
    let room = "\"".repeat(255);
    let mut first = RoomClient::join(&server, &room, &long_name(0)[..]).await;
    let mut joining = tokio::task::JoinSet::new();
    for n in 0..CROWD {
        let (address, path) = (server.address(), path(&room, &long_name(n + 1)[..]));
        joining.spawn(async move {
            let mut socket = HandshakeRequest::to(path).open(address).await.expect("a join is accepted");
            socket.json(json!({"type": "update", "meta": {"a": "x".repeat(4000)}})).await;
            socket
        });
    }
    let crowd = joining.join_all().await;
    reads(&mut first, "all metas", |roster| full(roster) == CROWD).await;

    let mut socket = HandshakeRequest::to(path(&room, "last")).open(server.address()).await.unwrap();
    let state = bounded(&mut socket).await;
    assert_eq!((&state["type"], &state["more"]), (&json!("presence.state"), &json!(true)));
    let mut last = RoomClient::with(socket, ClientRoster::first(&state));
    let pages = reads(&mut last, "the other pages", |_| true).await;
    assert_eq!(full(&last.roster), CROWD);
    assert!(pages + 2 >= CROWD, "one page for each full meta, not {pages}");
    assert!(last.roster.users["last"].contains_key(&last.roster.me), "the joiner is in its own state");
    reads(&mut first, "the last one", |roster| roster.users.contains_key("last")).await;
    assert_eq!((first.roster.ids(), first.roster.version), (last.roster.ids(), last.roster.version));

    // All leave at once, so that the diffs come in parts.
    drop(crowd);
    let mut parts = 0;
    for member in [&mut first, &mut last] {
        parts += reads(member, "all to have left", |roster| roster.users.len() == 2).await;
    }
    println!("{parts} parts of diffs");
    assert_eq!((first.roster.ids(), first.roster.version), (last.roster.ids(), last.roster.version));
}

#[tokio::test]
async fn a_notice_that_comes_in_parts_is_not_interrupted_by_a_message() {
    const CROWD: usize = 30;
    let server = ChatServer::start(&["--max-frame-sent", &LEAST.to_string()]).await;
    let mut watcher = RoomClient::join(&server, "lobby", "watcher").await;
    let mut speaker = RoomClient::join(&server, "lobby", "speaker").await;
    watcher.sees_join("speaker").await;
    let mut joining = tokio::task::JoinSet::new();
    for n in 0..CROWD {
        let (address, path) = (server.address(), path("lobby", &long_name(n)[..]));
        joining.spawn(async move { HandshakeRequest::to(path).open(address).await.expect("a join is accepted") });
    }
    within(secs(60), "everybody to be here", async {
        while speaker.roster.users.len() < CROWD + 2 {
            speaker.says("and another thing").await;
            while matches!(speaker.told().await, Told::Diff(_)) {}
        }
    })
    .await;
    let _crowd = joining.join_all().await;
    reads(&mut watcher, "everybody to be here", |roster| roster.users.len() == CROWD + 2).await;
}

#[tokio::test]
async fn a_text_that_is_too_large_once_it_is_escaped_is_refused_to_its_sender_alone() {
    let server = ChatServer::start(&[]).await;
    let mut ann = RoomClient::join(&server, "lobby", "ann").await;
    let mut bob = RoomClient::join(&server, "lobby", "bob").await;
    ann.sees_join("bob").await;
    let empty = json!({"type": "message", "from": "ann", "text": ""}).to_string().len();
    // A control character takes six bytes in JSON.
    let fits = "\u{1}".repeat((32_000 - empty) / 6);
    for text in [format!("{fits}\u{1}"), "x".repeat(32_001 - empty), "\"".repeat(16_000)] {
        ann.says(&text).await;
        let refusal = ann.socket.value().await;
        assert_eq!((&refusal["type"], &refusal["code"]), (&json!("error"), &json!("too_large")), "{refusal}");
    }
    for text in [fits, "x".repeat(32_000 - empty)] {
        ann.says(&text).await;
        ann.hears("ann", &text).await;
        bob.hears("ann", &text).await;
    }
}

#[tokio::test]
async fn joiners_who_do_not_read_are_turned_away_when_too_much_waits_for_them_and_others_get_in_when_they_are_gone() {
    const CROWD: usize = 60;
    let server = ChatServer::start_with(&[], &[("PRESENCE_FIRST_FRAMES_ROOM_BYTES", "100000")]).await;
    let mut crowd = Vec::new();
    for n in 0..CROWD {
        let mut member = RoomClient::join(&server, "lobby", &format!("member{n:02}")[..]).await;
        member.updates(json!({"a": "x".repeat(4000)})).await;
        crowd.push(member);
    }
    let mut watcher = RoomClient::join(&server, "lobby", "watcher").await;
    until(&mut watcher, "all metas", |roster| full(roster) == CROWD).await;

    let mut stuck = Vec::new();
    let refused = loop {
        let upgrade = HandshakeRequest::to(path("lobby", &format!("stuck{:02}", stuck.len())[..])).receive_buffer(TINY);
        match upgrade.open(server.address()).await {
            Ok(socket) => stuck.push(socket),
            Err(refused) => break refused,
        }
        assert!(stuck.len() < 30, "nobody is refused");
    };
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")), "{refused:?}");
    assert!(!stuck.is_empty());
    // Those who are in go on, and other rooms take anybody.
    watcher.says("still here").await;
    RoomClient::join(&server, "elsewhere", "ann").await.leave().await;
    let log = server.log();
    assert!(log.contains("a join is refused") && log.contains("first frames wait"), "{log}");

    drop(stuck);
    let late = within(secs(30), "a place", async {
        loop {
            match HandshakeRequest::to(path("lobby", "late")).open(server.address()).await {
                Ok(socket) => return RoomClient::begin(socket).await,
                // It comes as soon as the server has noticed that they are gone.
                Err(refused) => assert_eq!(refused.status, 503, "{refused:?}"),
            }
        }
    })
    .await;
    assert_eq!(full(&late.roster), CROWD);
}

#[tokio::test]
async fn in_the_mode_list_a_frame_is_small_and_says_how_many_it_omits() {
    let server = ChatServer::start(&["--notify", "list", "--max-frame-sent", &LEAST.to_string()]).await;
    let mut sockets = Vec::new();
    for n in 1..=20_u64 {
        let mut socket = ClientSocket::open(&server, &path("lobby", &format!("{n:03}{}", "\"".repeat(252))[..])).await;
        let list = bounded(&mut socket).await;
        let payload = &list["payload"];
        let listed = payload["members"].as_array().unwrap().len() as u64;
        assert_eq!(listed + payload["omitted"].as_u64().unwrap_or(0), n, "{list}");
        assert!(listed >= n.min(10), "as many as fit, not {listed}");
        sockets.push(socket);
    }
}

#[tokio::test]
async fn the_first_list_that_is_cut_is_a_warning_and_no_other_one_is() {
    let server = ChatServer::start(&["--notify", "list", "--max-frame-sent", &LEAST.to_string()]).await;
    let lines = || server.log().lines().filter(|line| line.contains("a list of users is cut")).count();
    let mut sockets = Vec::new();
    for (room, warnings) in [("lobby", 0), ("attic", 1)] {
        for n in 0.. {
            assert_eq!(lines(), warnings, "before a list of {room} is cut");
            let mut socket = ClientSocket::open(&server, &path(room, &long_name(n)[..])).await;
            let is_cut = bounded(&mut socket).await["payload"]["omitted"].is_u64();
            sockets.push(socket);
            if is_cut {
                break;
            }
        }
        assert_eq!(lines(), 1, "after a list of {room} is cut");
    }
    let log = server.log();
    let line = log.lines().find(|line| line.contains("a list of users is cut")).unwrap();
    for part in ["WARN", "room=lobby", "omitted=1"] {
        assert!(line.contains(part), "{part:?} in {line}");
    }
}
