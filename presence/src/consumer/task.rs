//! The task of a socket, in which its client is read and its consumer runs. A frame that arrives wakes this one task.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use super::inbox::Inbox;

pin_project! {
    /// Reads from a client, and runs its consumer beside that. A slow method of the consumer does not delay the reading.
    pub(crate) struct SocketTask<R, C> {
        #[pin]
        reading: Option<R>,
        #[pin]
        consumer: Option<C>,
        inbox: Rc<Inbox>,
    }
}

impl<R: Future<Output = ()>, C: Future<Output = ()>> SocketTask<R, C> {
    pub(crate) fn new(reading: R, consumer: C, inbox: Rc<Inbox>) -> Self {
        Self { reading: Some(reading), consumer: Some(consumer), inbox }
    }
}

impl<R: Future<Output = ()>, C: Future<Output = ()>> Future for SocketTask<R, C> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        loop {
            if this.inbox.is_abandoned() {
                this.reading.set(None);
            }
            go_on(this.reading.as_mut(), cx);
            go_on(this.consumer.as_mut(), cx);
            // The reading may wait for the space that the consumer has made.
            if !this.inbox.take_made_space() {
                break;
            }
        }
        if this.reading.is_none() && this.consumer.is_none() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Polls one of the two, and drops it when it has ended. Its panic must not end the other.
fn go_on<F: Future<Output = ()>>(mut part: Pin<&mut Option<F>>, cx: &mut Context<'_>) {
    let Some(running) = part.as_mut().as_pin_mut() else { return };
    let polled = catch_unwind(AssertUnwindSafe(|| running.poll(cx)));
    if polled.map_or(true, |polled| polled.is_ready()) {
        part.set(None);
    }
}
