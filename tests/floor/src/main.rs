//! A chat written by hand, to compare the example chat with. It sends the same texts as the example with `--notify events`, and
//! has what is needed for that and nothing else: one worker, a map of rooms, no database, no deadlines, no limits, no held
//! presences.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    io::Write as _,
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, Responder, rt, web};
use actix_ws::{Message, MessageStream, Session};
use bytestring::ByteString;
use clap::Parser;
use presence_floor::{List, Text};
use serde::Deserialize;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// A chat without presence, to compare with.
#[derive(Debug, Parser)]
struct Args {
    /// Port to listen on; 0 picks a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

/// A socket of a room.
#[derive(Debug)]
struct Member {
    id: u64,
    outbox: UnboundedSender<ByteString>,
}

/// The sockets of each user, in the order of the names, as the list has them.
type Room = BTreeMap<String, Vec<Member>>;

/// All rooms. The only worker has them, so they need no lock.
#[derive(Debug, Default)]
struct Rooms {
    rooms: RefCell<HashMap<String, Room>>,
    next_id: Cell<u64>,
}

fn encode(text: &Text<'_>) -> ByteString {
    serde_json::to_string(text).expect("names and texts are JSON strings").into()
}

/// A member whose socket has ended is still there until its task removes it.
fn send_to(room: &Room, text: &ByteString) {
    for member in room.values().flatten() {
        let _ = member.outbox.send(text.clone());
    }
}

impl Rooms {
    fn join(&self, name: &str, user: &str, outbox: UnboundedSender<ByteString>) -> u64 {
        let id = self.next_id.replace(self.next_id.get() + 1);
        let mut rooms = self.rooms.borrow_mut();
        let room = rooms.entry(name.to_owned()).or_default();
        if !room.contains_key(user) {
            send_to(room, &encode(&Text::Join { user }));
        }
        room.entry(user.to_owned()).or_default().push(Member { id, outbox: outbox.clone() });
        let members = room.keys().map(String::as_str).collect();
        let list = Text::Presence { payload: List { channel_name: name, members, lurkers: 0 } };
        let _ = outbox.send(encode(&list));
        id
    }

    fn leave(&self, name: &str, user: &str, id: u64) {
        let mut rooms = self.rooms.borrow_mut();
        let Some(room) = rooms.get_mut(name) else { return };
        let Some(members) = room.get_mut(user) else { return };
        members.retain(|member| member.id != id);
        if members.is_empty() {
            room.remove(user);
            send_to(room, &encode(&Text::Leave { user }));
        }
        if room.is_empty() {
            rooms.remove(name);
        }
    }

    fn send(&self, name: &str, from: &str, text: &str) {
        if let Some(room) = self.rooms.borrow().get(name) {
            send_to(room, &encode(&Text::Message { from, text }));
        }
    }
}

#[derive(Deserialize)]
struct Parameters {
    user: String,
}

async fn socket(
    req: HttpRequest,
    body: web::Payload,
    room: web::Path<String>,
    parameters: web::Query<Parameters>,
    rooms: web::Data<Rooms>,
) -> actix_web::Result<HttpResponse> {
    let (response, session, frames) = actix_ws::handle(&req, body)?;
    rt::spawn(serve(rooms, room.into_inner(), parameters.into_inner().user, session, frames));
    Ok(response)
}

/// Serves one socket from its join to its leave.
async fn serve(rooms: web::Data<Rooms>, room: String, user: String, session: Session, frames: MessageStream) {
    let (outbox, texts) = unbounded_channel();
    let id = rooms.join(&room, &user, outbox);
    exchange(&rooms, &room, &user, session, frames, texts).await;
    rooms.leave(&room, &user, id);
}

async fn exchange(
    rooms: &Rooms,
    room: &str,
    user: &str,
    mut session: Session,
    mut frames: MessageStream,
    mut texts: UnboundedReceiver<ByteString>,
) {
    loop {
        tokio::select! {
            text = texts.recv() => {
                let Some(text) = text else { return };
                if session.text(text).await.is_err() {
                    return;
                }
            }
            frame = frames.recv() => match frame {
                Some(Ok(Message::Text(text))) if text == "\"heartbeat\"" => {}
                Some(Ok(Message::Text(text))) => rooms.send(room, user, &text),
                Some(Ok(Message::Ping(bytes))) => {
                    if session.pong(&bytes).await.is_err() {
                        return;
                    }
                }
                Some(Ok(Message::Close(reason))) => {
                    let _ = session.close(reason).await;
                    return;
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
        }
    }
}

async fn healthz() -> impl Responder {
    "ok"
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let args = Args::parse();
    let server = HttpServer::new(|| {
        App::new()
            .app_data(web::Data::new(Rooms::default()))
            .route("/ws/{room}", web::get().to(socket))
            .route("/healthz", web::get().to(healthz))
    })
    .workers(1)
    // Otherwise a text waits for the acknowledgement of the one before, up to 40 ms.
    .tcp_nodelay(true)
    .shutdown_timeout(0)
    .bind(("127.0.0.1", args.port))?;
    let address = server.addrs().into_iter().next().ok_or(std::io::ErrorKind::AddrNotAvailable)?;
    let mut out = std::io::stdout();
    writeln!(out, "listening on http://{address}")?;
    out.flush()?;
    server.run().await
}
