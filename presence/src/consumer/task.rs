//! The task of a socket, in which its client is read, its consumer runs, and its client is written to. A frame that arrives wakes this one
//! task.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use super::inbox::Inbox;

pin_project! {
    /// Reads from a client, runs its consumer beside that, and writes what waits for the client. A slow method of the consumer delays neither
    /// the reading nor the writing.
    pub(crate) struct SocketTask<R, C, W> {
        #[pin]
        reading: Option<R>,
        #[pin]
        consumer: Option<C>,
        #[pin]
        writing: Option<W>,
        inbox: Rc<Inbox>,
    }
}

impl<R: Future<Output = ()>, C: Future<Output = ()>, W: Future<Output = ()>> SocketTask<R, C, W> {
    pub(crate) fn new(reading: R, consumer: C, writing: W, inbox: Rc<Inbox>) -> Self {
        Self { reading: Some(reading), consumer: Some(consumer), writing: Some(writing), inbox }
    }
}

impl<R: Future<Output = ()>, C: Future<Output = ()>, W: Future<Output = ()>> Future for SocketTask<R, C, W> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if this.inbox.is_abandoned() {
            this.reading.set(None);
        }
        go_on(this.reading.as_mut(), cx);
        go_on(this.consumer.as_mut(), cx);
        go_on(this.writing.as_mut(), cx);
        if this.reading.is_none() && this.consumer.is_none() && this.writing.is_none() {
            return Poll::Ready(());
        }
        if this.inbox.take_made_space() {
            // The reading may wait for that space. It goes on after the other tasks of the thread: thousands of small frames can arrive at
            // once, and they must not be handled in one turn.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

/// Polls one of them, and drops it when it has ended. Its panic must not end the others.
fn go_on<F: Future<Output = ()>>(mut part: Pin<&mut Option<F>>, cx: &mut Context<'_>) {
    let Some(running) = part.as_mut().as_pin_mut() else { return };
    let polled = catch_unwind(AssertUnwindSafe(|| running.poll(cx)));
    if polled.map_or(true, |polled| polled.is_ready()) {
        part.set(None);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        future::ready,
        pin::pin,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        task::{Wake, Waker},
    };

    use super::*;
    use crate::{CloseCode, Frame, clock::Tick, delivery::Touch};

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn of_many_frames_that_arrive_at_once_one_turn_handles_as_many_as_fit_into_the_inbox() {
        const SPACE: usize = 4;
        let (inbox, handled) = (Rc::new(Inbox::new(SPACE, Touch::default())), Cell::new(0));
        let reading = async {
            for _ in 0..100 {
                if inbox.is_full() {
                    inbox.space().await;
                }
                inbox.push(Frame::Text("x".into()), 1, Tick::default());
            }
            inbox.end(CloseCode::NORMAL);
        };
        let consumer = async {
            while inbox.next().await.is_ok() {
                handled.set(handled.get() + 1);
            }
        };
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let (mut task, mut cx) =
            (pin!(SocketTask::new(reading, consumer, ready(()), inbox.clone())), Context::from_waker(&waker));
        let mut before = 0;
        while task.as_mut().poll(&mut cx).is_pending() {
            assert!(woken.0.swap(false, Ordering::Relaxed), "nothing else would go on after {}", handled.get());
            assert!(handled.get() - before <= SPACE, "{} after {before}", handled.get());
            before = handled.get();
        }
        assert_eq!(handled.get(), 100);
    }
}
