//! A room of 100,000 is read, and rooms of 1, 1,000 and 100,000 say how many they are.

use std::time::{Duration, Instant};

use presence::store::{Attempt, RoomStore, RoomWrites};
use presence_test_servers::Server;

use super::{Place, joins, room, since, tell};

const LARGE: usize = 100_000;

pub(super) async fn measure(database: &str, server: Option<&Server>) {
    let place = Place::new(server).await;
    let (store, node) = place.writer().await;
    let sizes = [1, 1_000, LARGE];
    for size in sizes {
        for begun in (0..size).step_by(1_000) {
            let writes = joins(node, (size - begun).min(1_000));
            store
                .commit(node, Attempt::next(), [RoomWrites { room: room(size), writes }].into())
                .await
                .expect("the commit works");
        }
    }
    let mut times = Vec::new();
    for _ in 0..5 {
        let begun = Instant::now();
        let snapshot = store.load(room(LARGE)).await.expect("it loads").expect("it is there");
        times.push(since(begun));
        assert_eq!(snapshot.presences.len(), LARGE);
    }
    tell(database, "a room of 100,000 read from the store", times, 1e3, "ms");

    let (mut times, mut gaps) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        times.push(first_count(&place).await);
        gaps.push(longest_wait(&place).await);
    }
    tell(database, "the first count of a room of 100,000, which reads it", times, 1e3, "ms");
    tell(database, "the longest that a room of its thread waits meanwhile", gaps, 1e3, "ms");

    let (rooms, _) = place.rooms().await;
    for size in sizes {
        rooms.count(&room(size)).await.expect("it counts");
        let mut times = Vec::new();
        for _ in 0..5 {
            let begun = Instant::now();
            for _ in 0..1_000 {
                assert_eq!(rooms.count(&room(size)).await.expect("it counts").presences, size);
            }
            times.push(since(begun) / 1e3);
        }
        tell(database, &format!("count of a room of {size} that is in memory"), times, 1e6, "µs");
    }
    rooms.shutdown().await;
}

/// How long a node that knows nothing yet takes to count the large room.
async fn first_count(place: &Place) -> f64 {
    let (rooms, _) = place.rooms().await;
    let begun = Instant::now();
    assert_eq!(rooms.count(&room(LARGE)).await.expect("it counts").presences, LARGE);
    let time = since(begun);
    rooms.shutdown().await;
    time
}

/// The longest that the count of a small room takes, which is in memory and lives on the same thread, from the first count of
/// the large one until a while after: so long that thread has no time for others.
async fn longest_wait(place: &Place) -> f64 {
    let (rooms, _) = place.rooms().await;
    rooms.count(&room(1)).await.expect("it counts");
    let large = actix::spawn({
        let rooms = rooms.clone();
        async move { rooms.count(&room(LARGE)).await.expect("it counts") }
    });
    let (mut longest, mut after) = (0_f64, 0);
    while after < 100 {
        let begun = Instant::now();
        rooms.count(&room(1)).await.expect("it counts");
        longest = longest.max(since(begun));
        after += u32::from(large.is_finished());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    rooms.shutdown().await;
    longest
}
