//! The process ends, by a kill or in order, and comes back on the same database.

use crate::support::database::{rows, rows_become};
use crate::support::member::{Member, path};
use crate::support::roster::Roster;
use crate::support::server::Server;
use crate::support::socket::Upgrade;
use crate::support::{BOUND, Duration, SLACK, millis, secs, within};
use serde_json::json;
use tokio::time::Instant;

const GRACE: Duration = secs(4);
/// What is past its grace is removed by a sweep, and sweeps come this often.
const SWEEP: Duration = secs(2);

fn only_eve(roster: &Roster) -> bool {
    roster.names() == ["eve"] && roster.anonymous == 0
}

// behaviour: W20 own-rows-on-start
#[tokio::test]
async fn after_a_kill_the_presences_are_there_as_held_and_leave_after_the_grace() {
    let mut server = Server::start(&["--grace", "4s"]).await;
    let mut ann = Member::join(&server, "lobby", "ann").await;
    let tab = Member::join(&server, "lobby", "ann").await;
    ann.sees_join("ann").await;
    let _ghost = Member::join(&server, "lobby", None).await;
    ann.sees_anonymous(1).await;
    ann.updates(json!({"mood": "glad"})).await;
    ann.diff().await;
    let kitchen = Member::join(&server, "kitchen", "bob").await;

    server.kill().await;
    ann.socket.ended().await;
    let restarted = Instant::now();
    server.start_again().await;
    let listening = Instant::now();

    let mut eve = Member::join(&server, "lobby", "eve").await;
    let mut seen = eve.roster.users.clone();
    assert!(seen.remove("eve").is_some());
    assert_eq!((&seen, eve.roster.anonymous), (&ann.roster.users, 1), "the very ids and metas of before");
    assert!(seen["ann"].contains_key(&tab.roster.me));
    let zoe = Member::join(&server, "kitchen", "zoe").await;
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
    assert!(listening.elapsed() <= GRACE + SWEEP + SLACK * 2, "at the first sweep after it: {:?}", listening.elapsed());
    rows_become(&server, "presences", 2, BOUND).await;
}

#[tokio::test]
async fn after_a_kill_a_version_does_not_go_back_within_its_epoch() {
    let mut server = Server::start(&["--grace", "2s"]).await;
    let mut ann = Member::join(&server, "lobby", "ann").await;
    for n in 0..5 {
        ann.updates(json!({"n": n})).await;
        ann.diff().await;
    }
    server.kill().await;
    server.start_again().await;
    let eve = Member::join(&server, "lobby", "eve").await;
    if eve.roster.epoch == ann.roster.epoch {
        assert!(eve.roster.version > ann.roster.version, "{:?} after {:?}", eve.roster, ann.roster);
    }
}

#[tokio::test]
async fn who_comes_back_within_the_grace_never_leaves_in_the_eyes_of_the_others() {
    let mut server = Server::start(&["--grace", "4s"]).await;
    let ann = Member::join(&server, "lobby", "ann").await;
    server.kill().await;
    server.start_again().await;
    let mut eve = Member::join(&server, "lobby", "eve").await;
    assert_eq!(eve.roster.tabs("ann"), 1, "held");
    let again = Member::join(&server, "lobby", "ann").await;
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
    let mut server = Server::start(&["--grace", "1s"]).await;
    let address = server.address();
    let mut churn = tokio::task::JoinSet::new();
    for n in 0..40 {
        churn.spawn(async move {
            let path = path("lobby", &format!("user{}", n % 10)[..]);
            // Until the connection is refused: join, perhaps say something, and go in one way or another.
            for turn in n.. {
                let Ok(socket) = Upgrade::to(&path).send(address).await else { return };
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
    let mut bob = Member::join(&server, "lobby", "bob").await;
    let mut changes = 0;
    while changes < 100 {
        let diff = bob.diff().await;
        changes += diff.joins.len() + diff.leaves.len();
    }
    server.kill().await;
    churn.shutdown().await;
    server.start_again().await;
    let mut eve = Member::join(&server, "lobby", "eve").await;
    eve.until("no ghosts", only_eve).await;
    rows_become(&server, "presences", 1, BOUND).await;
}

// behaviour: W20 dead-node
#[tokio::test]
async fn a_start_under_another_name_sees_the_dead_nodes_presences_leave_after_its_lease() {
    let mut server = Server::start(&["--node-name", "first"]).await;
    let _ann = Member::join(&server, "lobby", "ann").await;
    server.kill().await;
    server.start_again_with(&["--node-name", "second"]).await;
    let mut eve = Member::join(&server, "lobby", "eve").await;
    // The lease (10 s) and a sweep (2 s); a node judges others only after one lease of its own.
    within(secs(12) + BOUND, "the dead node's presences to leave", async {
        while !only_eve(&eve.roster) {
            eve.socket.beats_every(secs(5));
            let frame = eve.socket.next_within(secs(12) + BOUND).await;
            let crate::support::frame::Frame::Text(text) = frame else { panic!("a diff, not {frame:?}") };
            eve.apply(&serde_json::from_str(&text).unwrap());
        }
    })
    .await;
}

/// Members of several rooms, two tabs and anonymous ones among them.
async fn crowd(server: &Server) -> Vec<Member> {
    let mut members = Vec::new();
    for n in 0..24 {
        let (room, user) = (format!("room{}", n % 3), format!("user{}", n % 6));
        let user = (n % 4 != 0).then_some(&user[..]);
        members.push(Member::join(server, &room, user).await);
    }
    members
}

/// The signal ends the server in order: 1012 to each, status 0 in time, no row behind.
async fn shuts_down_on(signal: &str) {
    let mut server = Server::start(&[]).await;
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
        let eve = Member::join(&server, room, "eve").await;
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
    let mut server = Server::start(&[]).await;
    let _silent = Member::join(&server, "lobby", "silent").await;
    let unread = Upgrade::to(path("lobby", "unread")).receive_buffer(4096).send(server.address()).await.unwrap();
    let mut bob = Member::join(&server, "lobby", "bob").await;
    bob.until("all three", |roster| roster.users.len() == 3).await;
    server.signal("TERM").await;
    let status = server.exit(secs(10)).await;
    assert_eq!(status.code(), Some(0), "{status}\n{}", server.log());
    assert_eq!(bob.socket.closing().await, Some(1012));
    drop(unread);
}

#[tokio::test]
async fn a_server_without_sockets_stops_at_once() {
    let mut server = Server::start(&[]).await;
    Member::join(&server, "lobby", "ann").await.leave().await;
    server.signal("TERM").await;
    assert_eq!(server.exit(secs(10)).await.code(), Some(0));
}
