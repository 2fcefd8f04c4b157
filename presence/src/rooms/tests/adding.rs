//! What is added by name: a socket of this process while it is open, and names of the application's own making.

use actix_web::http::StatusCode;
use tokio::sync::oneshot;

use super::bench::{Log, Node, config, heard, leap, lobby, ms, node, node_on, pass, room, secs, settle, user};
use crate::{
    CloseCode, Consumer, Error, Frame, JoinOptions, Result, Rooms, Socket,
    actor::{Add, LeaveAll},
    clock::Clock,
    name::ChannelName,
    signal::Subscription,
    store::MemoryStore,
    testing::{Received, TestSocket},
};

/// Tells the name of its channel, and is let in, or turned away when this is told.
struct Guest {
    tell: Option<oneshot::Sender<ChannelName>>,
    turned_away: Option<oneshot::Receiver<()>>,
}

impl Consumer for Guest {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        self.tell.take().expect("it connects once").send(socket.channel().clone()).unwrap();
        let Some(turned_away) = self.turned_away.take() else { return Ok(()) };
        turned_away.await.unwrap();
        Err(Error::deny(StatusCode::FORBIDDEN, "not you"))
    }

    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {
        match frame.as_bytes() {
            b"close" => socket.close(CloseCode(4000), "told to"),
            _ => socket.join(lobby()).await,
        }
    }
}

/// A socket in no room, and its name.
async fn socket(rooms: &Rooms) -> (TestSocket, ChannelName) {
    let (tell, name) = oneshot::channel();
    let guest = Guest { tell: Some(tell), turned_away: None };
    let socket =
        TestSocket::connect(TestSocket::upgrade(rooms).user(Some(user("ann"))), guest).await.expect("accepted");
    (socket, name.await.unwrap())
}

fn channel(name: impl AsRef<str>) -> ChannelName {
    ChannelName::new(name).unwrap()
}

/// Nothing of it was written, and nobody was told anything.
async fn nothing_happened(node: &Node, changes: &mut Subscription) {
    pass(secs(1)).await;
    assert_eq!((node.rows(lobby()).await, heard(changes)), (Vec::<String>::new(), vec![]));
}

// behaviour: W6 no-ghosts
#[actix::test]
async fn a_socket_that_is_closed_is_not_added_as_a_presence_without_a_socket() {
    // It was, and stayed for `max_age`.
    let node = node().await;
    let mut changes = node.changes();
    let (closed, one) = socket(&node).await;
    closed.disconnect(CloseCode::NORMAL).await;
    settle().await;
    assert!(matches!(node.add(lobby(), &one, Some(&user("ann"))).await, Err(Error::SocketClosed)));
    let add = Add { room: lobby().clone(), channel: one.clone(), user: None, options: JoinOptions::new() };
    assert!(matches!(node.addr().send(add).await.unwrap(), Err(Error::SocketClosed)));
    let (lost, two) = socket(&node).await;
    lost.lose();
    settle().await;
    assert!(matches!(node.room(lobby()).add(&two, None).await, Err(Error::SocketClosed)));
    nothing_happened(&node, &mut changes).await;
    // All else that is asked by such a name is nothing, as of any that is not known.
    node.touch(&one);
    node.remove(lobby(), &one).await.unwrap();
    node.addr().send(LeaveAll { channel: one }).await.unwrap().unwrap();
}

#[actix::test]
async fn a_name_that_this_process_never_gave_is_that_of_no_socket() {
    let node = node().await;
    let mut changes = node.changes();
    let (_socket, one) = socket(&node).await;
    let (place, _) = one.as_str().split_once('!').unwrap();
    for number in ["77", "99999999999999999999999"] {
        let never = channel(format!("{place}!{number}"));
        assert!(matches!(node.add(lobby(), &never, None).await, Err(Error::SocketClosed)));
    }
    nothing_happened(&node, &mut changes).await;
}

