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

/// Where rooms live, and where the store is at work.
#[derive(Debug)]
pub(crate) struct Threads {
    rooms: Vec<ArbiterHandle>,
    store: ArbiterHandle,
    runtime: Handle,
    time: Handle,
    /// Those that are ours to stop.
    own: Mutex<Vec<Arbiter>>,
}

impl Threads {
    /// So many threads for rooms, and one more for the store: a consumer that blocks its own thread must not cost the node its
    /// lease. With 0 everything is on this thread.
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
        let (tell, told) = mpsc::channel();
        let store = Arbiter::with_tokio_rt(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a thread can have a runtime");
            let _ = tell.send(runtime.handle().clone());
            runtime
        });
        let runtime = told.recv().expect("the thread of the store has started");
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

    /// The store's.
    pub(crate) const fn store(&self) -> &ArbiterHandle {
        &self.store
    }

    /// What runs the tasks of the store's thread. Those that it still has when it ends are dropped while it is there, unlike
    /// those of the arbiter: a database driver panics without a runtime.
    pub(crate) const fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// What runs tasks on a thread on which nothing takes long; it outlasts all others.
    pub(crate) const fn time(&self) -> &Handle {
        &self.time
    }

    pub(crate) fn stop(&self) {
        for thread in self.own.lock().iter() {
            thread.stop();
        }
    }
}

/// What tells the time to threads without a runtime, and whether the node runs. Not the store's: that ends with the rooms, and a
/// timer of its would panic; and it may be busy for long.
static TIME: LazyLock<Handle> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_time().build().expect("time needs nothing of the system");
    let handle = runtime.handle().clone();
    let keep = move || runtime.block_on(pending::<()>());
    thread::Builder::new().name("presence-time".into()).spawn(keep).expect("one more thread can be started");
    handle
});

/// What `work` ends with; `None` if it takes longer than `limit`. May be asked for on any thread, one of a job without a
/// runtime too.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let bounded = {
        let _there = Handle::try_current().is_err().then(|| TIME.enter());
        tokio::time::timeout(limit, work)
    };
    bounded.await.ok()
}

/// Waits for so long, on any thread.
pub(crate) async fn pause(time: Duration) {
    let _ = within(time, pending::<()>()).await;
}
