//! The attributes on methods of consumers that a client can reach.

use super::{Host, open, room, serving, text};
use crate::support::millis;
use presence::{Consumer, Frame, Result, Socket, remove_presence, touch_presence};

async fn here(socket: &Socket) -> usize {
    socket.rooms().count(&room("lobby")).await.map_or(0, |count| count.presences)
}

/// Beneath a touch, the removal is for other frames than the heartbeat.
struct TouchOnTop;

impl Consumer for TouchOnTop {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        socket.join(&room("lobby")).await
    }

    #[touch_presence]
    #[remove_presence]
    async fn receive(&mut self, socket: &mut Socket, _: Frame) -> Result<()> {
        let here = here(socket).await;
        socket.send(format!("{here} here")).await
    }
}

/// Above a touch, the removal is for each frame.
struct TouchBeneath;

impl Consumer for TouchBeneath {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        socket.join(&room("lobby")).await
    }

    #[remove_presence]
    #[touch_presence]
    async fn receive(&mut self, socket: &mut Socket, _: Frame) -> Result<()> {
        let here = here(socket).await;
        socket.send(format!("{here} here")).await
    }
}

// behaviour: 4 order
#[tokio::test]
async fn the_upper_attribute_acts_first_in_either_order() {
    let host = Host::plan().route(serving(|_| TouchOnTop)).start().await;
    let mut changes = host.rooms.changes();
    let mut ann = open(&host, "/chat/lobby?user=ann").await;
    assert_eq!(crate::inproc::host::told(&mut changes).await, "+ann");
    ann.heartbeat().await;
    ann.text("hello").await;
    assert_eq!(text(&mut ann).await, "0 here");
    assert_eq!(crate::inproc::host::told(&mut changes).await, "-ann", "not before the text");
    drop(host);

    let host = Host::plan().route(serving(|_| TouchBeneath)).start().await;
    let mut changes = host.rooms.changes();
    let mut ann = open(&host, "/chat/lobby?user=ann").await;
    assert_eq!(crate::inproc::host::told(&mut changes).await, "+ann");
    ann.heartbeat().await;
    assert_eq!(crate::inproc::host::told(&mut changes).await, "-ann", "by the heartbeat alone");
}

/// Without an attribute.
struct ByHand;

impl Consumer for ByHand {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        socket.join(&room("lobby")).await
    }

    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {
        if frame == Frame::Text(presence::HEARTBEAT.into()) {
            socket.touch();
            return Ok(());
        }
        socket.send("heard").await
    }
}

// behaviour: 4 by-hand
#[tokio::test]
async fn a_consumer_without_the_attribute_touches_by_a_call_and_by_nothing_else() {
    let plan = Host::plan().config(|config| config.max_age(millis(1500))).route(serving(|_| ByHand));
    let host = plan.start().await;
    let mut ann = open(&host, "/chat/lobby?user=ann").await;
    let mut bob = open(&host, "/chat/lobby?user=bob").await;
    let mut pace = tokio::time::interval(millis(300));
    let mut stale = None;
    for _ in 0..15 {
        pace.tick().await;
        ann.heartbeat().await;
        if stale.is_none() {
            drop(bob.try_send(&crate::support::frame::Raw::text("hello")).await);
            while let Some(frame) = bob.frame_within(millis(1)).await {
                match frame {
                    crate::support::frame::ReceivedFrame::Close(code, _) => stale = code,
                    crate::support::frame::ReceivedFrame::Text(heard) => assert_eq!(heard, "heard"),
                    _ => {}
                }
                if stale.is_some() {
                    break;
                }
            }
        }
    }
    assert_eq!(stale, Some(4408), "Bob spoke, and nobody touched");
    assert_eq!(host.rooms.count(&room("lobby")).await.unwrap().users, 1, "Ann stayed for thrice the age");
}
