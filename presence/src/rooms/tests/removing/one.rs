//! Removing one channel or one presence: its own side learns of it, on whichever node it is.

use std::{cell::RefCell, rc::Rc};

use futures_util::FutureExt;
use tokio::sync::oneshot;

use crate::{
    CloseCode, Consumer, Error, Frame, Result, Rooms, Socket,
    actor::{LeaveAll, Remove, RemovePresence},
    clock::Clock,
    delivery::ToHub,
    model::{Close, Member},
    name::{ChannelName, PresenceId, RoomName},
    room::ToRoom,
    rooms::tests::bench::{Node, config, heard, lobby, ms, node, node_on, pass, room, secs, settle, user},
    store::{MemoryStore, RoomStore},
    testing::{Received, TestSocket},
};

use super::{quick, removals, three};

/// From which rooms a consumer learned that it was removed.
type Told = Rc<RefCell<Vec<String>>>;

/// Joins the rooms whose names it is sent, and leaves those after a `-`.
struct Guest {
    name: Option<oneshot::Sender<ChannelName>>,
    told: Told,
}

impl Consumer for Guest {
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
        self.told.borrow_mut().push(room.to_string());
        Ok(())
    }
}

/// Ann's socket, in these rooms.
async fn guest(rooms: &Rooms, names: &[&str]) -> (TestSocket, ChannelName, Told) {
    let (tell, name) = oneshot::channel();
    let told = Told::default();
    let guest = Guest { name: Some(tell), told: told.clone() };
    let mut socket =
        TestSocket::connect(TestSocket::upgrade(rooms).user(Some(user("ann"))), guest).await.expect("accepted");
    for name in names {
        socket.send_text(*name);
        let first: serde_json::Value = socket.receive_json().await;
        assert_eq!(first["room"], *name);
    }
    (socket, name.await.unwrap(), told)
}

fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap()
}

/// The ids of a user's presences in the lobby, as this node lists them.
async fn ids(node: &Node, name: &str) -> Vec<PresenceId> {
    let members = node.members(lobby()).await.unwrap();
    let of = members.iter().filter(|member| member.user() == Some(&user(name)));
    of.flat_map(Member::presences).map(|presence| presence.id).collect()
}

#[actix::test]
async fn a_socket_that_is_removed_by_its_channel_learns_of_it_and_gets_nothing_more_of_the_room() {
    // The others saw it leave, and it believed itself in the room for ever.
    let node = node().await;
    let bob = node.member("bob").await;
    let mut changes = node.changes();
    for way in 0..4 {
        let (mut ann, name, told) = guest(&node, &["lobby"]).await;
        match way {
            0 => node.remove(lobby(), &name).await.unwrap(),
            1 => node.leave_all(&name).await.unwrap(),
            2 => node.addr().send(Remove { room: lobby().clone(), channel: name }).await.unwrap().unwrap(),
            _ => node.addr().send(LeaveAll { channel: name }).await.unwrap().unwrap(),
        }
        pass(ms(200)).await;
        assert_eq!((heard(&mut changes), bob.sees()), (vec!["+ann".to_owned(), "-ann".into()], vec!["bob".into()]));
        assert_eq!(*told.borrow(), ["lobby"], "way {way}");
        node.send(lobby(), "\"news\"").await.unwrap();
        assert!(ann.receive_nothing().await, "it stays open");
        ann.send_text("lobby");
        let first: serde_json::Value = ann.receive_json().await;
        assert_eq!(first["type"], "presence.state", "it may come back");
        ann.disconnect(CloseCode::NORMAL).await;
        pass(ms(200)).await;
        assert_eq!(heard(&mut changes), ["+ann", "-ann"]);
        assert_eq!(told.borrow().len(), 1, "it left by itself");
    }
}

