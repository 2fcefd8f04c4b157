//! A connection is taken over from the HTTP server after its handshake: nothing is lost on the way, and one descriptor is left.

use super::echo::{Echo, descriptors, descriptors_become, end_of, texts};
use super::host::Host;
use super::puppet::Did;
use crate::support::frame::{Raw, ReceivedFrame};
use crate::support::http::Response;
use crate::support::socket::HandshakeRequest;
use crate::support::{BOUND, alone, eventually, millis, secs, within};
use actix_web::body::{BodySize, BoxBody, MessageBody, SizedStream};
use actix_web::http::StatusCode;
use actix_web::web::{self, Bytes};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use presence::ConfigBuilder;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

fn handshake(server: SocketAddr, path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

/// The next head of an answer, and what came after it.
async fn head(stream: &mut TcpStream, read: &mut Vec<u8>) -> Response {
    loop {
        if let Some((response, end)) = Response::head(read) {
            read.drain(..end);
            return response;
        }
        assert!(stream.read_buf(read).await.unwrap() > 0, "an answer, not {:?}", String::from_utf8_lossy(read));
    }
}

fn unlimited(config: ConfigBuilder) -> ConfigBuilder {
    config.messages_per_second(0)
}

/// Sends so many requests and the handshake in one piece, together with `early` texts, and `late` ones as soon as it is answered. All come
/// back in order.
async fn all_come_back(
    host: &mut Host,
    name: &str,
    steps: &str,
    (requests, early, late): (usize, usize, usize),
) -> Echo {
    let path = format!("/puppet?name={name}&connect={}", crate::support::member::encoded(steps));
    let mut first = format!("GET /nothing HTTP/1.1\r\nHost: {}\r\n\r\n", host.address).repeat(requests).into_bytes();
    first.extend(handshake(host.address, &path));
    first.extend(texts(0..early));
    let mut echo = Echo::new(TcpStream::connect(host.address).await.unwrap());
    let opens = async {
        if let Some(gate) = steps.strip_prefix("wait ") {
            host.saw(name, Did::Began(steps.to_owned())).await;
            host.strings.open(gate);
        }
    };
    within(BOUND, "all texts to come back", async {
        tokio::join!(echo.writes.write_all(&first), opens, echo.answers.heads(requests)).0.unwrap();
        let late = (texts(early..early + late), early + late);
        tokio::join!(echo.writes.write_all(&late.0), echo.answers.come_back(late.1)).0.unwrap();
    })
    .await;
    assert_eq!(echo.answers.decoder.next(), None, "no text came twice");
    echo
}

#[tokio::test]
async fn frames_that_come_with_the_handshake_and_after_it_arrive_once_and_in_order() {
    let mut host = Host::plan().config(unlimited).start().await;
    let mut echoes = Vec::new();
    // From nothing to more than the HTTP server reads at once, and more than it keeps in all.
    for (n, (early, late)) in
        [(0, 0), (1, 0), (0, 1), (1, 1), (30, 30), (35, 1), (70, 1), (150, 150)].into_iter().enumerate()
    {
        echoes.push(all_come_back(&mut host, &format!("ann{n}"), "", (0, early, late)).await);
        let steps = format!("wait gate{n}");
        echoes.push(all_come_back(&mut host, &format!("bob{n}"), &steps, (0, early, late)).await);
    }
    for echo in &mut echoes {
        echo.goes_on(host.address).await;
    }
    drop(echoes);
    host.empty().await;
}

#[tokio::test]
async fn frames_after_requests_that_the_client_sent_before_the_handshake_arrive_once_and_in_order() {
    // The HTTP server does not read on while 16 requests wait.
    let mut host = Host::plan().config(unlimited).start().await;
    let mut echoes = Vec::new();
    for requests in [1, 14, 15, 16, 17, 40] {
        echoes.push(all_come_back(&mut host, &format!("ann{requests}"), "", (requests, 20, 20)).await);
    }
    for echo in &mut echoes {
        echo.goes_on(host.address).await;
    }
    drop(echoes);
    host.empty().await;
}

/// Sends texts, with so many on their way at once, until the connection was taken over, and as many then. All come back in order.
async fn flow(host: &Host, ahead: usize) {
    let mut echo = Echo::new(host.raw(&format!("/puppet?name=ann{ahead}"), 65536).await);
    let (on_their_way, server) = (Semaphore::new(ahead), host.address);
    let writing = async {
        for n in 0.. {
            on_their_way.acquire().await.unwrap().forget();
            echo.writes.write_all(&texts(n..n + 1)).await.unwrap();
        }
    };
    let reading = async {
        let mut end = usize::MAX;
        while echo.answers.count < end {
            echo.answers.come_back(ahead).await;
            on_their_way.add_permits(ahead);
            if end == usize::MAX && descriptors(server, echo.local) == 1 {
                end = echo.answers.count + 3 * ahead;
            }
        }
        echo.answers.count
    };
    let flowing = async {
        tokio::select! {
            () = writing => unreachable!("it never ends"),
            count = reading => count,
        }
    };
    let count = within(BOUND, "texts to flow while the connection is taken over", flowing).await;
    assert!(count > 3 * ahead, "some came back before it");
}

#[tokio::test]
async fn frames_that_flow_in_both_directions_while_a_connection_is_taken_over_arrive_once_and_in_order() {
    let _alone = alone().await;
    let host = Host::plan().config(unlimited).start().await;
    // From one at a time to more than the HTTP server keeps in all.
    tokio::join!(flow(&host, 1), flow(&host, 5), flow(&host, 40), flow(&host, 200));
    host.empty().await;
}

#[tokio::test]
async fn a_connection_on_which_much_waits_in_both_directions_is_taken_over_later_and_without_a_loss() {
    const FLOOD: usize = 100;
    let _alone = alone().await;
    let mut host = Host::plan().config(unlimited).start().await;
    let mut ann = Echo::new(host.raw("/puppet?name=ann&connect=join%20lobby", 65536).await);
    let mut bob = host.open("bob", "").await;
    // Her consumer waits, so what she sends fills the inbox and the buffers of the HTTP server.
    ann.writes.write_all(&Raw::text("wait gate").encode()).await.unwrap();
    host.saw("ann", Did::Began("wait gate".into())).await;
    // Each part arrives by itself: the first is decoded, the second is passed on, and the third is kept by the server.
    for part in 0..3 {
        ann.writes.write_all(&texts(40 * part..40 * (part + 1))).await.unwrap();
        eventually(BOUND, "the server to read", async || match end_of(host.address, ann.local).map(|end| end.unread) {
            Some(0) => Ok(()),
            unread => Err(format!("{unread:?}")),
        })
        .await;
    }
    let (many, mut writes) = (texts(120..400), ann.writes);
    let writing = tokio::spawn(async move {
        writes.write_all(&many).await.unwrap();
        writes
    });
    // She reads nothing, so what she is sent fills the kernel and is left to the response.
    let flood = format!("flood lobby {FLOOD} 8000");
    bob.text(&flood).await;
    host.saw("bob", Did::Done(flood)).await;
    // A younger connection is taken over, and hers is not, because the server writes still.
    let mut cat = Echo::new(host.raw("/puppet?name=cat", 65536).await);
    cat.goes_on(host.address).await;
    assert_eq!(descriptors(host.address, ann.local), 2);
    within(BOUND, "all that she is sent", async {
        for n in 0..FLOOD {
            assert!(ann.answers.text().await.starts_with(&format!("{n:05}")), "{n}");
        }
        host.strings.open("gate");
        ann.answers.come_back(400).await;
    })
    .await;
    ann.writes = writing.await.unwrap();
    ann.goes_on(host.address).await;
    drop((ann, cat));
    bob.leave().await;
    host.empty().await;
}

#[tokio::test]
async fn a_socket_takes_one_descriptor_after_its_handshake() {
    let mut host = Host::start().await;
    let mut ann = host.open("ann", "join lobby").await;
    let what = "one descriptor. If a new version of actix-http keeps a connection whose 101 ended early, see `consumer/line.rs`";
    descriptors_become(host.address, ann.local(), 1, what).await;
    ann.text("reply still served").await;
    assert_eq!(ann.next().await, ReceivedFrame::Text("still served".into()));
    // One that closed in order is gone, although its client keeps its half of the connection.
    ann.close(1000).await;
    assert_eq!(ann.closing().await, Some(1000));
    host.saw("ann", Did::Disconnected(1000)).await;
    descriptors_become(host.address, ann.local(), 0, "no descriptor").await;
    host.empty().await;
}

/// The rule of actix-http on which the taking over rests, without presence.
#[tokio::test]
async fn actix_http_drops_a_connection_whose_101_ends_early_and_does_not_end_it() {
    const CHANGED: &str =
        "actix-http drops a connection whose 101 ends before its length. `consumer/line.rs` rests on that";
    type Kept = Arc<Mutex<Vec<std::net::TcpStream>>>;
    let kept = Kept::default();
    let keeps = kept.clone();
    let (started, start) = std::sync::mpsc::channel();
    let serve = async move || {
        let app = || {
            App::new().route(
                "/",
                web::get().to(async || {
                    let body =
                        SizedStream::new(u64::MAX, futures_util::stream::empty::<Result<Bytes, std::io::Error>>());
                    HttpResponse::build(StatusCode::SWITCHING_PROTOCOLS).upgrade("websocket").body(body)
                }),
            )
        };
        let server = HttpServer::new(app).on_connect(move |connection, _| {
            let stream: &actix_web::rt::net::TcpStream = connection.downcast_ref().unwrap();
            keeps.lock().unwrap().push(stream.as_fd().try_clone_to_owned().unwrap().into());
        });
        let server = server.workers(1).disable_signals().h1_write_buffer_size(presence::WRITE_BUFFER_BYTES);
        let server = server.bind("127.0.0.1:0").unwrap();
        let address = server.addrs()[0];
        let server = server.run();
        started.send((address, server.handle())).unwrap();
        server.await.unwrap();
    };
    let thread = std::thread::spawn(move || actix_web::rt::System::new().block_on(serve()));
    let (address, handle) = start.recv().unwrap();
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(&handshake(address, "/")).await.unwrap();
    let mut read = Vec::new();
    let head = within(BOUND, "the head", head(&mut client, &mut read)).await;
    assert_eq!((head.status, head.header("content-length"), head.header("transfer-encoding")), (101, None, None));
    descriptors_become(address, client.local_addr().unwrap(), 1, CHANGED).await;
    let own = kept.lock().unwrap().pop().expect("it was duplicated");
    let mut own = TcpStream::from_std(own).unwrap();
    own.write_all(b"from here").await.expect(CHANGED);
    client.write_all(b"from there").await.unwrap();
    let (mut here, mut there) = ([0; 10], [0; 9]);
    within(BOUND, CHANGED, own.read_exact(&mut here)).await.expect(CHANGED);
    assert_eq!(&here, b"from there");
    if let Some(first) = there.get_mut(..read.len()) {
        first.copy_from_slice(&read);
    }
    within(BOUND, CHANGED, client.read_exact(&mut there[read.len()..])).await.expect(CHANGED);
    assert_eq!(&there, b"from here");
    drop(handle.stop(false));
    thread.join().unwrap();
}

/// A body without a length, as a middleware may make of any body.
struct Unsized(BoxBody);

impl MessageBody for Unsized {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.0).poll_next(cx)
    }
}

