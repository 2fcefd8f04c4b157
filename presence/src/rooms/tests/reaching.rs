//! Sending to some members and not to others, removing a user from one room, and reading more than the members of a room.

use std::time::{Duration, SystemTime};

use super::bench::{config, heard, lobby, node, node_on, pass, room, secs, user};
use crate::{
    Close, CloseCode, Consumer, Error, Event, EventName, Frame, GroupName, Result, RoomName, Rooms, Socket,
    actor::RemoveUserFrom, clock::Clock, store::MemoryStore, testing::TestSocket,
};

/// Joins its rooms, sends each text of its client to the others in the first room, and each event to its client.
struct Visitor(Vec<RoomName>);

impl Consumer for Visitor {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        for room in &self.0 {
            socket.join(room).await?;
        }
        Ok(())
    }

    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {
        let text = std::str::from_utf8(frame.as_bytes()).expect("a test sends text");
        match text.strip_prefix("I am ") {
            Some(name) => socket.set_user(Some(user(name))).await,
            None => socket.rooms().send_except(&self.0[0], socket.channel(), text).await,
        }
    }

    async fn event(&mut self, socket: &mut Socket, event: Event) -> Result<()> {
        socket.send(format!("event {}", event.name())).await
    }
}

async fn visitor(rooms: &Rooms, name: &str, names: &[&str]) -> TestSocket {
    let visitor = Visitor(names.iter().map(|name| room(name)).collect());
    let who = Some(name).filter(|name| !name.is_empty()).map(user);
    let mut socket = TestSocket::connect(TestSocket::upgrade(rooms).user(who), visitor).await.expect("accepted");
    for _ in names {
        socket.receive_text().await;
    }
    socket
}

/// The texts that the client receives, without the notices.
async fn texts(socket: &mut TestSocket) -> Vec<String> {
    let mut texts = Vec::new();
    while !socket.receive_nothing().await {
        texts.push(socket.receive_text().await);
    }
    texts.retain(|text| !text.starts_with('{'));
    texts
}

#[actix::test]
async fn a_text_to_all_others_does_not_come_back_to_its_sender() {
    let node = node().await;
    let mut ann = visitor(&node.rooms, "ann", &["lobby"]).await;
    let mut tab = visitor(&node.rooms, "ann", &["lobby"]).await;
    let mut bob = visitor(&node.rooms, "bob", &["lobby"]).await;
    ann.send_text("hello");
    assert_eq!(texts(&mut ann).await, Vec::<String>::new());
    assert_eq!((texts(&mut tab).await, texts(&mut bob).await), (vec!["hello".to_owned()], vec!["hello".to_owned()]));
}

#[actix::test]
async fn a_text_to_all_others_does_not_reach_its_sender_either_that_waits_for_its_first_frame() {
    let node = node().await;
    let ann = node.member("ann").await;
    // A busy room sends the first frame a little later.
    node.stir(lobby()).await;
    let (bob, mut changes) = (node.client("bob"), node.changes());
    let sending = async {
        assert!(changes.next().await.unwrap().added().is_some());
        node.send_except(lobby(), &bob.channel, "\"to all but bob\"").await.unwrap();
        node.send_except(lobby(), &ann.channel, "\"to all but ann\"").await.unwrap();
    };
    let (joined, ()) = futures_util::future::join(bob.join(lobby()), sending).await;
    joined.unwrap();
    pass(secs(1)).await;
    assert_eq!(bob.screen().messages, ["to all but ann"]);
    assert_eq!(ann.screen().messages, ["to all but bob"]);
}