#[actix::test]
async fn a_socket_that_leaves_by_itself_is_not_told() {
    let node = node().await;
    let (mut ann, _, told) = guest(&node, &["lobby", "bar"]).await;
    ann.send_text("-lobby");
    settle().await;
    ann.send_text("-all");
    settle().await;
    let (lost, ..) = guest(&node, &["lobby"]).await;
    lost.lose();
    pass(ms(6)).await;
    assert_eq!((node.rows(lobby()).await, node.rows(&room("bar")).await), (vec![], vec![]));
    assert_eq!(*told.borrow(), Vec::<String>::new());
}

#[actix::test]
async fn of_many_who_remove_a_channel_at_once_one_does_and_it_learns_of_it_once() {
    let node = node().await;
    let mut changes = node.changes();
    let (ann, name, told) = guest(&node, &["lobby", "bar"]).await;
    let (lobby, bar) = (lobby(), room("bar"));
    let removed =
        tokio::join!(node.remove(lobby, &name), node.leave_all(&name), node.remove(&bar, &name), node.leave_all(&name));
    assert!(matches!(removed, (Ok(()), Ok(()), Ok(()), Ok(()))), "{removed:?}");
    settle().await;
    told.borrow_mut().sort();
    assert_eq!(*told.borrow(), ["bar", "lobby"]);
    assert_eq!(heard(&mut changes), ["+ann", "+ann", "-ann", "-ann"]);
    drop(ann);
}

#[actix::test]
async fn the_join_of_a_socket_that_is_removed_meanwhile_fails_and_it_is_not_in_the_room() {
    let node = node().await;
    let (mut ann, name, told) = guest(&node, &[]).await;
    node.store.commits_take(secs(1));
    ann.send_text("lobby");
    settle().await;
    node.remove(lobby(), &name).await.unwrap();
    // Its consumer lets it fail, and so it is closed.
    assert_eq!(ann.receive().await, Received::Close(Some(CloseCode(1011))));
    pass(secs(3)).await;
    assert_eq!((node.rows(lobby()).await, told.borrow().len()), (vec![], 0));
}

// behaviour: 2.2 stale-object
#[actix::test]
async fn a_channel_of_another_node_is_removed_there_and_its_socket_learns_of_it() {
    // Nothing happened, and nobody said so.
    let [here, there, _] = three().await;
    let mut changes = [here.changes(), there.changes()];
    let (bob, _cid) = (here.member("bob").await, there.member("cid").await);
    pass(secs(3)).await;
    for all in [false, true] {
        let (ann, name, told) = guest(&there, &["lobby", "bar"]).await;
        pass(secs(3)).await;
        changes.iter_mut().for_each(|changes| drop(heard(changes)));
        let before = here.rooms.this_node().now();
        if all {
            here.leave_all(&name).await.unwrap();
        } else {
            here.remove(lobby(), &name).await.unwrap();
        }
        assert!(here.rooms.this_node().now().since(before) < secs(2), "as long as the other takes to look for it");
        let rows = if all { vec![] } else { vec!["ann".to_owned()] };
        assert_eq!((here.rows(lobby()).await, here.rows(&room("bar")).await), (vec!["bob".into(), "cid".into()], rows));
        told.borrow_mut().sort();
        assert_eq!(*told.borrow(), if all { vec!["bar", "lobby"] } else { vec!["lobby"] });
        let left = if all { vec!["-ann"; 2] } else { vec!["-ann"] };
        assert_eq!(
            (heard(&mut changes[0]), heard(&mut changes[1])),
            (vec![], left.into_iter().map(String::from).collect())
        );
        pass(secs(5)).await;
        assert_eq!(bob.sees(), ["bob", "cid"], "nobody joins again");
        ann.disconnect(CloseCode::NORMAL).await;
        settle().await;
    }
}

