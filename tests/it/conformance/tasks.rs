//! What was scheduled by a task queue or cron.

use super::bed::{bed, channel, leap, room, secs};
use presence::{Config, PrunePresences, PruneRooms};

// behaviour: 5 tasks
#[actix_web::test]
async fn both_rounds_run_by_themselves_at_the_suggested_periods() {
    let config = Config::default();
    assert_eq!((config.prune_interval(), config.prune_rooms_interval()), (secs(60), secs(600)));
    let bed = bed().await;
    bed.add("c", "ann").await;
    bed.rooms.remove(&room("lobby"), &channel("c")).await.unwrap();
    for _ in 0..62 {
        leap(secs(10)).await;
    }
    assert!(presence::store::Store::rooms(&bed.store).await.unwrap().is_empty());
}

// behaviour: 5 messages
#[actix_web::test]
async fn both_rounds_are_messages_to_the_supervisor_with_a_count() {
    let bed = bed().await;
    let other = presence::Rooms::start(Config::builder().room_threads(0).build().unwrap(), bed.store.clone());
    let name = presence::name::NodeName::new("other").unwrap();
    let supervisor = presence::PruningSupervisor::spawn(&other, name);
    other.ready().await;
    assert_eq!(supervisor.send(PrunePresences(None)).await.unwrap().unwrap(), 0);
    assert_eq!(supervisor.send(PruneRooms).await.unwrap().unwrap(), 0);
}
