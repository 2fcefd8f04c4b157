//! What the attributes make of methods that are right. Those that are wrong: `ui.rs`.

use std::{
    convert::Infallible,
    fmt::Debug,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use async_trait::async_trait;
use presence::{
    CloseCode, Consumer, Event, Frame, Result, Socket, remove_presence, touch_presence, touch_presence as renamed,
};

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
        r#"{"type":"heartbeat"}"#,
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

#[test]
fn nothing_happens_before_the_future_is_polled() {
    let mut socket = Socket::default();
    drop(Chat.receive(&mut socket, text(HEARTBEAT)));
    drop(Boxed.receive(&mut socket, text(HEARTBEAT)));
    assert_eq!(socket, Socket::default());
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

    #[touch_presence(heartbeat = ["ping", r#"{"type":"heartbeat"}"#])]
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
    let second = log(async |socket| Options.several(socket, text(r#"{"type":"heartbeat"}"#)).await);
    assert!(!second.contains(&"body"), "{second:?}");
    let other = log(async |socket| Options.several(socket, text(HEARTBEAT)).await);
    assert_eq!(other.last(), Some(&"body"), "{other:?}");
}

#[test]
fn with_no_heartbeat_every_frame_reaches_the_body() {
    assert_eq!(log(async |socket| Options.not_any(socket, text(HEARTBEAT)).await), ["touch", "body"]);
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

    #[renamed]
    #[remove_presence]
    async fn renamed_above(&mut self, socket: &mut Socket, _: Frame) -> Result<()> {
        socket.log.push("body");
        Ok(())
    }

    #[touch_presence]
    #[tracing::instrument(skip_all)]
    #[remove_presence]
    async fn instrumented_between(&mut self, socket: &mut Socket, _: Frame) -> Result<()> {
        socket.log.push("body");
        Ok(())
    }

    #[tracing::instrument(skip_all)]
    #[touch_presence]
    async fn instrumented_above(&mut self, socket: &mut Socket, _: Frame) -> Result<()> {
        socket.log.push("body");
        Ok(())
    }
}

#[async_trait]
trait StackedHandler {
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()>;
}

#[async_trait]
impl StackedHandler for Stacked {
    #[touch_presence]
    #[tracing::instrument(skip_all)]
    #[remove_presence]
    async fn receive(&mut self, socket: &mut Socket, _: Frame) -> Result<()> {
        socket.log.push("body");
        Ok(())
    }
}

#[test]
fn of_two_attributes_the_upper_one_acts_first() {
    assert_eq!(log(async |socket| Stacked.touch_above(socket, text("a")).await), ["touch", "leave", "body"]);
    assert_eq!(log(async |socket| Stacked.renamed_above(socket, text("a")).await), ["touch", "leave", "body"]);
    assert_eq!(log(async |socket| Stacked.leave_above(socket, text("a")).await), ["leave", "touch", "body"]);
    assert_eq!(
        log(async |socket| StackedHandler::receive(&mut Stacked, socket, text("a")).await),
        ["touch", "leave", "body"]
    );
}

#[test]
fn a_heartbeat_does_not_pass_the_touch_to_what_is_beneath_it() {
    assert_eq!(log(async |socket| Stacked.touch_above(socket, text(HEARTBEAT)).await), ["touch"]);
    assert_eq!(log(async |socket| Stacked.leave_above(socket, text(HEARTBEAT)).await), ["leave", "touch"]);
}

#[test]
fn a_heartbeat_opens_no_span_wherever_the_instrumentation_is_written() {
    let spans = Spans::default();
    tracing::subscriber::with_default(spans.clone(), || {
        let touched = |frame: &str| {
            let frame = || text(frame);
            assert_eq!(log(async |socket| Stacked.instrumented_between(socket, frame()).await)[0], "touch");
            assert_eq!(log(async |socket| Stacked.instrumented_above(socket, frame()).await)[0], "touch");
            assert_eq!(log(async |socket| StackedHandler::receive(&mut Stacked, socket, frame()).await)[0], "touch");
        };
        touched(HEARTBEAT);
        assert_eq!(spans.count(), 0);
        touched("a");
        assert_eq!(spans.count(), 3);
    });
}

/// Counts the spans that are opened.
#[derive(Debug, Clone, Default)]
struct Spans(Arc<AtomicUsize>);

impl Spans {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

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
