//! Many clients on one thread, which count what they hear.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle, Thread},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::oneshot,
};

use super::client::{payload, request, text};

/// What begins a text that is counted as a message.
pub(crate) const MARK: &str = "#";
const STATE: &str = r#"{"type":"presence.state""#;

/// Clients that read all they are sent. They end when this is dropped.
pub(crate) struct Crowd {
    sockets: Vec<OwnedWriteHalf>,
    heard: Arc<Heard>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Heard {
    marks: Tally,
    states: Tally,
    /// Who waits for a number of them.
    waiter: Thread,
}

#[derive(Default)]
struct Tally {
    heard: AtomicUsize,
    wanted: AtomicUsize,
}

impl Tally {
    fn add(&self, waiter: &Thread) {
        if self.heard.fetch_add(1, Ordering::AcqRel) + 1 == self.wanted.load(Ordering::Acquire) {
            waiter.unpark();
        }
    }
}

impl Crowd {
    /// Connects one client for each path. Only the thread that calls this may wait for what they hear.
    pub(crate) fn connect(port: u16, paths: Vec<String>) -> Self {
        let heard = Arc::new(Heard { marks: Tally::default(), states: Tally::default(), waiter: thread::current() });
        let (end, ended) = oneshot::channel();
        let (connected, sockets) = mpsc::channel();
        let thread = thread::spawn({
            let heard = heard.clone();
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async {
                    let mut writers = Vec::with_capacity(paths.len());
                    for path in paths {
                        let (reader, writer) = connect(port, &path).await;
                        tokio::spawn(read(reader, heard.clone()));
                        writers.push(writer);
                    }
                    connected.send(writers).expect("it waits");
                    let _ = ended.await;
                });
            }
        });
        let sockets = sockets.recv().expect("all connect");
        Self { sockets, heard, end: Some(end), thread: Some(thread) }
    }

    /// Has every client say the same short text.
    pub(crate) fn say(&self, words: &str) {
        let frame = text(words);
        for socket in &self.sockets {
            let written = socket.try_write(&frame).expect("the server reads");
            assert_eq!(written, frame.len(), "a short frame fits");
        }
    }

    /// Forgets what was heard so far.
    pub(crate) fn forget(&self) {
        for count in [&self.heard.marks, &self.heard.states] {
            count.heard.store(0, Ordering::Release);
        }
    }

    /// Waits until so many messages were heard in all since the last [`forget`](Self::forget).
    pub(crate) fn hear_marks(&self, wanted: usize) {
        self.wait(&self.heard.marks, wanted);
    }

    /// Waits until so many first frames were heard in all since the last [`forget`](Self::forget).
    pub(crate) fn hear_states(&self, wanted: usize) {
        self.wait(&self.heard.states, wanted);
    }

    fn wait(&self, count: &Tally, wanted: usize) {
        assert_eq!(thread::current().id(), self.heard.waiter.id(), "only who connected them waits");
        count.wanted.store(wanted, Ordering::Release);
        while count.heard.load(Ordering::Acquire) < wanted {
            thread::park_timeout(Duration::from_millis(100));
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        drop(self.end.take());
        self.sockets.clear();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn connect(port: u16, path: &str) -> (OwnedReadHalf, OwnedWriteHalf) {
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("the server listens");
    socket.set_nodelay(true).expect("an option of every socket");
    socket.write_all(request(path).as_bytes()).await.expect("the server reads");
    let mut answer = Vec::new();
    // Byte by byte, so that a frame which comes with it stays in the socket.
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(socket.read_u8().await.expect("the server answers"));
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    socket.into_split()
}

async fn read(mut socket: OwnedReadHalf, heard: Arc<Heard>) {
    let mut buffer = Vec::with_capacity(1024);
    while socket.read_buf(&mut buffer).await.is_ok_and(|read| read > 0) {
        let mut taken = 0;
        while let Some(frame) = payload(&buffer[taken..]).filter(|frame| taken + frame.end <= buffer.len()) {
            let text = &buffer[taken + frame.start..taken + frame.end];
            if text.starts_with(MARK.as_bytes()) {
                heard.marks.add(&heard.waiter);
            } else if text.starts_with(STATE.as_bytes()) {
                heard.states.add(&heard.waiter);
            }
            taken += frame.end;
        }
        buffer.drain(..taken);
    }
}
