//! Clients whose unread first frames keep others out: who of them makes room, when, and what a closing socket still holds.

use std::sync::atomic::Ordering;

use super::{
    bench::{Client, Node, config, lobby, ms, node, node_with, pass, room, secs, settle, user},
    unread::{MEMBERS, STATE, fill, held, take},
};
use crate::{
    Close, CloseCode, Consumer, Error, Frame, Result, ResumeToken, Socket,
    config::ConfigBuilder,
    delivery::{PIECE, ToConnection, ToHub},
    name::RoomName,
    testing::{Received, Refused, TestSocket},
};

/// Joins the lobby, and closes when it is told to.
struct Visitor;

impl Consumer for Visitor {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        socket.join(lobby()).await
    }

    async fn receive(&mut self, socket: &mut Socket, _: Frame) -> Result<()> {
        socket.close(CloseCode(4001), "enough")
    }
}

/// A socket in the lobby that was sent one piece of its first frame.
async fn visit(node: &Node, name: &str) -> std::result::Result<TestSocket, Refused> {
    let upgrade = TestSocket::upgrade(&node.rooms).user(Some(user(name)));
    let mut socket = TestSocket::connect(upgrade, Visitor).await?;
    socket.stop_reading();
    Ok(socket)
}

/// Has each hub cut off who reads first frames of this room, or of any, slowest.
async fn cut_slowest(node: &Node, room: Option<&RoomName>) {
    node.hubs().all().iter().for_each(|hub| hub.addr.do_send(ToHub::CutSlowest { room: room.cloned() }));
    settle().await;
}

