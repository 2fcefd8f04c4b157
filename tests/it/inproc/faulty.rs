//! Consumers that go wrong where a panic is hard to catch: before their future exists, and when it is dropped.

use super::host::{Host, room, told};
use crate::support::frame::Raw;
use crate::support::socket::HandshakeRequest;
use crate::support::{BOUND, eventually, millis};
use actix_web::{HttpRequest, HttpResponse, web};
use presence::{CloseCode, Consumer, Frame, Result, Rooms, Socket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Panics when dropped, unless that is during a panic.
#[derive(Debug)]
struct Bomb;

impl std::fmt::Display for Bomb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a bomb")
    }
}

impl std::error::Error for Bomb {}

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "told to panic in a destructor");
    }
}

/// Where it goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// `receive` panics before it returns a future.
    BeforeTheFuture,
    /// The future of `receive` takes too long, and panics when it is dropped.
    InTheFuturesDrop,
    /// The future of `connect` does.
    InConnectsDrop,
    /// `receive` fails with an error that panics when it is dropped.
    InTheErrorsDrop,
    /// The consumer itself panics when it is dropped.
    InItsOwnDrop,
}

struct Faulty {
    wrong: Wrong,
    disconnects: web::Data<Arc<AtomicUsize>>,
    bomb: Option<Bomb>,
}

impl Consumer for Faulty {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        socket.join(&room("lobby")).await?;
        if self.wrong == Wrong::InConnectsDrop {
            let _bomb = Bomb;
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    fn receive(&mut self, _: &mut Socket, _: Frame) -> impl Future<Output = Result<()>> {
        assert_ne!(self.wrong, Wrong::BeforeTheFuture, "told to panic before the future");
        let wrong = self.wrong;
        async move {
            if wrong == Wrong::InTheFuturesDrop {
                let _bomb = Bomb;
                std::future::pending::<()>().await;
            }
            if wrong == Wrong::InTheErrorsDrop { Err(presence::Error::other(Bomb)) } else { Ok(()) }
        }
    }

    async fn disconnect(&mut self, _: &mut Socket, _: CloseCode) -> Result<()> {
        self.disconnects.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        drop(self.bomb.take());
    }
}

async fn faulty(
    req: HttpRequest,
    body: web::Payload,
    rooms: web::Data<Rooms>,
    wrong: web::Data<Wrong>,
    disconnects: web::Data<Arc<AtomicUsize>>,
) -> HttpResponse {
    let wrong = **wrong;
    let bomb = (wrong == Wrong::InItsOwnDrop).then(|| Bomb);
    presence::Upgrade::new(&rooms, &req, body).start(Faulty { wrong, disconnects, bomb }).await
}

/// Ann's consumer goes wrong so; Bob, on the same thread, notices no more than her leave.
async fn goes_wrong(wrong: Wrong) {
    let disconnects = Arc::new(AtomicUsize::new(0));
    let counted = web::Data::new(disconnects.clone());
    let routes = move |services: &mut web::ServiceConfig| {
        services.app_data(web::Data::new(wrong)).app_data(counted.clone()).route("/faulty", web::get().to(faulty));
    };
    let limits = |config: presence::ConfigBuilder| {
        config.handler_timeout(millis(200)).handshake_timeout(millis(300)).close_timeout(millis(300))
    };
    let mut host = Host::plan().config(limits).route(routes).start().await;
    let mut bob = host.open("bob", "").await;
    let mut changes = host.rooms.changes();
    let opened = HandshakeRequest::to("/faulty").open(host.address).await;
    assert_eq!(told(&mut changes).await, "+");
    if wrong == Wrong::InConnectsDrop {
        assert_eq!(opened.expect_err("a refusal").status, 500);
        assert_eq!(told(&mut changes).await, "-");
    } else {
        let mut ann = opened.unwrap();
        if wrong == Wrong::InItsOwnDrop {
            ann.close(1000).await;
            assert_eq!(ann.closing().await, Some(1000));
        } else {
            ann.text("go wrong").await;
            assert_eq!(ann.closing().await, Some(1011));
            drop(ann.try_send(&Raw::close(1011, b"")).await);
        }
        assert_eq!(told(&mut changes).await, "-");
        ann.drained().await;
        drop(ann);
        eventually(BOUND, "its disconnect", async || match disconnects.load(Ordering::SeqCst) {
            1 => Ok(()),
            n => Err(format!("{n} calls")),
        })
        .await;
    }
    bob.text("reply fine").await;
    assert_eq!(bob.next().await, crate::support::frame::ReceivedFrame::Text("fine".into()));
    bob.leave().await;
    host.empty().await;
    host.saw("bob", super::puppet::Did::Disconnected(1000)).await;
}

#[tokio::test]
async fn a_method_that_panics_before_its_future_exists_is_a_consumer_that_panics() {
    // The consumer's task died of it: no Close, no `disconnect`, and the connection was never over.
    goes_wrong(Wrong::BeforeTheFuture).await;
}

#[tokio::test]
async fn a_method_that_panics_when_it_is_given_up_is_a_consumer_that_panics() {
    // As above.
    goes_wrong(Wrong::InTheFuturesDrop).await;
}

#[tokio::test]
async fn an_error_that_panics_when_it_is_dropped_is_a_consumer_that_panics() {
    // As above.
    goes_wrong(Wrong::InTheErrorsDrop).await;
}

#[tokio::test]
async fn a_connect_that_panics_when_it_is_given_up_is_turned_away() {
    // As above.
    goes_wrong(Wrong::InConnectsDrop).await;
}

#[tokio::test]
async fn a_consumer_that_panics_when_it_is_dropped_leaves_nothing() {
    goes_wrong(Wrong::InItsOwnDrop).await;
}
