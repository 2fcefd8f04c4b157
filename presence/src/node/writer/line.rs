//! Whose turn it is to remove presences of which nobody waits for the end.
//!
//! A node has at most one such transaction under way: one of the writer's with presences that are pruned, or one of the
//! supervisor's. Were there one of each, a join would wait for both where all writes are one lock, as on SQLite. They have
//! turns in the order in which they want them, so neither keeps the other from it for longer than a transaction. What is
//! asked needs no turn.

use std::sync::Arc;

use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Clones are one.
#[derive(Debug, Clone)]
pub(super) struct Line(Arc<Semaphore>);

/// Nobody else removes until this is dropped.
#[derive(Debug)]
pub(crate) struct Turn(#[expect(dead_code, reason = "it is there to be dropped")] Option<OwnedSemaphorePermit>);

impl Default for Line {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Line {
    /// Whether somebody removes right now.
    pub(super) fn is_taken(&self) -> bool {
        self.0.available_permits() == 0
    }

    /// Resolves when it is the caller's turn. Whoever gives up is in nobody's way.
    pub(super) async fn next(&self) -> Turn {
        // It is never closed.
        Turn(self.0.clone().acquire_owned().await.ok())
    }
}

/// The writer's place in the line. It does not stand still there: what is asked goes on.
pub(super) struct Place {
    line: Line,
    waits: Option<BoxFuture<'static, Turn>>,
    has: Option<Turn>,
}

impl Place {
    pub(super) fn new(line: &Line) -> Self {
        Self { line: line.clone(), waits: None, has: None }
    }

    /// Takes the turn, if it has come. Who is not in line yet is from now on.
    pub(super) fn take(&mut self) -> Option<Turn> {
        if let Some(turn) = self.has.take() {
            return Some(turn);
        }
        let line = &self.line;
        let waits = self.waits.get_or_insert_with(|| {
            let line = line.clone();
            async move { line.next().await }.boxed()
        });
        let turn = waits.now_or_never()?;
        self.waits = None;
        Some(turn)
    }

    /// Resolves when the turn has come, for who is in line; never for others.
    pub(super) async fn comes(&mut self) {
        if self.has.is_none() {
            let Some(waits) = &mut self.waits else { return std::future::pending().await };
            self.has = Some(waits.await);
            self.waits = None;
        }
    }

    /// Gives the place up, and the turn.
    pub(super) fn leave(&mut self) {
        (self.waits, self.has) = (None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_are_had_in_the_order_in_which_they_are_wanted() {
        let line = Line::default();
        let (mut writer, first) = (Place::new(&line), line.next().await);
        let mut second = std::pin::pin!(line.next());
        assert!(writer.take().is_none() && second.as_mut().now_or_never().is_none());
        drop(first);
        assert!(second.as_mut().now_or_never().is_none());
        let turn = writer.take().expect("it is the writer's turn");
        assert!(writer.take().is_none(), "which then is in line again");
        drop(turn);
        drop(second.await);
        assert!(writer.take().is_some());
    }

    #[tokio::test]
    async fn who_leaves_the_line_or_does_not_take_its_turn_keeps_nobody_waiting() {
        let line = Line::default();
        let (mut writer, first) = (Place::new(&line), line.next().await);
        assert!(writer.take().is_none() && writer.comes().now_or_never().is_none());
        drop(first);
        writer.comes().await;
        assert!(line.next().now_or_never().is_none());
        writer.leave();
        let first = line.next().now_or_never().expect("the writer has left");
        assert!(writer.take().is_none());
        drop(first);
        writer.leave();
        assert!(line.next().now_or_never().is_some() && writer.comes().now_or_never().is_none());
    }
}
