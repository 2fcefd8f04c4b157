//! Removing one channel or one presence: its consumer is notified, on whichever node it is.

use tokio::sync::oneshot;

use crate::actor::{LeaveAll, Remove, RemovePresence};
use crate::rooms::tests::prelude::*;

/// The rooms of which a consumer was notified that it was removed.
pub(super) type RemovedFrom = Rc<RefCell<Vec<String>>>;

/// Joins the room that a frame names, or leaves it if its name follows a `-`.
struct RoomSwitcher {
    name: Option<oneshot::Sender<ChannelName>>,
    removed_from: RemovedFrom,
}

impl Consumer for RoomSwitcher {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        self.name.take().expect("it connects once").send(socket.channel().clone()).unwrap();
        Ok(())
    }

    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {
        match std::str::from_utf8(frame.as_bytes()).unwrap().strip_prefix('-') {
            Some("all") => socket.leave_all().await,
            Some(name) => socket.leave(&room(name)).await,
            None => socket.join(&room(std::str::from_utf8(frame.as_bytes()).unwrap())).await,
        }
    }

    async fn removed(&mut self, socket: &mut Socket, room: RoomName) -> Result<()> {
        assert!(!socket.is_in(&room));
        self.removed_from.borrow_mut().push(room.to_string());
        Ok(())
    }
}

/// Ann's socket, in these rooms.
pub(super) async fn guest(rooms: &Rooms, names: &[&str]) -> (TestSocket, ChannelName, RemovedFrom) {
    let (tell, name) = oneshot::channel();
    let removed_from = RemovedFrom::default();
    let guest = RoomSwitcher { name: Some(tell), removed_from: removed_from.clone() };
    let mut socket =
        TestSocket::connect(TestSocket::upgrade(rooms).user(Some(user("ann"))), guest).await.expect("accepted");
    for name in names {
        socket.send_text(*name);
        let first: serde_json::Value = socket.receive_json().await;
        assert_eq!(first["room"], *name);
    }
    (socket, name.await.unwrap(), removed_from)
}

/// The ids of a user's presences in the lobby, as this node lists them.
async fn ids(node: &TestNode, name: &str) -> Vec<PresenceId> {
    let members = node.members(lobby()).await.unwrap();
    let of = members.iter().filter(|member| member.user() == Some(&user(name)));
    of.flat_map(Member::presences).map(|presence| presence.id).collect()
}

#[actix::test]
async fn a_socket_that_is_removed_by_channel_is_notified_and_receives_nothing_more_of_the_room() {
    // The other members saw it leave, but its consumer considered itself in the room for ever.
    let node = node().await;
    let bob = node.member("bob").await;
    let mut changes = node.changes();
    for way in 0..4 {
        let (mut ann, name, removed_from) = guest(&node, &["lobby"]).await;
        match way {
            0 => node.remove(lobby(), &name).await.unwrap(),
            1 => node.leave_all(&name).await.unwrap(),
            2 => node.addr().send(Remove { room: lobby().clone(), channel: name }).await.unwrap().unwrap(),
            _ => node.addr().send(LeaveAll { channel: name }).await.unwrap().unwrap(),
        }
        pass(ms(200)).await;
        assert_eq!((published(&mut changes), bob.sees()), (vec!["+ann".to_owned(), "-ann".into()], vec!["bob".into()]));
        assert_eq!(*removed_from.borrow(), ["lobby"], "way {way}");
        node.send(lobby(), "\"news\"").await.unwrap();
        assert!(ann.receive_nothing().await, "it stays open");
        ann.send_text("lobby");
        let first: serde_json::Value = ann.receive_json().await;
        assert_eq!(first["type"], "presence.state", "it may come back");
        ann.disconnect(CloseCode::NORMAL).await;
        pass(ms(200)).await;
        assert_eq!(published(&mut changes), ["+ann", "-ann"]);
        assert_eq!(removed_from.borrow().len(), 1, "it left by itself");
    }
}

#[actix::test]
async fn a_socket_that_leaves_by_itself_is_not_notified() {
    let node = node().await;
    let (mut ann, _, removed_from) = guest(&node, &["lobby", "bar"]).await;
    ann.send_text("-lobby");
    settle().await;
    ann.send_text("-all");
    settle().await;
    let (lost, ..) = guest(&node, &["lobby"]).await;
    lost.lose();
    pass(ms(6)).await;
    assert_eq!((node.rows(lobby()).await, node.rows(&room("bar")).await), (vec![], vec![]));
    assert_eq!(*removed_from.borrow(), NONE);
}

#[actix::test]
async fn a_channel_that_several_callers_remove_at_once_is_notified_once() {
    let node = node().await;
    let mut changes = node.changes();
    let (ann, name, removed_from) = guest(&node, &["lobby", "bar"]).await;
    let (lobby, bar) = (lobby(), room("bar"));
    let removed =
        tokio::join!(node.remove(lobby, &name), node.leave_all(&name), node.remove(&bar, &name), node.leave_all(&name));
    assert!(matches!(removed, (Ok(()), Ok(()), Ok(()), Ok(()))), "{removed:?}");
    settle().await;
    removed_from.borrow_mut().sort();
    assert_eq!(*removed_from.borrow(), ["bar", "lobby"]);
    assert_eq!(published(&mut changes), ["+ann", "+ann", "-ann", "-ann"]);
    drop(ann);
}

