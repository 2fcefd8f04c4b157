//! Clients that do not read, and connections that break in the middle: the others go on, and nothing is left of them.

use crate::support::database::rows_become;
use crate::support::frame::Raw;
use crate::support::member::{RoomClient, Told, path};
use crate::support::process::{connection_gone, descriptors, descriptors_back_to};
use crate::support::server::ChatServer;
use crate::support::socket::HandshakeRequest;
use crate::support::witness::Scene;
use crate::support::{BOUND, alone, millis, secs, within};
use tokio::time::Instant;

/// As small as the kernel lets it be.
const TINY: u32 = 4096;

// behaviour: W17 slow-client
#[tokio::test]
async fn a_client_that_stops_reading_is_cut_off_while_the_others_go_on() {
    let _alone = alone().await;
    let mut scene = Scene::set(&[]).await;
    let mut speaker = scene.ann().await;
    let upgrade = HandshakeRequest::to(path("lobby", "stuck")).receive_buffer(TINY);
    let mut stuck = RoomClient::begin(upgrade.open(scene.server.address()).await.unwrap()).await;
    speaker.sees_join("stuck").await;
    scene.bob.sees_join("stuck").await;

    // A flood of 30 KiB a message, each awaited: the speaker and Bob read all of it, the stuck one nothing.
    let text = "x".repeat(30 * 1024);
    let (mut said, mut slowest) = (0, millis(0));
    within(secs(60), "the leave of who does not read", async {
        loop {
            let begun = Instant::now();
            speaker.says(&text).await;
            said += 1;
            while matches!(speaker.told().await, Told::Diff(_)) {}
            while let Told::Diff(diff) = scene.bob.told().await {
                assert_eq!(diff.left(), ["stuck"], "nobody else has left");
            }
            slowest = slowest.max(begun.elapsed());
            if scene.bob.roster.tabs("stuck") == 0 {
                return;
            }
        }
    })
    .await;
    assert!(slowest < secs(10), "message {said} was held up for {slowest:?}: the others go on");
    speaker.says("and on").await;
    speaker.until("the leave", |roster| roster.tabs("stuck") == 0).await;

    connection_gone(&scene.server, stuck.socket.local(), secs(5) + BOUND).await;
    stuck.socket.drained().await;
}

#[tokio::test]
async fn a_client_that_asks_for_answers_and_never_reads_them_is_cut_off() {
    let _alone = alone().await;
    let mut scene = Scene::set(&[]).await;
    let upgrade = HandshakeRequest::to(path("lobby", "ann")).receive_buffer(TINY);
    let mut ann = upgrade.open(scene.server.address()).await.unwrap();
    scene.bob.sees_join("ann").await;
    let pings: Vec<_> = (0..500).flat_map(|_| Raw::new(9, [b'x'; 125]).encode()).collect();
    let flood = async {
        // Until the server has had enough: an error. That it stops reading is its right.
        while ann.try_raw(&pings).await.is_ok() {}
    };
    let flooded = async {
        tokio::select! {
            () = scene.bob.sees_leave_within("ann", secs(60)) => {}
            () = flood => scene.bob.sees_leave_within("ann", secs(60)).await,
        }
    };
    within(secs(90), "the leave of who does not read", flooded).await;
    scene.bob.says("and on").await;
    scene.bob.hears("bob", "and on").await;
    connection_gone(&scene.server, ann.local(), secs(5) + BOUND).await;
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_everything_in_order() {
    let _alone = alone().await;
    let mut scene = Scene::set(&[]).await;
    let mut speaker = scene.ann().await;
    let upgrade = HandshakeRequest::to(path("lobby", "slow")).receive_buffer(TINY);
    let mut slow = RoomClient::begin(upgrade.open(scene.server.address()).await.unwrap()).await;
    speaker.sees_join("slow").await;
    scene.bob.sees_join("slow").await;
    // Half of what the outbox holds, all of it sent before the slow client reads any.
    let text = |n: usize| format!("{n:03}{}", "x".repeat(16 * 1024));
    for n in 0..32 {
        speaker.says(&text(n)).await;
        speaker.hears("ann", &text(n)).await;
        scene.bob.hears("ann", &text(n)).await;
    }
    for n in 0..32 {
        slow.hears("ann", &text(n)).await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_even_read_the_101_goes_stale_and_its_connection_is_closed() {
    let mut scene = Scene::set(&["--max-age", "2s"]).await;
    scene.bob.socket.beats_every(millis(400));
    let upgrade = HandshakeRequest::to(path("lobby", "ann")).receive_buffer(TINY);
    let unread = upgrade.send(scene.server.address()).await.unwrap();
    scene.bob.sees_join("ann").await;
    scene.bob.sees_leave("ann").await;
    connection_gone(&scene.server, unread.local(), secs(5) + BOUND).await;
}

#[tokio::test]
async fn each_join_that_is_told_is_followed_by_its_leave_however_early_the_connection_breaks() {
    let _alone = alone().await;
    let mut scene = Scene::set(&[]).await;
    RoomClient::join(&scene.server, "other", "warm").await.leave().await;
    rows_become(&scene.server, "presences", 1, BOUND).await;
    let idle = descriptors(&scene.server);
    for n in 0..60 {
        let upgrade = HandshakeRequest::to(path("lobby", "ann"));
        let socket = upgrade.send(scene.server.address()).await.unwrap();
        match n % 4 {
            // A reset while the server is still deciding.
            0 => socket.reset(),
            // An orderly end while it is.
            1 => drop(socket),
            // A reset right after the 101, before the first frame was read.
            2 => socket.answered().await.unwrap().reset(),
            // A reset right after the first frame.
            _ => RoomClient::begin(socket.answered().await.unwrap()).await.socket.reset(),
        }
    }
    // The last to come closes in order: when it has gone, the ones before it have been dealt with too.
    let last = RoomClient::join(&scene.server, "lobby", "last").await;
    scene.bob.until("the last one's join", |roster| roster.tabs("last") == 1).await;
    last.leave().await;
    scene.bob.until("an empty room but for Bob", |roster| roster.names() == ["bob"]).await;
    rows_become(&scene.server, "presences", 1, BOUND).await;
    descriptors_back_to(&scene.server, idle, BOUND).await;
    scene.bob.until("an empty room but for Bob", |roster| roster.names() == ["bob"]).await;
    scene.bob.sees_nothing_before(&scene.server, "eve").await;
}

#[tokio::test]
async fn a_request_that_is_never_finished_holds_nobody_up() {
    let server = ChatServer::start(&[]).await;
    let mut unfinished = Vec::new();
    for _ in 0..50 {
        let upgrade = HandshakeRequest::to(path("lobby", "ann")).with("X-Long", "x".repeat(100)).unfinished();
        unfinished.push(upgrade.send(server.address()).await.unwrap());
    }
    let bob = RoomClient::join(&server, "lobby", "bob").await;
    assert_eq!(bob.roster.names(), ["bob"]);
}
