//! A puppet is a consumer that does what its client, its path or an event requests, and reports to the test what it did.

use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, http::StatusCode};
use futures_util::FutureExt;
use presence::{
    ChannelName, CloseCode, Consumer, Error, Event, Frame, Result, RoomName, Rooms, Socket, UserId, testing::fault,
};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

/// What a puppet reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Did {
    /// `connect` was entered, came to its end, or was dropped on the way.
    Connecting,
    Connected,
    ConnectDropped,
    /// It waits at a gate, or does something else that takes long.
    Began(String),
    /// A step is done.
    Done(String),
    /// A step was refused, by `try`.
    Refused(String, String),
    /// A binary frame.
    Bytes(usize),
    /// The name of its channel.
    Channel(ChannelName),
    Event(String, String),
    Pruned(String),
    /// `disconnect` was entered, and came to its end.
    Disconnecting(u16),
    Disconnected(u16),
}

/// What the puppets of a server are held by.
#[derive(Debug, Clone)]
pub(super) struct Strings {
    told: mpsc::UnboundedSender<(String, Did)>,
    gates: Arc<Mutex<HashMap<String, Arc<Semaphore>>>>,
}

impl Strings {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<(String, Did)>) {
        let (told, heard) = mpsc::unbounded_channel();
        (Self { told, gates: Arc::default() }, heard)
    }

    fn gate(&self, name: &str) -> Arc<Semaphore> {
        let mut gates = self.gates.lock().unwrap();
        gates.entry(name.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(0))).clone()
    }

    pub(super) fn tell(&self, name: &str, did: Did) {
        drop(self.told.send((name.to_owned(), did)));
    }

    /// Waits at a gate until it is opened.
    pub(super) async fn pass(&self, gate: &str) {
        self.gate(gate).acquire().await.unwrap().forget();
    }

    /// Lets one through that waits at this gate, or will.
    pub(super) fn open(&self, gate: &str) {
        self.gate(gate).add_permits(1);
    }
}

/// The consumer.
pub(super) struct Puppet {
    name: String,
    connect: String,
    disconnect: String,
    strings: Strings,
    said: Cell<usize>,
}

impl Puppet {
    pub(super) fn serve(services: &mut ServiceConfig) {
        services.route("/puppet", web::get().to(puppet));
    }

    pub(super) fn tell(&self, did: Did) {
        self.strings.tell(&self.name, did);
    }

    /// Does the steps, which are separated by `;`, up to the first that fails.
    pub(super) async fn follow(&self, socket: &mut Socket, steps: &str) -> Result<()> {
        for step in steps.split(';').map(str::trim).filter(|step| !step.is_empty()) {
            match step.strip_prefix("try ") {
                None => self.step(socket, step).await?,
                Some(step) => match self.step(socket, step).await {
                    Ok(()) => {}
                    Err(error) => self.tell(Did::Refused(step.to_owned(), error.to_string())),
                },
            }
        }
        Ok(())
    }

