//! Updates that come faster than the rate: which of them are written, and when.

use crate::rooms::tests::prelude::*;

use super::{Busy, busy, busy_on, send, settle_all};

/// The meta of the only presence in the lobby.
async fn meta(node: &TestNode) -> String {
    let members = node.rooms.members(lobby()).await.unwrap();
    let [member] = &members[..] else { panic!("{members:?}") };
    member.presences()[0].meta.as_str().to_owned()
}

#[actix::test]
async fn updates_that_come_faster_than_the_rate_merge_to_the_last_and_the_last_is_written() {
    let (node, mut socket, done) = busy(config().messages_per_second(0).max_rooms_per_socket(10)).await;
    socket.send_text("+lobby");
    settle_all().await;
    node.store.commits();
    send(&mut socket, 1000, |n| format!("lobby={n}"));
    settle_all().await;
    assert_eq!((done.0.get(), node.store.commits().len()), (1001, 25), "five seconds' worth at once, and none waits");
    assert_eq!(meta(&node).await, r#"{"n":24}"#);
    pass(ms(201)).await;
    assert_eq!((meta(&node).await, node.store.commits().len()), (r#"{"n":999}"#.to_owned(), 1));
    for second in 0..3 {
        send(&mut socket, 100, |n| format!("lobby=1{n}{second}"));
        pass(secs(1)).await;
    }
    assert!(node.store.commits().len() <= 16, "5 a second");
    pass(secs(1)).await;
    assert_eq!(meta(&node).await, r#"{"n":1992}"#);
}

#[actix::test]
async fn the_last_update_of_a_lost_socket_is_written_and_that_of_one_that_leaves_is_dropped() {
    let (node, mut socket, _) = busy(config().updates_per_second(1).max_rooms_per_socket(2)).await;
    socket.send_text("+lobby");
    send(&mut socket, 9, |n| format!("lobby={n}"));
    settle_all().await;
    assert_eq!(meta(&node).await, r#"{"n":4}"#);
    socket.lose();
    pass(secs(1)).await;
    let row = node.store.database().load(lobby().clone()).await.unwrap().unwrap().presences.remove(0);
    assert_eq!((row.held, row.meta.as_str()), (true, r#"{"n":8}"#));

    let consumer = Busy::default();
    let upgrade = TestSocket::upgrade(&node.rooms).user(Some(user("bob")));
    let mut bob = TestSocket::connect(upgrade, consumer).await.expect("accepted");
    bob.send_text("+attic");
    send(&mut bob, 9, |n| format!("attic={n}"));
    bob.send_text("-attic");
    bob.send_text("+attic");
    pass(secs(10)).await;
    let members = node.rooms.members(&room("attic")).await.unwrap();
    let [member] = &members[..] else { panic!("{members:?}") };
    assert_eq!(member.presences()[0].meta, Meta::default(), "it is another presence");
}

#[actix::test]
async fn updates_of_former_presences_do_not_delay_those_of_the_present_one() {
    let settings = config().messages_per_second(0).joins_per_second(0).max_rooms_per_socket(2);
    let (node, mut socket, done) = busy(settings.notify_interval(ms(0))).await;
    socket.send_text("+lobby");
    for n in 0..100 {
        socket.send_text(format!("lobby={n}"));
        socket.send_text("-lobby");
        socket.send_text("+lobby");
    }
    pass(secs(3)).await;
    send(&mut socket, 50, |n| format!("lobby={n}"));
    settle_all().await;
    assert_eq!(done.0.get(), 351);
    pass(ms(201)).await;
    assert_eq!(meta(&node).await, r#"{"n":49}"#);
}

#[actix::test]
async fn a_newer_socket_of_the_presence_inherits_the_pending_update() {
    let (node, mut first, _) = busy(config().updates_per_second(1).max_rooms_per_socket(2)).await;
    first.send_text("+lobby");
    send(&mut first, 9, |n| format!("lobby={n}"));
    settle_all().await;
    assert_eq!(meta(&node).await, r#"{"n":4}"#);
    // The third socket supersedes one that has itself superseded another.
    for n in [8, 88] {
        let (mut next, _) = busy_on(&node).await;
        next.send_text("+lobby");
        pass(ms(200)).await;
        assert_eq!(meta(&node).await, format!(r#"{{"n":{n}}}"#));
        while let Received::Frame(_) = first.receive().await {}
        assert_eq!(first.close_reason(), Some("taken over"));
        send(&mut next, 9, |n| format!("lobby=8{n}"));
        settle_all().await;
        assert_eq!(meta(&node).await, r#"{"n":84}"#);
        first = next;
    }
}

#[actix::test]
async fn a_pending_update_that_finds_the_writer_full_is_written_later() {
    let settings = config().updates_per_second(5).max_rooms_per_socket(1).max_pending_writes(1);
    let (node, mut socket, _) = busy(settings).await;
    socket.send_text("+lobby");
    send(&mut socket, 30, |n| format!("lobby={n}"));
    settle_all().await;
    let others = fill_the_writer(&node).await;
    pass(secs(1)).await;
    node.store.faults.release();
    pass(secs(3)).await;
    assert_eq!(meta(&node).await, r#"{"n":29}"#);
    others.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Makes the store hang, with as many pending changes as the limit allows.
async fn fill_the_writer(node: &TestNode) -> Vec<tokio::task::JoinHandle<()>> {
    node.store.faults.hang();
    // The first change is being written, and the second is pending.
    let mut others = Vec::new();
    for name in ["bob", "eve"] {
        let one = node.client(name);
        others.push(actix::spawn(async move { drop(one.join(&room("attic")).await) }));
        settle_all().await;
    }
    others
}

#[actix::test]
async fn the_last_update_of_a_socket_that_is_lost_or_superseded_is_written_although_the_writer_is_full() {
    tokio::time::pause();
    check_last_update(true).await;
    check_last_update(false).await;
}

/// An update of ann is pending, and the writer is full, when her socket is lost or superseded.
async fn check_last_update(is_lost: bool) {
    let settings = config().updates_per_second(1).max_rooms_per_socket(2).max_pending_writes(1);
    let node = new_node(settings).await;
    let (mut first, _) = busy_on(&node).await;
    first.send_text("+lobby");
    send(&mut first, 9, |n| format!("lobby={n}"));
    settle_all().await;
    assert_eq!(meta(&node).await, r#"{"n":4}"#);
    let others = fill_the_writer(&node).await;
    let mut next = None;
    if is_lost {
        first.lose();
    } else {
        next.insert(busy_on(&node).await.0).send_text("+lobby");
    }
    settle_all().await;
    node.store.faults.release();
    pass(secs(1)).await;
    others.iter().for_each(tokio::task::JoinHandle::abort);
    let row = node.store.database().load(lobby().clone()).await.unwrap().unwrap().presences.remove(0);
    assert_eq!((row.held, row.meta.as_str()), (is_lost, r#"{"n":8}"#));
}

#[actix::test]
async fn a_pending_update_is_written_although_a_newer_one_of_another_caller_was_refused() {
    // It was dropped, and its socket had been answered that it would be written.
    let settings = config().updates_per_second(1).max_rooms_per_socket(2).max_pending_writes(1);
    let (node, mut socket, _) = busy(settings).await;
    socket.send_text("+lobby");
    send(&mut socket, 9, |n| format!("lobby={n}"));
    settle_all().await;
    assert_eq!(meta(&node).await, r#"{"n":4}"#);
    let channel = node.members(lobby()).await.unwrap()[0].presences()[0].channel.clone();
    let others = fill_the_writer(&node).await;
    let refused = node.update(lobby(), &channel, Meta::from_json(r#"{"n":"other"}"#).unwrap()).await;
    assert!(matches!(refused, Err(Error::Overloaded { limit: 1 })), "{refused:?}");
    node.store.faults.release();
    pass(secs(5)).await;
    assert_eq!(meta(&node).await, r#"{"n":8}"#);
    others.iter().for_each(tokio::task::JoinHandle::abort);
}

#[actix::test]
async fn a_pending_update_does_not_overwrite_a_newer_one_of_another_caller_when_the_room_fails_between_them() {
    // It was sent again after the newer one, although its socket had been answered before that one was made.
    let (node, mut socket, _) = busy(config().updates_per_second(1).max_rooms_per_socket(2)).await;
    socket.send_text("+lobby");
    send(&mut socket, 9, |n| format!("lobby={n}"));
    settle_all().await;
    assert_eq!(meta(&node).await, r#"{"n":4}"#);
    let channel = node.members(lobby()).await.unwrap()[0].presences()[0].channel.clone();
    node.store.commits_take(ms(50));
    node.store.commits();
    while node.store.commits().is_empty() {
        pass(ms(10)).await;
    }
    // The pending update is being written now.
    node.table().send_running(lobby(), ToRoom::Panic);
    node.update(lobby(), &channel, Meta::from_json(r#"{"n":"newer"}"#).unwrap()).await.unwrap();
    pass(secs(5)).await;
    assert_eq!(meta(&node).await, r#"{"n":"newer"}"#);
}