#[actix::test]
async fn a_socket_whose_close_is_out_is_not_added_any_more() {
    // Its consumer cannot join, but others could make it join.
    let node = node().await;
    let mut changes = node.changes();
    let (mut closing, one) = socket(&node).await;
    closing.send_text("close");
    settle().await;
    assert!(matches!(node.add(lobby(), &one, None).await, Err(Error::SocketClosed)));
    assert_eq!(closing.receive().await, Received::Close(Some(CloseCode(4000))));
    nothing_happened(&node, &mut changes).await;
}

#[actix::test]
async fn a_socket_that_is_turned_away_is_not_added_any_more() {
    let node = node().await;
    let ((tell, name), (turn_away, turned_away)) = (oneshot::channel(), oneshot::channel());
    let guest = Guest { tell: Some(tell), turned_away: Some(turned_away) };
    let refused = actix::spawn(TestSocket::connect(TestSocket::upgrade(&node), guest));
    let one = name.await.unwrap();
    node.add(lobby(), &one, None).await.unwrap();
    let mut changes = node.changes();
    // Its leave takes a while, and the client's answer waits for it.
    node.store.commits_take(secs(1));
    turn_away.send(()).unwrap();
    pass(ms(500)).await;
    assert!(matches!(node.add(lobby(), &one, None).await, Err(Error::SocketClosed)));
    assert_eq!(refused.await.unwrap().unwrap_err().status, StatusCode::FORBIDDEN);
    settle().await;
    assert_eq!((node.rows(lobby()).await, heard(&mut changes)), (vec![], vec!["--".to_owned()]));
}

#[actix::test]
async fn a_socket_that_closes_while_it_is_added_is_not_in_the_room() {
    let node = node().await;
    for lost in [false, true] {
        let mut changes = node.changes();
        let (socket, one) = socket(&node).await;
        node.store.commits_take(secs(1));
        let (rooms, channel) = (node.rooms.clone(), one.clone());
        let adds = actix::spawn(async move { rooms.add(lobby(), &channel, None).await.map(drop) });
        pass(ms(500)).await;
        if lost {
            socket.lose();
        } else {
            socket.disconnect(CloseCode::NORMAL).await;
        }
        let added = adds.await.unwrap();
        assert!(matches!(added, Err(Error::LeftWhileJoining { .. })), "{added:?}");
        pass(secs(5)).await;
        // Whoever was told that it came is told that it went.
        let told = heard(&mut changes);
        assert!(told.is_empty() || told == ["+-", "--"], "{told:?}");
        assert_eq!(node.rows(lobby()).await, Vec::<String>::new());
        assert_eq!((node.children(), node.count(lobby()).await.unwrap().presences), (0, 0));
    }
}

#[actix::test]
async fn a_socket_of_another_process_is_not_added_here() {
    // Outside of the room it became a ghost, and within `StoreRefused` said nothing of why.
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let (here, there) = (node_on(&database, "here", config()).await, node_on(&database, "there", config()).await);
    let (mut theirs, name) = socket(&there).await;
    for in_the_room in [false, true] {
        if in_the_room {
            theirs.send_text("join");
            settle().await;
        }
        let mut changes = here.changes();
        let added = here.add(lobby(), &name, Some(&user("ann"))).await;
        assert!(matches!(&added, Err(Error::SocketElsewhere { channel }) if *channel == name), "{added:?}");
        pass(secs(1)).await;
        assert_eq!(here.rows(lobby()).await.len(), usize::from(in_the_room));
        assert_eq!(heard(&mut changes), Vec::<String>::new());
    }
    // Nor is it touched from here. But it is removed.
    here.touch(&name);
    assert_eq!(here.rows(lobby()).await, ["ann"]);
    here.remove(lobby(), &name).await.unwrap();
    assert_eq!(here.rows(lobby()).await, Vec::<String>::new());
    there.add(&room("bar"), &name, Some(&user("ann"))).await.unwrap();
}

