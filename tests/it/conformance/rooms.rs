//! Rooms and their members, over what the ancestor leaves open or does wrong.

use super::bed::{bed, bed_with, channel, ghost, room, secs, user};
use presence::{CloseCode, Config, GroupName, OnStale, store::RoomStore, testing::TestChannel};

// behaviour: 1 room-is-its-group
#[actix_web::test]
async fn what_is_sent_to_the_name_of_a_room_reaches_its_sockets_and_no_group_of_that_name() {
    // Differs on purpose (W18): there a room and a group of one name are the same.
    let bed = bed().await;
    let mut ann = bed.member("ann").await;
    let mut other = TestChannel::open(&bed.rooms).await;
    other.join_group(&GroupName::new("lobby").unwrap()).unwrap();
    bed.rooms.send(&room("lobby"), "hello").await.unwrap();
    assert_eq!(ann.socket.receive_text().await, "hello");
    assert!(other.receive_nothing().await);
}

// behaviour: W5 re-add-keeps-membership
#[actix_web::test]
async fn a_re_add_of_a_socket_keeps_it_in_its_group() {
    let bed = bed().await;
    let mut ann = bed.member("ann").await;
    bed.rooms.add(&room("lobby"), &ann.channel, Some(&user("ann"))).await.unwrap();
    bed.rooms.send(&room("lobby"), "once").await.unwrap();
    assert_eq!(ann.socket.receive_text().await, "once");
    assert!(ann.socket.receive_nothing().await);
}

// behaviour: 2.5 no-membership-stays
#[actix_web::test]
async fn a_pruned_socket_that_goes_leaves_nothing_behind() {
    // Differs on purpose (W1): there its membership of the group outlives it.
    let mut bed = bed_with(|config| config.on_stale(OnStale::Keep)).await;
    let ann = bed.member("ann").await;
    bed.leap(secs(61)).await;
    assert_eq!([bed.change().await, bed.change().await], ["+ann", "bulk ann"]);
    ann.socket.disconnect(CloseCode::NORMAL).await;
    bed.settle().await;
    assert_eq!((bed.rooms.sockets(), bed.here().await), (0, 0));
    // A room with a member is not stopped for want of one.
    bed.leap(secs(60)).await;
    assert_eq!(bed.rooms.running(), 0);
    bed.quiet().await;
}

// behaviour: W9 pruning-costs-the-stale
#[actix_web::test]
async fn a_room_without_anybody_stale_costs_a_prune_no_call() {
    let bed = bed().await;
    bed.add("c", "ann").await;
    bed.rooms.prune_presences(None).await.unwrap();
    let before = bed.store.calls();
    bed.rooms.prune_presences(None).await.unwrap();
    let one = bed.store.calls() - before;
    for n in 0..50 {
        bed.rooms.add(&room(&n.to_string()), &channel("c"), None).await.unwrap();
    }
    let before = bed.store.calls();
    bed.rooms.prune_presences(None).await.unwrap();
    assert_eq!(bed.store.calls() - before, one);
}

// behaviour: W17 membership-lasts; 7 expiry
#[actix_web::test]
async fn a_membership_lasts_as_long_as_the_socket() {
    // There a membership ends after 24 hours, a message and with it its channel after 60 s, and the 101st message is lost.
    let bed = bed_with(|config| config.max_age(secs(48 * 3600)).lease(secs(24 * 3600))).await;
    let mut ann = bed.member("ann").await;
    tokio::time::advance(secs(25 * 3600)).await;
    bed.settle().await;
    for n in 0..130 {
        bed.rooms.send(&room("lobby"), n.to_string()).await.unwrap();
    }
    for n in 0..130 {
        assert_eq!(ann.socket.receive_text().await, n.to_string());
    }
}

// behaviour: 5 tasks
#[actix_web::test]
async fn both_rounds_run_by_themselves_at_the_suggested_periods() {
    // Differs on purpose (W19): there a scheduler must be told, and the documented entry names no task.
    let config = Config::default();
    assert_eq!((config.prune_interval(), config.prune_rooms_interval()), (secs(60), secs(600)));

    let bed = bed_with(|config| config.max_age(secs(20)).sweep_interval(secs(86_400))).await;
    ghost(&bed, secs(1)).await;
    let left = async || bed.store.load(room("lobby")).await.unwrap().map(|lobby| lobby.presences.len());
    bed.leap(secs(59)).await;
    assert_eq!(left().await, Some(1));
    bed.leap(secs(2)).await;
    assert_eq!(left().await, Some(0));
    bed.leap(secs(538)).await;
    assert_eq!(left().await, Some(0));
    bed.leap(secs(2)).await;
    assert_eq!(left().await, None);
}