#[tokio::test]
async fn if_the_http_server_keeps_a_connection_that_one_is_lost_and_others_are_served_by_it() {
    one_is_lost(secs(1)).await;
}

#[tokio::test]
async fn if_the_http_server_ends_a_connection_that_one_is_lost_and_others_are_served_by_it() {
    // Without patience it ends the sending half at once, and drops the connection.
    one_is_lost(secs(0)).await;
}

/// Behind a middleware that changes the body, the first connection is lost and no other.
async fn one_is_lost(disconnect_timeout: Duration) {
    let wrapped = |services: &mut web::ServiceConfig| {
        let puppet = async |req: HttpRequest, body, query, rooms, strings| {
            let response = super::puppet::puppet(req, body, query, rooms, strings).await;
            response.map_body(|_, body| BoxBody::new(Unsized(body)))
        };
        services.route("/wrapped", web::get().to(puppet));
    };
    let mut host = Host::plan().disconnect_timeout(disconnect_timeout).route(wrapped).start().await;
    let wrapped = |name| format!("/wrapped?name={name}&connect=join%20lobby");
    let mut ann = host.raw(&wrapped("ann"), 65536).await;
    let mut sockets = Vec::new();
    for name in ["bob", "cat"] {
        sockets.push((name, HandshakeRequest::to(wrapped(name)).open(host.address).await.unwrap()));
    }
    host.saw("ann", Did::Disconnected(1006)).await;
    let end = within(secs(5), "the end of the first one", ann.read(&mut [0])).await;
    assert!(!matches!(end, Ok(1..)), "{end:?}");
    sockets.push(("dan", HandshakeRequest::to(wrapped("dan")).open(host.address).await.unwrap()));
    // When another server has taken over one that came later, and one after that, their time is over.
    let other = Host::start().await;
    for name in ["eve", "fay"] {
        let socket = other.open(name, "").await;
        descriptors_become(other.address, socket.local(), 1, "the connection to be taken over").await;
        socket.leave().await;
    }
    for (name, mut socket) in sockets {
        socket.text("reply served").await;
        assert_eq!(socket.next().await, ReceivedFrame::Text("served".into()));
        assert_eq!(descriptors(host.address, socket.local()), 2, "the server has it still");
        socket.leave().await;
        host.saw(name, Did::Disconnected(1000)).await;
    }
    host.empty().await;
}

