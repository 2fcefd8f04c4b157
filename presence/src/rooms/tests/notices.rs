//! When members are told what: at once if it is quiet, seldom if it is not, and all of them alike.

use std::cell::Cell;

use futures_util::future::join_all;

use super::bench::{
    Client, Screen, config, join_all as all_join, lobby, ms, node, node_with, pass, room, secs, settle,
};
use crate::{Consumer, Frame, Result, Socket, config::Notify, testing::TestSocket};

// behaviour: W3 deltas
#[actix::test]
async fn the_first_change_of_a_quiet_room_is_told_at_once() {
    let node = node().await;
    let ann = node.member("ann").await;
    pass(secs(5)).await;
    let before = node.rooms.this_node().now();
    let bob = node.member("bob").await;
    settle().await;
    assert_eq!(
        (node.rooms.this_node().now(), ann.sees(), bob.sees()),
        (before, vec!["ann".to_owned(), "bob".into()], ann.sees())
    );
}

/// Joins that come one by one, a millisecond apart, without waiting for one another.
async fn storm(clients: &[Client]) {
    let joins = (0_u64..).zip(clients).map(|(n, client)| async move {
        tokio::time::sleep(ms(n)).await;
        client.join(lobby()).await.unwrap();
    });
    join_all(joins).await;
}

#[actix::test]
async fn a_storm_of_joins_costs_each_member_a_bounded_number_of_frames() {
    let node = node().await;
    let ann = node.member("ann").await;
    pass(secs(5)).await;
    let crowd: Vec<_> = (0..500).map(|n| node.client(&format!("u{n}"))).collect();
    let before = ann.count();
    storm(&crowd).await;
    pass(secs(1)).await;
    let frames = ann.count() - before;
    assert!((5..=500 / 100 + 12).contains(&frames), "half a second of five hundred joins in {frames} frames");
    assert_eq!(ann.sees().len(), 501);
    for one in crowd.iter().step_by(25) {
        assert!(one.count() <= 1 + frames && one.screen().states == 1);
        assert_eq!(one.sees(), ann.sees());
    }
}

#[actix::test]
async fn the_interval_between_two_notices_never_exceeds_the_setting_and_a_joiner_waits_no_longer() {
    let node = node_with(config().notify_interval(ms(40))).await;
    let ann = node.member("ann").await;
    for n in 0..200 {
        let began = node.rooms.this_node().now();
        let one = node.member(&format!("u{n}")).await;
        let waited = node.rooms.this_node().now().since(began);
        assert!(waited <= ms(42), "{waited:?}");
        one.leave(lobby()).await.unwrap();
    }
    pass(ms(50)).await;
    assert_eq!(ann.sees(), ["ann"]);
}

#[actix::test]
async fn without_an_interval_each_change_is_told() {
    let node = node_with(config().notify_interval(ms(0))).await;
    let ann = node.member("ann").await;
    for n in 0..20 {
        let one = node.member(&format!("u{n}")).await;
        one.leave(lobby()).await.unwrap();
    }
    settle().await;
    assert_eq!((ann.screen().diffs, ann.screen().told.len()), (40, 40));
}

