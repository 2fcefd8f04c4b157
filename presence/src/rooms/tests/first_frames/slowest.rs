//! Clients whose unread first frames keep joiners out: which of them are cut off, when, and what a closing socket still holds.

use std::sync::atomic::Ordering;

use crate::rooms::tests::prelude::*;
use crate::testing::Refused;

use super::{MEMBERS, STATE, fill, held, take};

/// Joins the lobby, and closes with the first frame.
struct ClosingConsumer;

impl Consumer for ClosingConsumer {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        socket.join(lobby()).await
    }

    async fn receive(&mut self, socket: &mut Socket, _: Frame) -> Result<()> {
        socket.close(CloseCode(4001), "enough")
    }
}

/// A socket in the lobby that was sent one piece of its first frame.
async fn visit(node: &TestNode, name: &str) -> std::result::Result<TestSocket, Refused> {
    let upgrade = TestSocket::upgrade(&node.rooms).user(Some(user(name)));
    let mut socket = TestSocket::connect(upgrade, ClosingConsumer).await?;
    socket.stop_reading();
    Ok(socket)
}

/// Makes each hub cut off the clients that read first frames of this room, or of any room, slowest.
async fn cut_slowest(node: &TestNode, room: Option<&RoomName>) {
    node.hubs().all().iter().for_each(|hub| hub.addr.do_send(ToHub::CutSlowest { room: room.cloned() }));
    settle().await;
}