#[actix::test]
async fn a_text_to_a_user_reaches_all_its_sockets_in_whichever_rooms_and_nobody_else() {
    let node = node().await;
    let mut here = visitor(&node.rooms, "ann", &["lobby", "attic"]).await;
    let mut nowhere = visitor(&node.rooms, "ann", &[]).await;
    let mut guest = visitor(&node.rooms, "", &["lobby"]).await;
    let mut bob = visitor(&node.rooms, "bob", &["lobby"]).await;
    node.send_to_user(&user("ann"), "for ann").await.unwrap();
    node.send_event_to_user(&user("ann"), Event::new(EventName::new("call").unwrap(), &()).unwrap()).unwrap();
    node.send_to_user(&user("nobody"), "for nobody").await.unwrap();
    for socket in [&mut here, &mut nowhere] {
        assert_eq!(texts(socket).await, ["for ann", "event call"]);
    }
    for socket in [&mut guest, &mut bob] {
        assert_eq!(texts(socket).await, Vec::<String>::new());
    }
    guest.send_text("I am ann");
    pass(secs(1)).await;
    here.lose();
    pass(secs(1)).await;
    node.send_to_user(&user("ann"), "again").await.unwrap();
    assert_eq!(texts(&mut guest).await, ["again"], "a guest that signed in is this user");
    guest.send_text("I am bob");
    pass(secs(1)).await;
    node.send_to_user(&user("ann"), "once more").await.unwrap();
    assert_eq!((texts(&mut guest).await, texts(&mut nowhere).await.len()), (vec![], 2));
}

#[actix::test]
async fn sockets_of_one_user_are_found_by_their_present_user_and_nothing_is_kept_of_those_that_closed() {
    let node = node().await;
    let mut all = Vec::new();
    for _ in 0..6 {
        all.push(visitor(&node.rooms, "ann", &[]).await);
    }
    for socket in all.iter_mut().step_by(2) {
        socket.send_text("I am bob");
    }
    pass(secs(1)).await;
    all.remove(5).lose();
    pass(secs(1)).await;
    for name in ["ann", "bob"] {
        node.send_to_user(&user(name), format!("for {name}")).await.unwrap();
    }
    for (n, socket) in all.iter_mut().enumerate() {
        assert_eq!(texts(socket).await, [if n % 2 == 0 { "for bob" } else { "for ann" }], "socket {n}");
    }
    for socket in all {
        socket.lose();
    }
    pass(secs(1)).await;
    let sockets = node.rooms.hubs().here().sockets;
    assert_eq!((sockets.borrow().count(), sockets.borrow().user_entries()), (0, 0));
}

#[actix::test]
async fn a_removed_member_receives_nothing_more_of_the_room_and_its_hub_nothing_after_the_last_one() {
    let node = node().await;
    let (ann, bob) = (node.member("ann").await, node.member("bob").await);
    pass(secs(1)).await;
    assert_eq!(node.remove_user_from(lobby(), &user("ann"), None).await.unwrap(), 1);
    node.send(lobby(), "\"after ann\"").await.unwrap();
    pass(secs(1)).await;
    assert_eq!(ann.screen().messages.len(), 0);
    assert_eq!(bob.screen().messages, ["after ann"]);
    assert_eq!(node.remove_user_from(lobby(), &user("bob"), None).await.unwrap(), 1);
    pass(secs(1)).await;
    let sockets = node.rooms.hubs().here().sockets;
    let before = sockets.borrow().messages;
    node.add(lobby(), &"job".parse().unwrap(), None).await.unwrap();
    pass(secs(1)).await;
    assert_eq!(sockets.borrow().messages, before, "no socket of this thread is in the room");
}

#[actix::test]
async fn after_the_end_of_the_node_each_way_to_send_is_an_error() {
    let node = node().await;
    let ann = node.member("ann").await;
    node.send(lobby(), "hello").await.unwrap();
    node.rooms.shutdown().await;
    let event = || Event::new(EventName::new("call").unwrap(), &()).unwrap();
    let team = GroupName::new("team").unwrap();
    let answers = [
        node.send(lobby(), "late").await,
        node.send_except(lobby(), &ann.channel, "late").await,
        node.send_to(&ann.channel, "late").await,
        node.send_to_user(&user("ann"), "late").await,
        node.send_event(lobby(), event()),
        node.send_event_to(&ann.channel, event()),
        node.send_event_to_user(&user("ann"), event()),
        node.send_to_group(&team, "late").await,
        node.send_event_to_group(&team, event()),
    ];
    for answer in answers {
        assert!(matches!(answer, Err(Error::ShuttingDown)), "{answer:?}");
    }
}

