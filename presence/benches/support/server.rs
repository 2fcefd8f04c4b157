//! A server with one thread for sockets, one for rooms and one for the store, as a small machine would have them.

use std::{
    future::pending,
    net::{Ipv4Addr, TcpListener},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use presence::{
    Config, ConfigBuilder, Consumer, Frame, HttpServerExt as _, NodeName, PruningSupervisor, RoomName, Rooms, Socket,
    Upgrade, UserId, store::Store, touch_presence,
};
use tokio::{runtime::Runtime, sync::oneshot};

/// What a client says to be seen.
pub(crate) const HEARTBEAT: &str = "\"heartbeat\"";

/// A server in this process. It is shut down when this is dropped.
pub(crate) struct BenchServer {
    pub(crate) rooms: Rooms,
    pub(crate) port: u16,
    /// For what is asked of `rooms` from outside of the server's threads.
    pub(crate) runtime: Runtime,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Settings with which nothing happens because time passes.
pub(crate) fn config() -> ConfigBuilder {
    let hour = Duration::from_secs(3600);
    Config::builder().max_age(hour).ping_interval(hour).reconcile_interval(hour).sweep_interval(hour)
}

impl BenchServer {
    pub(crate) fn start(config: ConfigBuilder, store: impl Store) -> Self {
        let config = config.build().expect("good settings");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (end, ended) = oneshot::channel();
        let (started, rooms) = mpsc::channel();
        let thread = thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let rooms = Rooms::start(config, store, NodeName::new("bench").expect("a good name"));
                PruningSupervisor::spawn(&rooms);
                rooms.ready().await;
                let shared = web::Data::new(rooms.clone());
                let app = move || {
                    App::new()
                        .app_data(shared.clone())
                        .route("/presence/{room}/{user}", web::get().to(presence))
                        .route("/plain", web::get().to(plain))
                };
                let server = HttpServer::new(app).with_presence(&rooms).shutdown_signal(pending());
                let server = server.workers(1).backlog(4096);
                let server = server.max_connections(20_000).shutdown_timeout(1).listen(listener);
                let server = server.expect("it is bound").disable_signals().run();
                let handle = server.handle();
                let server = actix_web::rt::spawn(server);
                started.send(rooms.clone()).expect("it waits");
                let _ = ended.await;
                rooms.shutdown().await;
                handle.stop(true).await;
                let _ = server.await;
            });
        });
        let rooms = rooms.recv().expect("the server starts");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { rooms, port, runtime, end: Some(end), thread: Some(thread) }
    }
}

impl Drop for BenchServer {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn presence(
    req: HttpRequest,
    body: web::Payload,
    rooms: web::Data<Rooms>,
    path: web::Path<(String, String)>,
) -> HttpResponse {
    let (room, user) = path.into_inner();
    let room = RoomName::new(room).expect("a good name");
    let user = UserId::new(user).expect("a good name");
    Upgrade::new(&rooms, &req, body).user(Some(user)).start(CommandedConsumer { room }).await
}

async fn plain(req: HttpRequest, body: web::Payload, rooms: web::Data<Rooms>) -> HttpResponse {
    Upgrade::new(&rooms, &req, body).start(WithoutPresence).await
}

/// Does what its client says.
struct CommandedConsumer {
    room: RoomName,
}

impl Consumer for CommandedConsumer {
    #[touch_presence]
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> presence::Result<()> {
        let Frame::Text(text) = frame else { return Ok(()) };
        match text.split_once(' ').unwrap_or((&text, "")) {
            ("join", "") => socket.join(&self.room).await,
            ("join", room) => {
                self.room = RoomName::new(room)?;
                socket.join(&self.room).await
            }
            ("leave", _) => {
                socket.leave_all().await?;
                socket.send("left").await
            }
            ("name", _) => socket.send(format!("channel {}", socket.channel())).await,
            ("touch", times) => {
                let begun = Instant::now();
                for _ in 0..times.parse::<u64>().expect("a number") {
                    socket.touch();
                }
                socket.send(format!("nanos {}", begun.elapsed().as_nanos())).await
            }
            ("receive", times) => {
                let begun = Instant::now();
                for _ in 0..times.parse::<u64>().expect("a number") {
                    Heart.receive(socket, Frame::Text(HEARTBEAT.into())).await?;
                }
                socket.send(format!("nanos {}", begun.elapsed().as_nanos())).await
            }
            ("answer", _) => socket.send("answer").await,
            _ => Ok(()),
        }
    }
}

/// Is touched by all it receives, and does nothing else.
struct Heart;

impl Consumer for Heart {
    #[touch_presence]
    async fn receive(&mut self, _: &mut Socket, _: Frame) -> presence::Result<()> {
        Ok(())
    }
}

/// Knows nothing of presence.
struct WithoutPresence;

impl Consumer for WithoutPresence {
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> presence::Result<()> {
        match frame {
            Frame::Text(text) if text == "answer" => socket.send("answer").await,
            Frame::Text(text) if text == "name" => socket.send(format!("channel {}", socket.channel())).await,
            _ => Ok(()),
        }
    }
}