/// Changes all metas, so that no page is as before.
async fn change(members: &[Client], n: usize) {
    for member in members {
        let other = format!(r#"{{"a":"{}","n":{n}}}"#, "x".repeat(4_000 - 20));
        member.update(lobby(), &other).await.unwrap();
    }
    pass(secs(1)).await;
    members.iter().for_each(|member| drop(member.frames()));
}

#[actix::test]
async fn a_close_follows_the_frame_that_is_half_sent_and_not_all_the_pages_after_it() {
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
async fn what_a_consumer_had_its_client_sent_before_it_closes_is_sent_all_the_same() {
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

/// Sockets that are closed like this hold what may be held, and take a little in each 5 s: one who is refused has them let go of it.
async fn those_that_are_closing_make_room(close: fn(&mut TestSocket)) {
    let node = node_with(config().first_frames_bytes(STATE / 3).max_age(secs(3600))).await;
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
async fn a_socket_that_its_client_closes_makes_room_as_any_other() {
    // It could not be cut off any more, and held what it had not read as long as it took a little now and then.
    those_that_are_closing_make_room(TestSocket::send_close).await;
}

#[actix::test]
async fn a_socket_that_its_consumer_closes_makes_room_as_any_other() {
    those_that_are_closing_make_room(|socket| socket.send_text("close")).await;
}

#[actix::test]
async fn who_is_closed_to_make_room_has_five_seconds_for_the_frame_that_is_half_sent() {
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
async fn a_close_for_being_too_slow_takes_the_place_of_one_that_waits_behind_the_frame_that_is_half_sent() {
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

/// A client for which a first frame of 4 MB waits.
fn waited_for(node: &Node, name: &str) -> Client {
    let client = node.client(name);
    assert_eq!(take(&client), 0);
    client.outbox.push_first(lobby(), (vec![0; 500 * PIECE].into(), None, None));
    client
}

/// How often each was told to make room.
fn told<const N: usize>(clients: [&Client; N]) -> [usize; N] {
    clients.map(|client| client.told().iter().filter(|told| matches!(told, ToConnection::MakeRoom)).count())
}

#[actix::test]
async fn of_those_who_all_read_fast_enough_the_slowest_makes_room() {
    let node = node().await;
    let [ann, bob, eve] = ["ann", "bob", "eve"].map(|name| waited_for(&node, name));
    for _ in 0..6 {
        pass(secs(1)).await;
        for (client, pieces) in [(&ann, 4), (&bob, 2), (&eve, 3)] {
            (0..pieces).for_each(|_| assert_eq!(take(client), PIECE));
        }
    }
    cut_slowest(&node, Some(lobby())).await;
    assert_eq!(told([&ann, &bob, &eve]), [0, 1, 0]);
    cut_slowest(&node, Some(&room("elsewhere"))).await;
    assert_eq!(told([&ann, &bob, &eve]), [0, 0, 0], "none of them has a first frame of that room");
}

#[actix::test]
async fn all_who_read_too_slowly_make_room_at_once_and_who_reads_fast_enough_does_not() {
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
    assert_eq!(told([&ann, &bob, &eve]), [0, 1, 1]);
}

#[actix::test]
async fn nobody_makes_room_before_having_had_five_seconds() {
    let node = node().await;
    let ann = waited_for(&node, "ann");
    pass(ms(4_800)).await;
    cut_slowest(&node, None).await;
    assert_eq!(told([&ann]), [0]);
    pass(ms(400)).await;
    cut_slowest(&node, None).await;
    assert_eq!(told([&ann]), [1]);
}

#[actix::test]
async fn who_reads_much_at_first_and_then_nothing_makes_room_and_not_a_slow_line() {
    // On average since its beginning it was the faster one for half a minute.
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
    assert_eq!(told([&hoarder, &slow]), [1, 0]);
}

#[actix::test]
async fn many_rooms_that_refuse_at_once_have_as_few_cut_off_as_one() {
    let node = node().await;
    let reader = waited_for(&node, "reader");
    for _ in 0..6 {
        pass(secs(1)).await;
        (0..2).for_each(|_| assert_eq!(take(&reader), PIECE));
    }
    // As if much were held for others.
    node.rooms.hubs().first_frames.fetch_add(1 << 40, Ordering::Relaxed);
    let refused = async || {
        for n in 0..20 {
            let joined = node.client("late").join(&room(&format!("room{n}"))).await;
            assert!(matches!(joined, Err(Error::FirstFramesUnread { .. })));
        }
        settle().await;
    };
    refused().await;
    assert_eq!(told([&reader]), [1]);
    pass(ms(300)).await;
    refused().await;
    assert_eq!(told([&reader]), [1], "those who were cut off had their time to let go");
}

const TOKEN: &str = "the-token-of-this-tab";

#[actix::test]
async fn a_token_with_which_one_socket_after_the_other_comes_holds_one_first_frame() {
    let node = node_with(config().max_age(secs(3600))).await;
    let members = fill(&node).await;
    let mut sockets = Vec::new();
    for n in 0..12 {
        let upgrade = TestSocket::upgrade(&node.rooms).user(Some(user("ann")));
        let upgrade = upgrade.resume_token(Some(ResumeToken::new(TOKEN).unwrap()));
        let mut socket = TestSocket::connect(upgrade, Visitor).await.expect("it is let in");
        socket.stop_reading();
        sockets.push(socket);
        change(&members, n).await;
    }
    // The last one has a state; those before it that are not reset yet have the frame that is half sent.
    assert!(held(&node) < STATE * 5 / 2, "{} bytes are held, and a state has {STATE}", held(&node));
}

/// Comes with one token again and again, and reads nothing, until it is refused. Gives the limit that was reached.
async fn refused_with_its_token(bounds: ConfigBuilder) -> usize {
    let node = node_with(bounds.max_age(secs(3600))).await;
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

#[actix::test]
async fn who_comes_back_with_its_token_is_refused_when_twice_as_much_is_held_as_may_be_in_the_room() {
    let limit = refused_with_its_token(config().first_frames_room_bytes(STATE)).await;
    // And one state, as for anybody.
    assert!((3 * STATE..3 * STATE + STATE / 2).contains(&limit), "{limit} bytes, where a state has {STATE}");
}

#[actix::test]
async fn who_comes_back_with_its_token_is_refused_when_twice_as_much_is_held_as_may_be_in_all_rooms() {
    assert_eq!(refused_with_its_token(config().first_frames_bytes(STATE)).await, 2 * STATE);
}
