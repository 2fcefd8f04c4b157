//! What the log says, on the thread of a test.

use std::{
    io::{self, Write},
    sync::Arc,
};

use parking_lot::Mutex;
use tracing::{Level, subscriber::DefaultGuard};
use tracing_subscriber::fmt::MakeWriter;

/// What is logged from its making on, until it is dropped.
pub(crate) struct Log {
    text: Text,
    _until: DefaultGuard,
}

#[derive(Clone, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Warnings and errors.
    pub(crate) fn of_warnings() -> Self {
        Self::down_to(Level::WARN)
    }

    /// What is logged at this level, and at those that are more severe.
    pub(crate) fn down_to(level: Level) -> Self {
        let text = Text::default();
        let log = tracing_subscriber::fmt().with_max_level(level).with_ansi(false).with_writer(text.clone());
        Self { text, _until: tracing::subscriber::set_default(log.finish()) }
    }

    /// The lines in which these words are.
    pub(crate) fn lines_with(&self, words: &str) -> Vec<String> {
        self.lines().into_iter().filter(|line| line.contains(words)).collect()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let text = self.text.0.lock();
        String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
    }
}

impl Write for Text {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Text {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
