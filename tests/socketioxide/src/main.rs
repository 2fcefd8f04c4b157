//! A chat written with socketioxide, to compare the example chat with. It sends the same texts as the example with `--notify events`, each
//! as the event `text`, and has what is needed for that and nothing else: one thread, the users of each room in a map, and the rooms of
//! socketioxide.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write as _,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use clap::Parser;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use presence_floor::{List, Text};
use serde::Deserialize;
use socketioxide::{
    SocketIo,
    extract::{Data, SocketRef},
};
use tokio::net::TcpListener;

/// A chat with socketioxide, to compare with.
#[derive(Debug, Parser)]
struct Args {
    /// Port to listen on; 0 picks a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

/// How many sockets each user has, in the order of the names, as the list has them.
type Users = BTreeMap<String, usize>;

/// The users of all rooms, by the room.
#[derive(Debug, Default)]
struct Rooms(Mutex<HashMap<String, Users>>);

/// What a client sends to connect.
#[derive(Debug, Clone, Deserialize)]
struct Visitor {
    room: String,
    user: String,
}

/// The event of all texts.
const TEXT: &str = "text";

// Here no `emit` waits: the rooms are of this process. It fails for a client whose buffer is full, which loses the text.
impl Rooms {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Users>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn join(&self, socket: &SocketRef, Visitor { room, user }: &Visitor) {
        let is_new = {
            let mut rooms = self.all();
            let sockets = rooms.entry(room.clone()).or_default().entry(user.clone()).or_default();
            *sockets += 1;
            *sockets == 1
        };
        if is_new {
            let _ = socket.within(room.clone()).emit(TEXT, &Text::Join { user }).await;
        }
        socket.join(room.clone());
        let rooms = self.all();
        let members = rooms[room].keys().map(String::as_str).collect();
        let _ = socket.emit(TEXT, &Text::Presence { payload: List { channel_name: room, members, lurkers: 0 } });
    }

    async fn leave(&self, socket: &SocketRef, Visitor { room, user }: &Visitor) {
        {
            let mut rooms = self.all();
            let Some(users) = rooms.get_mut(room) else { return };
            let Some(sockets) = users.get_mut(user) else { return };
            *sockets -= 1;
            if *sockets > 0 {
                return;
            }
            users.remove(user);
            if users.is_empty() {
                rooms.remove(room);
            }
        }
        let _ = socket.to(room.clone()).emit(TEXT, &Text::Leave { user }).await;
    }
}

async fn connected(rooms: Arc<Rooms>, socket: SocketRef, visitor: Visitor) {
    let visitor = Arc::new(visitor);
    socket.on("message", {
        let visitor = visitor.clone();
        async move |socket: SocketRef, Data::<String>(text)| {
            let message = Text::Message { from: &visitor.user, text: &text };
            let _ = socket.within(visitor.room.clone()).emit(TEXT, &message).await;
        }
    });
    socket.on("heartbeat", async || {});
    socket.on_disconnect({
        let (rooms, visitor) = (rooms.clone(), visitor.clone());
        async move |socket: SocketRef| rooms.leave(&socket, &visitor).await
    });
    rooms.join(&socket, &visitor).await;
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let args = Args::parse();
    let (service, io) = SocketIo::new_svc();
    let rooms = Arc::new(Rooms::default());
    io.ns("/", async move |socket: SocketRef, Data::<Visitor>(visitor)| connected(rooms, socket, visitor).await);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)).await?;
    let mut out = std::io::stdout();
    writeln!(out, "listening on http://{}", listener.local_addr()?)?;
    out.flush()?;
    loop {
        let (stream, _) = listener.accept().await?;
        // Otherwise a text waits for the acknowledgement of the one before, up to 40 ms.
        stream.set_nodelay(true)?;
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service.clone());
        tokio::spawn(connection.with_upgrades());
    }
}
