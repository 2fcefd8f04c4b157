//! The hubs of this process, found by thread or by channel name.

use std::{
    cell::RefCell,
    rc::{Rc, Weak as RcWeak},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use actix::Actor;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::{
    clock::{Clock, Tick},
    name::{ChannelName, NodeId},
    telemetry::{CutoffLimits, LineLimit},
};

use super::{
    hub::{HubActor, Sockets},
    message::{HubRef, WeakHub},
    outbox::{Filling, Reserve},
};

/// The hubs of this process, and what its sockets share.
pub(crate) struct Hubs {
    all: RwLock<Vec<HubRef>>,
    clock: Clock,
    /// Distinguishes the channel names of this process from those of others.
    process: String,
    /// The number of connections so far. The number of a connection is the end of its channel name.
    connections: AtomicU64,
    /// How many sockets are open.
    pub(crate) sockets: watch::Sender<usize>,
    /// How many bytes of first frames are held in all rooms.
    pub(crate) first_frames: Arc<AtomicUsize>,
    /// When clients that read first frames of any room too slowly were last cut off.
    pub(crate) last_cut_off: Mutex<Option<Tick>>,
    /// The memory for clients that pause.
    pub(crate) reserve: Arc<Reserve>,
    pub(crate) cutoffs: CutoffLimits,
    /// The limit of the log lines about sockets beyond `max_sockets`.
    pub(crate) full: LineLimit,
    /// The limit of the log lines about joins that are refused because first frames are not read.
    pub(crate) unread: LineLimit,
}

/// The hub of the current thread, and what it shares with the sockets of that thread.
#[derive(Clone)]
pub(crate) struct LocalHub {
    pub(crate) hub: HubRef,
    pub(crate) sockets: Rc<RefCell<Sockets>>,
    pub(crate) filling: Rc<Filling>,
}

/// A hub of this thread. It does not keep the hub running.
struct Remembered {
    hubs: Weak<Hubs>,
    hub: WeakHub,
    sockets: RcWeak<RefCell<Sockets>>,
    filling: RcWeak<Filling>,
}

impl Remembered {
    fn recall(&self) -> Option<LocalHub> {
        let hub = self.hub.upgrade().filter(|hub| hub.addr.connected())?;
        Some(LocalHub { hub, sockets: self.sockets.upgrade()?, filling: self.filling.upgrade()? })
    }
}

thread_local! {
    /// One hub for each [`Hubs`] that has sockets on this thread.
    static HUBS: RefCell<Vec<Remembered>> = RefCell::default();
}

impl Hubs {
    pub(crate) fn new(clock: Clock, paused_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            all: RwLock::default(),
            clock,
            process: NodeId::random().as_uuid().simple().to_string(),
            connections: AtomicU64::new(0),
            sockets: watch::Sender::new(0),
            first_frames: Arc::default(),
            last_cut_off: Mutex::default(),
            reserve: Arc::new(Reserve::new(paused_bytes)),
            cutoffs: CutoffLimits::default(),
            full: LineLimit::default(),
            unread: LineLimit::default(),
        })
    }

    pub(crate) fn all(&self) -> Vec<HubRef> {
        self.all.read().clone()
    }

    /// The hub of this thread. It is started at the first socket of the thread.
    pub(crate) fn here(self: &Arc<Self>) -> LocalHub {
        let hubs = Arc::downgrade(self);
        HUBS.with_borrow_mut(|local| {
            local.retain(|one| one.hubs.strong_count() > 0);
            let here = local.iter().find(|one| one.hubs.ptr_eq(&hubs)).and_then(Remembered::recall);
            if let Some(here) = here {
                return here;
            }
            local.retain(|one| !one.hubs.ptr_eq(&hubs));
            let mut all = self.all.write();
            let id = all.len();
            let (sockets, filling) = (Rc::default(), Rc::new(Filling::new(Arc::clone(&self.reserve))));
            let actor = HubActor::new(id, Rc::clone(&sockets), Rc::clone(&filling), self.clock.clone());
            let hub = HubRef::new(id, actor.start().recipient());
            all.push(hub.clone());
            local.push(Remembered {
                hubs,
                hub: hub.downgrade(),
                sockets: Rc::downgrade(&sockets),
                filling: Rc::downgrade(&filling),
            });
            LocalHub { hub, sockets, filling }
        })
    }

    /// A name for a new connection on this hub.
    pub(crate) fn new_channel(&self, hub: &HubRef) -> ChannelName {
        // The name is short, since each presence keeps it in memory, in its row and in an index.
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let name = format!("ws.{}.{}!{number}", self.process, hub.id);
        ChannelName::new(name).expect("short, and without control characters")
    }

    /// Whether this process issued the name.
    pub(crate) fn issued(&self, socket: &SocketName<'_>) -> bool {
        socket.process == self.process
    }

    /// The hub of a connection of this process; `None` for any other channel.
    pub(crate) fn of(&self, channel: &ChannelName) -> Option<HubRef> {
        let socket = SocketName::parse(channel).filter(|socket| self.issued(socket))?;
        let hub: usize = socket.hub.parse().ok()?;
        self.all.read().get(hub).cloned()
    }
}

/// The parts of the channel name of a connection, of this process or of another.
pub(crate) struct SocketName<'a> {
    process: &'a str,
    hub: &'a str,
}

impl<'a> SocketName<'a> {
    /// Parses a channel name; `None` if it has another form, since the application chose it.
    pub(crate) fn parse(channel: &'a ChannelName) -> Option<Self> {
        let (process, place) = channel.as_str().strip_prefix("ws.")?.split_once('.')?;
        let (hub, number) = place.split_once('!')?;
        let is_process = process.len() == 32 && process.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        (is_process && is_number(hub) && is_number(number)).then_some(Self { process, hub })
    }
}
