//! Sockets on several threads, and many on one.

use super::{Host, channel, open, room, serving, text};
use crate::inproc::host::told;
use crate::inproc::puppet::Did;
use presence::{Consumer, Frame, Result, Socket};

/// Adds, removes and prunes as its client says, and answers when that is done.
struct Manager;

impl Consumer for Manager {
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {
        let rooms = socket.rooms();
        let what = std::str::from_utf8(frame.as_bytes()).unwrap_or_default();
        match what {
            "add" => drop(rooms.add(&room("lobby"), &channel("shared"), None).await?),
            "remove" => rooms.remove(&room("lobby"), &channel("shared")).await?,
            "leave all" => rooms.leave_all(&channel("shared")).await?,
            _ => drop(rooms.prune_rooms().await?),
        }
        socket.send(what).await
    }
}

// behaviour: W7 threads
// behaviour: 2.2 concurrent-removal
#[tokio::test]
async fn eight_sockets_on_four_threads_that_race_fire_each_event_once_and_no_call_fails() {
    // There each of eight threads may fire the event, and an add fails that meets the pruning of rooms.
    let host = Host::plan().workers(4).route(serving(|_| Manager)).start().await;
    let mut changes = host.rooms.changes();
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(open(&host, "/chat/lobby").await);
    }
    for turn in 0..40 {
        for (says, event) in [("add", "+"), (if turn % 2 == 0 { "remove" } else { "leave all" }, "-")] {
            for (n, client) in clients.iter_mut().enumerate() {
                client.text(if n == turn % 8 { "prune rooms" } else { says }).await;
            }
            for (n, client) in clients.iter_mut().enumerate() {
                assert_eq!(text(client).await, if n == turn % 8 { "prune rooms" } else { says });
            }
            assert_eq!(told(&mut changes).await, event, "turn {turn}: {says}");
        }
    }
    // Nothing was left over that would come first.
    host.rooms.add(&room("lobby"), &channel("last"), Some(&presence::UserId::new("end").unwrap())).await.unwrap();
    assert_eq!(told(&mut changes).await, "+end");
}

// behaviour: 7 sync-thread
// behaviour: W9 parallel
#[tokio::test]
async fn the_consumers_of_one_thread_are_all_in_their_handlers_at_once() {
    // There four handlers of half a second each take two, one after the other.
    let mut host = Host::start().await;
    let mut clients = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let mut client = host.open(name, "").await;
        client.text("wait gate; reply done").await;
        clients.push(client);
    }
    for name in ["a", "b", "c", "d"] {
        host.saw(name, Did::Began("wait gate".into())).await;
    }
    for _ in 0..4 {
        host.strings.open("gate");
    }
    for client in &mut clients {
        assert_eq!(text(client).await, "done");
    }
}

// behaviour: W9 parallel
#[tokio::test]
async fn a_consumer_that_blocks_its_thread_blocks_none_of_another() {
    let mut host = Host::plan().workers(2).start().await;
    // Connections go to the threads in turn.
    let mut blocks = host.open("blocks", "join lobby").await;
    let mut works = host.open("works", "join lobby").await;
    blocks.text("block 8000").await;
    host.saw("blocks", Did::Began("block 8000".into())).await;
    let begun = tokio::time::Instant::now();
    works.text("reply at once").await;
    assert_eq!(text(&mut works).await, "at once");
    assert!(begun.elapsed() < crate::support::secs(8), "{:?}", begun.elapsed());
    host.saw("blocks", Did::Done("block 8000".into())).await;
}
