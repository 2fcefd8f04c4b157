//! A kernel of the test: how many bytes it accepts, and what was written to it.

use std::{
    cell::{Cell, RefCell},
    io::IoSlice,
    rc::Rc,
    task::{Context, Poll},
};

use crate::delivery::{KernelSocket, TakeOver};

pub(crate) struct FakeKernel {
    is_writable: Rc<Cell<bool>>,
    /// How many bytes it accepts; `None` while only the response writes.
    pub(crate) accepts: Cell<Option<usize>>,
    /// What each call has written.
    pub(crate) writes: RefCell<Vec<Vec<u8>>>,
    /// Whether the connection can be taken over from the HTTP server.
    pub(crate) can_be_taken_over: Cell<bool>,
    /// For each request to take it over, whether the server had read since the poll before.
    pub(crate) requests: RefCell<Vec<bool>>,
}

impl FakeKernel {
    pub(super) fn new(is_writable: Rc<Cell<bool>>) -> Self {
        Self {
            is_writable,
            accepts: Cell::default(),
            writes: RefCell::default(),
            can_be_taken_over: Cell::default(),
            requests: RefCell::default(),
        }
    }
}

impl KernelSocket for Rc<FakeKernel> {
    fn is_writable(&self) -> bool {
        self.is_writable.get()
    }

    fn announce_take_over(&self) -> bool {
        self.can_be_taken_over.get()
    }

    fn take_over(&self, has_read: bool) -> TakeOver {
        self.requests.borrow_mut().push(has_read);
        match (self.can_be_taken_over.get(), has_read) {
            (false, _) => TakeOver::Never,
            (true, false) => TakeOver::Soon,
            (true, true) => TakeOver::Done,
        }
    }

    fn can_write(&self) -> bool {
        self.accepts.get().is_some()
    }

    fn write(&self, slices: &[IoSlice<'_>]) -> usize {
        let Some(accepts) = self.accepts.get() else { return 0 };
        let mut written: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        written.truncate(accepts);
        self.accepts.set(Some(accepts - written.len()));
        let count = written.len();
        self.writes.borrow_mut().push(written);
        count
    }

    fn poll_write(&self, _: &mut Context<'_>, _: &[IoSlice<'_>]) -> Poll<Option<usize>> {
        Poll::Pending
    }
}
