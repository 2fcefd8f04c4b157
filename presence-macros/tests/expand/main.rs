//! What the attributes make of methods that are right. Those that are wrong: `ui.rs`.

mod boxed;
mod stacked;

use std::{
    convert::Infallible,
    fmt::Debug,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::{Context, Poll, Waker},
};

use presence::{CloseCode, Consumer, Event, Frame, Result, Socket, remove_presence, touch_presence};

const HEARTBEAT: &str = r#""heartbeat""#;

fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
}

/// Calls a method with a new socket, expects `Ok(())`, and returns what happened to the socket.
fn log<E: Debug>(call: impl AsyncFnOnce(&mut Socket) -> Result<(), E>) -> Vec<&'static str> {
    let mut socket = Socket::default();
    run(call(&mut socket)).expect("the method succeeds");
    socket.log
}

fn text(text: &str) -> Frame {
    Frame::Text(text.to_owned())
}

/// The consumer of the documentation: native, both attributes.
struct Chat;

impl Consumer for Chat {
    #[touch_presence(heartbeat = none)]
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        socket.log.push("connect");
        Ok(())
    }

    #[touch_presence]
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {
        socket.log.push(match frame {
            Frame::Text(_) => "text",
            Frame::Binary(_) => "binary",
        });
        Ok(())
    }

    #[touch_presence(heartbeat = none)]
    async fn event(&mut self, _: &mut Socket, _: Event) -> Result<()> {
        Ok(())
    }

    #[remove_presence]
    async fn disconnect(&mut self, socket: &mut Socket, code: CloseCode) -> Result<()> {
        assert_eq!(code, CloseCode(1000));
        socket.log.push("disconnect");
        Ok(())
    }
}

fn received(frame: Frame) -> Vec<&'static str> {
    log(async |socket| Chat.receive(socket, frame).await)
}

#[test]
fn a_heartbeat_touches_and_is_swallowed() {
    assert_eq!(received(text(HEARTBEAT)), ["touch"]);
}

#[test]
fn a_text_touches_and_then_reaches_the_body() {
    assert_eq!(received(text("hello")), ["touch", "text"]);
    assert_eq!(received(text("")), ["touch", "text"]);
}

#[test]
fn what_is_only_nearly_the_heartbeat_reaches_the_body() {
    for near in [
        " \"heartbeat\"",
        "\"heartbeat\" ",
        "\"heartbeat\"\n",
        "heartbeat",
        "'heartbeat'",
        "\"Heartbeat\"",
        r#""\u0068eartbeat""#,
        r#"{"type":"heartbeats"}"#,
    ] {
        assert_eq!(received(text(near)), ["touch", "text"], "{near:?}");
    }
}

#[test]
fn a_binary_frame_touches_and_reaches_the_body_even_with_the_bytes_of_the_heartbeat() {
    assert_eq!(received(Frame::Binary(HEARTBEAT.into())), ["touch", "binary"]);
}

#[test]
fn disconnect_leaves_every_room_before_its_body_runs() {
    assert_eq!(log(async |socket| Chat.disconnect(socket, CloseCode(1000)).await), ["leave", "disconnect"]);
}

#[test]
fn a_method_without_a_frame_can_touch_only() {
    assert_eq!(log(async |socket| Chat.connect(socket).await), ["touch", "connect"]);
    assert_eq!(log(async |socket| Chat.event(socket, Event).await), ["touch"]);
}

/// Every option.
struct Options;

impl Options {
    #[touch_presence()]
    async fn none_given(&mut self, socket: &mut Socket, _: Frame) -> Result<()> {
        socket.log.push("body");
        Ok(())
    }

    #[touch_presence(heartbeat = "ping")]
    async fn another(&mut self, socket: &mut Socket, _: Frame) -> Result<()> {
        socket.log.push("body");
        Ok(())
    }

    #[touch_presence(heartbeat = ["ping", r#"{"type":"ping"}"#])]
    async fn several(&mut self, socket: &mut Socket, _: Frame) -> Result<()> {
        socket.log.push("body");
        Ok(())
    }

    #[touch_presence(heartbeat = none)]
    async fn not_any(&mut self, socket: &mut Socket, _: Frame) -> Result<()> {
        socket.log.push("body");
        Ok(())
    }

    #[touch_presence(heartbeat = none)]
    async fn no_result(&mut self, socket: &mut Socket, x: u16) -> u16 {
        socket.log.push("body");
        x
    }
}

#[test]
fn empty_parentheses_mean_the_same_as_none() {
    assert_eq!(log(async |socket| Options.none_given(socket, text(HEARTBEAT)).await), ["touch"]);
}