#[actix::test]
async fn a_presence_without_a_socket_of_another_node_is_removed_and_its_name_is_free() {
    let [here, there, _] = three().await;
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
async fn a_channel_that_nobody_has_is_nothing() {
    let [here, there, _] = three().await;
    let _ann = there.member("ann").await;
    let mut changes = here.changes();
    here.remove(lobby(), &channel("nobody")).await.unwrap();
    here.remove(&room("nowhere"), &channel("nobody")).await.unwrap();
    here.leave_all(&channel("nobody")).await.unwrap();
    assert!(!here.remove_presence(lobby(), PresenceId::random(), None).await.unwrap());
    assert_eq!((here.rows(lobby()).await, heard(&mut changes)), (vec!["ann".to_owned()], vec![]));
    assert!(format!("{:?}", here.store.database()).contains("rooms: 1,"), "it made no room");
    // A closed socket of this process can be nowhere else, so nobody is asked.
    let (closed, name, _) = guest(&here, &[]).await;
    closed.disconnect(CloseCode::NORMAL).await;
    there.store.faults.hang();
    let before = here.rooms.this_node().now();
    here.leave_all(&name).await.unwrap();
    assert_eq!(here.rooms.this_node().now(), before);
    there.store.faults.release();
}

#[actix::test]
async fn one_presence_of_a_user_is_ended_and_the_others_stay() {
    let node = node().await;
    let mut changes = node.changes();
    let (mut one, _, told) = guest(&node, &["lobby"]).await;
    let [first] = ids(&node, "ann").await[..] else { panic!("one") };
    let (mut two, ..) = guest(&node, &["lobby"]).await;
    let second = ids(&node, "ann").await.into_iter().find(|id| *id != first).unwrap();
    assert!(node.remove_presence(lobby(), second, Some(Close::new(CloseCode(4003), "enough"))).await.unwrap());
    assert_eq!(two.receive().await, Received::Close(Some(CloseCode(4003))));
    assert_eq!(two.close_reason(), Some("enough"));
    assert_eq!(
        (node.rows(lobby()).await, heard(&mut changes)),
        (vec!["ann".into()], vec!["+ann".into(), "+ann".into(), "-ann".to_owned()])
    );
    let end = RemovePresence { room: lobby().clone(), id: first, close: None };
    assert!(node.addr().send(end.clone()).await.unwrap().unwrap());
    settle().await;
    assert_eq!(*told.borrow(), ["lobby"]);
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
async fn one_presence_of_another_node_is_ended_with_a_code_or_without() {
    let [here, there, _] = three().await;
    for close in [Some(Close::new(CloseCode(4003), "enough")), None] {
        let (one, two) = (there.member("ann").await, there.member("ann").await);
        pass(secs(3)).await;
        let [first, _] = [one.id(lobby()), two.id(lobby())];
        assert!(here.remove_presence(lobby(), first, close.clone()).await.unwrap());
        assert_eq!((removals(&one), removals(&two)), (vec![("lobby".to_owned(), close)], vec![]));
        assert_eq!(here.rows(lobby()).await, ["ann"]);
        two.leave(lobby()).await.unwrap();
    }
}

#[actix::test]
async fn a_presence_that_is_held_is_ended_and_its_token_does_not_bring_it_back() {
    let [here, there, _] = three().await;
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
            assert_eq!(here.rows(lobby()).await, Vec::<String>::new());
            let second = there.client("ann").with_token("ann", secs(10));
            second.join(lobby()).await.unwrap();
            assert_ne!(second.me(), first.me());
            second.leave(lobby()).await.unwrap();
        }
    }
}

#[actix::test]
async fn a_presence_that_was_resumed_elsewhere_is_ended_where_it_is() {
    // The node that it was resumed from takes it for its own until it compares the room with the database.
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let slow = || quick().reconcile_interval(secs(60));
    let (here, there) = (node_on(&database, "here", slow()).await, node_on(&database, "there", slow()).await);
    let first = here.client("ann").with_token("ann", secs(10));
    first.join(lobby()).await.unwrap();
    let second = there.client("ann").with_token("ann", secs(10));
    second.join(lobby()).await.unwrap();
    assert_eq!(second.me(), first.me());
    let id = first.id(lobby());
    assert!(here.remove_presence(lobby(), id, Some(Close::new(CloseCode(4003), "enough"))).await.unwrap());
    assert_eq!(here.rows(lobby()).await, Vec::<String>::new());
    assert_eq!(second.closes(), [CloseCode(4003)]);
}

