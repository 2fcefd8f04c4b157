//! The number of bytes of first frames that are in memory for clients which have not read them yet.
//!
//! Bytes that several clients share count once. They count until they are freed.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The unread bytes of first frames of one room.
#[derive(Debug, Default)]
pub(crate) struct Held {
    bytes: AtomicUsize,
    /// The unread bytes of first frames of all rooms of this process.
    everywhere: Arc<AtomicUsize>,
}

impl Held {
    pub(crate) fn of(everywhere: Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicUsize::new(0), everywhere })
    }

    /// The unread bytes of this room.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The unread bytes of all rooms.
    pub(crate) fn everywhere(&self) -> usize {
        self.everywhere.load(Ordering::Relaxed)
    }
}

/// Bytes that count as unread until they are dropped.
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