#[test]
fn another_heartbeat_takes_the_place_of_the_default() {
    assert_eq!(log(async |socket| Options.another(socket, text("ping")).await), ["touch"]);
    assert_eq!(log(async |socket| Options.another(socket, text(HEARTBEAT)).await), ["touch", "body"]);
}

#[test]
fn any_of_several_heartbeats_is_swallowed() {
    assert_eq!(log(async |socket| Options.several(socket, text("ping")).await), ["touch"]);
    let second = log(async |socket| Options.several(socket, text(r#"{"type":"ping"}"#)).await);
    assert!(!second.contains(&"body"), "{second:?}");
    let other = log(async |socket| Options.several(socket, text(HEARTBEAT)).await);
    assert_eq!(other.last(), Some(&"body"), "{other:?}");
}

const ANSWERED: &str = r#"{"type":"heartbeat"}"#;

#[test]
fn the_heartbeat_that_is_an_object_is_swallowed_and_answered_whichever_texts_are_given() {
    assert_eq!(received(text(ANSWERED)), ["touch", "answer"]);
    assert_eq!(log(async |socket| Options.none_given(socket, text(ANSWERED)).await), ["touch", "answer"]);
    assert_eq!(log(async |socket| Options.another(socket, text(ANSWERED)).await), ["touch", "answer"]);
    assert_eq!(log(async |socket| Options.several(socket, text(ANSWERED)).await), ["touch", "answer"]);
}

#[test]
fn with_no_heartbeat_every_frame_reaches_the_body() {
    for heartbeat in [HEARTBEAT, ANSWERED] {
        assert_eq!(log(async |socket| Options.not_any(socket, text(heartbeat)).await), ["touch", "body"]);
    }
}

#[test]
fn a_method_that_swallows_nothing_may_return_anything() {
    let mut socket = Socket::default();
    assert_eq!(run(Options.no_result(&mut socket, 7)), 7);
    assert_eq!(socket.log, ["touch", "body"]);
}

type Wire = Socket;
type Incoming<'a> = &'a Frame;

fn socket() -> &'static str {
    "mine"
}

fn frame() -> &'static str {
    "mine too"
}

/// Arguments in every form.
struct Arguments;

impl Arguments {
    #[touch_presence]
    async fn unnamed(&mut self, _: &mut Socket, _: Frame) -> Result<()> {
        // Not what `_` was bound to: these are the functions below.
        assert_eq!((socket(), frame()), ("mine", "mine too"));
        Ok(())
    }

    #[touch_presence]
    #[remove_presence]
    async fn unnamed_for_both(&mut self, _: &mut Socket, _: Frame) -> Result<()> {
        Ok(())
    }

    #[touch_presence]
    async fn underscored(&self, _socket: &mut presence::Socket, _frame: presence::Frame) -> Result<()> {
        Ok(())
    }

    #[touch_presence]
    async fn mutable(&mut self, socket: &mut Socket, mut frame: Frame) -> Result<()> {
        frame = if frame == text("a") { text("b") } else { frame };
        socket.log.push(if frame == text("b") { "b" } else { "other" });
        Ok(())
    }

    #[touch_presence]
    async fn borrowed(&mut self, socket: &mut Socket, frame: &Frame) -> Result<()> {
        socket.log.push(if *frame == text("a") { "a" } else { "other" });
        Ok(())
    }

    #[touch_presence]
    async fn in_another_order(&mut self, nonce: u64, frame: &mut Frame, _: &str, socket: &mut Socket) -> Result<()> {
        *frame = text("changed");
        socket.log.push(if nonce == 1 { "first" } else { "again" });
        Ok(())
    }

    #[touch_presence(frame = incoming, socket = wire, heartbeat = "ping")]
    async fn aliased(&mut self, wire: &mut Wire, incoming: Incoming<'_>) -> Result<()> {
        wire.log.push(if *incoming == text("a") { "a" } else { "other" });
        Ok(())
    }

    #[touch_presence(frame = current)]
    async fn named_although_typed(&mut self, _: &mut Socket, _last: &Frame, current: &Frame) -> Result<()> {
        let _ = current;
        Ok(())
    }

    #[remove_presence(socket = wire)]
    async fn aliased_leave(self: Box<Self>, wire: &mut Wire) -> Result<()> {
        wire.log.push("body");
        Ok(())
    }
}

#[test]
fn an_unnamed_argument_is_found_and_its_name_stays_hidden() {
    assert_eq!(log(async |socket| Arguments.unnamed(socket, text("a")).await), ["touch"]);
    assert_eq!(log(async |socket| Arguments.unnamed_for_both(socket, text("a")).await), ["touch", "leave"]);
    assert_eq!(log(async |socket| Arguments.underscored(socket, text("a")).await), ["touch"]);
}

#[test]
fn a_frame_may_be_mutable_or_borrowed() {
    assert_eq!(log(async |socket| Arguments.mutable(socket, text("a")).await), ["touch", "b"]);
    assert_eq!(log(async |socket| Arguments.borrowed(socket, &text("a")).await), ["touch", "a"]);
    assert_eq!(log(async |socket| Arguments.borrowed(socket, &text(HEARTBEAT)).await), ["touch"]);
}

#[test]
fn the_order_of_the_arguments_does_not_matter() {
    let mut frame = text("a");
    assert_eq!(log(async |socket| Arguments.in_another_order(1, &mut frame, "", socket).await), ["touch", "first"]);
    assert_eq!(frame, text("changed"));
}

#[test]
fn an_argument_of_an_aliased_type_is_found_by_the_name_in_the_option() {
    assert_eq!(log(async |socket| Arguments.aliased(socket, &text("a")).await), ["touch", "a"]);
    assert_eq!(log(async |socket| Arguments.aliased(socket, &text("ping")).await), ["touch"]);
    assert_eq!(log(async |socket| Box::new(Arguments).aliased_leave(socket).await), ["leave", "body"]);
}

#[test]
fn the_name_in_the_option_wins_over_the_type() {
    let (beat, other) = (text(HEARTBEAT), text("a"));
    assert_eq!(log(async |socket| Arguments.named_although_typed(socket, &beat, &other).await), ["touch"]);
}

#[derive(Debug, PartialEq, Eq)]
struct Refused;

impl From<Infallible> for Refused {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Bodies that end early.
struct Early;

impl Early {
    #[touch_presence]
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<(), Refused> {
        #![allow(unused_mut)]
        let mut frame = frame;
        if frame == text("return") {
            return Ok(());
        }
        Err(Refused)?;
        socket.log.push("not reached");
        Ok(())
    }

    #[remove_presence]
    async fn disconnect(&mut self, _: &mut Socket, code: CloseCode) -> Result<(), Refused> {
        if code == CloseCode(1011) {
            panic!("as told");
        }
        Err(Refused)
    }
}

#[test]
fn return_and_question_mark_leave_the_method_as_ever() {
    assert_eq!(log(async |socket| Early.receive(socket, text("return")).await), ["touch"]);
    let mut socket = Socket::default();
    assert_eq!(run(Early.receive(&mut socket, text("refuse me"))), Err(Refused));
    assert_eq!(socket.log, ["touch"]);
}

#[test]
fn a_body_that_fails_changes_nothing_about_the_leave() {
    let mut socket = Socket::default();
    assert_eq!(run(Early.disconnect(&mut socket, CloseCode(1000))), Err(Refused));
    assert_eq!(socket.log, ["leave"]);
}

#[test]
fn a_body_that_panics_changes_nothing_about_the_leave() {
    let mut socket = Socket::default();
    let panicked = catch_unwind(AssertUnwindSafe(|| run(Early.disconnect(&mut socket, CloseCode(1011)))));
    assert!(panicked.is_err());
    assert_eq!(socket.log, ["leave"]);
}

/// Generic in everything.
struct Generic<S>(S);

impl<S> Generic<S>
where
    S: AsRef<str>,
{
    /// Kept, as is the attribute below.
    #[touch_presence]
    #[must_use]
    #[expect(clippy::needless_lifetimes, reason = "the test keeps them")]
    pub(crate) async fn receive<'a, T, const N: usize>(
        &'a self,
        socket: &mut Socket,
        frame: Frame,
        with: [T; N],
        more: impl AsRef<str>,
    ) -> Result<()>
    where
        T: PartialEq<usize>,
    {
        assert!(with.iter().all(|with| *with == N));
        assert_eq!((self.0.as_ref(), more.as_ref()), ("state", "more"));
        socket.log.push(if frame == text("a") { "a" } else { "other" });
        Ok(())
    }
}

#[test]
fn generics_and_where_clauses_are_kept() {
    let call = async |socket: &mut Socket| Generic("state").receive(socket, text("a"), [2_usize, 2], "more").await;
    assert_eq!(log(call), ["touch", "a"]);
}

macro_rules! consumer {
    ($name:ident, $socket:ident: $socket_type:ty, $frame:ident: $frame_type:ty, $body:block) => {
        struct $name;

        impl $name {
            #[touch_presence]
            async fn receive(&mut self, $socket: &mut $socket_type, $frame: $frame_type) -> Result<()> $body
        }
    };
}

consumer!(ByMacro, socket: Socket, _frame: Frame, {
    socket.log.push("body");
    Ok(())
});

#[test]
fn a_method_that_comes_from_macro_rules_is_understood() {
    assert_eq!(log(async |socket| ByMacro.receive(socket, text(HEARTBEAT)).await), ["touch"]);
    assert_eq!(log(async |socket| ByMacro.receive(socket, text("a")).await), ["touch", "body"]);
}
