//! What the ancestor's users rely on, over real sockets: statements about what a client sends and gets, and about threads.
//!
//! The comment above a test names the statement of `tests/conformance.txt`. Those that need no network are in the module
//! `conformance` at the top.

mod clients;
mod connecting;
mod decorators;
mod threads;

use super::host::{Host, room};
use crate::support::frame::ReceivedFrame;
use crate::support::socket::{ClientSocket, HandshakeRequest};
use actix_web::{HttpRequest, HttpResponse, web};
use presence::{Consumer, Rooms, UserId};

/// A server whose `/chat` is served by consumers that `make` makes for each request.
fn serving<C: Consumer>(make: fn(&HttpRequest) -> C) -> impl Fn(&mut web::ServiceConfig) + Send + Sync + 'static {
    move |services| {
        let serve = move |req: HttpRequest, body: web::Payload, rooms: web::Data<Rooms>| async move {
            let user = req.query_string().strip_prefix("user=").and_then(|name| UserId::new(name).ok());
            let answer: HttpResponse = presence::Upgrade::new(&rooms, &req, body).user(user).start(make(&req)).await;
            answer
        };
        services.route("/chat/{room}", web::get().to(serve));
    }
}

/// Opens a socket that must be accepted.
async fn open(host: &Host, path: &str) -> ClientSocket {
    HandshakeRequest::to(path)
        .open(host.address)
        .await
        .unwrap_or_else(|response| panic!("{path} was refused: {response:?}"))
}

/// The next frame, which is a text.
async fn text(client: &mut ClientSocket) -> String {
    match client.next().await {
        ReceivedFrame::Text(text) => text,
        frame => panic!("a text, not {frame:?}"),
    }
}
