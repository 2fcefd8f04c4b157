//! Presences that outlive their sockets: held for a grace, and resumed by the token.

use crate::support::backend::{Backend, BackendKind};
use crate::support::database::rows_become;
use crate::support::frame::{Raw, ReceivedFrame};
use crate::support::http::get;
use crate::support::member::{RoomClient, encoded, path};
use crate::support::process::open_files;
use crate::support::roster::ClientRoster;
use crate::support::server::ChatServer;
use crate::support::socket::{ClientSocket, HandshakeRequest};
use crate::support::{BOUND, Duration, SLACK, alone, millis, secs, within};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

const TOKEN: &str = "ann-s_token_0123456789";

fn resumable(room: &str, user: Option<&str>, token: &str) -> String {
    let mark = if user.is_some() { '&' } else { '?' };
    format!("{}{mark}session={token}", path(room, user))
}

/// Ann's socket in the lobby, with her token.
async fn ann(server: &ChatServer) -> RoomClient {
    RoomClient::begin(ClientSocket::open(server, &resumable("lobby", Some("ann"), TOKEN)).await).await
}

/// Bob, who watches, and ann, whose meta says that she is busy.
async fn two(server: &ChatServer) -> (RoomClient, RoomClient) {
    let mut bob = RoomClient::join(server, "lobby", "bob").await;
    let mut ann = ann(server).await;
    bob.sees_join("ann").await;
    ann.updates(json!({"busy": true})).await;
    ann.diff().await;
    bob.diff().await;
    (bob, ann)
}

/// The token has the presence of before, and the same roster.
async fn is_back(server: &ChatServer, before: &RoomClient) -> RoomClient {
    let back = ann(server).await;
    assert_eq!(back.roster.me, before.roster.me);
    assert_eq!(back.roster.users["ann"], before.roster.users["ann"], "with its id and meta");
    back
}

#[tokio::test]
async fn who_returns_after_an_abrupt_loss_has_its_presence_again_and_others_get_no_frame() {
    let server = ChatServer::start(&[]).await;
    let (mut bob, mut first) = two(&server).await;
    for way in ["reset", "1001", "4300", "reset"] {
        let before = (first.roster.me.clone(), first.roster.users.clone());
        if let Ok(code) = way.parse() {
            first.socket.close(code).await;
            assert_eq!(first.socket.closing().await, Some(code));
        } else {
            first.socket.reset();
        }
        let back = ann(&server).await;
        assert_eq!((&back.roster.me, &back.roster.users), (&before.0, &before.1), "after {way}");
        first = back;
    }
    bob.sees_nothing_before(&server, "fence").await.leave().await;
    bob.sees_leave("fence").await;
    first.until("the fence to come and go", |roster| roster.names() == ["ann", "bob"]).await;
    first.updates(json!({"busy": false})).await;
    assert_eq!(bob.diff().await.updated(), [("ann", &json!({"busy": false}))]);
    first.leave().await;
    bob.sees_leave("ann").await;
}

#[tokio::test]
async fn any_other_close_of_the_clients_is_a_leave_at_once() {
    let server = ChatServer::start(&["--grace", "30s"]).await;
    let mut bob = RoomClient::join(&server, "lobby", "bob").await;
    for code in [None, Some(1000), Some(3000), Some(4000), Some(4299), Some(4301), Some(4999)] {
        let mut ann = ann(&server).await;
        bob.sees_join("ann").await;
        match code {
            Some(code) => ann.socket.close(code).await,
            None => ann.socket.close_empty().await,
        }
        bob.sees_leave("ann").await;
    }
    let mut ann = ann(&server).await;
    bob.sees_join("ann").await;
    ann.socket.json(json!({"type": "leave"})).await;
    bob.sees_leave("ann").await;
    ann.socket.json(json!({"type": "join"})).await;
    bob.sees_join("ann").await;
    ann.first_again().await;
    let id = ann.roster.me.clone();
    ann.socket.reset();
    assert_eq!(self::ann(&server).await.roster.me, id, "the same token after a rejoin");
    bob.sees_nothing_before(&server, "fence").await;
}

#[tokio::test]
async fn a_close_of_the_servers_for_a_broken_rule_is_a_leave_at_once() {
    let server = ChatServer::start(&["--grace", "5s", "--max-age", "5s"]).await;
    let mut bob = RoomClient::join(&server, "lobby", "bob").await;
    bob.socket.beats_every(millis(500));
    let mut broken = ann(&server).await;
    bob.sees_join("ann").await;
    broken.socket.send(Raw::text("x").unmasked()).await;
    assert_eq!(broken.socket.closing().await, Some(1002));
    bob.sees_leave("ann").await;
    let mut silent = ann(&server).await;
    bob.sees_join("ann").await;
    let seen = Instant::now();
    // Bob is seen while he waits.
    let (code, ()) = tokio::join!(silent.socket.closing(), bob.sees_leave("ann"));
    assert_eq!(code, Some(4408));
    assert!(seen.elapsed() < secs(10), "without a grace besides: {:?}", seen.elapsed());
}

