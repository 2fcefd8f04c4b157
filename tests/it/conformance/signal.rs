//! The signal: one test for each row of its table.

use super::bed::{bed, channel, room, secs, user};
use std::time::Duration;

// behaviour: 3 created
#[actix_web::test]
async fn a_presence_that_is_created_is_told_once() {
    let mut bed = bed().await;
    bed.add("c", "ann").await;
    assert_eq!(bed.told().await, "+ann");
    bed.quiet().await;
}

// behaviour: 3 nothing-to-tell
#[actix_web::test]
async fn a_re_add_a_touch_and_anything_unknown_are_not_told() {
    let mut bed = bed().await;
    bed.add("c", "ann").await;
    bed.told().await;
    bed.add("c", "ann").await;
    bed.rooms.touch(&channel("c"));
    bed.rooms.remove(&room("lobby"), &channel("d")).await.unwrap();
    bed.rooms.leave_all(&channel("d")).await.unwrap();
    bed.quiet().await;
}

// behaviour: 3 failed-add
#[actix_web::test]
async fn an_add_that_fails_is_not_told() {
    let mut bed = bed().await;
    bed.store.fail_next(usize::MAX);
    assert!(bed.rooms.add(&room("lobby"), &channel("c"), None).await.is_err());
    bed.quiet().await;
}

// behaviour: 3 removed
#[actix_web::test]
async fn a_removal_is_told_once() {
    let mut bed = bed().await;
    bed.add("c", "ann").await;
    bed.told().await;
    bed.rooms.leave_all(&channel("c")).await.unwrap();
    assert_eq!(bed.told().await, "-ann");
    bed.quiet().await;
}

// behaviour: 3 pruned
#[actix_web::test]
async fn a_prune_says_bulk_change_and_neither_added_nor_removed() {
    let mut bed = bed().await;
    bed.add("c", "ann").await;
    bed.told().await;
    bed.leap(secs(20)).await;
    bed.rooms.prune_presences(Some(secs(10))).await.unwrap();
    let changed = bed.changes.next().await;
    assert!(changed.bulk_change() && changed.added().is_none() && changed.removed().is_none());
    bed.quiet().await;
}

// behaviour: 3 deletions
#[actix_web::test]
async fn a_deletion_of_a_user_or_room_without_presences_is_not_told() {
    let mut bed = bed().await;
    assert_eq!(bed.rooms.remove_user(&user("ann"), None).await.unwrap(), 0);
    assert_eq!(bed.rooms.remove_room(&room("lobby"), None).await.unwrap(), 0);
    bed.rooms.prune_rooms().await.unwrap();
    bed.quiet().await;
}

// behaviour: 3 keywords
#[actix_web::test]
async fn an_event_says_where_who_and_whether_it_is_one_of_many() {
    let mut bed = bed().await;
    bed.add("c", "ann").await;
    let added = bed.changes.next().await;
    assert_eq!((added.room.clone(), added.added().unwrap().channel.clone()), (room("lobby"), channel("c")));
    assert!(added.removed().is_none() && !added.bulk_change());
    bed.rooms.remove(&room("lobby"), &channel("c")).await.unwrap();
    let removed = bed.changes.next().await;
    assert_eq!(removed.removed().unwrap().id, added.added().unwrap().id);
    assert!(removed.added().is_none() && !removed.bulk_change());
}

// behaviour: 3 told-before-the-call-returns
#[actix_web::test]
async fn the_event_is_out_when_the_call_that_caused_it_returns() {
    // Differs on purpose (W14): there receivers have run by then; here it waits in each subscriber's queue.
    let mut bed = bed().await;
    bed.add("c", "ann").await;
    assert_eq!(bed.try_told().as_deref(), Some("+ann"));
    bed.add("c", "bob").await;
    assert_eq!(bed.try_told().as_deref(), Some("~bob"));
    bed.rooms.remove(&room("lobby"), &channel("c")).await.unwrap();
    assert_eq!(bed.try_told().as_deref(), Some("-bob"));
}

// behaviour: 3 silent-rounds
#[actix_web::test]
async fn rounds_that_remove_no_presence_are_not_told() {
    let mut bed = bed().await;
    bed.add("c", "ann").await;
    assert_eq!(bed.told().await, "+ann");
    bed.rooms.prune_presences(None).await.unwrap();
    bed.rooms.remove(&room("lobby"), &channel("c")).await.unwrap();
    assert_eq!(bed.told().await, "-ann");
    bed.rooms.prune_presences(Some(Duration::ZERO)).await.unwrap();
    bed.leap(secs(10)).await;
    assert_eq!(bed.rooms.prune_rooms().await.unwrap(), 1);
    bed.quiet().await;
}

// behaviour: 3 changed-elsewhere
#[actix_web::test]
async fn what_another_process_changed_is_no_event_here_and_is_seen_all_the_same() {
    let mut bed = bed().await;
    bed.add("c", "ann").await;
    assert_eq!(bed.told().await, "+ann");
    super::tasks::ghost(&bed, secs(600)).await;
    bed.leap(secs(10)).await;
    bed.quiet().await;
    assert_eq!(bed.here().await, 2);
}