#[tokio::test]
async fn what_a_client_sends_after_its_close_does_not_reset_the_connection() {
    let mut host = Host::start().await;
    for (name, is_young) in [("ann", true), ("bob", false)] {
        let mut client = host.raw(&format!("/puppet?name={name}"), 65536).await;
        let local = client.local_addr().unwrap();
        if !is_young {
            descriptors_become(host.address, local, 1, "the connection to be taken over").await;
        }
        client.write_all(&Raw::close(1000, b"").encode()).await.unwrap();
        host.saw(name, Did::Disconnected(1000)).await;
        // The server has ended its half: FIN_WAIT2.
        eventually(BOUND, "the end of the server's half", async || match host.tcp_state(local) {
            Some(5) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        client.write_all(&Raw::text("late").encode()).await.unwrap();
        assert!(client.take_error().unwrap().is_none(), "{name} is reset");
        let mut rest = Vec::new();
        within(BOUND, "the answer to the Close", client.read_to_end(&mut rest)).await.unwrap();
        assert_eq!(rest, [0x88, 2, 3, 0xe8]);
    }
    host.empty().await;
}

#[tokio::test]
async fn while_a_consumer_receives_nothing_nothing_is_read() {
    let _alone = alone().await;
    let mut host = Host::plan().config(unlimited).start().await;
    let mut ann = host.raw("/puppet?name=ann", 65536).await;
    descriptors_become(host.address, ann.local_addr().unwrap(), 1, "the connection to be taken over").await;
    ann.write_all(&Raw::text("wait gate").encode()).await.unwrap();
    host.saw("ann", Did::Began("wait gate".into())).await;
    // The kernel keeps some megabytes on the way, and the server next to nothing.
    let some = Raw::binary([0; 60_000]).encode();
    let mut sent = 0;
    while let Ok(written) = tokio::time::timeout(millis(500), ann.write(&some[sent % some.len()..])).await {
        sent += written.unwrap();
        assert!(sent < 64 << 20, "the server reads without an end");
    }
    host.strings.open("gate");
    ann.write_all(&some[sent % some.len()..]).await.unwrap();
    let frames = sent.div_ceil(some.len());
    for _ in 0..frames {
        host.saw("ann", Did::Bytes(60_000)).await;
    }
    drop(ann);
    host.saw("ann", Did::Disconnected(1006)).await;
    host.empty().await;
}
