//! Before the 101: a socket that is not accepted leaves no trace, however it ends, and each join that was published
//! is followed by its leave.

use super::host::{Host, told};
use super::puppet::{Did, Strings};
use crate::support::frame::{Raw, ReceivedFrame};
use crate::support::member::encoded;
use crate::support::socket::{ClientSocket, HandshakeRequest};
use crate::support::{BOUND, millis, within};
use actix_web::{HttpRequest, HttpResponse, web};
use presence::{CloseCode, Error, Rooms};
use std::sync::{Arc, Mutex};

/// How a client goes that does not wait for the answer.
#[derive(Debug, Clone, Copy)]
enum Goes {
    ByReset,
    InOrder,
}

/// Ann's client goes while her consumer waits in `connect`, having joined.
async fn goes_during_connect(goes: Goes) {
    let mut host = Host::start().await;
    let mut changes = host.rooms.changes();
    let ann = host.upgrade("ann", "join lobby; wait gate").send(host.address).await.unwrap();
    host.saw("ann", Did::Began("wait gate".into())).await;
    assert_eq!(told(&mut changes).await, "+ann");
    assert_eq!(host.rows("lobby").await, 1);
    match goes {
        Goes::ByReset => ann.reset(),
        Goes::InOrder => drop(ann),
    }
    host.saw("ann", Did::ConnectDropped).await;
    assert_eq!(told(&mut changes).await, "-ann");
    host.empty().await;
    let did = host.did("ann");
    assert!(!did.iter().any(|did| matches!(did, Did::Disconnecting(_))), "it was never accepted: {did:?}");
}

#[tokio::test]
async fn a_reset_during_a_slow_connect_leaves_no_row_and_the_join_is_followed_by_its_leave() {
    goes_during_connect(Goes::ByReset).await;
}

#[tokio::test]
async fn a_close_during_a_slow_connect_leaves_no_row_and_the_join_is_followed_by_its_leave() {
    goes_during_connect(Goes::InOrder).await;
}

#[tokio::test]
async fn a_reset_while_the_database_has_yet_to_answer_the_join_leaves_no_row() {
    let mut host = Host::start().await;
    let mut changes = host.rooms.changes();
    host.store.hang();
    let ann = host.upgrade("ann", "join lobby").send(host.address).await.unwrap();
    host.saw("ann", Did::Connecting).await;
    ann.reset();
    host.saw("ann", Did::ConnectDropped).await;
    host.store.release();
    host.empty().await;
    // If a join was published, its leave was published, too.
    let _bob = host.open("bob", "join lobby").await;
    let mut heard = Vec::new();
    while heard.last().is_none_or(|last| last != "+bob") {
        heard.push(told(&mut changes).await);
    }
    assert!(heard == ["+bob"] || heard == ["+ann", "-ann", "+bob"], "{heard:?}");
}

// behaviour: 7 deny
#[tokio::test]
async fn a_socket_denied_after_its_join_gets_the_status_and_the_reason_and_leaves() {
    let host = Host::start().await;
    let mut changes = host.rooms.changes();
    let response = host.refused("ann", "join lobby; deny 402 pay first").await;
    assert_eq!((response.status, &*response.body), (402, "pay first"));
    assert_eq!(host.rows("lobby").await, 0, "it left before anybody was told that it was turned away");
    assert_eq!([told(&mut changes).await, told(&mut changes).await], ["+ann", "-ann"]);
    host.empty().await;
}

#[tokio::test]
async fn a_connect_that_fails_or_panics_is_answered_with_500_and_leaves() {
    for fault in ["fail", "panic"] {
        let mut host = Host::start().await;
        let mut changes = host.rooms.changes();
        let response = host.refused("ann", &format!("join lobby; {fault}")).await;
        assert_eq!(response.status, 500, "{fault}");
        assert_eq!([told(&mut changes).await, told(&mut changes).await], ["+ann", "-ann"], "{fault}");
        host.empty().await;
        assert_eq!(host.count("ann", |did| matches!(did, Did::Disconnecting(_))), 0, "{fault}");
    }
}