/// Changes all metas, so that no page is shared with the one before.
async fn change(members: &[FakeClient], n: usize) {
    for member in members {
        let other = format!(r#"{{"a":"{}","n":{n}}}"#, "x".repeat(4_000 - 20));
        member.update(lobby(), &other).await.unwrap();
    }
    pass(secs(1)).await;
    members.iter().for_each(|member| drop(member.frames()));
}

#[actix::test]
async fn a_close_follows_the_frame_that_is_partly_sent_and_replaces_the_pages_after_it() {
    let node = node_with(config().max_age(secs(3600))).await;
    let _members = fill(&node).await;
    let mut leaver = visit(&node, "leaver").await.unwrap();
    leaver.send_close();
    let mut banned = visit(&node, "banned").await.unwrap();
    node.remove_user(&user("banned"), Some(Close::new(CloseCode(4003), "banned"))).await.unwrap();
    settle().await;
    assert!(held(&node) < STATE / 2, "{} bytes are held for two who are to get one page each", held(&node));
    for (socket, code) in [(&mut leaver, None), (&mut banned, Some(CloseCode(4003)))] {
        assert!(matches!(socket.receive().await, Received::Frame(_)), "the frame of which a part was sent");
        assert_eq!(socket.receive().await, Received::Close(code));
        assert_eq!(socket.receive().await, Received::End);
    }
}

#[actix::test]
async fn frames_that_a_consumer_sent_before_its_close_reach_the_client() {
    let node = node_with(config().max_age(secs(3600))).await;
    let _members = fill(&node).await;
    let mut socket = visit(&node, "ann").await.unwrap();
    socket.send_text("close");
    settle().await;
    let mut bytes = 0;
    loop {
        match socket.receive().await {
            Received::Frame(frame) => bytes += frame.as_bytes().len(),
            closed => break assert_eq!(closed, Received::Close(Some(CloseCode(4001)))),
        }
    }
    assert!(bytes > STATE * 9 / 10, "{bytes} bytes");
}

#[actix::test]
async fn sockets_that_are_closing_are_cut_off_as_all_others() {
    // They could not be cut off any more, and held what they had not read as long as they took a little now and then.
    tokio::time::pause();
    check_closing_sockets(TestSocket::send_close).await;
    check_closing_sockets(|socket| socket.send_text("close")).await;
}

/// Sockets that are closed in this way hold all bytes that may be held, and take a little in each 5 s. A joiner that is refused makes them
/// release these bytes.
async fn check_closing_sockets(close: fn(&mut TestSocket)) {
    let node = new_node(config().first_frames_bytes(STATE / 3).max_age(secs(3600))).await;
    let _members = fill(&node).await;
    let mut closing = Vec::new();
    while let Ok(mut socket) = visit(&node, "closing").await {
        close(&mut socket);
        settle().await;
        closing.push(socket);
        assert!(closing.len() < MEMBERS, "nobody is refused");
    }
    for _ in 0..2 {
        pass(ms(2_900)).await;
        closing.iter_mut().for_each(|socket| assert_eq!(socket.read_once(), PIECE));
    }
    let late = node.client("late");
    assert!(matches!(late.join(lobby()).await, Err(Error::FirstFramesUnread { .. })));
    settle().await;
    assert_eq!(held(&node), 0);
    late.join(lobby()).await.unwrap();
    for mut socket in closing {
        assert_eq!(socket.receive().await, Received::End);
    }
}

#[actix::test]
async fn a_client_that_is_cut_off_for_others_has_five_seconds_for_the_frame_that_is_partly_sent() {
    let node = node_with(config().max_age(secs(3600))).await;
    let _members = fill(&node).await;
    let mut socket = visit(&node, "slow").await.unwrap();
    pass(ms(5_200)).await;
    assert_eq!(socket.read_once(), PIECE);
    cut_slowest(&node, Some(lobby())).await;
    let most = 4 * PIECE;
    assert!((1..most).contains(&held(&node)), "{} bytes are held for one page", held(&node));
    pass(ms(4_500)).await;
    cut_slowest(&node, Some(lobby())).await;
    assert_eq!(socket.read_once(), PIECE, "it is not reset yet");
    pass(ms(1_000)).await;
    cut_slowest(&node, Some(lobby())).await;
    assert_eq!(held(&node), 0);
    assert_eq!(socket.receive().await, Received::End);
}

#[actix::test]
async fn a_close_for_a_slow_reader_replaces_a_close_that_is_still_queued() {
    // The consumer puts its Close into the queue at once, and its connection learns of it some time later.
    let node = node().await;
    let ann = waited_for(&node, "ann");
    for _ in 0..495 {
        assert_eq!(take(&ann), PIECE);
    }
    ann.outbox.push_close("first close".into());
    assert!(ann.outbox.clear_but_begun());
    ann.outbox.push_close("second close".into());
    for _ in 0..5 {
        assert_eq!(take(&ann), PIECE);
    }
    assert_eq!(take(&ann), "second close".len());
    assert_eq!(take(&ann), 0);
}

/// A client with a first frame of 4 MB in its outbox.
fn waited_for(node: &TestNode, name: &str) -> FakeClient {
    let client = node.client(name);
    assert_eq!(take(&client), 0);
    client.outbox.push_first(lobby(), (vec![0; 500 * PIECE].into(), None, None));
    client
}

/// How often each connection was requested to close since its client reads first frames slowest.
fn cut_off_requests<const N: usize>(clients: [&FakeClient; N]) -> [usize; N] {
    clients.map(|client| {
        client.connection_messages().iter().filter(|message| matches!(message, ToConnection::MakeRoom)).count()
    })
}

#[actix::test]
async fn of_clients_that_all_read_fast_enough_the_slowest_is_cut_off() {
    let node = node().await;
    let [ann, bob, eve] = ["ann", "bob", "eve"].map(|name| waited_for(&node, name));
    for _ in 0..6 {
        pass(secs(1)).await;
        for (client, pieces) in [(&ann, 4), (&bob, 2), (&eve, 3)] {
            (0..pieces).for_each(|_| assert_eq!(take(client), PIECE));
        }
    }
    cut_slowest(&node, Some(lobby())).await;
    assert_eq!(cut_off_requests([&ann, &bob, &eve]), [0, 1, 0]);
    cut_slowest(&node, Some(&room("elsewhere"))).await;
    assert_eq!(cut_off_requests([&ann, &bob, &eve]), [0, 0, 0], "none of them has a first frame of that room");
}

#[actix::test]
async fn all_clients_that_read_too_slowly_are_cut_off_at_once_and_faster_ones_are_not() {
    let node = node().await;
    let [ann, bob, eve] = ["ann", "bob", "eve"].map(|name| waited_for(&node, name));
    for second in 0..6 {
        pass(secs(1)).await;
        (0..2).for_each(|_| assert_eq!(take(&ann), PIECE));
        if second % 2 == 0 {
            assert_eq!(take(&bob), PIECE);
        }
    }
    cut_slowest(&node, None).await;
    assert_eq!(cut_off_requests([&ann, &bob, &eve]), [0, 1, 1]);
}

#[actix::test]
async fn nobody_is_cut_off_for_a_first_frame_within_five_seconds() {
    let node = node().await;
    let ann = waited_for(&node, "ann");
    pass(ms(4_800)).await;
    cut_slowest(&node, None).await;
    assert_eq!(cut_off_requests([&ann]), [0]);
    pass(ms(400)).await;
    cut_slowest(&node, None).await;
    assert_eq!(cut_off_requests([&ann]), [1]);
}

#[actix::test]
async fn a_client_that_stopped_reading_is_cut_off_before_a_slow_line() {
    // Its average since the beginning was higher for half a minute.
    let node = node().await;
    let [hoarder, slow] = ["hoarder", "slow"].map(|name| waited_for(&node, name));
    (0..120).for_each(|_| assert_eq!(take(&hoarder), PIECE));
    for second in 1..=12 {
        pass(secs(1)).await;
        (0..3).for_each(|_| assert_eq!(take(&slow), PIECE));
        if second == 12 {
            cut_slowest(&node, None).await;
        }
    }
    assert_eq!(cut_off_requests([&hoarder, &slow]), [1, 0]);
}

#[actix::test]
async fn rooms_that_refuse_at_the_same_time_cut_off_as_few_clients_as_one_room() {
    let node = node().await;
    let reader = waited_for(&node, "reader");
    for _ in 0..6 {
        pass(secs(1)).await;
        (0..2).for_each(|_| assert_eq!(take(&reader), PIECE));
    }
    // As if many bytes were held for other clients.
    node.rooms.hubs().first_frames.fetch_add(1 << 40, Ordering::Relaxed);
    let refused = async || {
        for n in 0..20 {
            let joined = node.client("late").join(&room(&format!("room{n}"))).await;
            assert!(matches!(joined, Err(Error::FirstFramesUnread { .. })));
        }
        settle().await;
    };
    refused().await;
    assert_eq!(cut_off_requests([&reader]), [1]);
    pass(ms(300)).await;
    refused().await;
    assert_eq!(cut_off_requests([&reader]), [1], "those who were cut off had their time to let go");
}

const TOKEN: &str = "the-token-of-this-tab";

#[actix::test]
async fn sockets_that_come_with_the_same_token_hold_one_first_frame_in_all() {
    let node = node_with(config().max_age(secs(3600))).await;
    let members = fill(&node).await;
    let mut sockets = Vec::new();
    for n in 0..12 {
        let upgrade = TestSocket::upgrade(&node.rooms).user(Some(user("ann")));
        let upgrade = upgrade.resume_token(Some(ResumeToken::new(TOKEN).unwrap()));
        let mut socket = TestSocket::connect(upgrade, ClosingConsumer).await.expect("it is let in");
        socket.stop_reading();
        sockets.push(socket);
        change(&members, n).await;
    }
    // The last one has a state. The sockets before it that are not reset yet have the frame that is partly sent.
    assert!(held(&node) < STATE * 5 / 2, "{} bytes are held, and a state has {STATE}", held(&node));
}

#[actix::test]
async fn a_socket_that_returns_with_its_token_is_refused_when_twice_the_limit_is_held() {
    tokio::time::pause();
    // The limit of the room allows one state more, as for every joiner.
    let limit = refused_with_its_token(config().first_frames_room_bytes(STATE)).await;
    assert!((3 * STATE..3 * STATE + STATE / 2).contains(&limit), "{limit} bytes, where a state has {STATE}");
    assert_eq!(refused_with_its_token(config().first_frames_bytes(STATE)).await, 2 * STATE);
}

/// Joins with the same token again and again, and reads nothing, until it is refused. Returns the limit that was reached.
async fn refused_with_its_token(bounds: ConfigBuilder) -> usize {
    let node = new_node(bounds.max_age(secs(3600))).await;
    let members = fill(&node).await;
    let mut sockets = Vec::new();
    loop {
        let back = node.client("ann").with_token(TOKEN, secs(60));
        match back.join(lobby()).await {
            Ok(()) => sockets.push(back),
            Err(Error::FirstFramesUnread { limit, .. }) => break limit,
            Err(error) => panic!("{error}"),
        }
        assert!(sockets.len() < 20, "it is let in whatever is held");
        change(&members, sockets.len()).await;
    }
}
