//! The calls of the store run on a thread of their own, and never on that of their caller.

use std::{
    panic,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use tokio::runtime::{Builder, Runtime};

use super::prelude::*;
use crate::{clock::Tick, store::SqlStore};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

async fn node(store: SqlStore, room_threads: usize) -> Rooms {
    let config = Config::builder().room_threads(room_threads).build().unwrap();
    let rooms = Rooms::with_clock(config, store, NodeName::new("here").unwrap(), Clock::system());
    PruningSupervisor::spawn(&rooms);
    rooms.ready().await;
    rooms
}

#[test]
fn a_caller_that_blocks_its_thread_keeps_no_connection_from_the_writer() {
    // It kept the connection of its unfinished query until it was polled again.
    let system = actix::System::new();
    let rooms = system.block_on(node(SqlStore::connect("sqlite::memory:").unwrap(), 1));
    runtime().block_on(async {
        let ann = user("ann");
        let mut asked = std::pin::pin!(rooms.rooms_of(&ann));
        // On a busy machine the answer may be there before this thread looks for it.
        let begun = asked.as_mut().now_or_never();
        let (sender, joined_receiver) = mpsc::channel();
        let others = rooms.clone();
        let joins = thread::spawn(move || {
            let channel = channel("job");
            let joined = runtime().block_on(others.add(lobby(), &channel, None)).map(drop);
            sender.send(joined).unwrap();
        });
        joined_receiver.recv_timeout(Duration::from_secs(30)).unwrap().unwrap();
        joins.join().unwrap();
        let answer = if let Some(answer) = begun { answer } else { asked.await };
        assert_eq!(answer.unwrap(), []);
    });
}

/// How often this thread panics during `work`, also where the panic is caught.
fn panics(work: impl FnOnce()) -> usize {
    let here = thread::current().id();
    let count = Arc::new(AtomicUsize::new(0));
    let (counted, before) = (count.clone(), panic::take_hook());
    panic::set_hook(Box::new(move |info| {
        if thread::current().id() == here {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        before(info);
    }));
    work();
    count.load(Ordering::SeqCst)
}

#[test]
fn a_system_that_ends_while_the_store_works_does_not_panic() {
    // The driver gave its connection back when the runtime was gone, and panicked.
    let folder = tempfile::TempDir::new().unwrap();
    let store = SqlStore::connect(&format!("sqlite://{}/presence.db", folder.path().display())).unwrap();
    let panics = panics(|| {
        for steps in 0..20 {
            let system = actix::System::new();
            system.block_on(async {
                let rooms = node(store.clone(), 0).await;
                for n in 0..50 {
                    let (rooms, channel) = (rooms.clone(), channel(format!("job {n}")));
                    actix::spawn(async move { rooms.add(lobby(), &channel, None).await.map(drop) });
                }
                for _ in 0..steps {
                    tokio::task::yield_now().await;
                }
            });
        }
    });
    assert_eq!(panics, 0);
}

#[test]
fn a_busy_thread_of_the_store_is_no_standstill_of_the_node() {
    // The pulse waited for the store, so a large removal gave all held presences a new grace.
    let (sender, calls) = mpsc::channel();
    let clock = Clock::new(move || {
        let _ = sender.send(());
        Tick(0)
    });
    let (config, name) = (Config::builder().room_threads(1).build().unwrap(), NodeName::new("here").unwrap());
    let rooms = actix::System::new().block_on(async { Rooms::with_clock(config, MemoryStore::default(), name, clock) });
    let ((begin, begun), (free, freed)) = (mpsc::channel(), mpsc::channel::<()>());
    rooms.0.node.threads.runtime().spawn(async move {
        let _ = begin.send(());
        // This blocks until the test drops the sender.
        let _ = freed.recv();
    });
    let bound = Duration::from_secs(30);
    begun.recv_timeout(bound).unwrap();
    calls.try_iter().for_each(drop);
    // Nobody joins and the store's thread is busy, so only the pulse looks at the clock.
    for _ in 0..2 {
        calls.recv_timeout(bound).expect("the pulse goes on");
    }
    drop(free);
}

#[test]
fn rooms_without_an_actix_system_are_an_error_that_says_what_is_missing() {
    // This happens under `#[tokio::main]`. It panicked inside actix.
    let tokio = runtime();
    let (_tokio, name) = (tokio.enter(), NodeName::new("here").unwrap());
    let error = Rooms::try_start(Config::default(), MemoryStore::default(), name).unwrap_err();
    assert_eq!(error, crate::StartError::NoSystem);
    assert!(error.to_string().contains("#[actix_web::main]"), "{error}");
}
