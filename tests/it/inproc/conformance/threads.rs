//! Sockets on several threads, and many on one.

use super::{Host, text};
use crate::inproc::puppet::Did;

// behaviour: 7 sync-thread; W9 parallel
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
