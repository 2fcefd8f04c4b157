//! The threads of a node: some for its rooms, one for its store.

use std::{
    future::pending,
    sync::{LazyLock, mpsc},
    thread,
    time::Duration,
};

use actix::{Arbiter, ArbiterHandle};
use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle};

/// The threads on which rooms run, and the thread on which the store runs.
#[derive(Debug)]
pub(crate) struct Threads {
    rooms: Vec<ArbiterHandle>,
    store: ArbiterHandle,
    runtime: Handle,
    time: Handle,
    /// The threads that this node started, and that it stops at its end.
    own: Mutex<Vec<Arbiter>>,
}

impl Threads {
    /// Starts `rooms` threads for rooms, and one for the store, so that a consumer which blocks its own thread does not keep the node
    /// from renewing its lease. With 0, everything runs on the current thread.
    ///
    /// # Panics
    /// Without a running actix system.
    pub(crate) fn start(rooms: usize) -> Self {
        if rooms == 0 {
            let here = Arbiter::current();
            let runtime = Handle::current();
            return Self {
                rooms: vec![here.clone()],
                store: here,
                time: runtime.clone(),
                runtime,
                own: Mutex::default(),
            };
        }
        let (sender, receiver) = mpsc::channel();
        let store = Arbiter::with_tokio_rt(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a thread can have a runtime");
            let _ = sender.send(runtime.handle().clone());
            runtime
        });
        let runtime = receiver.recv().expect("the thread of the store has started");
        let mut own: Vec<_> = (0..rooms).map(|_| Arbiter::new()).collect();
        let rooms = own.iter().map(Arbiter::handle).collect();
        let handle = store.handle();
        own.push(store);
        Self { rooms, store: handle, runtime, time: TIME.clone(), own: Mutex::new(own) }
    }

    /// The thread of a room whose name hashes to this.
    pub(crate) fn of_room(&self, hash: u64) -> &ArbiterHandle {
        let thread = usize::try_from(hash % self.rooms.len() as u64).expect("less than the number of threads");
        &self.rooms[thread]
    }

    /// The thread of the store.
    pub(crate) const fn store(&self) -> &ArbiterHandle {
        &self.store
    }

    /// The runtime of the store's thread. When it ends, it drops the remaining tasks while it still exists. The arbiter would drop its
    /// tasks later, and a database driver panics if it is dropped without a runtime.
    pub(crate) const fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// A runtime on a thread on which nothing takes long. It runs until the process ends.
    pub(crate) const fn time(&self) -> &Handle {
        &self.time
    }

    pub(crate) fn stop(&self) {
        for thread in self.own.lock().iter() {
            thread.stop();
        }
    }
}

/// The runtime of timers that are started on a thread without a runtime, and of the pulse. The store's runtime cannot be used for that:
/// it ends with the rooms, after which its timers panic, and it may be busy for long.
static TIME: LazyLock<Handle> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_time().build().expect("time needs nothing of the system");
    let handle = runtime.handle().clone();
    let keep = move || runtime.block_on(pending::<()>());
    thread::Builder::new().name("presence-time".into()).spawn(keep).expect("one more thread can be started");
    handle
});

/// Awaits `work`; `None` if it takes longer than `limit`. This also works on a thread without a runtime.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let bounded = {
        let _entered = Handle::try_current().is_err().then(|| TIME.enter());
        tokio::time::timeout(limit, work)
    };
    bounded.await.ok()
}

/// Waits for this time, on any thread.
pub(crate) async fn pause(time: Duration) {
    let _ = within(time, pending::<()>()).await;
}
