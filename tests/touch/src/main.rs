//! A server whose consumer does nothing with heartbeats, once with `#[touch_presence]` and once without, so that the load program can say
//! what the attribute costs. Other texts go back to the room, by which the program sees that all before them was read.

use std::{
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
};

use actix_web::{App, HttpResponse, HttpServer, web};
use clap::Parser;
use presence::{
    Config, Consumer, Frame, HttpServerExt as _, NodeName, Outgoing, PruningSupervisor, RoomName, Rooms, Socket,
    SqlStore, Upgrade, UserId, touch_presence,
};
use presence_floor::Text;
use serde::Deserialize;

/// A consumer that does nothing, with and without `#[touch_presence]`.
#[derive(Debug, Parser)]
struct Args {
    /// Port to listen on; 0 picks a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Without the attribute.
    #[arg(long)]
    without: bool,
}

struct With(Visitor);

impl Consumer for With {
    async fn connect(&mut self, socket: &mut Socket) -> presence::Result<()> {
        socket.join(&self.0.room).await
    }

    #[touch_presence]
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> presence::Result<()> {
        self.0.receive(socket, frame).await
    }
}

struct Without(Visitor);

impl Consumer for Without {
    async fn connect(&mut self, socket: &mut Socket) -> presence::Result<()> {
        socket.join(&self.0.room).await
    }

    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> presence::Result<()> {
        self.0.receive(socket, frame).await
    }
}

/// What both have in common.
struct Visitor {
    room: RoomName,
    user: UserId,
}

impl Visitor {
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> presence::Result<()> {
        match frame {
            Frame::Text(text) if text != "\"heartbeat\"" => {
                let message = Outgoing::json(&Text::Message { from: self.user.as_str(), text: &text })?;
                socket.rooms().send(&self.room, message).await
            }
            _ => Ok(()),
        }
    }
}

#[derive(Deserialize)]
struct Parameters {
    user: String,
}

/// Whether the attribute is there.
#[derive(Debug, Clone, Copy)]
struct Touches(bool);

async fn socket(
    upgrade: Upgrade,
    room: web::Path<String>,
    parameters: web::Query<Parameters>,
    touches: web::Data<Touches>,
) -> presence::Result<HttpResponse> {
    let user = UserId::new(parameters.into_inner().user)?;
    let visitor = Visitor { room: RoomName::new(room.into_inner())?, user: user.clone() };
    let upgrade = upgrade.user(Some(user));
    Ok(if touches.0 { upgrade.start(With(visitor)).await } else { upgrade.start(Without(visitor)).await })
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port))?;
    let address = listener.local_addr()?;
    let store = SqlStore::connect("sqlite://presence.db?mode=rwc")?;
    let rooms = Rooms::start(Config::from_env()?, store, NodeName::of_host(address.port())?);
    PruningSupervisor::spawn(&rooms);
    rooms.ready().await;
    let shared = rooms.clone();
    let touches = Touches(!args.without);
    let app = move || {
        App::new()
            .app_data(web::Data::new(shared.clone()))
            .app_data(web::Data::new(touches))
            .route("/ws/{room}", web::get().to(socket))
    };
    let server = HttpServer::new(app).with_presence(&rooms).workers(1).shutdown_timeout(1).listen(listener)?;
    let mut out = std::io::stdout();
    writeln!(out, "listening on http://{address}")?;
    out.flush()?;
    server.run().await?;
    Ok(())
}
