//! Methods whose futures are boxed: by `async-trait`, or by hand.

use std::pin::Pin;

use async_trait::async_trait;
use presence::{CloseCode, Consumer as _, Frame, Result, Socket, remove_presence, touch_presence};

use super::{Chat, HEARTBEAT, Refused, log, run, text};

/// A trait of the user's, object safe, with futures that may go to other threads.
#[async_trait]
trait Handler: Send {
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<(), Refused>;

    #[remove_presence]
    async fn disconnect(&mut self, _: &mut Socket, _: CloseCode) -> Result<(), Refused> {
        Ok(())
    }
}

struct Sent;

#[async_trait]
impl Handler for Sent {
    #[touch_presence]
    async fn receive(&mut self, socket: &mut Socket, mut frame: Frame) -> Result<(), Refused> {
        if frame == text("return") {
            return Ok(());
        }
        frame = text("refuse");
        socket.log.push("body");
        if frame == text("refuse") {
            Err(Refused)?
        }
        Ok(())
    }
}

/// As [`Handler`], for futures that stay on one thread.
#[async_trait(?Send)]
trait LocalHandler {
    async fn receive(&mut self, _: &mut Socket, Numbered(nonce, frame): Numbered<&Frame>) -> Result<()>;
    async fn disconnect(&mut self, _: &mut Socket, code: CloseCode) -> Result<()>;
}

struct Numbered<T>(u64, T);
struct Local(std::rc::Rc<str>);

#[async_trait(?Send)]
impl LocalHandler for Local {
    #[touch_presence(heartbeat = none)]
    async fn receive(&mut self, _: &mut Socket, Numbered(nonce, frame): Numbered<&Frame>) -> Result<()> {
        let state = self.0.clone();
        assert_eq!((nonce, frame, &*state), (1, &text(HEARTBEAT), "state"));
        Ok(())
    }

    #[remove_presence]
    async fn disconnect(&mut self, socket: &mut Socket, _: CloseCode) -> Result<()> {
        socket.log.push("body");
        Ok(())
    }
}

#[test]
fn methods_under_async_trait_touch_and_leave_and_swallow_alike() {
    let mut handler: Box<dyn Handler> = Box::new(Sent);
    assert_eq!(log(async |socket| handler.receive(socket, text(HEARTBEAT)).await), ["touch"]);
    assert_eq!(log(async |socket| handler.receive(socket, text("return")).await), ["touch"]);
    assert_eq!(log(async |socket| handler.disconnect(socket, CloseCode(1000)).await), ["leave"]);
    let mut socket = Socket::default();
    assert_eq!(run(handler.receive(&mut socket, text("a"))), Err(Refused));
    assert_eq!(socket.log, ["touch", "body"]);
}

#[test]
fn methods_under_async_trait_stay_send() {
    fn send<T: Send>(future: T) -> T {
        future
    }
    let mut socket = Socket::default();
    assert_eq!(run(send(Handler::receive(&mut Sent, &mut socket, text(HEARTBEAT)))), Ok(()));
    assert_eq!(run(send(Handler::disconnect(&mut Sent, &mut socket, CloseCode(1000)))), Ok(()));
}

#[test]
fn methods_under_async_trait_need_not_be_send() {
    let mut handler: Box<dyn LocalHandler> = Box::new(Local("state".into()));
    assert_eq!(log(async |socket| handler.receive(socket, Numbered(1, &text(HEARTBEAT))).await), ["touch"]);
    assert_eq!(log(async |socket| handler.disconnect(socket, CloseCode(1000)).await), ["leave", "body"]);
}

type LocalBoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Boxed by hand.
struct Boxed;

impl Boxed {
    #[touch_presence]
    fn receive<'a>(
        &'a mut self,
        socket: &'a mut Socket,
        frame: Frame,
    ) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>> {
        if frame == text("early") {
            return Box::pin(std::future::ready(Ok(())));
        }
        self.forward(socket)
    }

    #[remove_presence]
    fn forward<'a>(
        &'a mut self,
        socket: &'a mut Socket,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>> {
        socket.log.push("forward");
        Box::pin(async move {
            socket.log.push("body");
            Ok(())
        })
    }

    #[touch_presence]
    fn aliased<'a>(&'a self, socket: &'a mut Socket, frame: &'a Frame) -> LocalBoxFuture<'a, Result<()>> {
        Box::pin(async move {
            socket.log.push(if *frame == text("a") { "a" } else { "other" });
            Ok(())
        })
    }
}

#[remove_presence]
fn boxed_with_an_elided_lifetime(socket: &mut Socket) -> Pin<Box<dyn Future<Output = Result<()>> + '_>> {
    Box::pin(async {
        socket.log.push("body");
        Ok(())
    })
}

#[test]
fn a_body_boxed_by_hand_is_wrapped_whole() {
    assert_eq!(log(async |socket| Boxed.receive(socket, text(HEARTBEAT)).await), ["touch"]);
    assert_eq!(log(async |socket| Boxed.receive(socket, text("early")).await), ["touch"]);
    assert_eq!(log(async |socket| Boxed.receive(socket, text("a")).await), ["touch", "leave", "forward", "body"]);
    assert_eq!(log(async |socket| Boxed.aliased(socket, &text("a")).await), ["touch", "a"]);
    assert_eq!(log(async |socket| boxed_with_an_elided_lifetime(socket).await), ["leave", "body"]);
}

#[test]
fn nothing_happens_before_the_future_is_polled() {
    let mut socket = Socket::default();
    drop(Chat.receive(&mut socket, text(HEARTBEAT)));
    drop(Boxed.receive(&mut socket, text(HEARTBEAT)));
    assert_eq!(socket, Socket::default());
}