#[tokio::test]
async fn a_status_that_is_no_refusal_is_a_server_error() {
    let host = Host::start().await;
    assert_eq!(host.refused("ann", "deny 200 fine").await.status, 500);
    assert_eq!(host.refused("ann", "deny 101 switching").await.status, 500);
    host.empty().await;
}

/// What a refused client reads: a Close, and nothing before it. It answers, and the connection ends.
async fn reads_only(mut client: ClientSocket, code: u16, reason: &str) {
    assert_eq!(client.next().await, ReceivedFrame::Close(Some(code), reason.into()));
    client.close(code).await;
    client.ended().await;
}

#[tokio::test]
async fn a_socket_refused_after_its_join_reads_the_code_and_the_reason_and_nothing_else_and_has_left() {
    let mut host = Host::start().await;
    let mut changes = host.rooms.changes();
    for steps in ["join lobby", "join lobby; reply hello; say lobby hello", "join lobby; close 1000 bye"] {
        let ann = host.open("ann", &format!("{steps}; refuse 4003 banned")).await;
        assert_eq!(host.rows("lobby").await, 0, "it left before the handshake was answered");
        assert_eq!([told(&mut changes).await, told(&mut changes).await], ["+ann", "-ann"]);
        reads_only(ann, 4003, "banned").await;
        host.empty().await;
        assert_eq!(host.count("ann", |did| matches!(did, Did::Disconnecting(_))), 0, "it was never let in");
    }
}

#[tokio::test]
async fn a_refused_client_that_goes_on_sending_is_read_until_its_close() {
    let host = Host::plan().config(|config| config.inbox_frames(2)).start().await;
    let mut ann = host.open("ann", "refuse 4100 later").await;
    for _ in 0..50 {
        ann.text("join lobby").await;
    }
    reads_only(ann, 4100, "later").await;
    host.empty().await;
}

#[tokio::test]
async fn a_refused_client_that_does_not_close_is_cut_off_in_time() {
    let host = Host::plan().config(|config| config.close_timeout(millis(300))).start().await;
    let ann = host.open("ann", "refuse 4000 no").await;
    host.connection_gone(ann.local()).await;
    host.empty().await;
}

#[tokio::test]
async fn a_code_that_no_endpoint_may_send_refuses_with_a_server_error() {
    let host = Host::start().await;
    for code in [0, 999, 1005, 1006, 1015, 2999, 5000] {
        assert_eq!(host.refused("ann", &format!("join lobby; refuse {code} no")).await.status, 500, "{code}");
    }
    host.empty().await;
}

#[tokio::test]
async fn a_refused_browser_that_offered_subprotocols_can_read_the_code() {
    // A browser fails a handshake whose answer names none of those that it offered, and its page sees 1006.
    let host = Host::start().await;
    for (steps, chosen) in [("", "token"), ("accept chat", "chat")] {
        let path = format!("/puppet?name=ann&connect={}", encoded(&format!("{steps}; refuse 4000 no")));
        let head = host.head(&path, &[("Sec-WebSocket-Protocol", "token, chat")]).await;
        assert_eq!((head.status, head.header("sec-websocket-protocol")), (101, Some(chosen)), "{steps}");
    }
    assert_eq!(host.head("/puppet?name=ann&connect=refuse%204000", &[]).await.header("sec-websocket-protocol"), None);
    host.empty().await;
}

/// Refuses whoever it is, before the consumer is asked, with the code that the query names.
async fn bar(req: HttpRequest, body: web::Payload, rooms: web::Data<Rooms>) -> HttpResponse {
    struct Unasked;
    impl presence::Consumer for Unasked {
        async fn connect(&mut self, _: &mut presence::Socket) -> presence::Result<()> {
            panic!("the consumer was asked")
        }
        async fn receive(&mut self, _: &mut presence::Socket, _: presence::Frame) -> presence::Result<()> {
            Ok(())
        }
    }
    let who = async |req: HttpRequest| Err(Error::refuse(CloseCode(req.query_string().parse().unwrap()), "banned"));
    presence::Upgrade::new(&rooms, &req, body).authenticate(who).start(Unasked).await
}

