//! The harness: the real server as a process, and clients that may misbehave.
//!
//! Nothing here knows the library. A test uses the chat server as a stranger would: over TCP, by its command
//! line, by signals, and by looking at what the operating system and the database hold afterwards.
//! Every wait has a bound and awaits an event or a condition; nothing sleeps for a time and hopes.

pub(crate) mod backend;
pub(crate) mod database;
pub(crate) mod frame;
pub(crate) mod front;
pub(crate) mod guest;
pub(crate) mod http;
pub(crate) mod member;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod roster;
pub(crate) mod server;
pub(crate) mod socket;
pub(crate) mod webdriver;
pub(crate) mod witness;

use std::future::Future;
pub(crate) use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

/// How long a test waits for what should come at once: long, since a loaded machine is slow and not wrong.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

/// What a deadline of the server may be late by before a test calls it broken: as with `BOUND`, much more than on an idle
/// machine, since a test that runs late notices things late. What a bound is to tell apart lies further away than this.
pub(crate) const SLACK: Duration = Duration::from_secs(5);

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Awaits `future`, or fails the test saying that `what` did not come in time.
pub(crate) async fn within<T>(bound: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(bound, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {bound:?} in vain for {what}"),
    }
}

/// Asks again and again until the answer is yes, or fails the test with the last thing seen.
///
/// For facts that come without an event of their own: a row, a descriptor, an element of a page.
pub(crate) async fn eventually<T, F>(bound: Duration, what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let end = Instant::now() + bound;
    let mut tick = tokio::time::interval(millis(25));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match ask().await {
            Ok(value) => return value,
            Err(seen) => assert!(Instant::now() < end, "waited {bound:?} in vain for {what}; last seen: {seen}"),
        }
    }
}

/// A temporary folder whose name shows that it is of these tests.
pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("presence-it-").tempdir().expect("a temporary folder")
}

/// One heavy test at a time: a crowd beside a crowd would measure the machine, not the server.
pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    static HEAVY: Mutex<()> = Mutex::const_new(());
    HEAVY.lock().await
}
