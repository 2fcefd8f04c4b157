//! What the attributes make of correct methods. `ui.rs` has the mistakes.

use std::{
    convert::Infallible,
    fmt::Debug,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use presence::{CloseCode, Consumer, Event, Frame, Result, Socket, remove_presence, touch_presence};

const HEARTBEAT: &str = r#""heartbeat""#;
const ANSWERED: &str = r#"{"type":"heartbeat"}"#;

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

/// The consumer of the documentation.
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
fn a_heartbeat_touches_and_is_swallowed_and_the_object_is_answered() {
    assert_eq!(received(text(HEARTBEAT)), ["touch"]);
    assert_eq!(received(text(ANSWERED)), ["touch", "answer"]);
}

#[test]
fn every_other_frame_touches_and_then_reaches_the_body() {
    let near =
        [" \"heartbeat\"", "\"heartbeat\"\n", "heartbeat", "'heartbeat'", "\"Heartbeat\"", r#""\u0068eartbeat""#];
    for other in near.into_iter().chain(["hello", "", r#"{"type":"heartbeats"}"#]) {
        assert_eq!(received(text(other)), ["touch", "text"], "{other:?}");
    }
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

#[test]
fn nothing_happens_before_the_future_is_polled() {
    let mut socket = Socket::default();
    drop(Chat.receive(&mut socket, text(HEARTBEAT)));
    assert_eq!(socket, Socket::default());
}

#[touch_presence()]
async fn without_options(socket: &mut Socket, _: Frame) -> Result<()> {
    socket.log.push("body");
    Ok(())
}

#[touch_presence(heartbeat = "ping")]
async fn one_text(socket: &mut Socket, _: Frame) -> Result<()> {
    socket.log.push("body");
    Ok(())
}

#[touch_presence(heartbeat = ["ping", r#"{"type":"ping"}"#])]
async fn two_texts(socket: &mut Socket, _: Frame) -> Result<()> {
    socket.log.push("body");
    Ok(())
}

#[touch_presence(heartbeat = none)]
async fn no_texts(socket: &mut Socket, x: u16) -> u16 {
    socket.log.push("body");
    x
}

#[test]
fn the_option_heartbeat_replaces_the_text_and_not_the_object() {
    let cases: [(&str, [&[&str]; 3]); 4] = [
        (HEARTBEAT, [&["touch"], &["touch", "body"], &["touch", "body"]]),
        ("ping", [&["touch", "body"], &["touch"], &["touch"]]),
        (r#"{"type":"ping"}"#, [&["touch", "body"], &["touch", "body"], &["touch"]]),
        (ANSWERED, [&["touch", "answer"]; 3]),
    ];
    for (frame, expected) in cases {
        assert_eq!(log(async |socket| without_options(socket, text(frame)).await), expected[0], "{frame}");
        assert_eq!(log(async |socket| one_text(socket, text(frame)).await), expected[1], "{frame}");
        assert_eq!(log(async |socket| two_texts(socket, text(frame)).await), expected[2], "{frame}");
    }
}

#[test]
fn a_method_that_swallows_nothing_may_return_anything() {
    let mut socket = Socket::default();
    assert_eq!(run(no_texts(&mut socket, 7)), 7);
    assert_eq!(socket.log, ["touch", "body"]);
}

type Wire = Socket;
type Incoming<'a> = &'a Frame;

/// A function with the name that an unnamed argument is given.
fn socket() -> &'static str {
    "mine"
}

/// Arguments in every form.
struct Arguments;

impl Arguments {
    #[touch_presence]
    async fn unnamed(&mut self, _: &mut Socket, _: Frame) -> Result<()> {
        assert_eq!(socket(), "mine");
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
fn arguments_are_found_by_their_type_whatever_their_names_and_their_order() {
    assert_eq!(log(async |socket| Arguments.unnamed(socket, text("a")).await), ["touch"]);
    assert_eq!(log(async |socket| Arguments.underscored(socket, text("a")).await), ["touch"]);
    assert_eq!(log(async |socket| Arguments.mutable(socket, text("a")).await), ["touch", "b"]);
    let mut frame = text("a");
    assert_eq!(log(async |socket| Arguments.in_another_order(1, &mut frame, "", socket).await), ["touch", "first"]);
    assert_eq!(frame, text("changed"));
}

#[test]
fn an_option_names_an_argument_and_wins_over_the_type() {
    assert_eq!(log(async |socket| Arguments.aliased(socket, &text("a")).await), ["touch", "a"]);
    assert_eq!(log(async |socket| Arguments.aliased(socket, &text("ping")).await), ["touch"]);
    assert_eq!(log(async |socket| Box::new(Arguments).aliased_leave(socket).await), ["leave", "body"]);
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

#[touch_presence]
async fn receive_early(socket: &mut Socket, frame: Frame) -> Result<(), Refused> {
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
async fn disconnect_early(_: &mut Socket, code: CloseCode) -> Result<(), Refused> {
    assert!(code != CloseCode(1011), "a panic");
    Err(Refused)
}

#[test]
fn the_body_may_return_early_fail_or_panic() {
    assert_eq!(log(async |socket| receive_early(socket, text("return")).await), ["touch"]);
    let mut socket = Socket::default();
    assert_eq!(run(receive_early(&mut socket, text("refuse me"))), Err(Refused));
    assert_eq!(run(disconnect_early(&mut socket, CloseCode(1000))), Err(Refused));
    let panicked = catch_unwind(AssertUnwindSafe(|| run(disconnect_early(&mut socket, CloseCode(1011)))));
    assert!(panicked.is_err());
    assert_eq!(socket.log, ["touch", "leave", "leave"]);
}

/// Generic in everything.
struct Generic<S>(S);

impl<S> Generic<S>
where
    S: AsRef<str>,
{
    /// Kept, as are the attributes below.
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

macro_rules! consumer {
    ($name:ident, $socket:ident: $socket_type:ty, $frame:ident: $frame_type:ty, $body:block) => {
        #[touch_presence]
        async fn $name($socket: &mut $socket_type, $frame: $frame_type) -> Result<()> $body
    };
}

consumer!(by_macro, socket: Socket, _frame: Frame, {
    socket.log.push("body");
    Ok(())
});

#[test]
fn generics_and_methods_from_macro_rules_are_kept() {
    let call = async |socket: &mut Socket| Generic("state").receive(socket, text("a"), [2_usize, 2], "more").await;
    assert_eq!(log(call), ["touch", "a"]);
    assert_eq!(log(async |socket| by_macro(socket, text(HEARTBEAT)).await), ["touch"]);
    assert_eq!(log(async |socket| by_macro(socket, text("a")).await), ["touch", "body"]);
}

/// Several attributes on one method.
struct Stacked;

impl Stacked {
    #[touch_presence]
    #[remove_presence]
    async fn touch_above(&mut self, socket: &mut Socket, _: Frame) -> Result<()> {
        socket.log.push("body");
        Ok(())
    }

    /// Documented.
    #[remove_presence]
    #[touch_presence]
    /// Further down, too.
    async fn leave_above(&mut self, socket: &mut Socket, _: Frame) -> Result<()> {
        socket.log.push("body");
        Ok(())
    }

    #[touch_presence]
    #[tracing::instrument(skip_all)]
    #[remove_presence]
    async fn instrumented_between(&mut self, socket: &mut Socket, _: Frame) -> Result<()> {
        Ok(())
    }

    #[tracing::instrument(skip_all)]
    #[touch_presence]
    async fn instrumented_above(&mut self, socket: &mut Socket, _: Frame) -> Result<()> {
        Ok(())
    }
}

#[test]
fn of_two_attributes_the_upper_one_acts_first() {
    assert_eq!(log(async |socket| Stacked.touch_above(socket, text("a")).await), ["touch", "leave", "body"]);
    assert_eq!(log(async |socket| Stacked.leave_above(socket, text("a")).await), ["leave", "touch", "body"]);
    assert_eq!(log(async |socket| Stacked.touch_above(socket, text(HEARTBEAT)).await), ["touch"]);
}

#[test]
fn a_heartbeat_opens_no_span_wherever_the_instrumentation_is_written() {
    let spans = Spans::default();
    tracing::subscriber::with_default(spans.clone(), || {
        for (frame, opened) in [(HEARTBEAT, 0), ("a", 2)] {
            log(async |socket| Stacked.instrumented_between(socket, text(frame)).await);
            log(async |socket| Stacked.instrumented_above(socket, text(frame)).await);
            assert_eq!(spans.0.load(Ordering::Relaxed), opened, "{frame}");
        }
    });
}

/// Counts the spans that are opened.
#[derive(Debug, Clone, Default)]
struct Spans(Arc<AtomicUsize>);

impl tracing::Subscriber for Spans {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(self.0.fetch_add(1, Ordering::Relaxed) as u64 + 1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}
