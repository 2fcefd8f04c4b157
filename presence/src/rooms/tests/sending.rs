//! Sending to some sockets and not to others.

use super::prelude::*;

/// Joins its rooms, sends each text of its client to the others in the first room, and each event to its client.
struct SendingConsumer(Vec<RoomName>);

impl Consumer for SendingConsumer {
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
    let visitor = SendingConsumer(names.iter().map(|name| room(name)).collect());
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
async fn a_text_to_all_others_does_not_reach_its_sender() {
    let node = node().await;
    let mut ann = visitor(&node.rooms, "ann", &["lobby"]).await;
    let mut tab = visitor(&node.rooms, "ann", &["lobby"]).await;
    let mut bob = visitor(&node.rooms, "bob", &["lobby"]).await;
    ann.send_text("hello");
    assert_eq!(texts(&mut ann).await, NONE);
    assert_eq!((texts(&mut tab).await, texts(&mut bob).await), (vec!["hello".to_owned()], vec!["hello".to_owned()]));
}

#[actix::test]
async fn a_text_to_all_others_does_not_reach_a_sender_that_waits_for_its_first_frame() {
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
    assert_eq!(bob.view().messages, ["to all but ann"]);
    assert_eq!(ann.view().messages, ["to all but bob"]);
}

#[actix::test]
async fn a_text_to_a_user_reaches_all_its_sockets_and_no_others() {
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
        assert_eq!(texts(socket).await, NONE);
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
    let [ann, bob] = node.members_named(["ann", "bob"]).await;
    pass(secs(1)).await;
    assert_eq!(node.remove_user_from(lobby(), &user("ann"), None).await.unwrap(), 1);
    node.send(lobby(), "\"after ann\"").await.unwrap();
    pass(secs(1)).await;
    assert_eq!(ann.view().messages.len(), 0);
    assert_eq!(bob.view().messages, ["after ann"]);
    assert_eq!(node.remove_user_from(lobby(), &user("bob"), None).await.unwrap(), 1);
    pass(secs(1)).await;
    let sockets = node.rooms.hubs().here().sockets;
    let before = sockets.borrow().messages;
    node.add(lobby(), &"job".parse().unwrap(), None).await.unwrap();
    pass(secs(1)).await;
    assert_eq!(sockets.borrow().messages, before, "no socket of this thread is in the room");
}

#[actix::test]
async fn after_a_shutdown_each_method_that_sends_fails() {
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
