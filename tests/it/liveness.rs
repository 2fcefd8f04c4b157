//! Who is still here: what touches a presence, what does not, and what happens to one that is not touched.

use crate::support::frame::{Raw, ReceivedFrame};
use crate::support::member::RoomClient;
use crate::support::process::connection_gone;
use crate::support::server::ChatServer;
use crate::support::witness::Scene;
use crate::support::{BOUND, Duration, SLACK, alone, millis, secs, within};
use serde_json::json;
use tokio::time::Instant;

const MAX_AGE: Duration = secs(2);
const ARGUMENTS: [&str; 2] = ["--max-age", "2s"];
/// Often enough that a loaded machine does not miss three in a row.
const BEAT: Duration = millis(400);

/// A room in which Bob stays alive whenever he is waited for.
async fn scene() -> Scene {
    let mut scene = Scene::set(&ARGUMENTS).await;
    scene.bob.socket.beats_every(BEAT);
    scene
}

// behaviour: 2.5 prune-and-the-socket
#[tokio::test]
async fn a_silent_member_is_told_4408_and_its_leave_is_seen_at_max_age() {
    let _alone = alone().await;
    let mut scene = scene().await;
    let before = Instant::now();
    let mut ann = scene.ann().await;
    let after = Instant::now();
    scene.bob.sees_leave("ann").await;
    assert!(before.elapsed() >= MAX_AGE, "not before {MAX_AGE:?}: after {:?}", before.elapsed());
    assert!(after.elapsed() <= MAX_AGE + SLACK, "in time: after {:?}", after.elapsed());
    assert_eq!(ann.socket.closing().await, Some(4408));
}

#[tokio::test]
async fn pings_and_pongs_do_not_touch() {
    let _alone = alone().await;
    let mut scene = scene().await;
    let mut ann = scene.ann().await;
    let after = Instant::now();
    let chatter = tokio::spawn(async move {
        let mut beat = tokio::time::interval(millis(200));
        loop {
            tokio::select! {
                _ = beat.tick() => {
                    drop(ann.socket.try_send(&Raw::new(9, "ping")).await);
                    drop(ann.socket.try_send(&Raw::new(10, "pong")).await);
                }
                frame = ann.socket.frame() => match frame {
                    ReceivedFrame::Close(code, _) => return code,
                    ReceivedFrame::Pong(_) | ReceivedFrame::Ping(_) | ReceivedFrame::Text(_) => {}
                    frame => panic!("a close, not {frame:?}"),
                },
            }
        }
    });
    scene.bob.sees_leave("ann").await;
    assert!(after.elapsed() <= MAX_AGE + SLACK, "after {:?}", after.elapsed());
    assert_eq!(within(BOUND, "the close", chatter).await.unwrap(), Some(4408));
}

/// Ann sends this again and again for three times `max_age`, and must still be here.
async fn touches(frame: Raw) {
    let mut scene = scene().await;
    let mut ann = scene.ann().await;
    let end = Instant::now() + MAX_AGE * 3;
    let mut beat = tokio::time::interval(BEAT);
    while Instant::now() < end {
        beat.tick().await;
        ann.socket.send(frame.clone()).await;
        scene.bob.socket.heartbeat().await;
    }
    ann.says("still here").await;
    loop {
        let frame = scene.bob.socket.value().await;
        assert_eq!(frame["type"], "message", "nobody has left: {frame}");
        if frame["text"] == "still here" {
            return;
        }
    }
}

// behaviour: 4 binary-frames
#[tokio::test]
async fn a_binary_frame_touches() {
    touches(Raw::binary("")).await;
}

