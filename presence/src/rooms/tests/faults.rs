//! Failures of rooms, presences and hubs that are caused on purpose: they affect nothing else.

use std::task::{Context, Poll, Wake, Waker};

use super::prelude::*;
use crate::testing::fault::{panic_hubs, panic_presence};

/// Fifty sockets, of whom some come, change and go while messages are sent, and `fail` is called again and again. In the
/// end everyone who stayed sees what is, and had every message exactly once and in order.
async fn check_traffic(fail: impl Fn(&Rooms, &[FakeClient])) {
    let node = node().await;
    let crowd = node.crowd(50).await;
    let others: Vec<_> = (0..10).map(|n| node.client(&format!("x{n}"))).collect();
    pass(secs(1)).await;
    let mut changes = node.changes();
    node.store.commits_take(ms(3));
    let sent = Cell::new(0);
    let messages = async {
        for n in 0..150 {
            node.send(lobby(), n.to_string()).await.unwrap();
            sent.set(n + 1);
            tokio::time::sleep(ms(2)).await;
        }
    };
    let lives = others.iter().map(|client| async move {
        for n in 0..4 {
            client.join(lobby()).await.unwrap();
            client.update(lobby(), &format!(r#"{{"n":{n}}}"#)).await.unwrap();
            client.leave(lobby()).await.unwrap();
        }
        client.join(lobby()).await.unwrap();
        client.update(lobby(), r#"{"at":"last"}"#).await.unwrap();
    });
    let faults = async {
        for _ in 0..6 {
            pass(ms(37)).await;
            fail(&node.rooms, &crowd);
        }
    };
    tokio::join!(messages, futures_util::future::join_all(lives), faults);
    pass(secs(15)).await;
    check_all(&node, &crowd, &others, sent.get());
    let published = published(&mut changes);
    for n in 0..10 {
        let mine = published.iter().filter(|event| event.ends_with(&format!("x{n}")));
        let life = [format!("+x{n}"), format!("~x{n}"), format!("-x{n}")];
        assert!(mine.eq(life.iter().cycle().take(14)), "{published:?}");
    }
    assert_eq!(published.len(), 140, "of those who stayed nothing is events");
    assert_eq!((node.children(), node.rows(lobby()).await.len()), (60, 60));
}

fn check_all(node: &TestNode, crowd: &[FakeClient], others: &[FakeClient], sent: i32) {
    let truth = crowd[0].view();
    assert_eq!(truth.names().len(), 60);
    for client in crowd {
        let screen = client.view();
        assert_eq!(screen.messages, (0..sent).map(serde_json::Value::from).collect::<Vec<_>>());
        assert_eq!((screen.version, &screen.here), (truth.version, &truth.here));
        assert!(client.close_codes().is_empty());
    }
    for client in others {
        let screen = client.view();
        assert_eq!((screen.version, &screen.here), (truth.version, &truth.here));
        assert_eq!(screen.here[&client.id(lobby()).to_string()].1["at"], "last");
    }
    assert_eq!(node.running(), 1);
}

#[actix::test]
async fn after_a_failure_of_the_room_nothing_is_lost_or_repeated() {
    check_traffic(|rooms, _| panic_room(rooms, lobby())).await;
}

#[actix::test]
async fn after_a_failure_in_the_middle_of_a_change_nothing_is_lost_or_repeated() {
    check_traffic(|rooms, _| rooms.table().send_running(lobby(), ToRoom::PanicInModel)).await;
}

#[actix::test]
async fn after_a_failure_of_a_presence_nothing_is_lost_or_repeated() {
    check_traffic(|rooms, crowd| panic_presence(rooms, lobby(), crowd[7].id(lobby()))).await;
}

#[actix::test]
async fn after_a_failure_of_the_hub_nothing_is_lost_or_repeated() {
    check_traffic(|rooms, _| panic_hubs(rooms)).await;
}

/// Panics when it is woken.
struct Trap;

impl Wake for Trap {
    fn wake(self: Arc<Self>) {
        panic!("a socket's waker fails");
    }
}

/// Makes the hub fail in the middle of the next delivery to this socket.
fn set_trap(client: &FakeClient) {
    client.frames();
    let waker = Waker::from(Arc::new(Trap));
    assert!(matches!(client.outbox.poll(&Context::from_waker(&waker)), Poll::Pending));
}

#[actix::test]
async fn a_hub_that_fails_in_the_middle_of_a_delivery_delivers_to_each_member_once() {
    check_traffic(|_, crowd| crowd.iter().step_by(11).for_each(set_trap)).await;
}

#[actix::test]
async fn a_hub_that_fails_while_it_adds_joiners_adds_all_of_them() {
    // The joiners after the one at which the hub failed received no first frame, and were in no group.
    let node = node().await;
    let _ann = node.member("ann").await;
    node.stir(lobby()).await;
    let crowd: Vec<_> = (0..20).map(|n| node.client(&format!("u{n}"))).collect();
    set_trap(&crowd[9]);
    all_join(&crowd, lobby()).await;
    node.send(lobby(), "1").await.unwrap();
    pass(secs(1)).await;
    for one in &crowd {
        assert_eq!((one.sees().len(), one.view().states, one.view().messages.len()), (21, 1, 1));
    }
}

#[actix::test]
async fn a_room_that_fails_repeatedly_closes_its_sockets_and_starts_again() {
    let node = node().await;
    let crowd = node.crowd(50).await;
    for _ in 0..8 {
        panic_room(&node.rooms, lobby());
        pass(ms(100)).await;
        assert_eq!((node.running(), crowd[0].close_codes()), (1, vec![]));
    }
    panic_room(&node.rooms, lobby());
    pass(ms(100)).await;
    assert!(crowd.iter().all(|one| one.close_codes() == [CloseCode::INTERNAL_ERROR]));
    futures_util::future::join_all(crowd.iter().map(|one| one.leave(lobby()))).await;
    let ann = node.member("ann").await;
    pass(secs(1)).await;
    assert_eq!((ann.sees(), node.rows(lobby()).await), (vec!["ann".to_owned()], vec!["ann".to_owned()]));
    assert_eq!(node.children(), 1);
}

#[actix::test]
async fn a_room_does_not_give_up_after_rare_failures() {
    let node = node().await;
    let ann = node.member("ann").await;
    for _ in 0..30 {
        panic_room(&node.rooms, lobby());
        pass(secs(2)).await;
        ann.touch();
    }
    assert_eq!((ann.close_codes(), node.names(lobby()).await), (vec![], vec!["ann".to_owned()]));
}

#[actix::test]
async fn a_failure_of_the_room_neither_makes_a_presence_stale_nor_keeps_a_silent_one() {
    let node = node().await;
    let [ann, bob] = node.members_named(["ann", "bob"]).await;
    let mut changes = node.changes();
    for turn in 0..6 {
        pass(secs(10)).await;
        bob.touch();
        if turn % 2 == 0 {
            panic_room(&node.rooms, lobby());
        } else {
            panic_presence(&node.rooms, lobby(), ann.id(lobby()));
        }
    }
    pass(secs(2)).await;
    assert_eq!((published(&mut changes), bob.sees()), (vec!["-[ann]".to_owned()], vec!["bob".to_owned()]));
    assert_eq!(node.children(), 1);
}

#[actix::test]
async fn a_room_that_fails_during_an_outage_recovers_when_the_database_is_back() {
    let node = node().await;
    let [ann, bob] = node.members_named(["ann", "bob"]).await;
    let cid = node.client("cid");
    pass(secs(1)).await;
    node.store.faults.fail_next(usize::MAX);
    let (left, joined, ()) = tokio::join!(bob.leave(lobby()), cid.join(lobby()), async {
        pass(ms(500)).await;
        panic_room(&node.rooms, lobby());
        pass(secs(1)).await;
        node.send(lobby(), "1").await.unwrap();
        node.store.faults.fail_next(0);
    });
    assert!(left.is_ok() && joined.is_ok(), "{joined:?}");
    pass(secs(3)).await;
    assert_eq!((ann.sees(), cid.sees()), (vec!["ann".to_owned(), "cid".into()], ann.sees()));
    assert_eq!((ann.view().messages.len(), bob.view().messages.len()), (1, 0));
}

#[actix::test]
async fn a_member_that_joins_again_while_its_room_recovers_keeps_its_meta() {
    // The join was written again with an empty meta, and the member counted twice.
    let node = node().await;
    let [ann, bob] = node.members_named(["ann", "bob"]).await;
    bob.update(lobby(), r#"{"n":1}"#).await.unwrap();
    pass(secs(1)).await;
    for fault in [ToRoom::Panic, ToRoom::PanicInModel] {
        let frames = bob.count();
        node.rooms.table().send_running(lobby(), fault);
        bob.join(lobby()).await.unwrap();
        pass(secs(1)).await;
        assert_eq!(ann.view().here[&bob.id(lobby()).to_string()].1["n"], 1);
        assert!(bob.count() - frames <= 1);
    }
    ann.leave(lobby()).await.unwrap();
    bob.leave(lobby()).await.unwrap();
    pass(secs(1)).await;
    assert_eq!((node.running(), node.children()), (0, 0));
}

#[actix::test]
async fn a_presence_whose_socket_has_left_the_hub_becomes_stale_after_a_failure() {
    let node = node().await;
    let [ann, bob] = node.members_named(["ann", "bob"]).await;
    let mut changes = node.changes();
    // Nobody reports that it left.
    node.rooms.hubs().all()[0]
        .addr
        .do_send(crate::delivery::ToHub::Leave { room: lobby().clone(), channels: vec![ann.channel.clone()] });
    panic_room(&node.rooms, lobby());
    for _ in 0..7 {
        pass(secs(10)).await;
        bob.touch();
    }
    assert_eq!((published(&mut changes), bob.sees()), (vec!["-[ann]".to_owned()], vec!["bob".to_owned()]));
}

#[actix::test]
async fn a_reader_of_a_room_that_fails_is_answered() {
    let node = node().await;
    let _ann = node.member("ann").await;
    panic_room(&node.rooms, lobby());
    assert_eq!(node.names(lobby()).await, ["ann"]);
    node.rooms.table().send_running(lobby(), ToRoom::PanicInModel);
    assert_eq!(node.names(lobby()).await, ["ann"]);
}

#[actix::test]
async fn a_socket_that_disconnects_before_its_first_frame_is_no_member() {
    let node = node().await;
    let ann = node.member("ann").await;
    node.stir(lobby()).await;
    let bob = node.client("bob");
    let (joined, ()) = tokio::join!(bob.join(lobby()), async {
        settle().await;
        bob.vanish();
    });
    assert!(joined.is_ok() || matches!(joined, Err(Error::LeftWhileJoining { .. })));
    let _ = bob.leave(lobby()).await;
    pass(secs(1)).await;
    assert_eq!((bob.frames().len(), ann.sees()), (0, vec!["ann".to_owned()]));
}

#[actix::test]
async fn a_first_frame_counts_as_partly_sent_until_its_last_piece_is_sent() {
    // A Close was queued after the piece that all joiners share, instead of the joiner's own piece.
    let node = node().await;
    let ann = node.client("ann");
    ann.outbox.push_first(lobby(), (vec![0; 2 * PIECE].into(), Some("the end".into()), None));
    let cx = Context::from_waker(Waker::noop());
    for _ in 0..2 {
        assert!(matches!(ann.outbox.poll(&cx), Poll::Ready(Some(Ok(bytes))) if bytes.len() == PIECE));
    }
    assert!(!ann.outbox.clear());
}

#[actix::test]
async fn a_presence_without_a_socket_that_is_touched_outlives_a_fault_of_its_room() {
    // The restarted room watched a touch that was not the one of the channel.
    let node = node().await;
    let job = channel("job");
    let _room = node.rooms.add(lobby(), &job, Some(&user("job"))).await.unwrap();
    panic_room(&node.rooms, lobby());
    for _ in 0..20 {
        pass(secs(5)).await;
        node.rooms.touch(&job);
    }
    assert_eq!(node.names(lobby()).await, ["job"]);
    pass(secs(70)).await;
    assert_eq!(node.names(lobby()).await, NONE);
}

#[actix::test]
async fn an_update_in_progress_succeeds_and_is_sent_once_although_the_room_fails() {
    let node = node().await;
    let [ann, bob] = node.members_named(["ann", "bob"]).await;
    pass(secs(1)).await;
    node.store.faults.hang();
    let breaking = async {
        settle().await;
        panic_room(&node.rooms, lobby());
        settle().await;
        node.store.faults.release();
    };
    let (updated, ()) = futures_util::future::join(ann.update(lobby(), r#"{"n":1}"#), breaking).await;
    updated.unwrap();
    pass(secs(3)).await;
    let events = bob.view().changes;
    assert_eq!(events.iter().filter(|event| *event == "~ann").count(), 1, "{events:?}");
    ann.leave(lobby()).await.unwrap();
    bob.leave(lobby()).await.unwrap();
    pass(secs(10)).await;
    assert_eq!(node.running(), 0, "nothing is owed");
}

#[actix::test]
async fn a_presence_without_a_socket_keeps_its_meta_when_its_room_fails() {
    // No hub reports it, so its next `add` was a join with an empty meta, and it was in no list until the room was loaded.
    let node = node().await;
    let bot = channel("job 7");
    let busy = |n: u8| Meta::from_json(&format!(r#"{{"n":{n}}}"#)).unwrap();
    node.add(lobby(), &bot, Some(&user("bot"))).await.unwrap();
    node.update(lobby(), &bot, busy(1)).await.unwrap();
    let mut changes = node.changes();
    for again in [false, true] {
        node.store.hang_after_load();
        panic_room(&node.rooms, lobby());
        settle().await;
        node.add(lobby(), &bot, Some(&user("bot"))).await.unwrap();
        if again {
            node.update(lobby(), &bot, busy(2)).await.unwrap();
        }
        node.store.release_loads();
        pass(secs(1)).await;
        let members = node.members(lobby()).await.unwrap();
        assert_eq!(members[0].presences()[0].meta, busy(if again { 2 } else { 1 }));
        assert_eq!((members.len(), members[0].presences().len()), (1, 1));
    }
    node.store.hang_after_load();
    panic_room(&node.rooms, lobby());
    settle().await;
    assert_eq!(node.remove_user_from(lobby(), &user("bot"), None).await.unwrap(), 1);
    node.store.release_loads();
    pass(secs(1)).await;
    assert_eq!((published(&mut changes), node.rows(lobby()).await.len()), (vec!["~bot".into(), "-[bot]".into()], 0));
}
