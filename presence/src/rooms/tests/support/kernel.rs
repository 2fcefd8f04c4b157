//! A kernel of the test: how many bytes it accepts, and what was written to it.

use std::{
    cell::{Cell, RefCell},
    io::IoSlice,
    rc::Rc,
};

use crate::delivery::KernelSocket;

pub(crate) struct FakeKernel {
    is_writable: Rc<Cell<bool>>,
    /// How many bytes it accepts; `None` while only the response writes.
    pub(crate) accepts: Cell<Option<usize>>,
    /// What each call has written.
    pub(crate) writes: RefCell<Vec<Vec<u8>>>,
}

impl FakeKernel {
    pub(super) fn new(is_writable: Rc<Cell<bool>>) -> Self {
        Self { is_writable, accepts: Cell::default(), writes: RefCell::default() }
    }
}

impl KernelSocket for Rc<FakeKernel> {
    fn is_writable(&self) -> bool {
        self.is_writable.get()
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
}
