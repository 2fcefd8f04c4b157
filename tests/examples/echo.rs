//! Sends every message back: what a conformance suite for WebSocket servers asks of a server. Run by `tests/autobahn`.

use std::io::Write as _;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use presence::{
    Config, Consumer, Frame, HttpServerExt as _, MemoryStore, NodeName, Outgoing, PruningSupervisor, Rooms, Socket,
    Upgrade,
};

#[derive(Clone, Copy)]
struct Echo;

impl Consumer for Echo {
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> presence::Result<()> {
        let echo = match &frame {
            Frame::Text(text) => Outgoing::text(text),
            Frame::Binary(bytes) => Outgoing::binary(bytes),
        };
        socket.send(echo).await
    }
}

async fn ws(req: HttpRequest, body: web::Payload, rooms: web::Data<Rooms>) -> HttpResponse {
    Upgrade::new(&rooms, &req, body).start(Echo).await
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rooms = Rooms::start(Config::from_env()?, MemoryStore::default(), NodeName::new("echo")?);
    PruningSupervisor::spawn(&rooms);
    let data = web::Data::new(rooms.clone());
    let server = HttpServer::new(move || App::new().app_data(data.clone()).route("/", web::get().to(ws)))
        .with_presence(&rooms)
        .bind(("127.0.0.1", 0))?;
    let address = *server.addrs().first().ok_or("there is no address to listen on")?;
    writeln!(std::io::stdout(), "listening on ws://{address}/")?;
    server.run().await?;
    Ok(rooms.check_not_superseded()?)
}