#[actix::test]
async fn names_of_ones_own_making_are_free() {
    let node = node().await;
    let hex = "0123456789abcdef".repeat(2);
    let names = ["job 7", "ws.", "ws.7", "ws.elsewhere.0!1", "!", "ws..!"].map(str::to_owned);
    let nearly =
        ["", ".0", ".0!", ".!1", ".0!x", ".-1!1", ".+1!1", ".0!1!1", ".0!1 "].map(|end| format!("ws.{hex}{end}"));
    let other = [format!("ws.{}.0!1", hex.to_uppercase()), format!("WS.{hex}.0!1"), format!("ws.{}.0!1", &hex[1..])];
    for name in names.into_iter().chain(nearly).chain(other) {
        node.add(lobby(), &channel(&name), None).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        node.remove(lobby(), &channel(&name)).await.unwrap();
    }
    let given = channel(format!("ws.{hex}.0!1"));
    assert!(matches!(node.add(lobby(), &given, None).await, Err(Error::SocketElsewhere { .. })));
}

#[actix::test]
async fn a_name_that_is_taken_costs_no_reading_of_the_room_and_no_warning_however_often_it_is_tried() {
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let (here, there) = (node_on(&database, "here", config()).await, node_on(&database, "there", config()).await);
    let job = channel("job 7");
    there.add(lobby(), &job, None).await.unwrap();
    let (log, loads) = (Log::of_warnings(), here.store.loads());
    for _ in 0..10 {
        let added = here.add(lobby(), &job, None).await;
        assert!(matches!(added, Err(Error::ChannelTaken { .. })), "{added:?}");
    }
    assert_eq!((here.store.loads() - loads, log.lines()), (0, Vec::new()));
    here.store.refuse(|_| true);
    assert!(matches!(here.add(&room("bar"), &job, None).await, Err(Error::StoreRefused(_))));
    assert_eq!(log.lines().len(), 1, "nobody expects such a refusal: {:?}", log.lines());
}

#[actix::test]
async fn that_the_name_of_a_socket_is_taken_is_a_warning_since_it_is_nobody_elses() {
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let (here, there) = (node_on(&database, "here", config()).await, node_on(&database, "there", config()).await);
    let (ann, mut eve) = (here.client("ann"), there.client("eve"));
    here.channels().open(ann.channel.clone(), ann.touch.clone(), here.hubs().here().hub);
    eve.channel = ann.channel.clone();
    eve.join(lobby()).await.unwrap();
    let log = Log::of_warnings();
    assert!(matches!(here.add(lobby(), &ann.channel, None).await, Err(Error::ChannelTaken { .. })));
    let lines = log.lines();
    assert!(lines.len() == 1 && lines[0].contains("a socket is in the store already"), "{lines:?}");
}

#[actix::test]
async fn a_name_that_the_process_had_before_it_was_killed_is_taken_for_the_grace() {
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let job = channel("job 7");
    let before = node_on(&database, "here", config()).await;
    before.add(lobby(), &job, None).await.unwrap();
    before.store.faults.fail_next(usize::MAX);
    let after = node_on(&database, "here", config()).await;
    assert!(matches!(after.add(lobby(), &job, None).await, Err(Error::ChannelTaken { .. })));
    leap(secs(10)).await;
    pass(secs(3)).await;
    after.add(lobby(), &job, None).await.unwrap();
}

#[actix::test]
async fn of_a_name_whose_add_was_given_up_nothing_is_kept() {
    // A gateway's requests are dropped with their connections, each with a name of its own.
    let node = node().await;
    node.store.faults.hang();
    {
        let (rooms, name) = (node.rooms.clone(), channel("job 1"));
        let add = rooms.add(lobby(), &name, None);
        assert!(tokio::time::timeout(secs(1), add).await.is_err(), "the database hangs");
    }
    node.store.faults.release();
    pass(secs(30)).await;
    assert_eq!(node.rows(lobby()).await, Vec::<String>::new());
    assert!(node.rooms.channels().get(&channel("job 1")).is_none());
}