#[tokio::test]
async fn of_many_sockets_with_one_token_at_once_one_stays_and_there_is_one_presence() {
    let server = ChatServer::start(&[]).await;
    let mut bob = RoomClient::join(&server, "lobby", "bob").await;
    let address = server.address();
    let mut crowd = JoinSet::new();
    for _ in 0..30 {
        crowd.spawn(async move {
            let mut socket = HandshakeRequest::to(resumable("lobby", Some("ann"), TOKEN)).open(address).await.ok()?;
            // The first frame of each, and then the close of all but one.
            loop {
                match socket.frame_within(secs(3)).await {
                    None => return Some(socket),
                    Some(ReceivedFrame::Close(code, _)) => {
                        assert_eq!(code, Some(4409));
                        return None;
                    }
                    Some(_) => {}
                }
            }
        });
    }
    let stayed: Vec<_> = crowd.join_all().await.into_iter().flatten().collect();
    assert_eq!(stayed.len(), 1);
    bob.sees_join("ann").await;
    let _fence = bob.sees_nothing_before(&server, "fence").await;
    rows_become(&server, "presences", 3, BOUND).await;
}

#[tokio::test]
async fn a_token_of_a_bad_shape_or_given_twice_is_answered_400_and_never_shown() {
    let server = ChatServer::start(&[]).await;
    let long = "x".repeat(129);
    let bad = [
        "",
        "short",
        "fifteen-letters",
        &long,
        "spaces are not allowed",
        "percent%20is-decoded",
        "dots.dots.dots.dots",
    ];
    for token in bad {
        let path = format!("/ws/lobby?user=ann&session={}", encoded(token));
        let refused = HandshakeRequest::to(&path).open(server.address()).await.expect_err("a bad token");
        assert_eq!(refused.status, 400, "{token}");
        let body = &refused.body;
        assert!(body.contains("resume token") && (token.is_empty() || !body.contains(token)), "{body}");
    }
    let twice = format!("/ws/lobby?session={TOKEN}&session={TOKEN}");
    let refused = HandshakeRequest::to(&twice).open(server.address()).await.expect_err("two tokens");
    assert_eq!(refused.status, 400);
    for good in ["sixteen-letters_", &"x".repeat(128)] {
        drop(ClientSocket::open(&server, &format!("/ws/lobby?session={good}")).await);
    }

    let (mut bob, first) = two(&server).await;
    let second = is_back(&server, &first).await;
    bob.says("anything").await;
    assert!(!format!("{:?}", bob.message().await).contains(TOKEN));
    assert!(!format!("{:?} {:?}", bob.roster, second.roster).contains(TOKEN));
    assert!(!server.log().contains(TOKEN), "{}", server.log());
    let database = std::fs::read(server.folder().join("presence.db")).unwrap();
    let journal = std::fs::read(server.folder().join("presence.db-wal")).unwrap_or_default();
    for bytes in [database, journal] {
        assert!(!bytes.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes()), "not stored in clear");
    }
}

#[tokio::test]
async fn the_other_modes_tell_others_nothing_either() {
    for mode in ["list", "events"] {
        let server = ChatServer::start(&["--notify", mode]).await;
        let mut bob = ClientSocket::open(&server, "/ws/lobby?user=bob").await;
        bob.value().await;
        let mut first = ClientSocket::open(&server, &resumable("lobby", Some("ann"), TOKEN)).await;
        let list = first.value().await;
        bob.value().await;
        first.reset();
        let mut second = ClientSocket::open(&server, &resumable("lobby", Some("ann"), TOKEN)).await;
        assert_eq!(second.value().await, list);
        bob.text("fence").await;
        bob.hears(json!({"type": "message", "from": "bob", "text": "fence"})).await;
        second.hears(json!({"type": "message", "from": "bob", "text": "fence"})).await;
    }
}

/// Handshakes under way at a time.
static OPENING: Semaphore = Semaphore::const_new(64);

/// Sockets in the lobby with a token each, and what each saw first.
async fn crowd(server: &ChatServer, count: usize) -> Vec<(ClientSocket, Value)> {
    let address = server.address();
    let mut opening = JoinSet::new();
    for n in 0..count {
        opening.spawn(async move {
            let _permit = OPENING.acquire().await.unwrap();
            let path = resumable("lobby", Some(&format!("user{n}")), &format!("token-of-user-{n:05}"));
            let mut socket =
                HandshakeRequest::to(&path).open(address).await.unwrap_or_else(|why| panic!("{path}: {why:?}"));
            let first = socket.value().await;
            (n, socket, first)
        });
    }
    let mut crowd = within(secs(120), "everybody to be in", opening.join_all()).await;
    crowd.sort_by_key(|(n, ..)| *n);
    crowd.into_iter().map(|(_, socket, first)| (socket, first)).collect()
}

