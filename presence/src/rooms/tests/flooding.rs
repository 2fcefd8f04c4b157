//! Clients that send, update and join as fast as they can, and what is kept of their requests.

use std::{cell::Cell, rc::Rc};

use futures_util::FutureExt;
use serde_json::Value;

use super::bench::{Node, config, lobby, ms, node_with, pass, room, secs, settle, user};
use crate::{
    Close, CloseCode, Consumer, Error, Frame, Meta, Result, ResumeToken, Socket,
    config::ConfigBuilder,
    store::RoomStore,
    testing::{Received, TestSocket, upgrade_request},
};

/// Counts the texts that it is done with. `+ROOM` joins, `-ROOM` leaves, `ROOM=N` updates.
#[derive(Clone, Default)]
struct Busy(Rc<Cell<usize>>);

impl Consumer for Busy {
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {
        let text = std::str::from_utf8(frame.as_bytes()).expect("a test sends text");
        if let Some(name) = text.strip_prefix('+') {
            socket.join(&room(name)).await?;
        } else if let Some(name) = text.strip_prefix('-') {
            socket.leave(&room(name)).await?;
        } else if let Some((name, n)) = text.split_once('=') {
            socket.update(&room(name), Meta::from_json(&format!(r#"{{"n":{n}}}"#))?).await?;
        }
        self.0.set(self.0.get() + 1);
        Ok(())
    }
}

async fn busy(settings: ConfigBuilder) -> (Node, TestSocket, Busy) {
    let node = node_with(settings).await;
    let consumer = Busy::default();
    let token = ResumeToken::new("the-token-of-this-tab").unwrap();
    let upgrade = TestSocket::upgrade(&node.rooms).user(Some(user("ann"))).resume_token(Some(token));
    let socket = TestSocket::connect(upgrade, consumer.clone()).await.expect("accepted");
    (node, socket, consumer)
}

fn send(socket: &mut TestSocket, count: usize, text: impl Fn(usize) -> String) {
    for n in 0..count {
        socket.send_text(text(n));
    }
}

async fn settle_all() {
    for _ in 0..100 {
        settle().await;
    }
}

/// What is committed of the lobby's one presence.
async fn meta(node: &Node) -> String {
    let members = node.rooms.members(lobby()).await.unwrap();
    let [member] = &members[..] else { panic!("{members:?}") };
    member.presences()[0].meta.as_str().to_owned()
}

#[actix::test]
async fn a_flood_of_messages_is_slowed_to_the_rate_after_a_burst_and_its_sender_is_told_once() {
    let (_node, mut socket, done) = busy(config()).await;
    send(&mut socket, 1200, |_| "x".to_owned());
    settle_all().await;
    assert_eq!(done.0.get(), 500, "five seconds' worth at once");
    let told: Value = socket.receive_json().await;
    assert_eq!((&told["type"], &told["code"]), (&Value::from("error"), &Value::from("too_fast")), "{told}");
    for (after, handled) in [(secs(1), 600), (secs(2), 800), (secs(4), 1200)] {
        pass(after).await;
        assert!(done.0.get().abs_diff(handled) <= 2, "{} and not {handled}", done.0.get());
    }
    assert!(socket.receive_nothing().await, "nothing else, and no Close");
}

#[actix::test]
async fn one_who_goes_on_to_send_too_much_is_closed_with_1008_and_one_who_rests_is_not() {
    let (node, mut socket, done) = busy(config().rate_patience(secs(3))).await;
    for rounds in 1..4 {
        send(&mut socket, 700, |_| "x".to_owned());
        pass(secs(10)).await;
        assert_eq!(done.0.get(), 700 * rounds, "slowed for 2 s, and then it rested");
        let told: Value = socket.receive_json().await;
        assert_eq!(told["code"], "too_fast");
    }
    // One that has left nothing unused.
    let done = Busy::default();
    let mut socket = TestSocket::connect(TestSocket::upgrade(&node.rooms), done.clone()).await.expect("accepted");
    send(&mut socket, 2000, |_| "x".to_owned());
    pass(secs(3) - ms(100)).await;
    let told: Value = socket.receive_json().await;
    assert_eq!(told["code"], "too_fast");
    assert!(socket.receive_nothing().await || socket.close_reason().is_some());
    pass(secs(1)).await;
    assert_eq!(socket.receive().await, Received::Close(Some(CloseCode(1008))));
    assert_eq!(socket.close_reason(), Some("too many messages"));
    assert!(done.0.get() < 500 + 400, "{}", done.0.get());
}

/// What has come by now.
fn received(socket: &mut TestSocket) -> Vec<Received> {
    let mut all = Vec::new();
    while let Some(one) = socket.receive().now_or_never() {
        let is_last = !matches!(one, Received::Frame(_));
        all.push(one);
        if is_last {
            break;
        }
    }
    all
}

/// Nothing asks it for its pongs while time passes.
fn without_pings() -> ConfigBuilder {
    config().ping_interval(secs(3600))
}

#[actix::test]
async fn what_was_sent_while_the_node_stood_still_is_not_slowed() {
    let (_node, mut socket, done) = busy(without_pings()).await;
    pass(secs(5)).await;
    for rounds in 1..3 {
        tokio::time::advance(secs(62)).await;
        send(&mut socket, 62 * 99, |_| "x".to_owned());
        settle_all().await;
        assert_eq!(done.0.get(), 62 * 99 * rounds);
        assert!(socket.receive_nothing().await, "nobody notices it");
        pass(secs(5)).await;
    }
    pass(secs(62)).await;
    send(&mut socket, 700, |_| "x".to_owned());
    settle_all().await;
    assert_eq!(done.0.get(), 62 * 99 * 2 + 500, "it is not kept");
}

#[actix::test]
async fn what_piled_up_in_a_pause_of_the_network_is_slowed_and_its_sender_is_not_closed() {
    let (_node, mut socket, done) = busy(without_pings()).await;
    let mut told = Vec::new();
    for second in 0..120 {
        // All that it says in the pause comes together.
        let count = if second == 24 { 80 * 20 } else { 80 };
        if !(5..24).contains(&second) {
            send(&mut socket, count, |_| "x".to_owned());
        }
        pass(secs(1)).await;
        told.extend(received(&mut socket));
    }
    let [Received::Frame(Frame::Text(text))] = &told[..] else { panic!("{told:?}") };
    assert!(text.contains("too_fast"), "{text}");
    assert_eq!(done.0.get(), 80 * 120);
}

#[actix::test]
async fn no_limit_is_no_limit() {
    let (_node, mut socket, done) =
        busy(config().messages_per_second(0).joins_per_second(0).updates_per_second(0)).await;
    send(&mut socket, 5000, |_| "x".to_owned());
    settle_all().await;
    assert_eq!(done.0.get(), 5000);
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
async fn the_last_update_of_one_who_is_lost_is_not_lost_and_that_of_one_who_leaves_is_not_told() {
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
async fn updates_of_former_stays_in_a_room_do_not_delay_that_of_this_one() {
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
async fn a_newer_socket_of_the_presence_takes_over_what_waits_of_the_former() {
    let (node, mut first, _) = busy(config().updates_per_second(1).max_rooms_per_socket(2)).await;
    first.send_text("+lobby");
    send(&mut first, 9, |n| format!("lobby={n}"));
    settle_all().await;
    assert_eq!(meta(&node).await, r#"{"n":4}"#);
    // The third is the successor of one that has itself come after another.
    for n in [8, 88] {
        let token = ResumeToken::new("the-token-of-this-tab").unwrap();
        let upgrade = TestSocket::upgrade(&node.rooms).user(Some(user("ann"))).resume_token(Some(token));
        let mut next = TestSocket::connect(upgrade, Busy::default()).await.expect("accepted");
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
async fn an_update_that_waited_and_found_the_writer_full_is_written_later() {
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

/// Has the store hang, with so many changes that wait for it as may.
async fn fill_the_writer(node: &Node) -> Vec<tokio::task::JoinHandle<()>> {
    node.store.faults.hang();
    // The first is on its way to the database, and the second waits.
    let mut others = Vec::new();
    for name in ["bob", "eve"] {
        let one = node.client(name);
        others.push(actix::spawn(async move { drop(one.join(&room("attic")).await) }));
        settle_all().await;
    }
    others
}

/// An update of ann's waits, and the writer is full when she is lost, or taken over. Gives her row once the store goes on.
async fn last_update(is_lost: bool) -> (bool, String) {
    let settings = config().updates_per_second(1).max_rooms_per_socket(2).max_pending_writes(1);
    let (node, mut first, _) = busy(settings).await;
    first.send_text("+lobby");
    send(&mut first, 9, |n| format!("lobby={n}"));
    settle_all().await;
    assert_eq!(meta(&node).await, r#"{"n":4}"#);
    let others = fill_the_writer(&node).await;
    let mut next = None;
    if is_lost {
        first.lose();
    } else {
        let token = ResumeToken::new("the-token-of-this-tab").unwrap();
        let upgrade = TestSocket::upgrade(&node.rooms).user(Some(user("ann"))).resume_token(Some(token));
        let socket = TestSocket::connect(upgrade, Busy::default()).await.expect("accepted");
        next.insert(socket).send_text("+lobby");
    }
    settle_all().await;
    node.store.faults.release();
    pass(secs(1)).await;
    others.iter().for_each(tokio::task::JoinHandle::abort);
    let row = node.store.database().load(lobby().clone()).await.unwrap().unwrap().presences.remove(0);
    (row.held, row.meta.as_str().to_owned())
}

#[actix::test]
async fn the_last_update_of_one_who_is_lost_is_written_though_the_writer_is_full() {
    assert_eq!(last_update(true).await, (true, r#"{"n":8}"#.to_owned()));
}

#[actix::test]
async fn the_last_update_of_one_who_is_taken_over_is_written_though_the_writer_is_full() {
    assert_eq!(last_update(false).await, (false, r#"{"n":8}"#.to_owned()));
}

#[actix::test]
async fn joins_are_slowed_to_the_rate_and_one_who_goes_on_is_closed_with_1008() {
    let settings = config().joins_per_second(2).max_rooms_per_socket(20).rate_patience(secs(3)).notify_interval(ms(0));
    let (node, mut socket, done) = busy(settings).await;
    let turns = |n: usize| if n.is_multiple_of(2) { "+lobby".to_owned() } else { "-lobby".to_owned() };
    send(&mut socket, 60, turns);
    pass(ms(200)).await;
    assert_eq!(done.0.get(), 40, "as many as it may have rooms at once");
    node.store.commits();
    pass(secs(2)).await;
    assert!(done.0.get().abs_diff(48) <= 1, "{}", done.0.get());
    pass(secs(5)).await;
    let mut last = None;
    while let Received::Frame(Frame::Text(text)) = socket.receive().await {
        last = Some(text).filter(|text| text.contains("too_fast")).or(last);
    }
    assert!(last.is_some(), "it was told first");
    assert_eq!(socket.close_reason(), Some("too many joins"));
    assert_eq!(node.rows(lobby()).await, Vec::<String>::new());
}

/// Goes from one set of a hundred rooms to another, all at once, with each frame.
struct Mover(Rc<Cell<usize>>);

impl Consumer for Mover {
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {
        let set = std::str::from_utf8(frame.as_bytes()).expect("a test sends text").to_owned();
        socket.leave_all().await?;
        let rooms: Vec<_> = (0..100).map(|n| room(&format!("{set}{n}"))).collect();
        let joined = futures_util::future::join_all(rooms.iter().map(|room| socket.join(room))).await;
        joined.into_iter().collect::<Result<()>>()?;
        self.0.set(self.0.get() + 1);
        Ok(())
    }
}

#[actix::test]
async fn joins_that_wait_together_are_slowed_once_and_not_on_the_time_of_their_handler() {
    let node = node_with(config().handler_timeout(secs(5)).notify_interval(ms(0))).await;
    let done = Rc::<Cell<_>>::default();
    let mut socket =
        TestSocket::connect(TestSocket::upgrade(&node.rooms), Mover(done.clone())).await.expect("accepted");
    socket.send_text("a");
    settle_all().await;
    assert_eq!(done.get(), 1);
    socket.send_text("b");
    let mut told = Vec::new();
    for second in 0..11 {
        assert!(done.get() == 1 || second >= 10, "after {second} s: ten a second");
        pass(secs(1)).await;
        told.extend(received(&mut socket));
    }
    assert_eq!(done.get(), 2);
    let is_error = |one: &&Received| !matches!(one, Received::Frame(Frame::Text(text)) if text.contains("presence."));
    let told: Vec<_> = told.iter().filter(is_error).collect();
    assert!(matches!(&told[..], [Received::Frame(Frame::Text(text))] if text.contains("too_fast")), "{told:?}");
}

/// Comes and goes while it connects, until it cannot any more.
struct Fickle;

impl Consumer for Fickle {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        loop {
            socket.join(lobby()).await?;
            socket.leave(lobby()).await?;
        }
    }

    async fn receive(&mut self, _: &mut Socket, _: Frame) -> Result<()> {
        Ok(())
    }
}

#[actix::test]
async fn one_who_joins_too_fast_while_it_connects_is_answered_with_a_close_that_it_can_read() {
    let settings = config().joins_per_second(2).max_rooms_per_socket(1).rate_patience(secs(3)).notify_interval(ms(0));
    let node = node_with(settings).await;
    let mut socket = TestSocket::connect(TestSocket::upgrade(&node.rooms), Fickle).await.expect("accepted");
    assert_eq!(socket.receive().await, Received::Close(Some(CloseCode(1008))));
    assert_eq!(socket.close_reason(), Some("too many joins"));
    settle_all().await;
    assert_eq!(node.rows(lobby()).await, Vec::<String>::new());
}

/// Joins and does not go on with it.
struct Waiting;

impl Consumer for Waiting {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        socket.join(lobby()).await?;
        std::future::pending().await
    }

    async fn receive(&mut self, _: &mut Socket, _: Frame) -> Result<()> {
        Ok(())
    }
}

#[actix::test]
async fn one_who_is_removed_with_a_code_while_it_connects_can_read_the_code() {
    let node = node_with(config()).await;
    let connecting = TestSocket::connect(TestSocket::upgrade(&node.rooms).user(Some(user("ann"))), Waiting);
    let removing = async {
        pass(secs(1)).await;
        node.rooms.remove_user(&user("ann"), Some(Close::new(CloseCode(4003), "banned"))).await.unwrap();
    };
    let (socket, ()) = futures_util::future::join(connecting, removing).await;
    assert_eq!(socket.expect("answered").receive().await, Received::Close(Some(CloseCode(4003))));
}

#[actix::test]
async fn one_who_is_in_the_room_may_join_it_again_as_often_as_it_likes() {
    let (_node, mut socket, done) = busy(config().joins_per_second(1).max_rooms_per_socket(1)).await;
    send(&mut socket, 100, |_| "+lobby".to_owned());
    settle_all().await;
    assert_eq!(done.0.get(), 100);
}

/// Tells what headers it finds, when it connects and later.
struct Reader;

impl Consumer for Reader {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        assert_eq!(socket.handshake().header("x-session"), Some("secret"));
        Ok(())
    }

    async fn receive(&mut self, socket: &mut Socket, _: Frame) -> Result<()> {
        let scope = socket.handshake();
        let told = format!("{} headers, {}?{}", scope.headers.len(), scope.path, scope.query);
        socket.send(told).await
    }
}

#[actix::test]
async fn the_headers_of_a_request_are_there_in_connect_and_gone_afterwards() {
    let node = node_with(config()).await;
    let req = upgrade_request().uri("/ws/lobby?a=b").insert_header(("x-session", "secret"));
    let mut socket = TestSocket::connect_with(TestSocket::upgrade(&node.rooms), Reader, req).await.expect("accepted");
    socket.send_text("x");
    assert_eq!(socket.receive_text().await, "0 headers, /ws/lobby?a=b");
}

#[actix::test]
async fn headers_whose_memory_would_be_kept_are_bounded() {
    let node = node_with(config().max_header_bytes(10_000)).await;
    let own: usize = upgrade_request()
        .to_http_request()
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    for (more, status) in [(0, None), (1, Some(431))] {
        let cookie = "x".repeat(10_000 - own - "cookie: \r\n".len() + more);
        let req = upgrade_request().insert_header(("cookie", cookie));
        let connected = TestSocket::connect_with(TestSocket::upgrade(&node.rooms), Busy::default(), req).await;
        assert_eq!(connected.err().map(|refused| refused.status.as_u16()), status);
    }
}

#[actix::test]
async fn a_path_that_would_be_kept_is_bounded() {
    let node = node_with(config()).await;
    let path = |bytes: usize| format!("/{}?{}", "x".repeat(100), "y".repeat(bytes - 102));
    for (bytes, status) in [(8192, None), (8193, Some(414))] {
        let req = upgrade_request().uri(&path(bytes));
        let connected = TestSocket::connect_with(TestSocket::upgrade(&node.rooms), Busy::default(), req).await;
        assert_eq!(connected.err().map(|refused| refused.status.as_u16()), status);
    }
}

#[actix::test]
async fn an_update_that_waits_is_written_though_that_of_somebody_else_in_its_place_was_refused() {
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
