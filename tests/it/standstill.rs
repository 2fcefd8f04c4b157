//! A server that stands still for longer than its clients may be silent: they were not silent, it did not listen.

use crate::support::database::rows_become;
use crate::support::frame::Raw;
use crate::support::member::{RoomClient, path};
use crate::support::server::ChatServer;
use crate::support::socket::{ClientSocket, HandshakeRequest};
use crate::support::{BOUND, alone, millis, secs, within};
use tokio::task::JoinHandle;

const ARGUMENTS: [&str; 2] = ["--max-age", "2s"];
/// How long the server stands still.
const STOP: std::time::Duration = secs(4);
const BEAT: std::time::Duration = millis(300);

fn with_token(n: usize) -> String {
    format!("{}&session=token-of-user-{n:05}", path("lobby", &format!("user{n}")[..]))
}

/// Sends heartbeats, whether the server reads them or not, until its socket is requested or a Close arrives.
fn beats(socket: ClientSocket) -> JoinHandle<Option<u16>> {
    beats_every(BEAT, socket)
}

fn beats_every(period: std::time::Duration, mut socket: ClientSocket) -> JoinHandle<Option<u16>> {
    tokio::spawn(async move {
        let mut beat = tokio::time::interval(period);
        loop {
            tokio::select! {
                _ = beat.tick() => drop(socket.try_send(&Raw::text("\"heartbeat\"")).await),
                code = socket.closing_within(secs(600)) => return code,
            }
        }
    })
}

/// Bob sends heartbeats for this time, and receives nothing.
async fn hears_nothing(bob: &mut RoomClient, time: std::time::Duration) {
    let heard = tokio::time::timeout(time, bob.socket.next_frame()).await;
    assert!(heard.is_err(), "{heard:?}");
}

#[tokio::test]
async fn after_a_standstill_longer_than_max_age_nobody_who_went_on_beating_is_stale() {
    let _alone = alone().await;
    // So many that one thread cannot read them all before the room's thread looks at its clock.
    const CROWD: usize = 150;
    let server = ChatServer::start(&[&ARGUMENTS[..], &["--workers", "1"]].concat()).await;
    let mut crowd = Vec::new();
    for n in 0..CROWD {
        let path = if n % 2 == 0 { with_token(n) } else { path("lobby", &format!("user{n}")[..]) };
        let member = RoomClient::begin(HandshakeRequest::to(path).open(server.address()).await.unwrap()).await;
        crowd.push(beats(member.socket));
    }
    let mut bob = RoomClient::join(&server, "lobby", "bob").await;
    bob.socket.beats_every(BEAT);
    bob.until_all(CROWD + 1).await;
    server.signal("STOP").await;
    // Bob beats as the others do, and nothing can come.
    hears_nothing(&mut bob, STOP).await;
    server.signal("CONT").await;
    // All deadlines come round once more.
    hears_nothing(&mut bob, secs(3)).await;
    assert!(crowd.iter().all(|one| !one.is_finished()), "and nobody is closed");
    assert!(server.log().contains("this node stood still"), "{}", server.log());
    bob.sees_nothing_before(&server, "fence").await;
}

/// A minute is the default of `max_age`, and a page beats every 20 s.
#[tokio::test]
async fn a_standstill_of_62_s_at_default_settings_is_seen_by_nobody() {
    const VISITORS: usize = 40;
    const PAGE_BEAT: std::time::Duration = secs(20);
    let server = ChatServer::start(&[]).await;
    let mut visitors = Vec::new();
    for n in 0..VISITORS {
        let member = RoomClient::begin(ClientSocket::open(&server, &with_token(n)).await).await;
        visitors.push(beats_every(PAGE_BEAT, member.socket));
    }
    let mut watcher = RoomClient::join(&server, "lobby", "watcher").await;
    watcher.socket.beats_every(PAGE_BEAT);
    watcher.until_all(VISITORS + 1).await;
    let here = watcher.roster.users.clone();
    server.signal("STOP").await;
    hears_nothing(&mut watcher, secs(62)).await;
    server.signal("CONT").await;
    // All that is due after it comes round: a ping and its answer, two beats.
    hears_nothing(&mut watcher, secs(35)).await;
    assert!(visitors.iter().all(|visitor| !visitor.is_finished()), "and nobody is closed");
    let fence = watcher.sees_nothing_before(&server, "fence").await;
    assert!(here.iter().all(|(user, ids)| fence.roster.users.get(user) == Some(ids)), "all as they were");
}

#[tokio::test]
async fn one_who_fell_silent_before_a_standstill_goes_when_it_has_been_silent_for_max_age_without_it() {
    let _alone = alone().await;
    let server = ChatServer::start(&ARGUMENTS).await;
    let mut bob = RoomClient::join(&server, "lobby", "bob").await;
    bob.socket.beats_every(BEAT);
    let mut silent = RoomClient::join(&server, "lobby", "silent").await;
    bob.sees_join("silent").await;
    server.signal("STOP").await;
    hears_nothing(&mut bob, STOP).await;
    server.signal("CONT").await;
    let resumed = tokio::time::Instant::now();
    bob.sees_leave("silent").await;
    assert!(resumed.elapsed() > millis(500), "the standstill does not count: {:?}", resumed.elapsed());
    assert!(resumed.elapsed() < secs(2) + crate::support::SLACK, "and no more: {:?}", resumed.elapsed());
    assert_eq!(silent.socket.closing().await, Some(4408));
}

#[tokio::test]
async fn one_who_was_lost_before_a_standstill_has_the_rest_of_its_grace_after_it() {
    let _alone = alone().await;
    // The grace is shorter than the standstill.
    let server = ChatServer::start(&["--max-age", "30s", "--grace", "3s"]).await;
    let mut bob = RoomClient::join(&server, "lobby", "bob").await;
    let ann = RoomClient::begin(ClientSocket::open(&server, &with_token(1)).await).await;
    bob.sees_join("user1").await;
    ann.socket.reset();
    rows_become(&server, "presences WHERE held_until IS NOT NULL", 1, BOUND).await;
    server.signal("STOP").await;
    hears_nothing(&mut bob, STOP).await;
    server.signal("CONT").await;
    let back = within(BOUND, "her return", ClientSocket::open(&server, &with_token(1))).await;
    let back = RoomClient::begin(back).await;
    assert_eq!(back.roster.me, ann.roster.me);
    bob.sees_nothing_before(&server, "fence").await;
}