#[actix::test]
async fn a_user_is_removed_from_one_room_on_every_node_and_stays_in_the_others() {
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let quick = || config().sweep_interval(secs(1));
    let (here, there) = (node_on(&database, "here", quick()).await, node_on(&database, "there", quick()).await);
    let (first, second) = (here.member("ann").await, there.member("ann").await);
    let [bob, cid] = [here.member("bob").await, here.member("cid").await];
    for member in [&first, &bob, &cid] {
        member.join(&room("attic")).await.unwrap();
    }
    pass(secs(1)).await;
    let mut changes = here.changes();
    let close = Some(Close::new(CloseCode(4003), "enough"));
    assert_eq!(here.remove_user_from(lobby(), &user("ann"), close).await.unwrap(), 2);
    assert_eq!(heard(&mut changes), ["-[ann]"]);
    assert_eq!((first.closes(), second.closes()), (vec![CloseCode(4003)], vec![CloseCode(4003)]));
    assert_eq!(here.rows(lobby()).await, ["bob", "cid"]);
    let message = RemoveUserFrom { room: lobby().clone(), user: user("cid"), close: None };
    assert_eq!(here.addr().send(message.clone()).await.unwrap().unwrap(), 1);
    assert_eq!(here.addr().send(message).await.unwrap().unwrap(), 0);
    assert_eq!(here.room(lobby()).remove_user(&user("bob"), None).await.unwrap(), 1);
    assert_eq!((here.rows(lobby()).await.len(), here.rows(&room("attic")).await.len()), (0, 3));
    assert_eq!((bob.closes(), cid.closes()), (vec![], vec![]));
}

#[actix::test]
async fn all_rooms_are_listed_page_by_page() {
    let node = node().await;
    let (ann, _tab) = (node.member("ann").await, node.member("ann").await);
    for name in ["attic", "cellar"] {
        ann.join(&room(name)).await.unwrap();
    }
    let page = async |after: Option<&RoomName>, limit| -> Vec<String> {
        let page = node.rooms.rooms(after, limit).await.unwrap();
        page.iter().map(|listed| format!("{} {} {}", listed.room, listed.users, listed.presences)).collect()
    };
    assert_eq!(page(None, 2).await, ["attic 1 1", "cellar 1 1"]);
    assert_eq!(page(Some(&room("cellar")), 2).await, ["lobby 1 2"]);
    assert_eq!(page(Some(lobby()), 2).await, Vec::<String>::new());
}

#[actix::test]
async fn each_presence_has_the_time_of_its_join_and_of_its_last_touch_on_whichever_node() {
    // Ids have the time in milliseconds.
    let begun = SystemTime::now() - Duration::from_millis(1);
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let here = node_on(&database, "here", config()).await;
    let there = node_on(&database, "there", config().touch_flush_interval(secs(5))).await;
    let (ann, bob) = (here.member("ann").await, there.member("bob").await);
    pass(secs(20)).await;
    ann.touch();
    bob.touch();
    pass(secs(12)).await;
    let seen = here.last_seen(lobby()).await.unwrap();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[&ann.id(lobby())].as_secs(), 12);
    assert_eq!(seen[&bob.id(lobby())].as_secs(), 12, "its node has written that");
    ann.touch();
    assert_eq!(here.last_seen(lobby()).await.unwrap()[&ann.id(lobby())], Duration::ZERO);
    for member in here.members(lobby()).await.unwrap() {
        let joined_at = member.presences()[0].joined_at().unwrap();
        assert!(joined_at >= begun && joined_at <= SystemTime::now(), "{joined_at:?}");
    }
    assert!(here.last_seen(&room("nowhere")).await.unwrap().is_empty());
    // It named also those whom this node did not list yet, or no more.
    let _cid = there.member("cid").await;
    assert_eq!(here.last_seen(lobby()).await.unwrap().len(), here.count(lobby()).await.unwrap().presences);
}
