//! Touching, and leaving everything.

use super::bed::{bed, channel, leap, room, secs, user};

// behaviour: 2.3 touch-all-rooms
#[actix_web::test]
async fn a_touch_counts_in_all_rooms_and_emits_nothing() {
    let mut bed = bed().await;
    bed.add("c", "ann").await;
    bed.rooms.add(&room("other"), &channel("c"), Some(&user("ann"))).await.unwrap();
    bed.told().await;
    bed.told().await;
    leap(secs(40)).await;
    bed.rooms.touch(&channel("c"));
    leap(secs(40)).await;
    assert_eq!(bed.rooms.rooms_of(&user("ann")).await.unwrap().len(), 2);
    bed.quiet().await;
}

// behaviour: 2.3 touch-unknown
#[actix_web::test]
async fn a_touch_of_an_unknown_channel_neither_fails_nor_creates() {
    let mut bed = bed().await;
    bed.rooms.touch(&channel("c"));
    bed.quiet().await;
    assert_eq!(bed.here().await, 0);
}

// behaviour: 2.4 leave-all-once-per-room
#[actix_web::test]
async fn leave_all_signals_once_per_room() {
    let mut bed = bed().await;
    bed.add("c", "ann").await;
    bed.rooms.add(&room("other"), &channel("c"), Some(&user("ann"))).await.unwrap();
    bed.told().await;
    bed.told().await;
    bed.rooms.leave_all(&channel("c")).await.unwrap();
    let mut told = [bed.told().await, bed.told().await];
    told.sort();
    assert_eq!(told, ["-ann", "-ann in other"]);
    bed.quiet().await;
}

// behaviour: 2.4 leave-all-unknown
#[actix_web::test]
async fn leave_all_of_an_unknown_channel_is_silent() {
    let mut bed = bed().await;
    bed.rooms.leave_all(&channel("c")).await.unwrap();
    bed.quiet().await;
}
