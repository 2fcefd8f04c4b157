//! The JavaScript client in a real browser, before a consumer that does more than the chat: several rooms on one socket, texts
//! that are relayed as they came, and refusals.

use crate::support::webdriver::{Browser, BrowserWindow, Timers};
use crate::support::{BOUND, eventually};
use actix_web::dev::ServerHandle;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, http::StatusCode, web};
use presence::{
    CloseCode, Config, Consumer, Error, Frame, MemoryStore, NodeName, PruningSupervisor, RoomName, Rooms, Socket,
    Upgrade, UserId, remove_presence, touch_presence,
};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const PAGE: &str = "<!doctype html><link rel=icon href='data:,'><script type=module>
    import { connect, joinRoom } from '/presence.js';
    Object.assign(window, { connect, joinRoom });
    window.watch = (one, events) => {
        one.seen = [];
        for (const event of events) one.on(event, (what) => one.seen.push([event, what?.text ?? what?.state ?? what?.user ?? what]));
        return one;
    };
</script>";

fn room(name: &str) -> RoomName {
    RoomName::new(name).unwrap()
}

/// Joins the lobby at once, and the attic when its client asks. Anything else is sent on to the lobby as it came.
struct Relay {
    refused: Option<Error>,
    handshakes: Arc<AtomicUsize>,
}

impl Consumer for Relay {
    async fn connect(&mut self, socket: &mut Socket) -> presence::Result<()> {
        self.handshakes.fetch_add(1, Ordering::SeqCst);
        match self.refused.take() {
            Some(refused) => Err(refused),
            None => socket.join(&room("lobby")).await,
        }
    }

    #[touch_presence]
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> presence::Result<()> {
        let Frame::Text(text) = frame else { return Ok(()) };
        match &*text {
            r#"{"type":"join","room":"attic"}"# => socket.join(&room("attic")).await,
            r#"{"type":"leave","room":"attic"}"# => socket.leave(&room("attic")).await,
            "enter the attic" => socket.join(&room("attic")).await,
            text => {
                socket.rooms().send(&room("lobby"), text).await?;
                Ok(())
            }
        }
    }

    #[remove_presence]
    async fn disconnect(&mut self, _: &mut Socket, _: CloseCode) -> presence::Result<()> {
        Ok(())
    }
}

/// `/ws?user=NAME`, or `/deny` and `/refuse`.
async fn socket(
    req: HttpRequest,
    body: web::Payload,
    rooms: web::Data<Rooms>,
    handshakes: web::Data<Arc<AtomicUsize>>,
) -> HttpResponse {
    let refused = match req.path() {
        "/deny" => Some(Error::deny(StatusCode::FORBIDDEN, "not you")),
        "/refuse" => Some(Error::refuse(CloseCode(4003), "you are banned")),
        _ => None,
    };
    let user = req.query_string().split('&').find_map(|pair| pair.strip_prefix("user="));
    let user = user.and_then(|name| UserId::new(name).ok());
    let relay = Relay { refused, handshakes: Arc::clone(&handshakes) };
    Upgrade::new(&rooms, &req, body).user(user).start(relay).await
}

/// A browser, and a server in this process.
struct ClientStage {
    browser: Browser,
    address: SocketAddr,
    rooms: Rooms,
    handshakes: Arc<AtomicUsize>,
    handle: ServerHandle,
}

impl ClientStage {
    async fn set() -> Option<Self> {
        let browser = Browser::start(Timers::Free).await?;
        let rooms = Rooms::start(Config::default(), MemoryStore::default(), NodeName::new("here").unwrap());
        PruningSupervisor::spawn(&rooms);
        rooms.ready().await;
        let handshakes = Arc::new(AtomicUsize::new(0));
        let (shared, counted) = (web::Data::new(rooms.clone()), web::Data::new(handshakes.clone()));
        let server = HttpServer::new(move || {
            let page = || async { HttpResponse::Ok().content_type("text/html; charset=utf-8").body(PAGE) };
            let app = App::new().app_data(shared.clone()).app_data(counted.clone()).route("/", web::get().to(page));
            let app = ["/ws", "/deny", "/refuse"].iter().fold(app, |app, path| app.route(path, web::get().to(socket)));
            presence::CLIENT_JS.iter().fold(app, |app, &(path, text)| {
                let module = move || async move { HttpResponse::Ok().content_type("text/javascript").body(text) };
                app.route(&format!("/{path}"), web::get().to(module))
            })
        });
        // A browser may open a connection long before it sends a request.
        let server = server.client_request_timeout(std::time::Duration::ZERO);
        let server = server.on_connect(presence::on_connect).workers(1).disable_signals();
        let server = server.bind(("127.0.0.1", 0)).unwrap();
        let address = server.addrs()[0];
        let server = server.run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Some(Self { browser, address, rooms, handshakes, handle })
    }

    /// A page that has loaded the client and runs the script.
    async fn page(&self, script: &str) -> BrowserWindow {
        let window = self.browser.window(&format!("http://{}/", self.address)).await;
        self.browser.becomes(&window, BOUND, "return typeof window.connect", &"function".into()).await;
        self.browser.run(&window, script, vec![]).await;
        window
    }

    fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::SeqCst)
    }

    async fn becomes(&self, window: &BrowserWindow, script: &str, expected: Value) {
        self.browser.becomes(window, BOUND, script, &expected).await;
    }

    async fn end(self) {
        drop(self.browser);
        self.rooms.shutdown().await;
        self.handle.stop(false).await;
    }
}

/// What the page knows of its rooms: the state of each, and who is in it.
const SHOWN: &str = "return rooms.map(({ status, members }) => [status.state, [...members.keys()].sort()])";