    async fn step(&self, socket: &mut Socket, step: &str) -> Result<()> {
        let (verb, rest) = step.split_once(' ').unwrap_or((step, ""));
        let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
        let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("a number in {step:?}"));
        match verb {
            "join" => socket.join(&room(first)).await?,
            "leave" => socket.leave(&room(first)).await?,
            "say" => socket.rooms().send(&room(first), second).await?,
            "reply" => socket.send(rest).await?,
            // As many texts of so many bytes, each awaited: the first five bytes are its number.
            "burst" => {
                for n in 0..number(first) {
                    socket.send(format!("{n:05}{}", "x".repeat(number(second)))).await?;
                }
            }
            "flood" => {
                let (to, many) = (room(first), second.split_once(' ').unwrap());
                for n in 0..number(many.0) {
                    socket.rooms().send(&to, format!("{n:05}{}", "x".repeat(number(many.1)))).await?;
                }
            }
            // So many texts, each with the puppet's name and the number of all that it said so.
            "chatter" => {
                for _ in 0..number(second) {
                    let n = self.said.replace(self.said.get() + 1);
                    socket.rooms().send(&room(first), format!("{} {n}", self.name)).await?;
                }
            }
            "break" => match first {
                "room" => fault::panic_room(socket.rooms(), &room(second)),
                "hubs" => fault::panic_hubs(socket.rooms()),
                _ => {
                    let members = socket.rooms().members(&room(second)).await?;
                    let Some(member) = members.first() else { panic!("a user in {step:?}") };
                    fault::panic_presence(socket.rooms(), &room(second), member.presences()[0].id);
                }
            },
            "close" => {
                let code = CloseCode(first.parse().unwrap());
                socket.close(code, second)?;
            }
            "channel" => self.tell(Did::Channel(socket.channel().clone())),
            // Two joins of one room at once.
            "both" => {
                let room = room(first);
                let (one, other) = tokio::join!(socket.join(&room), socket.join(&room));
                one.and(other)?;
            }
            // A join that is given up on at once.
            "brief" => drop(socket.join(&room(first)).now_or_never()),
            "brief-leave" => drop(socket.leave(&room(first)).now_or_never()),
            "inside" if !socket.is_in(&room(first)) => {
                self.tell(Did::Refused(step.to_owned(), "no".into()));
                return Ok(());
            }
            "inside" => {}
            "accept" => socket.set_subprotocol(first),
            "deny" => {
                let status = StatusCode::from_u16(first.parse().unwrap()).unwrap();
                return Err(Error::deny(status, second));
            }
            "refuse" => return Err(Error::refuse(CloseCode(first.parse().unwrap()), second)),
            "fail" => return Err(Error::other("told to fail")),
            "panic" => panic!("told to panic"),
            // Until the test opens the gate.
            "wait" => {
                self.tell(Did::Began(step.to_owned()));
                self.strings.pass(first).await;
            }
            // Holds up the whole thread, as a consumer should never do.
            "block" => {
                self.tell(Did::Began(step.to_owned()));
                std::thread::sleep(Duration::from_millis(first.parse().unwrap()));
            }
            "stall" => {
                self.tell(Did::Began(step.to_owned()));
                std::future::pending::<()>().await;
            }
            _ => panic!("no puppet can {step:?}"),
        }
        self.tell(Did::Done(step.to_owned()));
        Ok(())
    }
}

fn room(name: &str) -> RoomName {
    RoomName::new(name).unwrap()
}

/// Tells that `connect` was dropped before its end.
struct Connecting<'a>(Option<&'a Puppet>);

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        if let Some(puppet) = self.0 {
            puppet.tell(Did::ConnectDropped);
        }
    }
}

impl Consumer for Puppet {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        self.tell(Did::Connecting);
        let mut guard = Connecting(Some(self));
        let followed = self.follow(socket, &self.connect).await;
        guard.0 = None;
        self.tell(Did::Connected);
        followed
    }

    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {
        socket.touch();
        match frame {
            Frame::Text(text) if &*text == "\"heartbeat\"" => Ok(()),
            Frame::Text(text) => self.follow(socket, &text).await,
            Frame::Binary(bytes) => {
                self.tell(Did::Bytes(bytes.len()));
                Ok(())
            }
        }
    }

    async fn event(&mut self, socket: &mut Socket, event: Event) -> Result<()> {
        self.tell(Did::Event(event.name().to_string(), event.json().to_owned()));
        match event.decode::<String>() {
            Ok(steps) if event.name().as_str() == "do" => self.follow(socket, &steps).await,
            _ => Ok(()),
        }
    }

    async fn removed(&mut self, _: &mut Socket, room: RoomName) -> Result<()> {
        self.tell(Did::Pruned(room.to_string()));
        Ok(())
    }

    async fn disconnect(&mut self, socket: &mut Socket, code: CloseCode) -> Result<()> {
        self.tell(Did::Disconnecting(code.0));
        self.follow(socket, &self.disconnect).await?;
        self.tell(Did::Disconnected(code.0));
        Ok(())
    }
}

pub(super) async fn puppet(
    req: HttpRequest,
    body: web::Payload,
    query: web::Query<HashMap<String, String>>,
    rooms: web::Data<Rooms>,
    strings: web::Data<Strings>,
) -> HttpResponse {
    let asked = |key: &str| query.get(key).cloned().unwrap_or_default();
    let strings = Strings::clone(&strings);
    let (name, connect, disconnect) = (asked("name"), asked("connect"), asked("disconnect"));
    let puppet = Puppet { name, connect, disconnect, strings, said: Cell::new(0) };
    let user = UserId::new(&puppet.name).ok();
    let mut upgrade = presence::Upgrade::new(&rooms, &req, body).user(user);
    if let Some(origin) = query.get("allow").filter(|origin| !origin.is_empty()) {
        upgrade = upgrade.allow_origin(&**origin);
    }
    upgrade.start(puppet).await
}