#[actix::test]
async fn the_join_of_a_socket_that_is_removed_meanwhile_fails_and_it_is_not_in_the_room() {
    let node = node().await;
    let (mut ann, name, removed_from) = guest(&node, &[]).await;
    node.store.commits_take(secs(1));
    ann.send_text("lobby");
    settle().await;
    node.remove(lobby(), &name).await.unwrap();
    // Its consumer returns the error, so it is closed.
    assert_eq!(ann.receive().await, Received::Close(Some(CloseCode(1011))));
    pass(secs(3)).await;
    assert_eq!((node.rows(lobby()).await, removed_from.borrow().len()), (vec![], 0));
}

// behaviour: 2.2 stale-object
#[actix::test]
async fn a_channel_of_another_node_is_removed_there_and_its_consumer_is_notified() {
    // Nothing happened, and the call did not fail.
    let [here, there, _] = nodes::<3>(quick).await;
    let mut changes = [here.changes(), there.changes()];
    let (bob, _cid) = (here.member("bob").await, there.member("cid").await);
    pass(secs(3)).await;
    for all in [false, true] {
        let (ann, name, removed_from) = guest(&there, &["lobby", "bar"]).await;
        pass(secs(3)).await;
        changes.iter_mut().for_each(|changes| drop(published(changes)));
        let before = here.rooms.this_node().now();
        if all {
            here.leave_all(&name).await.unwrap();
        } else {
            here.remove(lobby(), &name).await.unwrap();
        }
        assert!(here.rooms.this_node().now().since(before) < secs(2), "as long as the other takes to look for it");
        let rows = if all { vec![] } else { vec!["ann".to_owned()] };
        assert_eq!((here.rows(lobby()).await, here.rows(&room("bar")).await), (vec!["bob".into(), "cid".into()], rows));
        removed_from.borrow_mut().sort();
        assert_eq!(*removed_from.borrow(), if all { vec!["bar", "lobby"] } else { vec!["lobby"] });
        let left = if all { vec!["-ann"; 2] } else { vec!["-ann"] };
        assert_eq!(published(&mut changes[0]), NONE);
        assert_eq!(published(&mut changes[1]), left);
        pass(secs(5)).await;
        assert_eq!(bob.sees(), ["bob", "cid"], "nobody joins again");
        ann.disconnect(CloseCode::NORMAL).await;
        settle().await;
    }
}

#[actix::test]
async fn a_presence_without_a_socket_on_another_node_is_removed_and_its_name_is_free() {
    let [here, there, _] = nodes::<3>(quick).await;
    let job = channel("job 7");
    for all in [false, true] {
        there.add(lobby(), &job, Some(&user("job"))).await.unwrap();
        pass(secs(3)).await;
        if all {
            here.leave_all(&job).await.unwrap();
        } else {
            here.remove(lobby(), &job).await.unwrap();
        }
        assert_eq!((here.rows(lobby()).await.len(), there.children()), (0, 0));
        here.add(lobby(), &job, None).await.unwrap();
        here.remove(lobby(), &job).await.unwrap();
    }
    there.add(lobby(), &job, Some(&user("job"))).await.unwrap();
    pass(secs(3)).await;
    let [id] = ids(&here, "job").await[..] else { panic!("one") };
    assert!(here.remove_presence(lobby(), id, None).await.unwrap());
    assert_eq!(here.rows(lobby()).await.len(), 0);
}

// behaviour: 2.2 unknown-removals; 2.2 no-room-made
#[actix::test]
async fn removing_an_unknown_channel_changes_nothing() {
    let [here, there, _] = nodes::<3>(quick).await;
    let _ann = there.member("ann").await;
    let mut changes = here.changes();
    here.remove(lobby(), &channel("nobody")).await.unwrap();
    here.remove(&room("nowhere"), &channel("nobody")).await.unwrap();
    here.leave_all(&channel("nobody")).await.unwrap();
    assert!(!here.remove_presence(lobby(), PresenceId::random(), None).await.unwrap());
    assert_eq!((here.rows(lobby()).await, published(&mut changes)), (vec!["ann".to_owned()], vec![]));
    assert!(format!("{:?}", here.store.database()).contains("rooms: 1,"), "it made no room");
    // A closed socket of this process can be nowhere else, so no request is written.
    let (closed, name, _) = guest(&here, &[]).await;
    closed.disconnect(CloseCode::NORMAL).await;
    there.store.faults.hang();
    let before = here.rooms.this_node().now();
    here.leave_all(&name).await.unwrap();
    assert_eq!(here.rooms.this_node().now(), before);
    there.store.faults.release();
}

