//! How many bytes of first frames are held for clients that have not read them yet.
//!
//! What several clients wait for is held once and counts once. It counts for as long as it is in memory, whoever keeps it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// What is held for the joiners of one room.
#[derive(Debug, Default)]
pub(crate) struct Held {
    bytes: AtomicUsize,
    /// What is held for the joiners of all rooms of the process.
    everywhere: Arc<AtomicUsize>,
}

impl Held {
    pub(crate) fn of(everywhere: Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicUsize::new(0), everywhere })
    }

    /// For this room.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// For all rooms.
    pub(crate) fn everywhere(&self) -> usize {
        self.everywhere.load(Ordering::Relaxed)
    }
}

/// Bytes that count as held until they are dropped.
#[derive(Debug)]
pub(super) struct Counted<B: AsRef<[u8]>> {
    bytes: B,
    held: Arc<Held>,
}

impl<B: AsRef<[u8]>> Counted<B> {
    pub(super) fn new(bytes: B, held: &Arc<Held>) -> Self {
        held.bytes.fetch_add(bytes.as_ref().len(), Ordering::Relaxed);
        held.everywhere.fetch_add(bytes.as_ref().len(), Ordering::Relaxed);
        Self { bytes, held: held.clone() }
    }
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Counted<B> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

impl<B: AsRef<[u8]>> Drop for Counted<B> {
    fn drop(&mut self) {
        self.held.bytes.fetch_sub(self.bytes.as_ref().len(), Ordering::Relaxed);
        self.held.everywhere.fetch_sub(self.bytes.as_ref().len(), Ordering::Relaxed);
    }
}
