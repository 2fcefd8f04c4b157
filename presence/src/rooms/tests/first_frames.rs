//! Joiners that do not read their first frames: how much is held for them, and what other clients receive.

mod slowest;

use std::{
    sync::atomic::Ordering,
    task::{Context, Poll, Waker},
};

use super::prelude::*;
use crate::delivery::{Claim, wire};

/// How many members have a meta of 4,000 bytes.
pub(super) const MEMBERS: usize = 60;
/// About what one state has.
pub(super) const STATE: usize = MEMBERS * 4_100;

/// Fills the room with members who read.
pub(super) async fn fill(node: &TestNode) -> Vec<FakeClient> {
    let meta = format!(r#"{{"a":"{}"}}"#, "x".repeat(4_000 - 8));
    let mut members = Vec::new();
    for n in 0..MEMBERS {
        let member = node.client(&format!("member{n:03}"));
        member.join(lobby()).await.unwrap();
        member.update(lobby(), &meta).await.unwrap();
        member.frames();
        members.push(member);
    }
    pass(secs(1)).await;
    members.iter().for_each(|member| drop(member.frames()));
    members
}

/// Clients join one after the other until one is refused. Returns those that joined, and the error of the refused one.
async fn crowd(node: &TestNode) -> (Vec<FakeClient>, Error) {
    let mut unread = Vec::new();
    for n in 0..50 {
        let client = node.client(&format!("late{n}"));
        match client.join(lobby()).await {
            Ok(()) => unread.push(client),
            Err(error) => return (unread, error),
        }
    }
    panic!("nobody is refused")
}

#[actix::test]
async fn a_room_refuses_joiners_while_too_much_of_its_first_frames_is_unread_and_no_longer() {
    let node = node_with(config().first_frames_room_bytes(STATE)).await;
    let _members = fill(&node).await;
    let (unread, error) = crowd(&node).await;
    let Error::FirstFramesUnread { bytes, limit, .. } = error else { panic!("{error}") };
    assert!(bytes >= limit && (2 * STATE..3 * STATE).contains(&limit), "{bytes} bytes, of {limit}");
    assert!(error.is_retryable());
    assert!(unread.len() > 3, "they share pages: {} are in", unread.len());
    // A member is not refused, and the bytes that were held for it are released.
    unread[0].join(lobby()).await.unwrap();
    for client in &unread {
        assert_eq!(client.view().names().len(), MEMBERS + unread.len());
    }
    settle().await;
    let late = node.client("late");
    late.join(lobby()).await.unwrap();
    assert_eq!(late.sees().len(), MEMBERS + unread.len() + 1);
}

#[actix::test]
async fn unread_first_frames_of_all_rooms_together_are_bounded() {
    let node = node_with(config().first_frames_bytes(STATE / 3)).await;
    let _members = fill(&node).await;
    let (unread, error) = crowd(&node).await;
    assert!(matches!(error, Error::FirstFramesUnread { limit, .. } if limit == STATE / 3), "{error}");
    assert_eq!(unread.len(), 1);
    let elsewhere = room("elsewhere");
    let ann = node.client("ann");
    assert!(matches!(ann.join(&elsewhere).await, Err(Error::FirstFramesUnread { .. })));
    // The unread bytes of a client that is cut off are released.
    unread[0].outbox.abort();
    ann.join(&elsewhere).await.unwrap();
}

/// How many bytes of first frames are held on this node.
pub(super) fn held(node: &TestNode) -> usize {
    node.rooms.hubs().first_frames.load(Ordering::Relaxed)
}

/// Reads one piece of the outbox, as the server does. Returns the number of bytes.
pub(super) fn take(client: &FakeClient) -> usize {
    match client.outbox.poll(&Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(Ok(bytes))) => bytes.len(),
        _ => 0,
    }
}

#[actix::test]
async fn the_read_part_of_a_first_frame_is_released() {
    let node = node_with(config()).await;
    let _members = fill(&node).await;
    let slow = node.client("slow");
    slow.join(lobby()).await.unwrap();
    let all = held(&node);
    let mut taken = 0;
    while taken < STATE * 9 / 10 {
        taken += take(&slow);
    }
    assert!(held(&node) < all / 4, "{} of {all} bytes after {taken} were read", held(&node));
}

