//! The process ends, by a kill or in order, and comes back on the same database.

use crate::support::database::{rows, rows_become};
use crate::support::http::{becomes, get};
use crate::support::member::{RoomClient, Told, path};
use crate::support::roster::{ClientRoster, Diff};
use crate::support::server::ChatServer;
use crate::support::socket::HandshakeRequest;
use crate::support::{BOUND, Duration, SLACK, eventually, millis, secs, within};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

const GRACE: Duration = secs(4);
/// What is past its grace is removed by a sweep, and sweeps come this often.
const SWEEP: Duration = secs(2);

fn only_eve(roster: &ClientRoster) -> bool {
    roster.names() == ["eve"] && roster.anonymous == 0
}

// behaviour: W20 own-rows-on-start
#[tokio::test]
async fn after_a_kill_the_presences_are_there_as_held_and_leave_after_the_grace() {
    let mut server = ChatServer::start(&["--grace", "4s"]).await;
    let mut ann = RoomClient::join(&server, "lobby", "ann").await;
    let tab = RoomClient::join(&server, "lobby", "ann").await;
    ann.sees_join("ann").await;
    let _ghost = RoomClient::join(&server, "lobby", None).await;
    ann.sees_anonymous(1).await;
    ann.updates(json!({"mood": "glad"})).await;
    ann.diff().await;
    let kitchen = RoomClient::join(&server, "kitchen", "bob").await;

    server.kill().await;
    ann.socket.ended().await;
    let restarted = Instant::now();
    server.start_again().await;
    let listening = Instant::now();

    let mut eve = RoomClient::join(&server, "lobby", "eve").await;
    let mut seen = eve.roster.users.clone();
    assert!(seen.remove("eve").is_some());
    assert_eq!((&seen, eve.roster.anonymous), (&ann.roster.users, 1), "the very ids and metas of before");
    assert!(seen["ann"].contains_key(&tab.roster.me));
    let zoe = RoomClient::join(&server, "kitchen", "zoe").await;
    assert!(zoe.roster.users["bob"].contains_key(&kitchen.roster.me), "in every room");

    let mut leaves = 0;
    within(GRACE + BOUND, "the held ones to leave", async {
        while !only_eve(&eve.roster) {
            let diff = eve.diff().await;
            assert_eq!((diff.joins.len(), diff.updates.len()), (0, 0));
            leaves += diff.leaves.len();
            assert!(restarted.elapsed() >= GRACE, "not before the grace: {:?}", restarted.elapsed());
        }
    })
    .await;
    assert_eq!(leaves, 2, "each once");
    assert!(listening.elapsed() <= GRACE + SWEEP + SLACK, "at the first sweep after it: {:?}", listening.elapsed());
    rows_become(&server, "presences", 2, BOUND).await;
}

#[tokio::test]
async fn after_a_kill_a_version_does_not_go_back_within_its_epoch() {
    let mut server = ChatServer::start(&["--grace", "2s"]).await;
    let mut ann = RoomClient::join(&server, "lobby", "ann").await;
    for n in 0..5 {
        ann.updates(json!({"n": n})).await;
        ann.diff().await;
    }
    server.kill().await;
    server.start_again().await;
    let eve = RoomClient::join(&server, "lobby", "eve").await;
    if eve.roster.epoch == ann.roster.epoch {
        assert!(eve.roster.version > ann.roster.version, "{:?} after {:?}", eve.roster, ann.roster);
    }
}

#[tokio::test]
async fn who_comes_back_within_the_grace_never_leaves_in_the_eyes_of_the_others() {
    let mut server = ChatServer::start(&["--grace", "4s"]).await;
    let ann = RoomClient::join(&server, "lobby", "ann").await;
    server.kill().await;
    server.start_again().await;
    let mut eve = RoomClient::join(&server, "lobby", "eve").await;
    assert_eq!(eve.roster.tabs("ann"), 1, "held");
    let again = RoomClient::join(&server, "lobby", "ann").await;
    within(GRACE + BOUND, "the held presence to leave", async {
        loop {
            eve.diff().await;
            assert!(eve.roster.tabs("ann") > 0, "she is here all the time");
            if eve.roster.tabs("ann") == 1 && !eve.roster.users["ann"].contains_key(&ann.roster.me) {
                return;
            }
        }
    })
    .await;
    assert!(eve.roster.users["ann"].contains_key(&again.roster.me));
}