#[tokio::test]
async fn a_command_touches_even_a_bad_one() {
    touches(Raw::text(r#"{"type":"update"}"#)).await;
}

#[tokio::test]
async fn of_two_tabs_the_silent_one_goes_and_the_user_stays() {
    let mut scene = scene().await;
    let mut tab = scene.ann().await;
    tab.socket.beats_every(BEAT);
    let silent = RoomClient::join(&scene.server, "lobby", "ann").await;
    scene.bob.sees_join("ann").await;
    let alive = tokio::spawn(async move {
        tab.until("the other tab's leave", |roster| roster.tabs("ann") == 2).await;
        tab.until("the other tab's leave", |roster| roster.tabs("ann") == 1).await;
        tab
    });
    let gone = scene.bob.diff().await;
    assert_eq!((gone.left(), &gone.leaves[0].id), (vec!["ann"], &silent.roster.me));
    let tab = within(BOUND, "the tab that stays", alive).await.unwrap();
    assert!(scene.bob.roster.users["ann"].contains_key(&tab.roster.me));
}

#[tokio::test]
async fn a_socket_outside_the_room_does_not_go_stale_and_its_return_starts_the_time_afresh() {
    let mut scene = scene().await;
    let mut ann = scene.ann().await;
    ann.says(r#"{"type":"leave"}"#).await;
    scene.bob.sees_leave("ann").await;
    // Two others come and go stale, one after the other: twice `max_age` has passed for Ann.
    for user in ["carl", "dan"] {
        let _silent = RoomClient::join(&scene.server, "lobby", user).await;
        scene.bob.sees_join(user).await;
        scene.bob.sees_leave(user).await;
    }
    ann.socket.ping(b"still open").await;
    assert_eq!(ann.socket.next().await, ReceivedFrame::Pong("still open".into()));
    let before = Instant::now();
    ann.says(r#"{"type":"join"}"#).await;
    ann.first_again().await;
    scene.bob.sees_join("ann").await;
    scene.bob.sees_leave("ann").await;
    assert!(before.elapsed() >= MAX_AGE, "a whole {MAX_AGE:?} after the return: {:?}", before.elapsed());
    assert_eq!(ann.socket.closing().await, Some(4408));
}

#[tokio::test]
async fn a_stale_client_that_does_not_answer_the_close_is_cut_off() {
    let mut scene = scene().await;
    let ann = scene.ann().await;
    scene.bob.sees_leave("ann").await;
    connection_gone(&scene.server, ann.socket.local(), BOUND).await;
}

/// The default periods: a ping every 20 s, and 10 s for the pong.
// behaviour: 7 pings
#[tokio::test]
async fn a_missing_pong_is_a_lost_connection_and_any_byte_excuses_it() {
    let server = ChatServer::start(&["--max-age", "120s"]).await;
    let mut bob = RoomClient::join(&server, "lobby", "bob").await;
    let mut answering = RoomClient::join(&server, "lobby", "answering").await;
    bob.sees_join("answering").await;
    let before = Instant::now();
    let mut mute = RoomClient::join(&server, "lobby", "mute").await;
    bob.sees_join("mute").await;
    let mut outside = RoomClient::join(&server, "lobby", "outside").await;
    bob.sees_join("outside").await;
    outside.socket.json(json!({"type": "leave"})).await;
    bob.sees_leave("outside").await;
    // Sends no pong ever, but something else each few seconds.
    let mut beating = RoomClient::join(&server, "lobby", "beating").await;
    bob.sees_join("beating").await;

    let bound = secs(30) + BOUND;
    let beats = tokio::spawn(async move {
        let mut beat = tokio::time::interval(secs(4));
        loop {
            tokio::select! {
                _ = beat.tick() => beating.socket.heartbeat().await,
                frame = beating.socket.frame() => assert!(
                    matches!(frame, ReceivedFrame::Ping(_) | ReceivedFrame::Text(_)), "its heartbeats excuse it: {frame:?}"
                ),
            }
        }
    });
    let answers = tokio::spawn(async move {
        let mut pings = 0;
        loop {
            match answering.socket.frame().await {
                ReceivedFrame::Ping(payload) => {
                    pings += 1;
                    answering.socket.pong(&payload).await;
                }
                ReceivedFrame::Text(text) if text.contains("presence.diff") && text.contains("mute") => {
                    let left = answering.apply(&serde_json::from_str(&text).unwrap());
                    if matches!(left, crate::support::member::Told::Diff(diff) if diff.left() == ["mute"]) {
                        return pings;
                    }
                }
                ReceivedFrame::Text(text) => drop(answering.apply(&serde_json::from_str(&text).unwrap())),
                frame => panic!("it answers its pings: {frame:?}"),
            }
        }
    });
    // The socket outside of rooms also stays because of its pongs.
    let lives = tokio::spawn(async move {
        let frame = outside.socket.next_frame().await;
        panic!("outside the room there is only silence: {frame:?}");
    });
    let leave = bob.socket.next_within(bound).await;
    let ReceivedFrame::Text(leave) = leave else { panic!("a leave, not {leave:?}") };
    let leave = bob.apply(&serde_json::from_str(&leave).unwrap());
    assert!(matches!(leave, crate::support::member::Told::Diff(diff) if diff.left() == ["mute"]), "only the mute one");
    assert!(before.elapsed() >= secs(30), "ping and pong take 30 s, not {:?}", before.elapsed());
    assert!(before.elapsed() <= secs(30) + SLACK * 2, "ping and pong take 30 s, not {:?}", before.elapsed());
    let pings = within(BOUND, "the others to see it too", answers).await.unwrap();
    assert!(pings >= 1, "the server pings");
    assert!(!beats.is_finished() && !lives.is_finished(), "all others go on");
    connection_gone(&server, mute.socket.local(), BOUND).await;
    mute.socket.drained().await;
}