#[tokio::test]
async fn a_thousand_cut_sockets_return_in_silence_within_the_grace_and_leave_and_join_once_after_it() {
    let _alone = alone().await;
    open_files(4096).expect("enough open files");
    const CROWD: usize = 1000;
    // The one who looks on reads nothing for as long as the crowd takes to come.
    let patient = [
        ("PRESENCE_PING_INTERVAL", "10m"),
        ("PRESENCE_MAX_AGE", "10m"),
        ("PRESENCE_WRITE_TIMEOUT", "2m"),
        ("PRESENCE_MAX_FRAME_SENT", "1000000"),
    ];
    let server = ChatServer::start_with(&["--grace", "2m"], &patient).await;
    let mut bob = RoomClient::join(&server, "lobby", "bob").await;
    let first = crowd(&server, CROWD).await;
    bob.until_all(CROWD + 1).await;
    let seen = bob.roster.users.clone();
    let ids: Vec<_> = first.iter().map(|(_, state)| state["me"].clone()).collect();
    first.into_iter().for_each(|(socket, _)| socket.reset());
    let second = crowd(&server, CROWD).await;
    for ((_, state), id) in second.iter().zip(&ids) {
        assert_eq!(state["me"], *id);
        assert_eq!(ClientRoster::first(state).users, seen, "the very roster of before");
    }
    let fence = bob.sees_nothing_before(&server, "fence").await;
    fence.leave().await;
    bob.sees_leave("fence").await;
    drop(second);
    drop(bob);
    drop(server);

    let server = ChatServer::start_with(&["--grace", "1s"], &patient).await;
    let mut bob = RoomClient::join(&server, "lobby", "bob").await;
    let first = crowd(&server, CROWD).await;
    bob.until_all(CROWD + 1).await;
    first.into_iter().for_each(|(socket, _)| socket.reset());
    let mut left = 0;
    within(secs(60), "everybody to leave", async {
        while bob.roster.users.len() > 1 {
            let diff = bob.diff().await;
            assert_eq!((diff.joins.len(), diff.updates.len()), (0, 0));
            left += diff.leaves.len();
        }
    })
    .await;
    let _second = crowd(&server, CROWD).await;
    let mut joined = 0;
    within(secs(60), "everybody to come", async {
        while bob.roster.users.len() < CROWD + 1 {
            let diff = bob.diff().await;
            assert_eq!((diff.leaves.len(), diff.updates.len()), (0, 0));
            joined += diff.joins.len();
        }
    })
    .await;
    assert_eq!((left, joined), (CROWD, CROWD), "one leave and one join each");
}

#[tokio::test]
async fn after_a_kill_and_a_restart_each_observer_that_returns_gets_its_first_frame_and_no_other() {
    let _alone = alone().await;
    open_files(4096).expect("enough open files");
    const CROWD: usize = 200;
    let mut server = ChatServer::start(&["--grace", "30s"]).await;
    let (mut bob, ann) = two(&server).await;
    let first = crowd(&server, CROWD).await;
    bob.until_all(CROWD + 2).await;
    let ghost = RoomClient::begin(ClientSocket::open(&server, &resumable("lobby", None, TOKEN)).await).await;
    let before = ghost.roster.clone();
    server.kill().await;
    drop((first, bob, ann));
    server.start_again().await;

    let mut ann = self::ann(&server).await;
    let mut second = crowd(&server, CROWD).await;
    let mut back = RoomClient::begin(ClientSocket::open(&server, &resumable("lobby", None, TOKEN)).await).await;
    for roster in [&ann.roster, &back.roster] {
        assert_eq!((&roster.users, roster.anonymous), (&before.users, 1), "ids and metas included");
    }
    assert_eq!((&back.roster.me, &back.roster.epoch), (&before.me, &before.epoch));
    for (_, state) in &second {
        assert_eq!(ClientRoster::first(state).users, before.users);
    }
    // Nobody received a notice: the next frame is the fence.
    let mut fence = ClientSocket::open(&server, "/ws/lobby?user=fence").await;
    assert_eq!(ann.diff().await.joined(), ["fence"]);
    assert_eq!(back.diff().await.joined(), ["fence"]);
    for (socket, _) in &mut second {
        let frame = socket.value().await;
        assert_eq!((&frame["type"], &frame["joins"][0]["user"]), (&json!("presence.diff"), &json!("fence")));
    }
    fence.value().await;
}

