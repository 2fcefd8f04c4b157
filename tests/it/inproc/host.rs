//! A server in this process, and what may be asked of it.

use super::puppet::{Did, Puppet, Strings};
use crate::support::http::Response;
use crate::support::member::encoded;
use crate::support::socket::{ClientSocket, HandshakeRequest};
use crate::support::{BOUND, eventually, secs, within};
use actix_web::dev::ServerHandle;
use actix_web::web::{self, ServiceConfig};
use actix_web::{App, HttpServer};
use presence::{
    ChannelName, Config, ConfigBuilder, HttpServerExt as _, MemoryStore, NodeName, Notify, PruningSupervisor, RoomName,
    Rooms, Subscription, store::RoomStore, testing::store::FaultyStore,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};

type Route = Arc<dyn Fn(&mut ServiceConfig) + Send + Sync>;

/// A server yet to be started.
pub(super) struct HostPlan {
    config: ConfigBuilder,
    workers: usize,
    disconnect_timeout: Duration,
    prepared: bool,
    supervised: bool,
    routes: Vec<Route>,
}

impl HostPlan {
    pub(super) fn config(mut self, set: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Self {
        self.config = set(self.config);
        self
    }

    /// Sets `HttpServer::client_disconnect_timeout`.
    pub(super) fn disconnect_timeout(mut self, timeout: Duration) -> Self {
        self.disconnect_timeout = timeout;
        self
    }

    pub(super) fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Forgets `HttpServerExt::with_presence`.
    pub(super) fn unprepared(mut self) -> Self {
        self.prepared = false;
        self
    }

    /// Forgets `PruningSupervisor::spawn`.
    pub(super) fn unsupervised(mut self) -> Self {
        self.supervised = false;
        self
    }

    /// Adds what the test serves besides puppets. The `Rooms` are there as application data.
    pub(super) fn route(mut self, route: impl Fn(&mut ServiceConfig) + Send + Sync + 'static) -> Self {
        self.routes.push(Arc::new(route));
        self
    }

    pub(super) async fn start(self) -> Host {
        let store = FaultyStore::new(MemoryStore::default());
        let (strings, heard) = Strings::new();
        let (started, start) = oneshot::channel();
        let (kept, held) = (store.clone(), strings.clone());
        let serve = move || actix_web::rt::System::new().block_on(self.serve(kept, held, started));
        let thread = std::thread::spawn(serve);
        let (rooms, address, handle) = within(BOUND, "a server", start).await.expect("the server started");
        Host { rooms, store, address, strings, heard, log: Vec::new(), handle, thread: Some(thread) }
    }

    async fn serve(
        self,
        store: FaultyStore<MemoryStore>,
        strings: Strings,
        started: oneshot::Sender<(Rooms, SocketAddr, ServerHandle)>,
    ) {
        let Self { config, workers, disconnect_timeout, prepared, supervised, routes } = self;
        let rooms = Rooms::start(config.build().unwrap(), store, NodeName::new("here").unwrap());
        if supervised {
            PruningSupervisor::spawn(&rooms);
        }
        rooms.ready().await;
        let data = web::Data::new(rooms.clone());
        let server = HttpServer::new(move || {
            let app = App::new().app_data(data.clone()).app_data(web::Data::new(strings.clone()));
            let app = app.configure(Puppet::serve);
            routes.iter().fold(app, |app, route| app.configure(|services| route(services)))
        });
        let server = if prepared {
            // The signals are those of all tests.
            server.with_presence(&rooms).shutdown_signal(std::future::pending())
        } else {
            server
        };
        let server = server
            .workers(workers)
            .client_disconnect_timeout(disconnect_timeout)
            .disable_signals()
            .shutdown_timeout(1)
            .bind("127.0.0.1:0")
            .unwrap();
        let address = server.addrs()[0];
        let server = server.run();
        drop(started.send((rooms.clone(), address, server.handle())));
        server.await.unwrap();
        rooms.shutdown().await;
    }
}

/// A running server. It ends when this is dropped.
pub(super) struct Host {
    pub(super) rooms: Rooms,
    pub(super) store: FaultyStore<MemoryStore>,
    pub(super) address: SocketAddr,
    pub(super) strings: Strings,
    heard: mpsc::UnboundedReceiver<(String, Did)>,
    log: Vec<(String, Did)>,
    handle: ServerHandle,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Host {
    /// One worker, the default settings but for no notices, and everything that the documentation asks for.
    pub(super) fn plan() -> HostPlan {
        let config = Config::builder().notify(Notify::Silent);
        HostPlan {
            config,
            workers: 1,
            disconnect_timeout: secs(1),
            prepared: true,
            supervised: true,
            routes: Vec::new(),
        }
    }

    pub(super) async fn start() -> Self {
        Self::plan().start().await
    }

    /// The request of a puppet that does `steps` in its `connect`.
    pub(super) fn upgrade(&self, name: &str, steps: &str) -> HandshakeRequest {
        HandshakeRequest::to(format!("/puppet?name={}&connect={}", encoded(name), encoded(steps)))
    }

    /// As `upgrade`, and `end` is done in `disconnect`.
    pub(super) fn upgrade_to_end(&self, name: &str, steps: &str, end: &str) -> HandshakeRequest {
        let (name, steps, end) = (encoded(name), encoded(steps), encoded(end));
        HandshakeRequest::to(format!("/puppet?name={name}&connect={steps}&disconnect={end}"))
    }

    pub(super) async fn open(&self, name: &str, steps: &str) -> ClientSocket {
        let opened = self.upgrade(name, steps).open(self.address).await;
        opened.unwrap_or_else(|response| panic!("{name} was refused: {response:?}"))
    }

    pub(super) async fn refused(&self, name: &str, steps: &str) -> Response {
        self.upgrade(name, steps).open(self.address).await.expect_err("a refusal")
    }

    /// Waits until this puppet did this, and takes that out of the log.
    pub(super) async fn saw(&mut self, name: &str, did: Did) {
        let what = format!("{name} to have {did:?}");
        let waited = tokio::time::timeout(BOUND, async {
            loop {
                if let Some(at) = self.log.iter().position(|one| one.0 == name && one.1 == did) {
                    self.log.remove(at);
                    return;
                }
                let next = self.heard.recv().await.expect("the server lives");
                self.log.push(next);
            }
        });
        if waited.await.is_err() {
            panic!("waited in vain for {what}; so far: {:?}", self.log);
        }
    }

    /// The channel of this puppet, which it was ordered to report.
    pub(super) async fn channel(&mut self, name: &str) -> ChannelName {
        self.saw(name, Did::Done("channel".into())).await;
        let did = self.did(name);
        let channel = did.into_iter().find_map(|did| if let Did::Channel(name) = did { Some(name) } else { None });
        channel.expect("it told its channel")
    }

    /// The head of the answer to an upgrade with these headers, the 101 included.
    pub(super) async fn head(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        self.shake(path, headers, None).await.0
    }

    /// A connection that has shaken hands, to be abused.
    pub(super) async fn raw(&self, path: &str, receive_buffer: u32) -> TcpStream {
        let (head, stream) = self.shake(path, &[], Some(receive_buffer)).await;
        assert_eq!(head.status, 101);
        stream
    }

    async fn shake(&self, path: &str, headers: &[(&str, &str)], buffer: Option<u32>) -> (Response, TcpStream) {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n",
            self.address
        );
        within(BOUND, "the head of the answer", async {
            let socket = TcpSocket::new_v4().unwrap();
            if let Some(bytes) = buffer {
                socket.set_recv_buffer_size(bytes).unwrap();
            }
            let mut stream = socket.connect(self.address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut bytes = Vec::new();
            loop {
                // Byte by byte, so that what follows is left.
                bytes.push(stream.read_u8().await.expect("an answer"));
                if let Some((response, _)) = Response::head(&bytes) {
                    return (response, stream);
                }
            }
        })
        .await
    }

    /// All that this puppet did and that was not asked for yet, in order.
    pub(super) fn did(&mut self, name: &str) -> Vec<Did> {
        while let Ok(next) = self.heard.try_recv() {
            self.log.push(next);
        }
        self.log.extract_if(.., |(who, _)| who == name).map(|(_, did)| did).collect()
    }

    /// How often this puppet did what is asked for. The log stays.
    pub(super) fn count(&mut self, name: &str, is_so: impl Fn(&Did) -> bool) -> usize {
        while let Ok(next) = self.heard.try_recv() {
            self.log.push(next);
        }
        self.log.iter().filter(|(who, did)| who == name && is_so(did)).count()
    }

    /// How many rows the store has of a room.
    pub(super) async fn rows(&self, name: &str) -> usize {
        let snapshot = self.store.inner().load(room(name)).await.unwrap();
        snapshot.map_or(0, |snapshot| snapshot.presences.len())
    }

    /// Waits until nothing is left of anybody: no socket, no room in memory, no row.
    pub(super) async fn empty(&self) {
        eventually(BOUND, "an empty server", async || {
            let (sockets, rooms) = (self.rooms.sockets(), self.rooms.running());
            let rows = format!("{:?}", self.store.inner());
            let clean = sockets == 0 && rooms == 0 && rows.contains("presences: 0 ") | rows.contains("presences: 0,");
            if clean { Ok(()) } else { Err(format!("{sockets} sockets, {rooms} rooms, {rows}")) }
        })
        .await;
    }

    /// The state of the server's end of a connection, as in the kernel's `tcp_states.h`; `None`: it is gone.
    pub(super) fn tcp_state(&self, client: SocketAddr) -> Option<u8> {
        const TIME_WAIT: u8 = 6;
        let table = std::fs::read_to_string("/proc/net/tcp").expect("a Linux with /proc");
        let port = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
        table.lines().skip(1).find_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (local, remote) = (port(fields.next()?)?, port(fields.next()?)?);
            let state = u8::from_str_radix(fields.next()?, 16).ok()?;
            (local == self.address.port() && remote == client.port() && state != TIME_WAIT).then_some(state)
        })
    }

    /// Waits until the kernel holds nothing of the server's end of the connection.
    pub(super) async fn connection_gone(&self, client: SocketAddr) {
        eventually(BOUND, "the server's end of the connection to be gone", async || match self.tcp_state(client) {
            None => Ok(()),
            Some(state) => Err(format!("TCP state {state:#x}")),
        })
        .await;
    }
}

pub(super) fn room(name: &str) -> RoomName {
    RoomName::new(name).unwrap()
}

/// The next change, as `+name` or `-name`, of anonymous sockets as `+` and `-`.
pub(super) async fn told(changes: &mut Subscription) -> String {
    use presence::PresenceChange::{Added, Bulk, Removed, Updated};
    let changed = within(BOUND, "a change", changes.next()).await.expect("the rooms live");
    let name = |sign: &str, presence: &presence::Presence| {
        let user = presence.user.as_ref().map_or("", |user| user.as_str());
        format!("{sign}{user}")
    };
    match &changed.change {
        Added(presence) => name("+", presence),
        Removed(presence) => name("-", presence),
        Updated(presence) => name("~", presence),
        Bulk(presences) => presences.iter().map(|presence| name("!", presence)).collect(),
        other => panic!("a change of a known kind, not {other:?}"),
    }
}