#[actix::test]
async fn all_members_of_the_node_are_always_at_the_same_version_and_no_cut_shows_anyone_a_wrong_roster() {
    let node = node().await;
    let crowd: Vec<_> = (0..30).map(|n| node.client(&format!("u{n}"))).collect();
    let inside: Vec<_> = (0..30).map(|_| Cell::new(false)).collect();
    let lives = (0_u64..).zip(crowd.iter().zip(&inside)).map(|(n, (client, inside))| async move {
        for turn in 0..6 {
            tokio::time::sleep(ms((n * 13 + turn * 7) % 50)).await;
            client.join(lobby()).await.unwrap();
            inside.set(true);
            tokio::time::sleep(ms((n * 5 + turn * 11) % 40)).await;
            client.update(lobby(), &format!(r#"{{"turn":{turn}}}"#)).await.unwrap();
            tokio::time::sleep(ms((n * 3 + turn * 17) % 60)).await;
            if turn < 5 || n % 2 == 0 {
                inside.set(false);
                client.leave(lobby()).await.unwrap();
            }
        }
    });
    let look = async {
        // At any moment, those who are in see the same.
        for _ in 0..80 {
            pass(ms(5)).await;
            let here = crowd.iter().zip(&inside).filter(|(_, inside)| inside.get());
            let screens: Vec<_> = here.map(|(client, _)| client.screen()).collect();
            let same = |one: &Screen| (one.version, &one.here) == (screens[0].version, &screens[0].here);
            assert!(screens.iter().all(same));
        }
    };
    tokio::join!(join_all(lives), look);
    pass(secs(1)).await;
    let stayed: Vec<_> = crowd.iter().skip(1).step_by(2).collect();
    let truth = stayed[0].screen();
    assert_eq!(truth.names().len(), 15);
    for one in stayed {
        let screen = one.screen();
        assert_eq!((screen.version, screen.here), (truth.version, truth.here.clone()));
    }
}

#[actix::test]
async fn the_joiners_of_a_window_share_a_version_and_the_next_diff_begins_there() {
    let node = node().await;
    let ann = node.member("ann").await;
    let (one, two) = (node.client("one"), node.client("two"));
    node.stir(lobby()).await;
    let pair = [one, two];
    all_join(&pair, lobby()).await;
    settle().await;
    let firsts: Vec<_> = pair.iter().map(|client| client.frames()[0]["version"].as_u64().unwrap()).collect();
    assert_eq!(firsts[0], firsts[1]);
    assert_eq!(ann.screen().version, firsts[0]);
    pass(secs(1)).await;
    ann.update(lobby(), r#"{"n":1}"#).await.unwrap();
    settle().await;
    let diffs: Vec<_> = [&ann, &pair[0], &pair[1]].map(|client| client.frames().pop().unwrap()).into();
    assert!(diffs.iter().all(|diff| diff == &diffs[0] && diff["from"] == firsts[0]));
}

#[actix::test]
async fn one_who_comes_and_goes_within_a_window_is_never_mentioned() {
    let node = node().await;
    let ann = node.member("ann").await;
    node.stir(lobby()).await;
    let _ = ann.frames();
    let bob = node.client("bob");
    {
        // Committed, but its first frame waits for the end of the window.
        let join = bob.join(lobby());
        tokio::pin!(join);
        assert!(tokio::time::timeout(ms(1), &mut join).await.is_err());
    }
    pass(secs(1)).await;
    assert_eq!((ann.frames().len(), bob.frames().len(), node.names(lobby()).await.len()), (0, 0, 1));
}

#[actix::test]
async fn in_the_mode_list_everyone_gets_the_list_and_in_events_only_first_and_last_are_told() {
    let node = node_with(config().notify(Notify::List).notify_interval(ms(0))).await;
    let (ann, bob) = (node.member("ann").await, node.member("bob").await);
    settle().await;
    let members =
        |client: &Client| client.frames().iter().map(|frame| frame["payload"]["members"].clone()).collect::<Vec<_>>();
    assert_eq!(members(&ann), [serde_json::json!(["ann"]), serde_json::json!(["ann", "bob"])]);
    assert_eq!(members(&bob), [serde_json::json!(["ann", "bob"])]);
    ann.update(lobby(), r#"{"n":1}"#).await.unwrap();
    settle().await;
    assert_eq!(members(&bob).len(), 0, "updates are told in `diff` only");
}

#[actix::test]
async fn in_the_mode_events_the_first_and_the_last_presence_of_a_user_are_told() {
    let node = node_with(config().notify(Notify::Events).notify_interval(ms(0))).await;
    let ann = node.member("ann").await;
    let tabs = [node.member("bob").await, node.member("bob").await];
    for tab in &tabs {
        tab.leave(lobby()).await.unwrap();
    }
    settle().await;
    let told: Vec<_> = ann.frames()[1..].iter().map(|frame| format!("{} {}", frame["type"], frame["user"])).collect();
    assert_eq!(told, [r#""join" "bob""#, r#""leave" "bob""#]);
    assert_eq!(tabs[1].frames().len(), 1, "the tab's own list, and nothing of the other tab");
}

#[actix::test]
async fn in_the_mode_silent_nobody_is_told_and_messages_flow() {
    let node = node_with(config().notify(Notify::Silent)).await;
    let (ann, bob) = (node.member("ann").await, node.member("bob").await);
    node.send(lobby(), "1").await.unwrap();
    pass(secs(1)).await;
    assert_eq!((ann.screen().messages.len(), ann.count(), bob.count()), (1, 1, 1));
}

// behaviour: 2.1 order-of-effects; 3 first-frame; 9 channels-1244
#[actix::test]
async fn a_busy_room_tells_a_joiner_what_was_said_since_it_was_announced_after_its_first_frame() {
    // It was announced, and got nothing of what was said until its first frame.
    let node = node().await;
    let ann = node.member("ann").await;
    node.stir(lobby()).await;
    let mut changes = node.rooms.changes();
    let (bob, cat) = (node.client("bob"), node.client("cat"));
    let say = async |text: &str| node.rooms.send(lobby(), format!("{text:?}")).await.unwrap();
    say("before").await;
    let speaking = async {
        for name in ["bob", "cat"] {
            assert_eq!(changes.next().await.unwrap().added().unwrap().user, Some(super::bench::user(name)));
            say(name).await;
        }
    };
    let cat_joins = async {
        settle().await;
        cat.join(lobby()).await.unwrap();
    };
    let (bob_joins, (), ()) = futures_util::join!(bob.join(lobby()), cat_joins, speaking);
    bob_joins.unwrap();
    settle().await;
    let heard = |client: &Client| {
        let frames = client.frames().into_iter().map(|frame| frame.as_str().unwrap_or("notice").to_owned());
        frames.collect::<Vec<_>>()
    };
    assert_eq!(heard(&bob), ["notice", "bob", "cat"]);
    assert_eq!(heard(&cat), ["notice", "cat"]);
    assert_eq!(heard(&ann).into_iter().filter(|text| text != "notice").collect::<Vec<_>>(), ["before", "bob", "cat"]);
}

#[actix::test]
async fn no_more_is_kept_for_a_joiner_than_may_wait_for_a_client() {
    let node = node_with(config().notify_interval(secs(10)).outbox_frames(5)).await;
    let _ann = node.member("ann").await;
    node.stir(lobby()).await;
    let bob = node.client("bob");
    let began = node.rooms.this_node().now();
    let flood = async {
        settle().await;
        for _ in 0..5 {
            node.rooms.send(lobby(), "\"hello\"").await.unwrap();
            settle().await;
        }
    };
    let (joined, ()) = futures_util::join!(bob.join(lobby()), flood);
    joined.unwrap();
    assert!(node.rooms.this_node().now().since(began) < secs(1), "{:?}", node.rooms.this_node().now().since(began));
    assert_eq!(bob.frames().len(), 1 + 5);
}

/// Joins two rooms when it connects.
struct InTwo;

impl Consumer for InTwo {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        socket.join(lobby()).await?;
        socket.join(&room("attic")).await
    }

    async fn receive(&mut self, _: &mut Socket, _: Frame) -> Result<()> {
        Ok(())
    }
}

#[actix::test]
async fn the_wait_for_a_notice_of_a_busy_room_does_not_count_as_time_of_the_handshake() {
    // It was answered 500, and the log blamed the consumer.
    let node = node_with(config().notify_interval(secs(4)).handshake_timeout(secs(1))).await;
    for name in [lobby(), &room("attic")] {
        node.stir(name).await;
    }
    let began = node.rooms.this_node().now();
    let socket = TestSocket::connect(TestSocket::upgrade(&node.rooms), InTwo).await;
    let took = node.rooms.this_node().now().since(began);
    assert!(socket.is_ok() && took > secs(2), "{took:?}");
}
