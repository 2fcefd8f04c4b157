//! The program of the page *Quick start*; a test compares the two.

use presence::{CloseCode, Consumer, Frame, Outgoing, RoomName, Socket};
use presence::{remove_presence, touch_presence};
use serde_json::json;

struct Chat {
    room: RoomName,
}

impl Consumer for Chat {
    async fn connect(&mut self, socket: &mut Socket) -> presence::Result<()> {
        socket.join(&self.room).await
    }

    #[touch_presence]
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> presence::Result<()> {
        if let Frame::Text(text) = frame {
            // A text that is forwarded unchanged could look like a frame of the server.
            let from = socket.user().map(|user| user.as_str());
            let message = json!({"type": "message", "from": from, "text": &*text});
            socket.rooms().send(&self.room, Outgoing::json(&message)?).await?;
        }
        Ok(())
    }

    #[remove_presence]
    async fn disconnect(&mut self, _: &mut Socket, _: CloseCode) -> presence::Result<()> {
        Ok(())
    }
}

use actix_web::{HttpResponse, web};
use presence::{ResumeToken, Upgrade, UserId};
use std::collections::HashMap;

type Query = web::Query<HashMap<String, String>>;

async fn ws(upgrade: Upgrade, room: web::Path<String>, query: Query) -> presence::Result<HttpResponse> {
    let room = RoomName::new(room.into_inner())?; // a bad name: 400
    let user: Option<UserId> = None; // anonymous
    // The JavaScript client sends a token, with which a reloaded page resumes its presence.
    let token = query.get("session").cloned().map(ResumeToken::new).transpose()?;
    Ok(upgrade.user(user).resume_token(token).start(Chat { room }).await)
}

const PAGE: &str = r#"<!doctype html>
<h1>Lobby</h1>
<p id="here"></p>
<script type="module">
  import { joinRoom } from '/presence.js';

  const room = joinRoom({ room: 'lobby' });
  room.on('sync', () => {
    document.querySelector('#here').textContent =
      `${room.members.size} people and ${room.anonymous} anonymous visitors`;
  });
</script>"#;

fn pages(app: &mut web::ServiceConfig) {
    let html = "text/html; charset=utf-8";
    let page = move || async move { HttpResponse::Ok().content_type(html).body(PAGE) };
    app.route("/", web::get().to(page));
    let js = "text/javascript";
    for &(path, text) in presence::CLIENT_JS {
        let module = move || async move { HttpResponse::Ok().content_type(js).body(text) };
        app.route(&format!("/{path}"), web::get().to(module));
    }
}

use actix_web::{App, HttpServer};
use presence::{Config, HttpServerExt as _, NodeName, PruningSupervisor, Rooms, SqlStore};

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Before the rooms: if the server already runs, a second start by mistake ends here, and does not take its node name.
    let listener = std::net::TcpListener::bind(("127.0.0.1", 8080))?;
    let store = SqlStore::connect("sqlite://presence.db")?;
    let rooms = Rooms::start(Config::default(), store, NodeName::of_host(8080)?);
    PruningSupervisor::spawn(&rooms);

    let data = web::Data::new(rooms.clone());
    let routes = |app: &mut web::ServiceConfig| {
        pages(app);
        app.route("/ws/{room}", web::get().to(ws));
    };
    let app = move || App::new().app_data(data.clone()).configure(routes);
    HttpServer::new(app).with_presence(&rooms).listen(listener)?.run().await?;
    Ok(rooms.check_not_superseded()?)
}