#[tokio::test]
async fn after_a_sigterm_and_a_restart_who_returns_was_never_gone() {
    let mut server = ChatServer::start(&["--grace", "9s"]).await;
    let (mut bob, mut first) = two(&server).await;
    let began = Instant::now();
    server.signal("TERM").await;
    assert_eq!(bob.socket.closing().await, Some(1012), "at once: it has no token");
    assert!(began.elapsed() < secs(2) + SLACK, "{:?}", began.elapsed());
    assert_eq!(first.socket.closing().await, Some(1012));
    assert!(began.elapsed() <= secs(3) + SLACK, "within a third of the grace: {:?}", began.elapsed());
    drop(first.socket.try_send(&Raw::close(1012, b"")).await);
    drop(bob.socket.try_send(&Raw::close(1012, b"")).await);
    assert!(server.exit(secs(10)).await.success());
    server.start_again().await;
    let mut back = ann(&server).await;
    assert_eq!(back.roster.me, first.roster.me);
    assert_eq!(back.roster.names(), ["ann"], "who has no token left at once");
    assert_eq!(back.roster.users["ann"], first.roster.users["ann"]);
    back.sees_nothing_before(&server, "fence").await;
}

async fn returns_on_another_process(kind: BackendKind) {
    let backend = Backend::shared(kind).await;
    let url = backend.url();
    let server = ChatServer::start(&["--grace", "30s", "--database-url", &url, "--node-name", "one"]).await;
    let other = ChatServer::start(&["--grace", "30s", "--database-url", &url, "--node-name", "other"]).await;
    let (mut bob, first) = two(&server).await;
    let (id, mine) = (first.roster.me.clone(), first.roster.users["ann"].clone());
    first.socket.reset();
    // The loss is noticed when the connection is read; till then the token is in use, and is taken over all the same.
    let mut second = ann(&other).await;
    assert_eq!((&second.roster.me, &second.roster.users["ann"]), (&id, &mine));
    assert_eq!(second.roster.names(), ["ann", "bob"]);

    // In use there, it is taken over here; the other process finds out when it compares.
    let third = ann(&server).await;
    assert_eq!(third.roster.me, id);
    assert_eq!(second.socket.closing().await, Some(4409));
    bob.sees_nothing_before(&server, "fence").await;
    assert_eq!(get(other.address(), "/readyz").await.status, 200);
}

/// The process is killed and starts again, with Bob and Ann and her token.
async fn returns_after_a_kill(kind: BackendKind) {
    let backend = Backend::shared(kind).await;
    let mut server = ChatServer::start(&["--grace", "30s", "--database-url", &backend.url()]).await;
    let (bob, first) = two(&server).await;
    server.kill().await;
    server.start_again().await;
    let mut back = is_back(&server, &first).await;
    assert_eq!(back.roster.users, first.roster.users, "Bob is held");
    assert_eq!(back.roster.epoch, first.roster.epoch);
    let _fence = back.sees_nothing_before(&server, "fence").await;
    backend.rows_become("presences", 3, BOUND).await;
    drop(bob);
}

/// Both on one kind of database.
macro_rules! on {
    ($($kind:ident: $module:ident),*) => {
        $(
            mod $module {
                use crate::support::backend::BackendKind::$kind;

                #[tokio::test]
                async fn a_token_returns_on_another_process_of_the_same_database() {
                    super::returns_on_another_process($kind).await;
                }

                #[tokio::test]
                async fn a_token_returns_after_a_kill_and_a_restart() {
                    super::returns_after_a_kill($kind).await;
                }
            }
        )*
    };
}

on! { Sqlite: sqlite, Postgres: postgres, MySql: mysql }

#[tokio::test]
async fn a_silent_connection_without_a_pong_is_held() {
    // With the defaults that takes 30 s; a missing pong is a loss like any other.
    let server = ChatServer::start_with(
        &["--grace", "20s"],
        &[("PRESENCE_PING_INTERVAL", "1s"), ("PRESENCE_PONG_TIMEOUT", "1s")],
    )
    .await;
    let mut bob = RoomClient::join(&server, "lobby", "bob").await;
    let mut dead = ann(&server).await;
    let id = dead.roster.me.clone();
    bob.sees_join("ann").await;
    // It reads, but does not answer, to its end.
    let end = async { while !matches!(dead.socket.frame().await, ReceivedFrame::End | ReceivedFrame::Reset) {} };
    let alive = async {
        loop {
            bob.socket.beats_every(Duration::from_millis(300));
            bob.told().await;
        }
    };
    within(BOUND, "the end of the dead connection", async {
        tokio::select! { () = end => {}, () = alive => {} }
    })
    .await;
    let back = ann(&server).await;
    assert_eq!(back.roster.me, id);
    bob.sees_nothing_before(&server, "fence").await;
}
