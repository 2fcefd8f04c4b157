//! Where hubs are found: that of a thread, and that of a channel.

use std::{
    cell::RefCell,
    rc::{Rc, Weak as RcWeak},
    sync::{Arc, Weak, atomic::Ordering},
};

use actix::Actor;

use crate::{
    delivery::{
        hub::{HubActor, Sockets},
        outbox::Filling,
    },
    name::ChannelName,
    room::message::{HubRef, WeakHub},
};

use super::{Inner, Rooms};

/// The hub of the thread that asks, and what it shares with the sockets of that thread.
#[derive(Clone)]
pub(crate) struct LocalHub {
    pub(crate) hub: HubRef,
    pub(crate) sockets: Rc<RefCell<Sockets>>,
    pub(crate) filling: Rc<Filling>,
}

/// A hub of this thread, as long as there is anything of its rooms.
struct Remembered {
    rooms: Weak<Inner>,
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
    /// One hub for each `Rooms` whose sockets live on this thread.
    static HUBS: RefCell<Vec<Remembered>> = RefCell::default();
}

impl Rooms {
    pub(crate) fn hubs(&self) -> Vec<HubRef> {
        self.0.hubs.read().clone()
    }

    /// The hub of this thread, started at its first socket.
    pub(crate) fn local_hub(&self) -> LocalHub {
        let rooms = Arc::downgrade(&self.0);
        HUBS.with_borrow_mut(|local| {
            local.retain(|one| one.rooms.strong_count() > 0);
            let here = local.iter().find(|one| one.rooms.ptr_eq(&rooms)).and_then(Remembered::recall);
            if let Some(here) = here {
                return here;
            }
            local.retain(|one| !one.rooms.ptr_eq(&rooms));
            let mut hubs = self.0.hubs.write();
            let id = hubs.len();
            let (sockets, filling) = (Rc::default(), Rc::default());
            let addr = HubActor::new(id, Rc::clone(&sockets), Rc::clone(&filling), self.0.clock.clone()).start();
            let hub = HubRef::new(id, addr);
            hubs.push(hub.clone());
            local.push(Remembered {
                rooms,
                hub: hub.downgrade(),
                sockets: Rc::downgrade(&sockets),
                filling: Rc::downgrade(&filling),
            });
            LocalHub { hub, sockets, filling }
        })
    }

    /// A name for a new connection on this hub.
    pub(crate) fn new_channel(&self, hub: &HubRef) -> ChannelName {
        // Short, since each presence keeps one, in memory, in its row and in an index.
        let number = self.0.connections.fetch_add(1, Ordering::Relaxed);
        let name = format!("ws.{}.{}!{number}", self.0.process, hub.id);
        ChannelName::new(name).expect("short, and without control characters")
    }

    /// Whether it is this process that gives such names.
    pub(crate) fn gave(&self, socket: &SocketName<'_>) -> bool {
        socket.process == self.0.process
    }

    /// The hub that a connection of this process is on.
    pub(crate) fn hub_of(&self, channel: &ChannelName) -> Option<HubRef> {
        let socket = SocketName::parse(channel).filter(|socket| self.gave(socket))?;
        let hub: usize = socket.hub.parse().ok()?;
        self.0.hubs.read().get(hub).cloned()
    }
}

/// What the name of a connection says, whichever process gave it.
pub(crate) struct SocketName<'a> {
    process: &'a str,
    hub: &'a str,
}

impl<'a> SocketName<'a> {
    /// `None` if no process gives such names to its connections: it is of the application's own making.
    pub(crate) fn parse(channel: &'a ChannelName) -> Option<Self> {
        let (process, place) = channel.as_str().strip_prefix("ws.")?.split_once('.')?;
        let (hub, number) = place.split_once('!')?;
        let is_process = process.len() == 32 && process.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        (is_process && is_number(hub) && is_number(number)).then_some(Self { process, hub })
    }
}