#[tokio::test]
async fn who_is_refused_by_authenticate_reads_the_code_too_and_another_origin_is_refused_before_that() {
    let route = |services: &mut web::ServiceConfig| {
        services.route("/bar", web::get().to(bar));
    };
    let host = Host::plan().route(route).start().await;
    let refused = HandshakeRequest::to("/bar?4003").open(host.address).await.expect("a 101");
    reads_only(refused, 4003, "banned").await;
    let wrong = HandshakeRequest::to("/bar?1006").open(host.address).await.expect_err("a status");
    assert_eq!(wrong.status, 500);
    let foreign = HandshakeRequest::to("/bar?4003").with("Origin", "http://evil.example").open(host.address).await;
    assert_eq!(foreign.expect_err("a status").status, 403);
    host.empty().await;
}

// behaviour: 7 neither
#[tokio::test]
async fn a_connect_slower_than_the_handshake_may_be_is_answered_with_500_and_leaves() {
    let mut host = Host::plan().config(|config| config.handshake_timeout(millis(300))).start().await;
    let mut changes = host.rooms.changes();
    let response = host.refused("ann", "join lobby; stall").await;
    assert_eq!(response.status, 500);
    host.saw("ann", Did::ConnectDropped).await;
    assert_eq!([told(&mut changes).await, told(&mut changes).await], ["+ann", "-ann"]);
    host.empty().await;
}

#[tokio::test]
async fn while_the_database_is_away_a_join_is_answered_with_503_and_when_to_come_back() {
    let host = Host::plan().config(|config| config.store_timeout(millis(300))).start().await;
    host.store.fail_next(usize::MAX);
    let response = host.refused("ann", "join lobby").await;
    assert_eq!(response.status, 503);
    assert!(response.header("retry-after").is_some_and(|after| after.parse::<u32>().is_ok()), "{response:?}");
    host.store.fail_next(0);
    host.open("ann", "join lobby").await.leave().await;
    host.empty().await;
}

#[tokio::test]
async fn without_a_supervisor_sockets_are_served_and_rounds_are_carried_out_by_call() {
    let host = Host::plan().unsupervised().start().await;
    host.open("ann", "join lobby").await.leave().await;
    host.empty().await;
    host.rooms.prune_rooms().await.unwrap();
}

// behaviour: 7 close-in-connect
#[tokio::test]
async fn a_consumer_that_closes_in_connect_is_accepted_first_and_then_closed_with_its_code() {
    // The client was reset instead, and never learnt why.
    let mut host = Host::start().await;
    let mut ann = host.open("ann", "join lobby; reply hello; close 4401 log in first").await;
    assert_eq!(ann.next().await, ReceivedFrame::Text("hello".into()));
    assert_eq!(ann.next().await, ReceivedFrame::Close(Some(4401), "log in first".into()));
    ann.close(4401).await;
    ann.ended().await;
    host.saw("ann", Did::Disconnected(4401)).await;
    host.empty().await;
}

#[tokio::test]
async fn a_consumer_that_closes_in_connect_and_goes_on_is_closed_when_it_is_done() {
    let mut host = Host::start().await;
    let upgrade = host.upgrade("ann", "join lobby; close 4401 bye; wait gate");
    let ann = upgrade.send(host.address).await.unwrap();
    host.saw("ann", Did::Began("wait gate".into())).await;
    host.strings.open("gate");
    let mut ann = ann.answered().await.unwrap();
    assert_eq!(ann.closing().await, Some(4401));
    host.saw("ann", Did::Disconnected(4401)).await;
}