#[actix::test]
async fn a_presence_that_no_live_node_answers_for_is_ended_by_the_one_who_asks() {
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let config = || config().lease(secs(30)).grace(secs(50)).sweep_interval(secs(20));
    let here = node_on(&database, "here", config()).await;
    let there = node_on(&database, "there", config()).await;
    let (one, two) = (there.member("ann").await, there.member("bob").await);
    // Its next life holds what it left.
    let later = node_on(&database, "there", config()).await;
    settle().await;
    assert_eq!(here.rows(lobby()).await, ["ann", "bob"]);
    assert!(here.remove_presence(lobby(), one.id(lobby()), None).await.unwrap());
    here.remove(lobby(), &two.channel).await.unwrap();
    assert_eq!(database.load(lobby().clone()).await.unwrap().unwrap().presences.len(), 0);
    drop(later);
}

#[actix::test]
async fn one_that_is_lost_while_it_joins_is_ended_and_not_held() {
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
    assert_eq!(others.rows(lobby()).await, Vec::<String>::new(), "it resumed the first, and is not held");
}

/// Everything that ann receives until she is closed. Returns the reason.
async fn closed(mut ann: TestSocket) -> String {
    while let Received::Frame(_) = ann.receive().await {}
    ann.close_reason().unwrap_or_default().to_owned()
}

#[actix::test]
async fn a_client_that_joins_again_at_once_cannot_dodge_the_close_of_its_removal() {
    // Its socket ignored a removal from a room that it was in again, whatever the close code.
    let node = node().await;
    let (ann, name, _) = guest(&node, &["lobby"]).await;
    let (rooms, channel) = (node.rooms.clone(), name.clone());
    let joins = actix::spawn(async move {
        loop {
            let _ = rooms.add(lobby(), &channel, Some(&user("ann"))).await;
            tokio::task::yield_now().await;
        }
    });
    settle().await;
    node.remove_user(&user("ann"), Some(Close::new(CloseCode(4003), "banned"))).await.unwrap();
    assert_eq!(closed(ann).await, "banned");
    joins.abort();
    pass(secs(1)).await;
    assert_eq!(node.rows(lobby()).await, [""; 0]);
}

#[actix::test]
async fn a_client_that_leaves_and_joins_again_at_once_cannot_dodge_it_either() {
    // The room took it for one that had left by itself.
    let node = node().await;
    let (ann, name, _) = guest(&node, &["lobby"]).await;
    let (reply, _answer) = oneshot::channel();
    let close = Some(Close::new(CloseCode(4003), "banned"));
    node.table().send_running(lobby(), ToRoom::Remove { user: Some(user("ann")), close, reply });
    let ann_again = user("ann");
    let (left, _) = futures_util::join!(node.leave_all(&name), node.add(lobby(), &name, Some(&ann_again)));
    left.unwrap();
    assert_eq!(closed(ann).await, "banned");
    pass(secs(1)).await;
    assert_eq!(node.rows(lobby()).await, [""; 0]);
}

#[actix::test]
async fn only_a_close_for_what_the_former_presence_did_is_ignored_after_a_new_join() {
    let node = node().await;
    for (code, is_closed) in [(CloseCode(4003), true), (CloseCode::STALE, false), (CloseCode::SUPERSEDED, false)] {
        let (mut ann, name, _) = guest(&node, &["lobby"]).await;
        let close = Some(Close::new(code, "removed"));
        let (room, channels) = (lobby().clone(), vec![name.clone()]);
        // It has joined again before this comes.
        node.hubs().of(&name).unwrap().addr.do_send(ToHub::Removed { room, channels, members: Vec::new(), close });
        settle().await;
        if is_closed {
            assert_eq!(closed(ann).await, "removed");
        } else {
            assert!(ann.receive_nothing().await, "{code}");
        }
    }
}
