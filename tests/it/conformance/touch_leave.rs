//! Touching, and leaving everything.

use super::bed::{bed, bed_with, channel, room, secs, user};
use presence::OnStale;

// behaviour: 2.3 touch-all-rooms
#[actix_web::test]
async fn a_touch_counts_in_all_rooms_and_emits_nothing() {
    let mut bed = bed().await;
    bed.add("c", "ann").await;
    bed.rooms.add(&room("other"), &channel("c"), Some(&user("ann"))).await.unwrap();
    bed.told().await;
    bed.told().await;
    bed.leap(secs(40)).await;
    bed.rooms.touch(&channel("c"));
    bed.leap(secs(40)).await;
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

// behaviour: 2.3 touch-revives-nobody
#[actix_web::test]
async fn a_touch_revives_nobody_who_was_pruned() {
    let mut bed = bed_with(|config| config.on_stale(OnStale::Keep)).await;
    let ann = bed.member("ann").await;
    assert_eq!(bed.told().await, "+ann");
    bed.leap(secs(61)).await;
    assert_eq!(bed.told().await, "bulk ann");
    bed.rooms.touch(&ann.channel);
    bed.quiet().await;
    assert_eq!(bed.here().await, 0);
}

// behaviour: 2.4 leave-all-and-no-more
#[actix_web::test]
async fn leave_all_leaves_the_rooms_of_one_channel_and_not_those_of_its_user() {
    let mut bed = bed().await;
    bed.add("1", "ann").await;
    bed.add("2", "ann").await;
    assert_eq!([bed.told().await, bed.told().await], ["+ann", "+ann"]);
    bed.rooms.leave_all(&channel("1")).await.unwrap();
    assert_eq!(bed.told().await, "-ann");
    assert_eq!(bed.rooms.users(&room("lobby")).await.unwrap(), [user("ann")]);
}
