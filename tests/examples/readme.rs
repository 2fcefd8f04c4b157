//! The server of the README, on the port that its environment names. A test compares the two and runs it.

use actix_web::{App, HttpResponse, HttpServer, web};
use presence::{Config, Consumer, Frame, HttpServerExt as _, NodeName, Outgoing, PruningSupervisor};
use presence::{RoomName, Rooms, Socket, SqlStore, Upgrade, touch_presence};

struct Chat(RoomName);

impl Consumer for Chat {
    async fn connect(&mut self, socket: &mut Socket) -> presence::Result<()> {
        socket.join(&self.0).await // `Ok` accepts the socket; it leaves the room when it ends
    }

    #[touch_presence] // touches the socket; handles the text "heartbeat"
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> presence::Result<()> {
        let Frame::Text(text) = frame else { return Ok(()) };
        // Inside an object of the server: a text that is forwarded unchanged could look like a frame of the server.
        let message = serde_json::json!({"type": "message", "from": socket.user(), "text": &*text});
        socket.rooms().send(&self.0, Outgoing::json(&message)?).await
    }
}

async fn ws(upgrade: Upgrade, room: web::Path<String>) -> presence::Result<HttpResponse> {
    let room = RoomName::new(room.into_inner())?; // a bad name: 400
    Ok(upgrade.user(None).start(Chat(room)).await) // anonymous; or the `UserId` that your login has verified
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", port()))?; // first: a second start by mistake ends here
    let rooms = Rooms::start(Config::default(), SqlStore::connect("sqlite://presence.db")?, NodeName::of_host(port())?);
    PruningSupervisor::spawn(&rooms); // removes what crashed processes left
    let data = web::Data::new(rooms.clone());
    let app = move || App::new().app_data(data.clone()).route("/ws/{room}", web::get().to(ws));
    HttpServer::new(app).with_presence(&rooms).listen(listener)?.run().await?;
    Ok(rooms.check_not_superseded()?) // an error if another process took the node name
}

fn port() -> u16 {
    std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8080)
}
