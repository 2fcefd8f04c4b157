//! Pruning.

use super::bed::{bed, bed_with, channel, leap, room, secs};
use presence::testing::Received;
use presence::{CloseCode, Config};
use std::time::Duration;

// behaviour: 2.5 strictly-older
#[actix_web::test]
async fn only_who_is_strictly_older_is_pruned() {
    let bed = bed().await;
    bed.add("c", "ann").await;
    leap(secs(10)).await;
    assert_eq!(bed.rooms.prune_presences(Some(secs(10))).await.unwrap(), 0);
    leap(Duration::from_millis(1)).await;
    assert_eq!(bed.rooms.prune_presences(Some(secs(10))).await.unwrap(), 1);
}

// behaviour: 2.5 one-bulk-event-per-room
#[actix_web::test]
async fn a_prune_is_one_bulk_event_per_room_that_lost_somebody() {
    // Differs on purpose (W2): the event says who left.
    let mut bed = bed().await;
    bed.add("1", "ann").await;
    bed.add("2", "bob").await;
    bed.told().await;
    bed.told().await;
    leap(secs(20)).await;
    bed.rooms.add(&room("fresh"), &channel("3"), None).await.unwrap();
    assert_eq!(bed.told().await, "+? in fresh");
    assert_eq!(bed.rooms.prune_presences(Some(secs(10))).await.unwrap(), 2);
    assert_eq!(bed.told().await, "bulk ann,bob");
    bed.quiet().await;
}

// behaviour: 2.5 prune-nothing
#[actix_web::test]
async fn a_prune_that_finds_nobody_emits_nothing() {
    let mut bed = bed().await;
    bed.add("c", "ann").await;
    bed.told().await;
    assert_eq!(bed.rooms.prune_presences(None).await.unwrap(), 0);
    bed.quiet().await;
}

// behaviour: 2.5 room-form
#[actix_web::test]
async fn the_form_for_one_room_leaves_others_alone() {
    let bed = bed().await;
    bed.add("c", "ann").await;
    bed.rooms.add(&room("other"), &channel("c"), None).await.unwrap();
    leap(secs(20)).await;
    assert_eq!(bed.rooms.room(&room("other")).prune_presences(Some(secs(10))).await.unwrap(), 1);
    assert_eq!(bed.here().await, 1);
}

// behaviour: 2.5 prune-and-the-socket
#[actix_web::test]
async fn who_is_pruned_leaves_the_group_and_is_closed() {
    // Differs on purpose (W1): there it goes on getting the room's messages, invisible.
    let bed = bed().await;
    let mut ann = bed.member("ann").await;
    leap(secs(20)).await;
    assert_eq!(bed.rooms.prune_presences(Some(secs(10))).await.unwrap(), 1);
    assert_eq!(ann.socket.receive().await, Received::Close(Some(CloseCode(4408))));
}

// behaviour: 2.6 prune-rooms
#[actix_web::test]
async fn pruning_rooms_removes_the_empty_ones_and_emits_nothing() {
    let mut bed = bed().await;
    bed.add("c", "ann").await;
    bed.rooms.add(&room("left"), &channel("c"), None).await.unwrap();
    bed.rooms.remove(&room("left"), &channel("c")).await.unwrap();
    for _ in 0..3 {
        bed.told().await;
    }
    leap(secs(10)).await;
    assert_eq!(bed.rooms.prune_rooms().await.unwrap(), 1);
    bed.quiet().await;
    assert_eq!(presence::store::Store::rooms(&bed.store).await.unwrap().len(), 1);
}

// behaviour: 2.9 max-age
#[actix_web::test]
async fn max_age_is_60_s_and_used_when_no_age_is_given() {
    assert_eq!(Config::default().max_age(), secs(60));
    let bed = bed_with(|config| config.max_age(secs(30))).await;
    bed.add("c", "ann").await;
    leap(secs(30)).await;
    assert_eq!(bed.here().await, 1);
    leap(secs(1)).await;
    assert_eq!(bed.here().await, 0);
}