#[actix_web::test]
async fn a_socket_in_two_rooms_shows_both_in_the_page_and_neither_disturbs_the_other() {
    let Some(stage) = ClientStage::set().await else { return };
    let both = |user: &str| {
        format!(
            "const connection = connect('/ws?user={user}');
            window.rooms = ['lobby', 'attic'].map((name) => watch(connection.room(name), ['join', 'leave', 'status']));
            rooms[1].join();"
        )
    };
    let ann = stage.page(&both("ann")).await;
    stage.becomes(&ann, SHOWN, json!([["live", ["ann"]], ["live", ["ann"]]])).await;
    let bob = stage.page(&both("bob")).await;
    for window in [&ann, &bob] {
        stage.becomes(window, SHOWN, json!([["live", ["ann", "bob"]], ["live", ["ann", "bob"]]])).await;
    }
    stage.browser.run(&bob, "rooms[1].leave()", vec![]).await;
    stage.becomes(&ann, SHOWN, json!([["live", ["ann", "bob"]], ["live", ["ann"]]])).await;
    stage.becomes(&bob, SHOWN, json!([["live", ["ann", "bob"]], ["left", []]])).await;
    stage.browser.run(&bob, "rooms[1].join()", vec![]).await;
    stage.becomes(&ann, SHOWN, json!([["live", ["ann", "bob"]], ["live", ["ann", "bob"]]])).await;
    let seen = stage.browser.run(&ann, "return rooms.map(({ seen }) => seen)", vec![]).await;
    let lobby = json!([["status", "live"], ["join", "bob"]]);
    let attic = json!([["status", "live"], ["join", "bob"], ["leave", "bob"], ["join", "bob"]]);
    assert_eq!(seen, json!([lobby, attic]), "one connection all the time, and each room has its own changes alone");
    stage.end().await;
}

#[actix_web::test]
async fn the_room_of_join_room_stays_as_it_is_while_its_socket_joins_another() {
    let Some(stage) = ClientStage::set().await else { return };
    let ann = "window.rooms = [watch(joinRoom('/ws?user=ann'), ['join', 'leave', 'status', 'text'])]";
    let ann = stage.page(ann).await;
    stage.becomes(&ann, SHOWN, json!([["live", ["ann"]]])).await;
    stage.browser.run(&ann, "rooms[0].send('enter the attic')", vec![]).await;
    // Bob comes and goes in the attic, which Ann's socket receives as well.
    let bob = "window.connection = connect('/ws?user=bob'); window.rooms = [connection.room('attic')]; rooms[0].join()";
    let bob = stage.page(bob).await;
    stage.becomes(&bob, SHOWN, json!([["live", ["ann", "bob"]]])).await;
    stage.browser.run(&bob, "rooms[0].leave(); connection.send('that was the attic')", vec![]).await;
    stage.becomes(&ann, "return rooms[0].seen.at(-1)", json!(["text", "that was the attic"])).await;
    let seen = json!([["status", "live"], ["join", "bob"], ["text", "that was the attic"]]);
    assert_eq!(stage.browser.run(&ann, "return rooms[0].seen", vec![]).await, seen);
    stage.becomes(&ann, SHOWN, json!([["live", ["ann", "bob"]]])).await;
    stage.end().await;
}

#[actix_web::test]
async fn a_text_that_a_server_relays_as_it_came_reaches_the_page_as_a_text() {
    let Some(stage) = ClientStage::set().await else { return };
    let ann =
        stage.page("window.rooms = [watch(joinRoom('/ws?user=ann'), ['text', 'message', 'frame', 'error'])]").await;
    stage.becomes(&ann, SHOWN, json!([["live", ["ann"]]])).await;
    let texts = ["hello", "7", "{}", "\"quoted\"", "{\"type\":\"score\",\"text\":\"3:1\"}"];
    for text in texts {
        stage.browser.run(&ann, "rooms[0].send(arguments[0])", vec![text.into()]).await;
    }
    let text = |text: &str| json!(["text", text]);
    let seen = json!([text("hello"), text("7"), text("{}"), text("\"quoted\""), ["frame", "3:1"]]);
    stage.becomes(&ann, "return rooms[0].seen", seen).await;
    stage.end().await;
}

/// A browser hides the status from the page, so the page cannot know more.
#[actix_web::test]
async fn a_page_whose_handshakes_are_refused_says_so_after_a_few_and_goes_on_trying() {
    let Some(stage) = ClientStage::set().await else { return };
    let ann = stage.page("window.room = joinRoom('/deny', { minDelay: 50 })").await;
    stage
        .becomes(
            &ann,
            "return [room.status.state, room.status.why, room.status.code]",
            json!(["reconnecting", "refused", 1006]),
        )
        .await;
    let before = stage.handshakes();
    assert!(before >= 3, "not after the first");
    eventually(
        BOUND,
        "another try",
        async || if stage.handshakes() > before { Ok(()) } else { Err("none".to_owned()) },
    )
    .await;
    stage.end().await;
}

#[actix_web::test]
async fn a_page_that_is_refused_with_a_close_code_knows_why_and_stays_away() {
    let Some(stage) = ClientStage::set().await else { return };
    let banned = stage.page("window.room = joinRoom('/refuse', { minDelay: 1, maxDelay: 1, grace: 0 })").await;
    let status = json!({"state": "closed", "code": 4003, "reason": "you are banned"});
    stage.becomes(&banned, "return room.status", status.clone()).await;
    // Long enough for another page to come and go, and for hundreds of tries.
    let other = stage.page("window.rooms = [joinRoom('/ws?user=ann')]").await;
    stage.becomes(&other, SHOWN, json!([["live", ["ann"]]])).await;
    assert_eq!((stage.handshakes(), stage.browser.run(&banned, "return room.status", vec![]).await), (2, status));
    stage.end().await;
}
