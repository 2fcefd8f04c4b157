//! When members receive notices: at once in a quiet room, at intervals in a busy one, and all members the same.

use super::prelude::*;
use crate::config::Notify;

// behaviour: W3 deltas
#[actix::test]
async fn the_first_change_of_a_quiet_room_is_sent_at_once() {
    let node = node().await;
    let ann = node.member("ann").await;
    pass(secs(5)).await;
    let before = node.rooms.this_node().now();
    let bob = node.member("bob").await;
    settle().await;
    assert_eq!(node.rooms.this_node().now(), before);
    assert_eq!(ann.sees(), ["ann", "bob"]);
    assert_eq!(bob.sees(), ann.sees());
}

/// Joins that begin a millisecond apart, without waiting for one another.
async fn storm(clients: &[FakeClient]) {
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
        assert!(one.count() <= 1 + frames && one.view().states == 1);
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
async fn without_an_interval_each_change_is_sent() {
    let node = node_with(config().notify_interval(ms(0))).await;
    let ann = node.member("ann").await;
    for n in 0..20 {
        let one = node.member(&format!("u{n}")).await;
        one.leave(lobby()).await.unwrap();
    }
    settle().await;
    assert_eq!((ann.view().diffs, ann.view().changes.len()), (40, 40));
}

#[actix::test]
async fn all_members_of_a_node_have_the_same_version_and_roster_at_any_time() {
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
        // At any moment all members see the same.
        for _ in 0..80 {
            pass(ms(5)).await;
            let here = crowd.iter().zip(&inside).filter(|(_, inside)| inside.get());
            let screens: Vec<_> = here.map(|(client, _)| client.view()).collect();
            let same = |one: &ClientView| (one.version, &one.here) == (screens[0].version, &screens[0].here);
            assert!(screens.iter().all(same));
        }
    };
    tokio::join!(join_all(lives), look);
    pass(secs(1)).await;
    let stayed: Vec<_> = crowd.iter().skip(1).step_by(2).collect();
    let truth = stayed[0].view();
    assert_eq!(truth.names().len(), 15);
    for one in stayed {
        let screen = one.view();
        assert_eq!((screen.version, screen.here), (truth.version, truth.here.clone()));
    }
}

#[actix::test]
async fn joiners_between_two_flushes_share_a_version_and_the_next_diff_begins_there() {
    let node = node().await;
    let ann = node.member("ann").await;
    let (one, two) = (node.client("one"), node.client("two"));
    node.stir(lobby()).await;
    let pair = [one, two];
    all_join(&pair, lobby()).await;
    settle().await;
    let firsts: Vec<_> = pair.iter().map(|client| client.frames()[0]["version"].as_u64().unwrap()).collect();
    assert_eq!(firsts[0], firsts[1]);
    assert_eq!(ann.view().version, firsts[0]);
    pass(secs(1)).await;
    ann.update(lobby(), r#"{"n":1}"#).await.unwrap();
    settle().await;
    let diffs: Vec<_> = [&ann, &pair[0], &pair[1]].map(|client| client.frames().pop().unwrap()).into();
    assert!(diffs.iter().all(|diff| diff == &diffs[0] && diff["from"] == firsts[0]));
}

#[actix::test]
async fn a_presence_that_joins_and_leaves_between_two_flushes_is_never_sent() {
    let node = node().await;
    let ann = node.member("ann").await;
    node.stir(lobby()).await;
    let _ = ann.frames();
    let bob = node.client("bob");
    {
        // The join is committed, but the first frame waits for the next flush.
        let join = bob.join(lobby());
        tokio::pin!(join);
        assert!(tokio::time::timeout(ms(1), &mut join).await.is_err());
    }
    pass(secs(1)).await;
    assert_eq!((ann.frames().len(), bob.frames().len(), node.names(lobby()).await.len()), (0, 0, 1));
}

#[actix::test]
async fn in_the_mode_list_every_member_receives_the_list() {
    let node = node_with(config().notify(Notify::List).notify_interval(ms(0))).await;
    let [ann, bob] = node.members_named(["ann", "bob"]).await;
    settle().await;
    let members = |client: &FakeClient| {
        client.frames().iter().map(|frame| frame["payload"]["members"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(members(&ann), [serde_json::json!(["ann"]), serde_json::json!(["ann", "bob"])]);
    assert_eq!(members(&bob), [serde_json::json!(["ann", "bob"])]);
    ann.update(lobby(), r#"{"n":1}"#).await.unwrap();
    settle().await;
    assert_eq!(members(&bob).len(), 0, "updates are events in `diff` only");
}

#[actix::test]
async fn in_the_mode_events_the_first_and_the_last_presence_of_a_user_are_sent() {
    let node = node_with(config().notify(Notify::Events).notify_interval(ms(0))).await;
    let ann = node.member("ann").await;
    let tabs = [node.member("bob").await, node.member("bob").await];
    for tab in &tabs {
        tab.leave(lobby()).await.unwrap();
    }
    settle().await;
    let events: Vec<_> = ann.frames()[1..].iter().map(|frame| format!("{} {}", frame["type"], frame["user"])).collect();
    assert_eq!(events, [r#""join" "bob""#, r#""leave" "bob""#]);
    assert_eq!(tabs[1].frames().len(), 1, "the tab's own list, and nothing of the other tab");
}

#[actix::test]
async fn in_the_mode_silent_no_notices_are_sent_but_messages_are() {
    let node = node_with(config().notify(Notify::Silent)).await;
    let [ann, bob] = node.members_named(["ann", "bob"]).await;
    node.send(lobby(), "1").await.unwrap();
    pass(secs(1)).await;
    assert_eq!((ann.view().messages.len(), ann.count(), bob.count()), (1, 1, 1));
}

// behaviour: 2.1 order-of-effects; 3 first-frame; 9 channels-1244
#[actix::test]
async fn a_joiner_of_a_busy_room_receives_the_messages_since_its_event_after_its_first_frame() {
    // The event of its join was published, but it received none of the messages until its first frame.
    let node = node().await;
    let ann = node.member("ann").await;
    node.stir(lobby()).await;
    let mut changes = node.rooms.changes();
    let (bob, cat) = (node.client("bob"), node.client("cat"));
    let say = async |text: &str| node.rooms.send(lobby(), format!("{text:?}")).await.unwrap();
    say("before").await;
    let speaking = async {
        for name in ["bob", "cat"] {
            assert_eq!(changes.next().await.unwrap().added().unwrap().user, Some(user(name)));
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
    let published = |client: &FakeClient| {
        let frames = client.frames().into_iter().map(|frame| frame.as_str().unwrap_or("notice").to_owned());
        frames.collect::<Vec<_>>()
    };
    assert_eq!(published(&bob), ["notice", "bob", "cat"]);
    assert_eq!(published(&cat), ["notice", "cat"]);
    assert_eq!(
        published(&ann).into_iter().filter(|text| text != "notice").collect::<Vec<_>>(),
        ["before", "bob", "cat"]
    );
}

#[actix::test]
async fn no_more_is_queued_for_a_joiner_than_its_outbox_may_hold() {
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