#[actix::test]
async fn a_socket_that_leaves_and_joins_again_has_one_first_frame_of_the_room_to_read() {
    let node = node_with(config()).await;
    let members = fill(&node).await;
    let slow = node.client("slow");
    for n in 0..20 {
        slow.join(lobby()).await.unwrap();
        // The metas change, so that no page is shared with the one before.
        for member in &members {
            let other = format!(r#"{{"a":"{}","n":{n}}}"#, "x".repeat(4_000 - 20));
            member.update(lobby(), &other).await.unwrap();
        }
        pass(secs(1)).await;
        slow.leave(lobby()).await.unwrap();
        members.iter().for_each(|member| drop(member.frames()));
    }
    slow.join(lobby()).await.unwrap();
    assert!(held(&node) < 3 * STATE, "{} bytes are held for one socket", held(&node));
    assert_eq!(slow.sees().len(), MEMBERS + 1);
}

#[actix::test]
async fn clients_that_read_a_first_frame_slowest_are_cut_off_for_the_others() {
    // They kept all joiners out as long as they read a little now and then.
    let node = node_with(config().first_frames_room_bytes(STATE).max_age(secs(3600))).await;
    let members = fill(&node).await;
    let (mut unread, _) = crowd(&node).await;
    let late = node.client("late");
    // A state has some thirty pieces, and they read one in each 8 s. Other slow clients use the space that this frees.
    for _ in 0..4 {
        pass(secs(8)).await;
        for client in &unread {
            take(client);
        }
        unread.extend(crowd(&node).await.0);
        settle().await;
        let is_cut = |client: &&FakeClient| {
            client.connection_messages().iter().any(|events| matches!(events, ToConnection::MakeRoom))
        };
        for client in unread.iter().filter(is_cut) {
            client.vanish();
            client.outbox.abort();
        }
        members.iter().for_each(|member| drop(member.frames()));
        if late.join(lobby()).await.is_ok() {
            assert!(late.sees().contains(&"late".to_owned()));
            assert!(members.iter().all(|member| member.connection_messages().is_empty()), "who reads is not cut off");
            return;
        }
    }
    panic!("late is not let in");
}

#[actix::test]
async fn a_socket_that_returns_with_its_token_joins_although_the_limit_is_held_for_others() {
    let node = node_with(config().first_frames_room_bytes(STATE)).await;
    let _members = fill(&node).await;
    let token = "a-token-that-is-long-enough-to-be-one";
    let ann = node.client("ann").with_token(token, secs(60));
    ann.join(lobby()).await.unwrap();
    ann.lose(lobby());
    settle().await;
    let (_unread, error) = crowd(&node).await;
    assert!(matches!(error, Error::FirstFramesUnread { .. }), "{error}");
    let back = node.client("ann").with_token(token, secs(60));
    back.join(lobby()).await.unwrap();
    assert!(back.sees().contains(&"ann".to_owned()));
}

#[actix::test]
async fn a_ping_does_not_wait_for_the_pages_of_a_state() {
    // Its client ended the connection, since its pings were not answered while it read a large state.
    let node = node_with(config()).await;
    let _members = fill(&node).await;
    let slow = node.client("slow");
    slow.join(lobby()).await.unwrap();
    let mut bytes = Vec::new();
    let mut read = |client: &FakeClient| match client.outbox.poll(&Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(Ok(piece))) => bytes.push(piece),
        _ => panic!("there is more"),
    };
    read(&slow);
    let ping = wire::text("a ping");
    slow.outbox.push_ping(&ping);
    slow.outbox.send_pong(&wire::text("a pong")).await;
    (0..4).for_each(|_| read(&slow));
    let read = bytes.concat();
    let at = |what: &str| read.windows(what.len()).position(|window| window == what.as_bytes());
    assert!(at("a ping").zip(at("a pong")).is_some_and(|(ping, pong)| ping < pong), "{:?}", at("a ping"));
    assert!(held(&node) > 0, "nothing more of the state was taken before them");
}

#[actix::test]
async fn senders_do_not_wait_for_a_client_that_reads_a_large_notice() {
    let node = node_with(config()).await;
    let ann = node.member("ann").await;
    ann.frames();
    let change = wire::text(&"x".repeat(2 * 1024 * 1024));
    ann.outbox.push_notice(lobby(), &change);
    let (pressure, relieved) = Claim::new(None);
    ann.outbox.push(&wire::text("hello"), Some(&pressure));
    drop(pressure);
    assert!(relieved.now_or_never().is_some(), "the sender waits");
}

#[actix::test]
async fn a_small_room_accepts_joiners_while_large_rooms_hold_the_limit() {
    const LIMIT: usize = 1024 * 1024;
    let node = node_with(config().first_frames_bytes(LIMIT)).await;
    let _members = fill(&node).await;
    let (_unread, error) = crowd(&node).await;
    assert!(matches!(error, Error::FirstFramesUnread { limit: LIMIT, .. }), "{error}");
    for name in ["ann", "bob"] {
        let client = node.client(name);
        client.join(&room("elsewhere")).await.unwrap();
        assert!(client.sees().contains(&name.to_owned()));
    }
    // A room in which more is unread than that refuses joiners, too.
    let mut unread = Vec::new();
    let mut elsewhere = async || {
        let late = node.client("late");
        let joined = late.join(&room("elsewhere")).await;
        unread.push(late);
        joined
    };
    while elsewhere().await.is_ok() {}
    assert!(unread.len() > 1 && unread.len() < 20, "{} did not read", unread.len());
}

#[actix::test]
async fn a_crowd_with_slow_lines_joins_at_once_and_a_few_states_are_held_for_it() {
    const CROWD: usize = 500;
    let node = node_with(config()).await;
    let crowd: Vec<_> = (0..CROWD).map(|n| node.client(&format!("{n:03}-{}", "x".repeat(200)))).collect();
    let mut most = 0;
    for some in crowd.chunks(CROWD / 20) {
        let joined = futures_util::future::join_all(some.iter().map(|client| client.join(lobby()))).await;
        joined.into_iter().for_each(|joined| joined.unwrap());
        // Two of each 25 are on slow lines and read nothing yet.
        some.iter().skip(2).for_each(|client| drop(client.frames()));
        most = most.max(held(&node));
    }
    // Each of 20 notices made a state, of half the room on average. They share the pages that nobody new is on; without that they
    // would be ten states.
    let state = CROWD * 300;
    assert!(most < 7 * state, "{most} bytes were held at most, and a state has {state}");
    for client in &crowd {
        assert_eq!(client.sees().len(), CROWD);
    }
    assert_eq!(held(&node), 0);
}
