//! Sending to some and not to others, and what is read of rooms besides who is there.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use super::bench::{Node, config, heard, lobby, node, node_on, pass, room, secs, user};
use crate::{
    Consumer, Error, Event, EventName, Frame, Result, RoomName, Rooms, Socket, UserId, actor::RemoveUserFrom,
    clock::Clock, store::MemoryStore, testing::TestSocket,
};

/// Joins the rooms that it is made with, says to the others in the first what its client says, and passes its events on.
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

/// What comes, but for notices.
async fn texts(socket: &mut TestSocket) -> Vec<String> {
    let mut texts = Vec::new();
    while !socket.receive_nothing().await {
        texts.push(socket.receive_text().await);
    }
    texts.retain(|text| !text.starts_with('{'));
    texts
}

#[actix::test]
async fn what_one_says_to_all_others_it_does_not_get_itself() {
    let node = node().await;
    let mut ann = visitor(&node.rooms, "ann", &["lobby"]).await;
    let mut tab = visitor(&node.rooms, "ann", &["lobby"]).await;
    let mut bob = visitor(&node.rooms, "bob", &["lobby"]).await;
    ann.send_text("hello");
    assert_eq!(texts(&mut ann).await, Vec::<String>::new());
    assert_eq!((texts(&mut tab).await, texts(&mut bob).await), (vec!["hello".to_owned()], vec!["hello".to_owned()]));
}

#[actix::test]
async fn a_user_is_sent_to_on_all_its_sockets_in_whichever_rooms_and_nobody_else() {
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
    assert_eq!(texts(&mut guest).await, ["again"], "one who signed in is this user");
    guest.send_text("I am bob");
    pass(secs(1)).await;
    node.send_to_user(&user("ann"), "once more").await.unwrap();
    assert_eq!((texts(&mut guest).await, texts(&mut nowhere).await.len()), (vec![], 2));
}

#[actix::test]
async fn nothing_is_sent_once_the_node_has_ended_and_the_sender_learns_of_it() {
    let node = node().await;
    let ann = node.member("ann").await;
    node.send(lobby(), "hello").await.unwrap();
    node.rooms.shutdown().await;
    let event = || Event::new(EventName::new("call").unwrap(), &()).unwrap();
    let answers = [
        node.send(lobby(), "late").await,
        node.send_except(lobby(), &ann.channel, "late").await,
        node.send_to(&ann.channel, "late").await,
        node.send_to_user(&user("ann"), "late").await,
        node.send_event(lobby(), event()),
        node.send_event_to(&ann.channel, event()),
        node.send_event_to_user(&user("ann"), event()),
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
    let (first, second, bob) = (here.member("ann").await, there.member("ann").await, here.member("bob").await);
    first.join(&room("attic")).await.unwrap();
    pass(secs(1)).await;
    let mut changes = here.changes();
    assert_eq!(here.remove_user_from(lobby(), &user("ann"), None).await.unwrap(), 2);
    assert_eq!(heard(&mut changes), ["-[ann]"]);
    assert_eq!(
        (here.rows(lobby()).await, here.rows(&room("attic")).await),
        (vec!["bob".to_owned()], vec!["ann".into()])
    );
    let again = RemoveUserFrom { room: lobby().clone(), user: user("ann"), close: None };
    assert_eq!(here.addr().send(again).await.unwrap().unwrap(), 0);
    assert_eq!(here.room(lobby()).remove_user(&user("bob"), None).await.unwrap(), 1);
    drop((second, bob));
}

#[actix::test]
async fn all_rooms_are_listed_page_by_page() {
    let node = node().await;
    let ann = node.member("ann").await;
    for name in ["attic", "cellar"] {
        ann.join(&room(name)).await.unwrap();
    }
    let names = async |after: Option<&RoomName>, limit| -> Vec<String> {
        let page = node.rooms.rooms(after, limit).await.unwrap();
        page.iter().map(|listed| format!("{} {}", listed.room, listed.users)).collect()
    };
    assert_eq!(names(None, 2).await, ["attic 1", "cellar 1"]);
    assert_eq!(names(Some(&room("cellar")), 2).await, ["lobby 1"]);
    assert_eq!(names(Some(lobby()), 2).await, Vec::<String>::new());
}

#[actix::test]
async fn it_is_known_when_a_presence_joined_and_was_last_seen_on_whichever_node() {
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
        let ago = SystemTime::now().duration_since(member.presences()[0].joined_at().unwrap()).unwrap_or_default();
        assert!(ago < secs(60), "{ago:?}");
    }
    assert!(here.last_seen(&room("nowhere")).await.unwrap().is_empty());
}

/// The users who are online by the members and the changes after them.
async fn online(node: &Node) -> (HashSet<UserId>, crate::Subscription) {
    let (members, changes) = node.members_and_changes(lobby()).await.unwrap();
    (members.iter().filter_map(|member| member.user().cloned()).collect(), changes)
}

#[actix::test]
async fn members_and_the_changes_after_them_are_who_is_online_whenever_one_begins() {
    let node = node().await;
    let _bob = node.member("bob").await;
    let joins = async {
        for n in 0..20 {
            let client = node.member(&format!("u{n}")).await;
            if n % 2 == 0 {
                client.leave(lobby()).await.unwrap();
            }
            std::mem::forget(client);
        }
    };
    let reads = async {
        let mut all = Vec::new();
        for _ in 0..10 {
            all.push(online(&node).await);
            pass(Duration::from_millis(3)).await;
        }
        all
    };
    let ((), all) = futures_util::future::join(joins, reads).await;
    pass(secs(1)).await;
    let here: HashSet<_> = node.users(lobby()).await.unwrap().into_iter().collect();
    assert_eq!(here.len(), 11);
    for (mut online, mut changes) in all {
        while let Some(Some(changed)) = futures_util::FutureExt::now_or_never(changes.next()) {
            online.extend(changed.user_online().iter().cloned());
            online.retain(|user| !changed.user_offline().contains(user));
        }
        assert_eq!(online, here);
    }
}
