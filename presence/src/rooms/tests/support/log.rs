//! The log lines of the thread of a test.
//!
//! One subscriber serves the whole process, and each thread decides what of it is kept. A subscriber of each thread's own, by
//! `set_default`, is not reliable where tests share a process: `tracing` asks the thread that reaches a line of code first whether anybody
//! wants this line, and keeps that answer for all threads.

use std::{
    cell::RefCell,
    io::{self, Write},
    sync::Once,
};

use tracing::{Level, Metadata};
use tracing_subscriber::{
    Layer,
    filter::dynamic_filter_fn,
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
};

thread_local! {
    /// What the current [`Log`] of this thread keeps, and the text so far.
    static CURRENT: RefCell<Option<(Level, Vec<u8>)>> = const { RefCell::new(None) };
}

/// The lines that this thread logs while this exists. A thread can have one at a time.
pub(crate) struct Log(());

impl Log {
    /// Warnings and errors.
    pub(crate) fn of_warnings() -> Self {
        Self::down_to(Level::WARN)
    }

    /// Lines of this level and of more severe ones.
    pub(crate) fn down_to(level: Level) -> Self {
        static INSTALL: Once = Once::new();
        INSTALL.call_once(|| {
            let is_kept = |line: &Metadata<'_>| {
                CURRENT.try_with(|log| {
                    log.try_borrow().is_ok_and(|log| log.as_ref().is_some_and(|(level, _)| line.level() <= level))
                })
            };
            let lines = fmt::layer().with_ansi(false).with_writer(CurrentLog);
            let lines = lines.with_filter(dynamic_filter_fn(move |line, _| is_kept(line).unwrap_or(false)));
            tracing::subscriber::set_global_default(tracing_subscriber::registry().with(lines))
                .expect("this is the only one");
        });
        let former = CURRENT.replace(Some((level, Vec::new())));
        assert!(former.is_none(), "this thread has a log already");
        Self(())
    }

    /// The lines that contain these words.
    pub(crate) fn lines_with(&self, words: &str) -> Vec<String> {
        self.lines().into_iter().filter(|line| line.contains(words)).collect()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        CURRENT.with_borrow(|log| {
            let text = log.as_ref().map(|(_, text)| String::from_utf8_lossy(text)).unwrap_or_default();
            text.lines().map(str::to_owned).collect()
        })
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        CURRENT.take();
    }
}

/// Writes to the current log of this thread.
struct CurrentLog;

impl Write for CurrentLog {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        CURRENT.with_borrow_mut(|log| {
            if let Some((_, lines)) = log {
                lines.extend_from_slice(text)
            }
        });
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for CurrentLog {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}