#[tokio::test]
async fn after_a_kill_in_the_middle_of_joins_and_leaves_no_ghost_stays() {
    let mut server = ChatServer::start(&["--grace", "1s"]).await;
    let address = server.address();
    let mut churn = tokio::task::JoinSet::new();
    for n in 0..40 {
        churn.spawn(async move {
            let path = path("lobby", &format!("user{}", n % 10)[..]);
            // Until the connection is refused: join, perhaps send a message, and leave in one way or another.
            for turn in n.. {
                let Ok(socket) = HandshakeRequest::to(&path).send(address).await else { return };
                let Ok(Ok(mut socket)) = tokio::spawn(socket.answered()).await else { return };
                drop(socket.try_send(&crate::support::frame::Raw::text(r#"{"type":"update","meta":{"a":1}}"#)).await);
                match turn % 3 {
                    0 => socket.reset(),
                    1 => drop(socket.frame_within(millis(20)).await),
                    _ => drop(socket.try_send(&crate::support::frame::Raw::close(1000, b"")).await),
                }
            }
        });
    }
    let mut bob = RoomClient::join(&server, "lobby", "bob").await;
    let mut changes = 0;
    while changes < 100 {
        let diff = bob.diff().await;
        changes += diff.joins.len() + diff.leaves.len();
    }
    server.kill().await;
    churn.shutdown().await;
    server.start_again().await;
    let mut eve = RoomClient::join(&server, "lobby", "eve").await;
    eve.until("no ghosts", only_eve).await;
    rows_become(&server, "presences", 1, BOUND).await;
}

// behaviour: W20 dead-node
#[tokio::test]
async fn a_start_under_another_name_sees_the_dead_nodes_presences_leave_after_its_lease() {
    let mut server = ChatServer::start(&["--node-name", "first"]).await;
    let _ann = RoomClient::join(&server, "lobby", "ann").await;
    server.kill().await;
    server.start_again_with(&["--node-name", "second"]).await;
    let mut eve = RoomClient::join(&server, "lobby", "eve").await;
    // The lease (10 s) and a sweep (2 s); a node judges others only after one lease of its own.
    within(secs(12) + BOUND, "the dead node's presences to leave", async {
        while !only_eve(&eve.roster) {
            eve.socket.beats_every(secs(5));
            let frame = eve.socket.next_within(secs(12) + BOUND).await;
            let crate::support::frame::ReceivedFrame::Text(text) = frame else { panic!("a diff, not {frame:?}") };
            eve.apply(&serde_json::from_str(&text).unwrap());
        }
    })
    .await;
}

/// Two processes that are given one name by mistake, each started again by what looks after it as soon as it ends.
#[tokio::test]
async fn of_two_processes_of_one_name_the_later_serves_and_the_older_says_by_whom_it_was_replaced() {
    let database = super::support::folder();
    let url = format!("sqlite://{}?mode=rwc", database.path().join("p.db").display());
    let name = ["--node-name", "web:8080", "--database-url", &url];
    let mut old = ChatServer::start(&name).await;
    let mut ann = RoomClient::join(&old, "lobby", "ann").await;
    let mut new = ChatServer::start(&name).await;
    assert_eq!(ann.socket.closing().await, Some(1012));
    // It stays until the other has ended, and is not ready meanwhile.
    becomes(&old, "/readyz", 503, BOUND).await;
    assert!(get(old.address(), "/readyz").await.body.contains("another process has the name"));
    let mut ann = RoomClient::join(&new, "lobby", "ann").await;
    let log = old.log();
    for part in [&format!("pid {} on ", new.pid()), "since=", "two processes of one node name"] {
        assert!(log.contains(part), "{part}: {log}");
    }
    new.signal("TERM").await;
    assert_eq!(ann.socket.closing().await, Some(1012));
    assert!(new.exit(BOUND).await.success());
    // Then what looks after it starts it again, and it has the name. It looks once in a lease, 10 s.
    assert!(!old.exit(secs(10) + BOUND).await.success());
    old.start_again().await;
    let _ann = RoomClient::join(&old, "lobby", "ann").await;
}

/// Members of several rooms, two tabs and anonymous ones among them.
async fn crowd(server: &ChatServer) -> Vec<RoomClient> {
    let mut members = Vec::new();
    for n in 0..24 {
        let (room, user) = (format!("room{}", n % 3), format!("user{}", n % 6));
        let user = (n % 4 != 0).then_some(&user[..]);
        members.push(RoomClient::join(server, &room, user).await);
    }
    members
}

/// The signal ends the server in order: 1012 to each, status 0 in time, no row behind.
async fn shuts_down_on(signal: &str) {
    let mut server = ChatServer::start(&[]).await;
    let members = crowd(&server).await;
    assert_eq!(rows(&server, "presences").await, members.len() as i64);
    let mut closings = tokio::task::JoinSet::new();
    for mut member in members {
        closings.spawn(async move {
            let code = member.socket.closing().await;
            drop(member.socket.try_send(&crate::support::frame::Raw::close(1012, b"")).await);
            member.socket.drained().await;
            code
        });
    }
    server.signal(signal).await;
    let status = server.exit(secs(10)).await;
    assert_eq!(status.code(), Some(0), "after SIG{signal}: {status}\n{}", server.log());
    assert_eq!(closings.join_all().await, [Some(1012); 24]);
    assert_eq!(rows(&server, "presences").await, 0, "no row is left of those sockets");

    server.start_again().await;
    for room in ["room0", "room1", "room2"] {
        let eve = RoomClient::join(&server, room, "eve").await;
        assert!(only_eve(&eve.roster), "a newcomer sees only itself: {:?}", eve.roster);
    }
}

#[tokio::test]
async fn sigterm_shuts_down_in_order() {
    shuts_down_on("TERM").await;
}

#[tokio::test]
async fn ctrl_c_shuts_down_in_order() {
    shuts_down_on("INT").await;
}

// behaviour: 7 shutdown-bounded
#[tokio::test]
async fn a_shutdown_does_not_wait_for_clients_that_do_not_answer() {
    // It waited for them 6 s in all, in which nobody could come back.
    let mut server = ChatServer::start(&[]).await;
    let _silent = RoomClient::join(&server, "lobby", "silent").await;
    let unread =
        HandshakeRequest::to(path("lobby", "unread")).receive_buffer(4096).send(server.address()).await.unwrap();
    let mut bob = RoomClient::join(&server, "lobby", "bob").await;
    bob.until("all three", |roster| roster.users.len() == 3).await;
    let began = Instant::now();
    server.signal("TERM").await;
    let status = server.exit(secs(10)).await;
    assert!(began.elapsed() < secs(5), "1 s for those that do not answer: {:?}", began.elapsed());
    assert_eq!(status.code(), Some(0), "{status}\n{}", server.log());
    assert!(!server.log().contains("ERROR"), "{}", server.log());
    assert_eq!(bob.socket.closing().await, Some(1012));
    drop(unread);
}

const VISITORS: usize = 40;
/// The setting `grace` of most tests.
const DEFAULT_GRACE: Duration = secs(10);

/// A page: it returns with its token whenever it loses its socket, after 2 s at most, and reports what it sees.
async fn visit(address: SocketAddr, user: String, says: UnboundedSender<(String, VisitorSaw)>, pause: Duration) {
    let path = format!("{}&session=token-of-{user}-0123456789", path("lobby", &user[..]));
    let mut tries = tokio::time::interval(pause);
    loop {
        tries.tick().await;
        let Ok(socket) = HandshakeRequest::to(&path).send(address).await else { continue };
        let Some(Ok(socket)) = socket.answer_or_end().await else { continue };
        let mut member = RoomClient::begin(socket).await;
        let _ = says.send((user.clone(), VisitorSaw::Here(member.roster.clone())));
        loop {
            match member.socket.next_frame().await {
                crate::support::frame::ReceivedFrame::Text(text) => {
                    if let Told::Diff(diff) = member.apply(&serde_json::from_str(&text).unwrap()) {
                        let _ = says.send((user.clone(), VisitorSaw::Diff(diff)));
                    }
                }
                crate::support::frame::ReceivedFrame::Close(code, _) => {
                    drop(member.socket.try_send(&crate::support::frame::Raw::close(code.unwrap_or(1000), b"")).await);
                }
                crate::support::frame::ReceivedFrame::Pong(_) => {}
                _ => break,
            }
        }
        // A page waits for at most 2 s before it tries again.
        tries.reset();
    }
}

/// What a visitor sees.
#[derive(Debug)]
enum VisitorSaw {
    /// It is there, again or for the first time, with this first frame.
    Here(ClientRoster),
    Diff(Diff),
}

/// The presences of the visitors in a first frame.
fn visitors_in(roster: &ClientRoster) -> BTreeMap<&str, Vec<&str>> {
    let visitors = roster.users.iter().filter(|(user, _)| user.starts_with("visitor"));
    visitors.map(|(user, ids)| (user.as_str(), ids.keys().map(String::as_str).collect())).collect()
}

/// Fails if a visitor saw another visitor come, go or change.
fn judge(user: &str, diff: &Diff) {
    let seen = [diff.joined(), diff.left(), diff.updated().iter().map(|(user, _)| *user).collect()].concat();
    let visitors: Vec<_> = seen.into_iter().filter(|seen| seen.starts_with("visitor")).collect();
    assert_eq!(visitors, Vec::<&str>::new(), "seen by {user}: {diff:?}");
}

/// Waits until each visitor has come for the first time, and returns its presence.
async fn all_come(seen: &mut UnboundedReceiver<(String, VisitorSaw)>) -> BTreeMap<String, String> {
    let mut here = BTreeMap::new();
    within(BOUND, "all visitors", async {
        while here.len() < VISITORS {
            match seen.recv().await.expect("visitors try for ever") {
                (user, VisitorSaw::Here(roster)) => drop(here.insert(user, roster.me)),
                (user, VisitorSaw::Diff(diff)) => assert_eq!(diff.left(), Vec::<&str>::new(), "seen by {user}"),
            }
        }
    })
    .await;
    here
}

/// Waits until each visitor is back. Its first frame has all visitors as they were, and no diff has one of them.
async fn all_are_back(seen: &mut UnboundedReceiver<(String, VisitorSaw)>, before: &BTreeMap<String, String>) {
    let expected: BTreeMap<_, _> = before.iter().map(|(user, id)| (user.as_str(), vec![id.as_str()])).collect();
    let mut back = BTreeSet::new();
    within(BOUND, "all visitors to be back", async {
        while back.len() < VISITORS {
            match seen.recv().await.expect("visitors try for ever") {
                (user, VisitorSaw::Here(roster)) => {
                    assert_eq!(visitors_in(&roster), expected, "as {user} finds them");
                    assert_eq!(roster.me, before[&user], "{user} has its presence again");
                    back.insert(user);
                }
                (user, VisitorSaw::Diff(diff)) => judge(&user, &diff),
            }
        }
    })
    .await;
}

/// 40 visitors with tokens and one client that answers no Close; the server is ended and started again after `gap`. Nobody sees a
/// visitor come or go: not those who are still there while it ends, not those who are back, and not a newcomer, until each grace
/// would be over.
async fn nobody_is_seen_leaving(signal: &str, gap: Duration) {
    let mut server = ChatServer::start(&[]).await;
    let (says, mut seen) = unbounded_channel();
    let mut visitors = tokio::task::JoinSet::new();
    for n in 0..VISITORS {
        let pause = millis(500) + millis(1500) * u32::try_from(n).unwrap() / u32::try_from(VISITORS).unwrap();
        visitors.spawn(visit(server.address(), format!("visitor{n:02}"), says.clone(), pause));
    }
    let before = all_come(&mut seen).await;
    let _mute = RoomClient::join(&server, "elsewhere", "mute").await;
    let mut watcher = RoomClient::join(&server, "lobby", "watcher").await;
    watcher.until("all visitors and itself", |roster| roster.users.len() == VISITORS + 1).await;
    watcher.leave().await;
    rows_become(&server, "presences", VISITORS as i64 + 1, BOUND).await;
    // The watcher's leave is the last that the visitors see before the end, and their own joins are behind them.
    let mut know = BTreeSet::new();
    within(BOUND, "the visitors to see the watcher leave", async {
        while know.len() < VISITORS {
            if let (user, VisitorSaw::Diff(diff)) = seen.recv().await.expect("visitors try for ever")
                && diff.left() == ["watcher"]
            {
                know.insert(user);
            }
        }
    })
    .await;

    server.signal(signal).await;
    server.exit(secs(10)).await;
    // The first to be closed wait for the others for up to a third of the grace, and those see whether they leave.
    while let Ok((user, seen)) = seen.try_recv() {
        match seen {
            VisitorSaw::Diff(diff) => judge(&user, &diff),
            VisitorSaw::Here(roster) => panic!("{user} got in at the end: {roster:?}"),
        }
    }
    let _ = tokio::time::timeout(gap, std::future::pending::<()>()).await;
    let started = Instant::now();
    server.start_again().await;
    let mut watcher = RoomClient::join(&server, "lobby", "watcher").await;
    let expected: BTreeMap<_, _> = before.iter().map(|(user, id)| (user.as_str(), vec![id.as_str()])).collect();
    assert_eq!(visitors_in(&watcher.roster), expected, "all are held");
    all_are_back(&mut seen, &before).await;
    let end = started + DEFAULT_GRACE + SWEEP + secs(1);
    if let Ok(told) = tokio::time::timeout_at(end, watcher.diff()).await {
        panic!("SIG{signal}, {gap:?}: {told:?}");
    }
    while let Ok((user, seen)) = seen.try_recv() {
        match seen {
            VisitorSaw::Diff(diff) => judge(&user, &diff),
            VisitorSaw::Here(_) => panic!("{user} was cut off once more"),
        }
    }
    visitors.shutdown().await;
}

macro_rules! restarts {
    ($($name:ident: $signal:literal, $gap:expr;)*) => {
        $(
            // Up to two thirds of the visitors were seen leaving and coming again.
            #[tokio::test]
            async fn $name() {
                nobody_is_seen_leaving($signal, $gap).await;
            }
        )*
    };
}

restarts! {
    nobody_is_seen_leaving_over_a_restart_in_order: "TERM", secs(0);
    nobody_is_seen_leaving_over_a_restart_in_order_with_1_s_between: "TERM", secs(1);
    nobody_is_seen_leaving_over_a_restart_in_order_with_2_s_between: "TERM", secs(2);
    nobody_is_seen_leaving_over_a_restart_in_order_with_5_s_between: "TERM", secs(5);
    nobody_is_seen_leaving_over_a_kill_and_a_start: "KILL", secs(1);
}

#[tokio::test]
async fn a_server_without_sockets_stops_at_once() {
    let mut server = ChatServer::start(&[]).await;
    RoomClient::join(&server, "lobby", "ann").await.leave().await;
    server.signal("TERM").await;
    assert_eq!(server.exit(secs(10)).await.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_a_server_at_once_whatever_its_clients_do() {
    for (signal, status) in [("INT", 130), ("TERM", 143)] {
        let mut server = ChatServer::start(&["--grace", "10s"]).await;
        // None of them answers its Close, and each is closed within 3 s.
        let mut silent = Vec::new();
        for n in 0..8 {
            silent.push(RoomClient::join(&server, "lobby", &format!("user{n}")[..]).await);
        }
        server.signal(signal).await;
        eventually(BOUND, "the shutdown", async || {
            let log = server.log();
            if log.contains("shutting down") { Ok(()) } else { Err(log) }
        })
        .await;
        server.signal(signal).await;
        assert_eq!(server.exit(secs(1)).await.code(), Some(status));
        assert!(server.log().contains("a second signal"), "{}", server.log());
    }
}
