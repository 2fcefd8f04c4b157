//! A countdown for one socket: the way of django-channels-presence to prune without a task queue.

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use actix_web::rt::task::JoinHandle;
use serde::Deserialize;
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::Instant,
};

use crate::{CloseCode, Consumer, Event, Frame, Outgoing, Result, Socket, name::RoomName};

use super::patience::{READING_TURNS, again, turns};

/// As long as no socket lasts. The clock does not reach to the end of all that a `Duration` can say.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Closes a socket with 4408 that sends no `{"type":"ping"}` for so long. Wraps another consumer.
///
/// As "Pruning without Celery" in the usage guide of django-channels-presence: a ping starts the countdown anew, touches, and
/// is answered `{"message":"pong"}`; `{"type":"close"}` closes the socket. Unlike there, any other text goes to the wrapped
/// consumer instead of closing the socket, closing leaves the rooms, and the countdown ends with its socket.
///
/// Frames are handled one at a time, so pings wait while the wrapped consumer is at work. The countdown stands still meanwhile.
///
/// The [`PruningSupervisor`](crate::PruningSupervisor) needs no such help: presences go stale by themselves. A countdown is
/// for clients that ping, and for sockets that are in no room.
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

/// The countdown of an accepted socket. Its timer ends with it.
#[derive(Debug)]
struct Running {
    until: Rc<Cell<Instant>>,
    /// Held while the wrapped consumer is at work.
    work: Arc<Mutex<()>>,
    timer: JoinHandle<()>,
}

/// The wrapped consumer is at work until this is dropped.
struct AtWork {
    until: Rc<Cell<Instant>>,
    since: Instant,
    _held: OwnedMutexGuard<()>,
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.until.set(self.until.get() + self.since.elapsed());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.timer.abort();
    }
}

/// What the countdown understands.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Command {
    Ping,
    Close,
}

impl<C> Countdown<C> {
    /// Counts down from `limit`.
    pub const fn new(limit: Duration, consumer: C) -> Self {
        Self { limit, consumer, running: None }
    }

    /// When the countdown ends that starts now.
    fn end(&self) -> Instant {
        Instant::now() + self.limit.min(FOREVER)
    }

    async fn work(&self) -> Option<AtWork> {
        let Running { until, work, .. } = self.running.as_ref()?;
        let _held = work.clone().lock_owned().await;
        Some(AtWork { until: until.clone(), since: Instant::now(), _held })
    }
}

impl<C: Consumer> Consumer for Countdown<C> {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        self.consumer.connect(socket).await?;
        let until = Rc::new(Cell::new(self.end()));
        let closer = socket.closer();
        let work = Arc::new(Mutex::new(()));
        let timer = actix_web::rt::spawn({
            let (until, work, limit) = (until.clone(), work.clone(), self.limit.min(FOREVER));
            async move {
                // A ping only moves the end, and so does work that is done; who wakes up too early sleeps on.
                while until.get() > Instant::now() {
                    let end = until.get();
                    tokio::time::sleep_until(end).await;
                    let again = again(end, limit);
                    drop(work.lock().await);
                    match again {
                        // Its pings may have come while nothing was read.
                        Some(again) if until.get() == end => until.set(again),
                        _ => turns(READING_TURNS).await,
                    }
                }
                closer.close(CloseCode::STALE, "no ping");
            }
        });
        self.running = Some(Running { until, work, timer });
        Ok(())
    }

    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {
        match frame.decode() {
            Ok(Command::Ping) => {
                socket.touch();
                if let Some(running) = &self.running {
                    running.until.set(self.end());
                }
                socket.send(Outgoing::json(&serde_json::json!({ "message": "pong" }))?).await
            }
            Ok(Command::Close) => socket.close(CloseCode::NORMAL, ""),
            Err(_) => {
                let _at_work = self.work().await;
                self.consumer.receive(socket, frame).await
            }
        }
    }

    async fn event(&mut self, socket: &mut Socket, event: Event) -> Result<()> {
        let _at_work = self.work().await;
        self.consumer.event(socket, event).await
    }

    async fn removed(&mut self, socket: &mut Socket, room: RoomName) -> Result<()> {
        let _at_work = self.work().await;
        self.consumer.removed(socket, room).await
    }

    async fn disconnect(&mut self, socket: &mut Socket, code: CloseCode) -> Result<()> {
        self.running = None;
        self.consumer.disconnect(socket, code).await
    }
}
