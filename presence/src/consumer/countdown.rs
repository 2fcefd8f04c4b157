//! A countdown for one socket, as in "Pruning without Celery" of django-channels-presence.

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use actix_web::rt::task::JoinHandle;
use serde::Deserialize;
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::Instant,
};

use crate::{CloseCode, Consumer, Event, Frame, Outgoing, Result, Socket, name::RoomName};

use super::patience::{READING_TURNS, again, turns};

/// Longer than any socket stays open. An `Instant` cannot hold the largest `Duration`.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Wraps a consumer, and closes its socket with 4408 if it sends no `{"type":"ping"}` for some time.
///
/// As in "Pruning without Celery" of the usage guide of django-channels-presence, a ping restarts the countdown, touches the socket, and
/// is answered `{"message":"pong"}`, and `{"type":"close"}` closes the socket. Unlike there, any other text is passed to the wrapped
/// consumer, a closed socket leaves its rooms, and the countdown ends with its socket.
///
/// Frames are handled one at a time, so a ping waits while the wrapped consumer handles a frame. The countdown stops for that time.
///
/// Presences become stale without a countdown, too. It is for clients that send these pings, and for sockets that are in no room.
///
/// ```
/// use std::time::Duration;
/// use presence::Countdown;
/// # use presence::{Consumer, Frame, Socket};
/// # struct Chat;
/// # impl Consumer for Chat {
/// #     async fn receive(&mut self, _: &mut Socket, _: Frame) -> presence::Result<()> { Ok(()) }
/// # }
/// let consumer = Countdown::new(Duration::from_secs(60), Chat);
/// ```
#[derive(Debug)]
pub struct Countdown<C> {
    limit: Duration,
    consumer: C,
    running: Option<Running>,
}

/// The countdown of an accepted socket. When it is dropped, its timer ends.
#[derive(Debug)]
struct Running {
    until: Rc<Cell<Instant>>,
    /// Locked while the wrapped consumer handles a frame or an event.
    handling: Arc<Mutex<()>>,
    timer: JoinHandle<()>,
}

/// The wrapped consumer handles something until this is dropped.
struct Handling {
    until: Rc<Cell<Instant>>,
    since: Instant,
    _guard: OwnedMutexGuard<()>,
}

impl Drop for Handling {
    fn drop(&mut self) {
        self.until.set(self.until.get() + self.since.elapsed());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.timer.abort();
    }
}

/// The messages that the countdown handles itself.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum CountdownCommand {
    Ping,
    Close,
}

impl<C> Countdown<C> {
    /// Wraps `consumer`. A socket may send no ping for `limit`.
    pub const fn new(limit: Duration, consumer: C) -> Self {
        Self { limit, consumer, running: None }
    }

    /// The end of a countdown that starts now.
    fn end(&self) -> Instant {
        Instant::now() + self.limit.min(FOREVER)
    }

    /// Stops the countdown until the returned value is dropped.
    async fn stop(&self) -> Option<Handling> {
        let Running { until, handling, .. } = self.running.as_ref()?;
        let guard = handling.clone().lock_owned().await;
        Some(Handling { until: until.clone(), since: Instant::now(), _guard: guard })
    }
}

impl<C: Consumer> Consumer for Countdown<C> {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        self.consumer.connect(socket).await?;
        let until = Rc::new(Cell::new(self.end()));
        let closer = socket.closer();
        let handling = Arc::new(Mutex::new(()));
        let timer = actix_web::rt::spawn({
            let until = until.clone();
            let handling = handling.clone();
            let limit = self.limit.min(FOREVER);
            async move {
                // Pings and handled frames only move the end, so the timer may wake up too early, and then sleeps again.
                while until.get() > Instant::now() {
                    let end = until.get();
                    tokio::time::sleep_until(end).await;
                    let again = again(end, limit);
                    drop(handling.lock().await);
                    match again {
                        // Pings may have arrived while the thread could not read them.
                        Some(again) if until.get() == end => until.set(again),
                        _ => turns(READING_TURNS).await,
                    }
                }
                closer.close(CloseCode::STALE, "no ping");
            }
        });
        self.running = Some(Running { until, handling, timer });
        Ok(())
    }

    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {
        match frame.decode() {
            Ok(CountdownCommand::Ping) => {
                socket.touch();
                if let Some(running) = &self.running {
                    running.until.set(self.end());
                }
                socket.send(Outgoing::json(&serde_json::json!({ "message": "pong" }))?).await
            }
            Ok(CountdownCommand::Close) => socket.close(CloseCode::NORMAL, ""),
            Err(_) => {
                let _handling = self.stop().await;
                self.consumer.receive(socket, frame).await
            }
        }
    }

    async fn event(&mut self, socket: &mut Socket, event: Event) -> Result<()> {
        let _handling = self.stop().await;
        self.consumer.event(socket, event).await
    }

    async fn removed(&mut self, socket: &mut Socket, room: RoomName) -> Result<()> {
        let _handling = self.stop().await;
        self.consumer.removed(socket, room).await
    }

    async fn disconnect(&mut self, socket: &mut Socket, code: CloseCode) -> Result<()> {
        self.running = None;
        self.consumer.disconnect(socket, code).await
    }
}