#[actix::test]
async fn one_presence_of_a_user_is_removed_and_the_others_stay() {
    let node = node().await;
    let mut changes = node.changes();
    let (mut one, _, removed_from) = guest(&node, &["lobby"]).await;
    let [first] = ids(&node, "ann").await[..] else { panic!("one") };
    let (mut two, ..) = guest(&node, &["lobby"]).await;
    let second = ids(&node, "ann").await.into_iter().find(|id| *id != first).unwrap();
    assert!(node.remove_presence(lobby(), second, Some(Close::new(CloseCode(4003), "enough"))).await.unwrap());
    assert_eq!(two.receive().await, Received::Close(Some(CloseCode(4003))));
    assert_eq!(two.close_reason(), Some("enough"));
    assert_eq!(node.rows(lobby()).await, ["ann"]);
    assert_eq!(published(&mut changes), ["+ann", "+ann", "-ann"]);
    let end = RemovePresence { room: lobby().clone(), id: first, close: None };
    assert!(node.addr().send(end.clone()).await.unwrap().unwrap());
    settle().await;
    assert_eq!(*removed_from.borrow(), ["lobby"]);
    assert!(!node.addr().send(end).await.unwrap().unwrap(), "it is gone");
    one.send_text("lobby");
    pass(ms(200)).await;
    assert_eq!(node.rows(lobby()).await, ["ann"], "the socket stayed open");
    let wrong = node.remove_presence(lobby(), ids(&node, "ann").await[0], Some(Close::new(CloseCode(1006), ""))).await;
    assert!(matches!(wrong, Err(Error::CloseCode { code: CloseCode(1006) })));
    let elsewhere = node.remove_presence(&room("bar"), ids(&node, "ann").await[0], None).await;
    assert!(!elsewhere.unwrap(), "it is in another room");
    assert_eq!(node.rows(lobby()).await, ["ann"]);
}

#[actix::test]
async fn a_held_presence_is_removed_and_its_token_does_not_resume_it() {
    let [here, there, _] = nodes::<3>(quick).await;
    for node in [&here, &there] {
        for by_channel in [false, true] {
            let first = node.client("ann").with_token("ann", secs(10));
            first.join(lobby()).await.unwrap();
            first.lose(lobby());
            pass(secs(3)).await;
            assert_eq!(here.rows(lobby()).await, ["ann"], "it is held");
            if by_channel {
                here.remove(lobby(), &first.channel).await.unwrap();
            } else {
                assert!(here.remove_presence(lobby(), first.id(lobby()), None).await.unwrap());
            }
            assert_eq!(here.rows(lobby()).await, NONE);
            let second = there.client("ann").with_token("ann", secs(10));
            second.join(lobby()).await.unwrap();
            assert_ne!(second.me(), first.me());
            second.leave(lobby()).await.unwrap();
        }
    }
}

#[actix::test]
async fn a_presence_that_was_resumed_on_another_node_is_removed_there() {
    // Its former node considers it its own until it compares the room with the database.
    let slow = || quick().reconcile_interval(secs(60));
    let [here, there] = nodes(slow).await;
    let first = here.client("ann").with_token("ann", secs(10));
    first.join(lobby()).await.unwrap();
    let second = there.client("ann").with_token("ann", secs(10));
    second.join(lobby()).await.unwrap();
    assert_eq!(second.me(), first.me());
    let id = first.id(lobby());
    assert!(here.remove_presence(lobby(), id, Some(Close::new(CloseCode(4003), "enough"))).await.unwrap());
    assert_eq!(here.rows(lobby()).await, NONE);
    assert_eq!(second.close_codes(), [CloseCode(4003)]);
}

#[actix::test]
async fn a_presence_without_a_live_node_is_removed_by_the_requesting_node() {
    let config = || config().lease(secs(30)).grace(secs(50)).sweep_interval(secs(20));
    let [here, there] = nodes(config).await;
    let database = here.store.database().clone();
    let [one, two] = there.members_named(["ann", "bob"]).await;
    // Its next incarnation holds its presences.
    let later = node_on(&database, "there", config()).await;
    settle().await;
    assert_eq!(here.rows(lobby()).await, ["ann", "bob"]);
    assert!(here.remove_presence(lobby(), one.id(lobby()), None).await.unwrap());
    here.remove(lobby(), &two.channel).await.unwrap();
    assert_eq!(database.load(lobby().clone()).await.unwrap().unwrap().presences.len(), 0);
    drop(later);
}

#[actix::test]
async fn a_presence_that_is_lost_while_it_joins_is_removed_and_not_held() {
    let node = node().await;
    let first = node.client("ann").with_token("ann", secs(10));
    first.join(lobby()).await.unwrap();
    let others = node_on(node.store.database(), "there", config()).await;
    let second = others.client("ann").with_token("ann", secs(10));
    others.store.commits_take(secs(1));
    let mut joins = Box::pin(second.join(lobby()));
    assert!(joins.as_mut().now_or_never().is_none());
    settle().await;
    second.lose(lobby());
    assert!(joins.await.is_err());
    assert!(others.remove_presence(lobby(), second.id(lobby()), None).await.unwrap());
    assert_eq!(others.rows(lobby()).await, NONE, "it resumed the first, and is not held");
}
