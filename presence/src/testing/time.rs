//! Time that a test moves, for a whole node.

use std::time::Duration;

/// Time passes in steps of at most this.
const STEP: Duration = Duration::from_secs(1);

/// The clock of a test: from its making on, time stands still, and passes when the test says so. Deadlines, leases, pruning
/// rounds and every other timer of the test's thread follow it, and so does [`Clock::system`](crate::clock::Clock::system).
///
/// It moves what lives on the thread of the test: start the rooms with `room_threads(0)`, and a store that needs no thread of
/// its own, such as [`MemoryStore`](crate::store::MemoryStore). While a test waits and nothing else can happen, time jumps to
/// the next timer, so that waiting costs nothing.
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
    /// If it stands still already, or this is no thread of an actix system.
    #[must_use]
    pub fn pause() -> Self {
        tokio::time::pause();
        Self
    }

    /// Lets so much time pass, and everything happen that is due by then: what is due every few seconds, such as the renewal of
    /// a node's lease, happens as often as it would.
    pub async fn advance(&self, time: Duration) {
        let mut left = time;
        while !left.is_zero() {
            let step = left.min(STEP);
            tokio::time::advance(step).await;
            turns(20).await;
            left -= step;
        }
        self.settle().await;
    }

    /// Lets everything happen that needs no time. A leave that is all there is to write needs 5 ms.
    pub async fn settle(&self) {
        // No chain of messages between actors of one thread is near as long.
        turns(200).await;
    }
}

async fn turns(turns: usize) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}
