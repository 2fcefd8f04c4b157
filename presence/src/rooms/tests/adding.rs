//! Channels that are added by name: sockets of this process while they are open, and names that the application chose.

use actix_web::http::StatusCode;
use tokio::sync::oneshot;

use super::prelude::*;
use crate::actor::{Add, LeaveAll};

/// Sends the name of its channel. It is accepted, or denied when `denied` resolves.
struct NamedConsumer {
    tell: Option<oneshot::Sender<ChannelName>>,
    turned_away: Option<oneshot::Receiver<()>>,
}

impl Consumer for NamedConsumer {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        self.tell.take().expect("it connects once").send(socket.channel().clone()).unwrap();
        let Some(turned_away) = self.turned_away.take() else { return Ok(()) };
        turned_away.await.unwrap();
        Err(Error::deny(StatusCode::FORBIDDEN, "not you"))
    }

    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {
        match frame.as_bytes() {
            b"close" => socket.close(CloseCode(4000), "events to"),
            _ => socket.join(lobby()).await,
        }
    }
}

/// A socket in no room, and its channel name.
async fn socket(rooms: &Rooms) -> (TestSocket, ChannelName) {
    let (tell, name) = oneshot::channel();
    let guest = NamedConsumer { tell: Some(tell), turned_away: None };
    let socket =
        TestSocket::connect(TestSocket::upgrade(rooms).user(Some(user("ann"))), guest).await.expect("accepted");
    (socket, name.await.unwrap())
}

/// Checks that nothing was written and no event was published.
async fn nothing_happened(node: &TestNode, changes: &mut Subscription) {
    pass(secs(1)).await;
    assert_eq!((node.rows(lobby()).await, published(changes)), (Vec::<String>::new(), vec![]));
}

// behaviour: W6 no-ghosts
#[actix::test]
async fn a_socket_that_is_closed_is_not_added_as_a_presence_without_a_socket() {
    // It was added, and stayed for `max_age`.
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
    // Other calls with such a name do nothing, as for any unknown name.
    node.touch(&one);
    node.remove(lobby(), &one).await.unwrap();
    node.addr().send(LeaveAll { channel: one }).await.unwrap().unwrap();
}

#[actix::test]
async fn a_socket_name_that_was_never_issued_is_refused_as_a_closed_socket() {
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
async fn a_socket_that_is_closing_is_not_added() {
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
async fn a_socket_whose_handshake_is_denied_is_not_added() {
    let node = node().await;
    let ((tell, name), (turn_away, turned_away)) = (oneshot::channel(), oneshot::channel());
    let guest = NamedConsumer { tell: Some(tell), turned_away: Some(turned_away) };
    let refused = actix::spawn(TestSocket::connect(TestSocket::upgrade(&node), guest));
    let one = name.await.unwrap();
    node.add(lobby(), &one, None).await.unwrap();
    let mut changes = node.changes();
    // Its leave takes a while, and the answer to the client waits for it.
    node.store.commits_take(secs(1));
    turn_away.send(()).unwrap();
    pass(ms(500)).await;
    assert!(matches!(node.add(lobby(), &one, None).await, Err(Error::SocketClosed)));
    assert_eq!(refused.await.unwrap().unwrap_err().status, StatusCode::FORBIDDEN);
    settle().await;
    assert_eq!((node.rows(lobby()).await, published(&mut changes)), (vec![], vec!["--".to_owned()]));
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
        // If its join was published, its leave is published, too.
        let events = published(&mut changes);
        assert!(events.is_empty() || events == ["+-", "--"], "{events:?}");
        assert_eq!(node.rows(lobby()).await, NONE);
        assert_eq!((node.children(), node.count(lobby()).await.unwrap().presences), (0, 0));
    }
}

#[actix::test]
async fn a_socket_of_another_process_is_not_added_here() {
    // If it was not in the room, it became a presence that nobody removed. If it was, the error `StoreRefused` did not say why.
    let [here, there] = nodes(config).await;
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
        assert_eq!(published(&mut changes), NONE);
    }
    // It cannot be touched from here, but it can be removed.
    here.touch(&name);
    assert_eq!(here.rows(lobby()).await, ["ann"]);
    here.remove(lobby(), &name).await.unwrap();
    assert_eq!(here.rows(lobby()).await, NONE);
    there.add(&room("bar"), &name, Some(&user("ann"))).await.unwrap();
}

#[actix::test]
async fn names_that_the_application_chooses_are_free() {
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
async fn a_channel_name_that_is_in_use_costs_no_load_and_no_warning() {
    let [here, there] = nodes(config).await;
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
async fn a_name_of_a_socket_that_is_in_use_logs_a_warning() {
    let [here, there] = nodes(config).await;
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
async fn a_channel_name_of_a_killed_process_is_in_use_until_the_grace_is_over() {
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
async fn a_dropped_add_leaves_no_channel() {
    // A gateway drops its requests with their connections, and each has a channel name of its own.
    let node = node().await;
    node.store.faults.hang();
    {
        let (rooms, name) = (node.rooms.clone(), channel("job 1"));
        let add = rooms.add(lobby(), &name, None);
        assert!(tokio::time::timeout(secs(1), add).await.is_err(), "the database hangs");
    }
    node.store.faults.release();
    pass(secs(30)).await;
    assert_eq!(node.rows(lobby()).await, NONE);
    assert!(node.rooms.channels().get(&channel("job 1")).is_none());
}