#[tokio::test]
async fn a_shutdown_during_a_slow_connect_answers_it_with_503_and_when_to_come_back() {
    // The client was reset instead.
    let mut host = Host::start().await;
    let mut changes = host.rooms.changes();
    let ann = host.upgrade("ann", "join lobby; stall").send(host.address).await.unwrap();
    host.saw("ann", Did::Began("stall".into())).await;
    let shutdown = tokio::spawn({
        let rooms = host.rooms.clone();
        async move { rooms.shutdown().await }
    });
    let response = ann.answered().await.expect_err("a refusal");
    assert_eq!(response.status, 503);
    assert!(response.header("retry-after").is_some());
    host.saw("ann", Did::ConnectDropped).await;
    assert_eq!([told(&mut changes).await, told(&mut changes).await], ["+ann", "-ann"]);
    within(BOUND, "the end of the shutdown", shutdown).await.unwrap();
    assert_eq!(host.refused("bob", "").await.status, 503, "nobody is let in any more");
}

async fn wild(req: HttpRequest, body: web::Payload, rooms: web::Data<Rooms>) -> HttpResponse {
    let upgrade = presence::Upgrade::new(&rooms, &req, body).authenticate(|_| async { panic!("told to panic") });
    upgrade.start(Open).await
}

#[tokio::test]
async fn an_authentication_that_panics_is_answered_with_500() {
    // The connection was dropped without an answer.
    let route = |services: &mut web::ServiceConfig| {
        services.route("/wild", web::get().to(wild));
    };
    let host = Host::plan().route(route).start().await;
    assert_eq!(host.head("/wild", &[]).await.status, 500);
    host.empty().await;
}

/// Accepts whatever comes.
struct Open;

impl presence::Consumer for Open {
    async fn receive(&mut self, _: &mut presence::Socket, _: presence::Frame) -> presence::Result<()> {
        Ok(())
    }
}

/// Waits in `authenticate`, and then accepts whatever comes.
async fn late(
    req: HttpRequest,
    body: web::Payload,
    rooms: web::Data<Rooms>,
    strings: web::Data<Strings>,
) -> HttpResponse {
    let upgrade = presence::Upgrade::new(&rooms, &req, body).authenticate(move |_| {
        let strings = strings.clone();
        async move {
            strings.tell("late", Did::Began("wait".into()));
            strings.pass("late").await;
            Ok(None)
        }
    });
    upgrade.start(Open).await
}

#[tokio::test]
async fn a_socket_that_is_let_in_while_a_shutdown_begins_is_turned_away_as_well() {
    // Those that were there had been closed, and nobody closed this one.
    let route = |services: &mut web::ServiceConfig| {
        services.route("/late", web::get().to(late));
    };
    let mut host = Host::plan().route(route).start().await;
    let late = HandshakeRequest::to("/late").send(host.address).await.unwrap();
    host.saw("late", Did::Began("wait".into())).await;
    let rooms = host.rooms.clone();
    within(BOUND, "a shutdown", async move { rooms.shutdown().await }).await;
    host.strings.open("late");
    assert_eq!(late.answered().await.expect_err("a refusal").status, 503);
}

#[tokio::test]
async fn a_reset_right_after_the_101_is_an_accepted_socket_that_was_lost() {
    let mut host = Host::start().await;
    host.open("ann", "join lobby").await.reset();
    host.saw("ann", Did::Disconnected(1006)).await;
    host.empty().await;
}

#[tokio::test]
async fn frames_sent_with_the_handshake_wait_for_the_consumer() {
    let mut host = Host::start().await;
    let mut ann = host.upgrade("ann", "wait gate").send(host.address).await.unwrap();
    host.saw("ann", Did::Began("wait gate".into())).await;
    for n in 0..40 {
        ann.send(Raw::text(format!("reply {n}"))).await;
    }
    host.strings.open("gate");
    let mut ann = ann.answered().await.unwrap();
    for n in 0..40 {
        assert_eq!(ann.next().await, ReceivedFrame::Text(n.to_string()));
    }
    ann.leave().await;
    host.empty().await;
}

