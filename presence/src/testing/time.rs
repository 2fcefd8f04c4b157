//! The clock of a test, for a whole node.

use std::time::Duration;

/// Time moves in steps of at most this. A node that notices longer steps assumes that its thread was blocked, and gives clients more
/// time.
const STEP: Duration = Duration::from_millis(10);

/// A clock that stands still, and that the test moves. Deadlines, leases, pruning rounds and every other timer of the test's thread
/// follow it, and so does [`Clock::system`](crate::Clock::system).
///
/// It moves only what runs on the thread of the test: start the rooms with `room_threads(0)`, and with a store that needs no thread of
/// its own, such as [`MemoryStore`](crate::MemoryStore). While a test waits and nothing else can happen, time jumps to
/// the next timer, so that the wait takes no real time.
///
/// ```
/// # use presence::{
/// #     ChannelName, Config, MemoryStore, NodeName, PruningSupervisor, RoomName, Rooms,
/// #     testing::{ManualTime, Probe},
/// # };
/// # use std::time::Duration;
/// # #[actix_web::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let time = ManualTime::pause();
/// # let rooms = Rooms::start(Config::builder().room_threads(0).build()?, MemoryStore::default(), NodeName::new("test")?);
/// # PruningSupervisor::spawn(&rooms);
/// # rooms.ready().await;
/// # let mut changes = Probe::new(&rooms);
/// # let (lobby, job) = (RoomName::new("lobby")?, ChannelName::new("job")?);
/// rooms.add(&lobby, &job, None).await?;
/// time.advance(Duration::from_secs(60)).await;
/// assert_eq!(rooms.anonymous_count(&lobby).await?, 1);
/// time.advance(Duration::from_secs(1)).await;
/// assert_eq!(rooms.anonymous_count(&lobby).await?, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct ManualTime;

impl ManualTime {
    /// Stops the time of this thread.
    ///
    /// # Panics
    /// If the time stands still already, or if this is not a thread of an actix system.
    #[must_use]
    pub fn pause() -> Self {
        tokio::time::pause();
        Self
    }

    /// Moves the time, and runs everything that is due by then. What is due every few seconds, such as the renewal of a node's lease,
    /// happens as often as it would in real time. Frames that the test sent before arrive before the time moves.
    pub async fn advance(&self, time: Duration) {
        turns(20).await;
        let mut left = time;
        while !left.is_zero() {
            let step = left.min(STEP);
            tokio::time::advance(step).await;
            turns(20).await;
            left -= step;
        }
        self.settle().await;
    }

    /// Runs everything that needs no time. If a leave is the only change that waits to be written, its write begins 5 ms later.
    pub async fn settle(&self) {
        // More turns than any chain of messages between the actors of one thread needs.
        turns(200).await;
    }
}

async fn turns(turns: usize) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}
