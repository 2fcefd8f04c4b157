//! Pruning.

use super::bed::{bed, bed_with, channel, room, secs};
use presence::{CloseCode, Config, Notify, OnStale, testing::Received};
use std::time::Duration;

// behaviour: 2.5 strictly-older
#[actix_web::test]
async fn only_who_is_strictly_older_is_pruned() {
    let bed = bed().await;
    bed.add("c", "ann").await;
    bed.leap(secs(10)).await;
    assert_eq!(bed.rooms.prune_presences(Some(secs(10))).await.unwrap(), 0);
    bed.leap(Duration::from_millis(1)).await;
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
    bed.leap(secs(20)).await;
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
    bed.leap(secs(20)).await;
    assert_eq!(bed.rooms.room(&room("other")).prune_presences(Some(secs(10))).await.unwrap(), 1);
    assert_eq!(bed.here().await, 1);
}

// behaviour: 2.5 prune-and-the-socket
#[actix_web::test]
async fn who_is_pruned_leaves_the_group_and_is_closed() {
    // Differs on purpose (W1): there it goes on getting the room's messages, invisible.
    let bed = bed().await;
    let mut ann = bed.member("ann").await;
    bed.leap(secs(20)).await;
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
    bed.leap(secs(10)).await;
    assert_eq!(bed.rooms.prune_rooms().await.unwrap(), 1);
    bed.quiet().await;
    assert_eq!(bed.rows().await, ["lobby"]);
}

// behaviour: 2.9 max-age
#[actix_web::test]
async fn max_age_is_60_s_and_used_when_no_age_is_given() {
    assert_eq!(Config::default().max_age(), secs(60));
    let bed = bed_with(|config| config.max_age(secs(30))).await;
    bed.add("c", "ann").await;
    bed.leap(secs(30)).await;
    assert_eq!(bed.here().await, 1);
    bed.leap(secs(1)).await;
    assert_eq!(bed.here().await, 0);
}

// behaviour: 2.5 age-zero
#[actix_web::test]
async fn an_age_of_zero_prunes_everybody_and_there_is_none_below() {
    // Differs on purpose (W21): there a negative age does the same; here an age is a `Duration`, which has no sign.
    let mut bed = bed().await;
    bed.add("1", "ann").await;
    bed.add("2", "").await;
    bed.rooms.add(&room("other"), &channel("1"), None).await.unwrap();
    assert_eq!(bed.rooms.prune_presences(Some(Duration::ZERO)).await.unwrap(), 3);
    for joined in ["+ann", "+?", "+? in other"] {
        assert_eq!(bed.told().await, joined);
    }
    let mut pruned = [bed.told().await, bed.told().await];
    pruned.sort();
    assert_eq!(pruned, ["bulk ? in other", "bulk ?,ann"]);
    bed.quiet().await;
}

// behaviour: 2.5 all-rooms
#[actix_web::test]
async fn the_form_without_a_room_prunes_all_rooms_with_one_age() {
    // Differs on purpose (W19): there the first argument is a layer that is not used, and the keyword is not the documented one.
    let bed = bed().await;
    for name in ["a", "b", "c"] {
        bed.rooms.add(&room(name), &channel(name), None).await.unwrap();
    }
    bed.leap(secs(11)).await;
    assert_eq!(bed.rooms.prune_presences(Some(secs(10))).await.unwrap(), 3);
}

// behaviour: 2.5 rooms-stay
#[actix_web::test]
async fn pruning_presences_deletes_no_room() {
    let bed = bed().await;
    bed.add("c", "ann").await;
    bed.leap(secs(11)).await;
    assert_eq!(bed.rooms.prune_presences(Some(secs(10))).await.unwrap(), 1);
    assert_eq!(bed.rows().await, ["lobby"]);
}

// behaviour: 2.5 no-membership-stays
#[actix_web::test]
async fn a_pruned_socket_that_goes_leaves_nothing_behind() {
    // Differs on purpose (W1): there its membership of the group outlives it.
    let mut bed = bed_with(|config| config.on_stale(OnStale::Keep)).await;
    let ann = bed.member("ann").await;
    bed.leap(secs(61)).await;
    assert_eq!([bed.told().await, bed.told().await], ["+ann", "bulk ann"]);
    ann.socket.disconnect(CloseCode::NORMAL).await;
    bed.settle().await;
    assert_eq!((bed.rooms.sockets(), bed.here().await), (0, 0));
    // A room with a member is not stopped for want of one.
    bed.leap(secs(60)).await;
    assert_eq!(bed.rooms.running(), 0);
    bed.quiet().await;
}

// behaviour: 2.6 race-with-add
#[actix_web::test]
async fn a_room_that_is_being_joined_is_not_pruned() {
    // Differs on purpose (W7): there the room vanishes, and the add fails.
    let mut bed = bed().await;
    for n in 0..20 {
        let name = channel(&n.to_string());
        let lobby = room("lobby");
        let (added, pruned) = tokio::join!(bed.rooms.add(&lobby, &name, None), bed.rooms.prune_rooms());
        assert_eq!((added.map(drop).is_ok(), pruned.is_ok()), (true, true));
        assert_eq!((bed.told().await, bed.here().await), ("+?".into(), 1));
        assert_eq!(bed.rooms.prune_rooms().await.unwrap(), 0);
        bed.rooms.remove(&lobby, &name).await.unwrap();
        assert_eq!(bed.told().await, "-?");
    }
}

// behaviour: 2.6 join-after-pruning
#[actix_web::test]
async fn a_room_that_is_joined_right_after_it_was_pruned_is_a_new_one() {
    let mut bed = bed_with(|config| config.notify(Notify::Diff)).await;
    let mut ann = bed.member("ann").await;
    let before: serde_json::Value = ann.socket.receive_json().await;
    ann.socket.disconnect(CloseCode::NORMAL).await;
    bed.leap(secs(10)).await;
    assert_eq!(bed.rooms.prune_rooms().await.unwrap(), 1);
    assert!(bed.rows().await.is_empty());
    let mut bob = bed.member("bob").await;
    let after: serde_json::Value = bob.socket.receive_json().await;
    assert_ne!(before["epoch"], after["epoch"], "a version means nothing without its epoch");
    assert_eq!([bed.told().await, bed.told().await, bed.told().await], ["+ann", "-ann", "+bob"]);
    assert_eq!(bed.rows().await, ["lobby"]);
}