#[tokio::test]
async fn a_handshake_with_a_body_is_refused() {
    // Its frames would have been read from within the body; its connection would never have been closed.
    let host = Host::start().await;
    for header in [("Transfer-Encoding", "chunked"), ("Content-Length", "5")] {
        assert_eq!(host.head("/puppet?name=ann", &[header]).await.status, 400, "{header:?}");
    }
    assert_eq!(host.head("/puppet?name=ann", &[("Content-Length", "0")]).await.status, 101, "none at all");
    host.empty().await;
}

/// Responses that are taken and never looked at again.
type Drawer = Arc<Mutex<Vec<std::thread::ThreadId>>>;

/// Upgrades, puts the response away, and answers something else.
async fn shelve(
    req: HttpRequest,
    body: web::Payload,
    rooms: web::Data<Rooms>,
    drawer: web::Data<Drawer>,
) -> HttpResponse {
    struct Joins;
    impl presence::Consumer for Joins {
        async fn connect(&mut self, socket: &mut presence::Socket) -> presence::Result<()> {
            socket.join(&super::host::room("lobby")).await
        }
        async fn receive(&mut self, _: &mut presence::Socket, _: presence::Frame) -> presence::Result<()> {
            Ok(())
        }
    }
    let response = presence::Upgrade::new(&rooms, &req, body).start(Joins).await;
    assert_eq!(response.status(), 101);
    drawer.lock().unwrap().push(std::thread::current().id());
    std::mem::forget(response);
    HttpResponse::Ok().finish()
}

#[tokio::test]
async fn a_body_that_is_never_polled_is_given_up_after_the_time_of_a_handshake() {
    let drawer = Drawer::default();
    let data = web::Data::new(drawer.clone());
    let route = move |services: &mut web::ServiceConfig| {
        services.app_data(data.clone()).route("/shelve", web::get().to(shelve));
    };
    let plan = Host::plan().config(|config| config.handshake_timeout(millis(400)).close_timeout(millis(200)));
    let host = plan.route(route).start().await;
    let mut changes = host.rooms.changes();
    let response = HandshakeRequest::to("/shelve").open(host.address).await;
    assert!(!drawer.lock().unwrap().is_empty(), "{response:?}");
    assert_eq!(told(&mut changes).await, "+");
    assert_eq!(told(&mut changes).await, "-");
    assert_eq!(host.rows("lobby").await, 0);
}

#[derive(serde::Deserialize)]
struct VisitQuery {
    user: presence::UserId,
}

async fn extracted(
    upgrade: presence::Upgrade,
    room: web::Path<presence::RoomName>,
    visit: web::Query<VisitQuery>,
) -> presence::Result<HttpResponse> {
    if room.as_str() == "closed" {
        return Err(presence::Error::deny(actix_web::http::StatusCode::LOCKED, "nobody gets in"));
    }
    Ok(upgrade.user(Some(visit.into_inner().user)).start(Open).await)
}

#[tokio::test]
async fn an_upgrade_is_an_extractor_beside_others() {
    let route = |services: &mut web::ServiceConfig| {
        services.route("/room/{room}", web::get().to(extracted));
    };
    let host = Host::plan().route(route).start().await;
    for (path, status) in [
        ("/room/lobby?user=ann", 101),
        ("/room/lobby", 400),
        ("/room/lobby?user=", 400),
        ("/room/closed?user=ann", 423),
    ] {
        assert_eq!(host.head(path, &[]).await.status, status, "{path}");
    }
}

#[actix_web::test]
async fn an_upgrade_without_rooms_in_the_applications_data_is_answered_500() {
    use actix_web::test::{call_service, init_service};
    let app = actix_web::App::new().route("/{room}", web::get().to(extracted));
    let request = presence::testing::upgrade_request().uri("/lobby?user=ann").to_request();
    assert_eq!(call_service(&init_service(app).await, request).await.status(), 500);
}
