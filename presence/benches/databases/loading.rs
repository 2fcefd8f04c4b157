//! A room of 100,000 is read, and rooms of 1, 1,000 and 100,000 say how many they are.

use std::time::Instant;

use presence::store::{Attempt, RoomWrites, Store};
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
                .commit(node, Attempt::next(), &[RoomWrites { room: room(size), writes }])
                .await
                .expect("the commit works");
        }
    }
    let mut times = Vec::new();
    for _ in 0..5 {
        let begun = Instant::now();
        let snapshot = store.load(&room(LARGE)).await.expect("it loads").expect("it is there");
        times.push(since(begun));
        assert_eq!(snapshot.presences.len(), LARGE);
    }
    tell(database, "a room of 100,000 read from the store", times, 1e3, "ms");

    let (rooms, _) = place.rooms().await;
    let begun = Instant::now();
    assert_eq!(rooms.count(&room(LARGE)).await.expect("it counts").presences, LARGE);
    tell(database, "the first count of a room of 100,000, which reads it", vec![since(begun)], 1e3, "ms");
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
