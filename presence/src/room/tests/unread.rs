//! Joiners that do not read what they get first: how much is held for them, and what others get.

use super::bench::{Client, Node, config, lobby, node_with, pass, room, secs, settle};
use crate::Error;

/// How many members have a meta of 4,000 bytes.
const MEMBERS: usize = 60;
/// About what one state has.
const STATE: usize = MEMBERS * 4_100;

/// Fills the room with members who read.
async fn fill(node: &Node) -> Vec<Client> {
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

/// Has one after the other join until one is refused; returns those who are in, and why that one is not.
async fn crowd(node: &Node) -> (Vec<Client>, Error) {
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
    // One who is in the room is not refused, and what it held is let go.
    unread[0].join(lobby()).await.unwrap();
    for client in &unread {
        assert_eq!(client.screen().names().len(), MEMBERS + unread.len());
    }
    settle().await;
    let late = node.client("late");
    late.join(lobby()).await.unwrap();
    assert_eq!(late.sees().len(), MEMBERS + unread.len() + 1);
}

#[actix::test]
async fn what_is_unread_in_all_rooms_is_bounded_too() {
    let node = node_with(config().first_frames_bytes(STATE / 3)).await;
    let _members = fill(&node).await;
    let (unread, error) = crowd(&node).await;
    assert!(matches!(error, Error::FirstFramesUnread { limit, .. } if limit == STATE / 3), "{error}");
    assert_eq!(unread.len(), 1);
    let elsewhere = room("elsewhere");
    let ann = node.client("ann");
    assert!(matches!(ann.join(&elsewhere).await, Err(Error::FirstFramesUnread { .. })));
    // What a client that is cut off did not read is let go.
    unread[0].outbox.abort();
    ann.join(&elsewhere).await.unwrap();
}

#[actix::test]
async fn a_small_room_is_open_while_large_ones_hold_all_that_may_be_held() {
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
    // But not one in which more waits than that.
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
async fn a_crowd_that_comes_at_once_gets_in_with_slow_lines_among_it_and_what_is_held_is_a_few_states() {
    const CROWD: usize = 500;
    let node = node_with(config()).await;
    let crowd: Vec<_> = (0..CROWD).map(|n| node.client(&format!("{n:03}-{}", "x".repeat(200)))).collect();
    let mut most = 0;
    for some in crowd.chunks(CROWD / 20) {
        let joined = futures_util::future::join_all(some.iter().map(|client| client.join(lobby()))).await;
        joined.into_iter().for_each(|joined| joined.unwrap());
        // Two of each 25 are on slow lines, and read nothing yet.
        some.iter().skip(2).for_each(|client| drop(client.frames()));
        most = most.max(node.rooms.first_frames().load(std::sync::atomic::Ordering::Relaxed));
    }
    // Each of 20 notices made a state, of half the room on average. They share the pages that nobody new is on; without that they
    // would be ten states.
    let state = CROWD * 300;
    assert!(most < 7 * state, "{most} bytes were held at most, and a state has {state}");
    for client in &crowd {
        assert_eq!(client.sees().len(), CROWD);
    }
    assert_eq!(node.rooms.first_frames().load(std::sync::atomic::Ordering::Relaxed), 0);
}
