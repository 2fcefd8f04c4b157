//! Several attributes on one method.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use presence::{Frame, Result, Socket, remove_presence, touch_presence, touch_presence as renamed};

use super::{HEARTBEAT, log, text};

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
}

#[async_trait]
trait StackedHandler {
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()>;
}

#[async_trait]
impl StackedHandler for Stacked {
    #[touch_presence]
    #[remove_presence]
    async fn receive(&mut self, socket: &mut Socket, _: Frame) -> Result<()> {
        socket.log.push("body");
        Ok(())
    }
}

/// With spans that no other test opens: beside one, a test would keep the other from being told of them.
struct Traced;

impl Traced {
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
impl StackedHandler for Traced {
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
            assert_eq!(log(async |socket| Traced.instrumented_between(socket, frame()).await)[0], "touch");
            assert_eq!(log(async |socket| Traced.instrumented_above(socket, frame()).await)[0], "touch");
            assert_eq!(log(async |socket| StackedHandler::receive(&mut Traced, socket, frame()).await)[0], "touch");
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
