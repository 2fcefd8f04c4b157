//! Removing.

use super::bed::{Heard, bed, channel, room, user};
use presence::testing::Received;
use presence::{Close, CloseCode};

// behaviour: 2.2 unknown-removals
#[actix_web::test]
async fn unknown_removals_are_silent() {
    let mut bed = bed().await;
    bed.rooms.remove(&room("nowhere"), &channel("c")).await.unwrap();
    bed.add("c", "ann").await;
    assert_eq!(bed.told().await, "+ann");
    bed.rooms.remove(&room("nowhere"), &channel("c")).await.unwrap();
    bed.rooms.remove(&room("lobby"), &channel("d")).await.unwrap();
    bed.quiet().await;
    assert_eq!(bed.here().await, 1);
}

// behaviour: 2.2 remove-signals-once
#[actix_web::test]
async fn a_second_removal_is_silent() {
    let mut bed = bed().await;
    bed.add("c", "ann").await;
    for _ in 0..2 {
        bed.rooms.remove(&room("lobby"), &channel("c")).await.unwrap();
    }
    assert_eq!((bed.told().await, bed.told().await), ("+ann".into(), "-ann".into()));
    bed.quiet().await;
}

// behaviour: 2.2 removed-object
#[actix_web::test]
async fn the_removed_presence_keeps_its_id_channel_and_user() {
    // Differs on purpose (W7): there the id is gone already.
    let mut bed = bed().await;
    bed.add("c", "ann").await;
    let id = bed.changes.next().await.added().unwrap().id;
    bed.rooms.remove(&room("lobby"), &channel("c")).await.unwrap();
    let gone = bed.changes.next().await;
    let gone = gone.removed().unwrap();
    assert_eq!((gone.id, gone.channel.as_str(), gone.user.clone()), (id, "c", Some(user("ann"))));
}

// behaviour: 2.2 empty-room-stays
#[actix_web::test]
async fn the_empty_room_stays_until_rooms_are_pruned() {
    let bed = bed().await;
    bed.add("c", "ann").await;
    bed.rooms.remove(&room("lobby"), &channel("c")).await.unwrap();
    assert_eq!(bed.rows().await, ["lobby"]);
}

// behaviour: 3 leaver-hears-no-leave
#[actix_web::test]
async fn the_leaver_does_not_get_its_own_leave() {
    let bed = super::bed::bed_with(|config| config.notify(presence::Notify::List)).await;
    let mut ann = bed.member("ann").await;
    ann.socket.receive().await;
    bed.rooms.remove(&room("lobby"), &ann.channel).await.unwrap();
    assert!(ann.socket.receive_nothing().await);
}

#[actix_web::test]
async fn the_consumer_of_a_socket_that_is_removed_by_its_channel_learns_of_it_and_of_its_own_leave_it_does_not() {
    // Its socket believed itself in the room for ever. Differs on purpose: there nobody but the others is told.
    let mut bed = bed().await;
    let (one, two) = (bed.member("ann").await, bed.member("bob").await);
    bed.rooms.remove(&room("lobby"), &one.channel).await.unwrap();
    assert_eq!(bed.hears().await, Heard::Removed("lobby".into()));
    bed.rooms.leave_all(&two.channel).await.unwrap();
    assert_eq!(bed.hears().await, Heard::Removed("lobby".into()));
    let cid = bed.member("cid").await;
    cid.socket.disconnect(CloseCode::NORMAL).await;
    assert_eq!(bed.hears().await, Heard::Disconnected(1000, false));
    bed.settle().await;
    assert!(bed.heard.try_recv().is_err());
}

#[actix_web::test]
async fn one_presence_of_a_user_is_removed_by_its_id_and_its_socket_is_closed() {
    let mut bed = bed().await;
    let mut ann = bed.member("ann").await;
    let id = bed.changes.next().await.added().unwrap().id;
    bed.add("job", "ann").await;
    assert_eq!(bed.told().await, "+ann");
    let ban = Some(Close::new(CloseCode(4003), "enough"));
    assert!(bed.rooms.remove_presence(&room("lobby"), id, ban.clone()).await.unwrap());
    assert_eq!(ann.socket.receive().await, Received::Close(Some(CloseCode(4003))));
    assert_eq!(bed.told().await, "-ann");
    assert!(!bed.rooms.room(&room("lobby")).remove_presence(id, ban).await.unwrap(), "it is gone");
    bed.quiet().await;
    assert_eq!(bed.here().await, 1, "the user's other presence stays");
}

// behaviour: 2.2 concurrent-removal
#[actix_web::test]
async fn of_eight_racing_removals_one_is_told() {
    // Differs on purpose (W7): there each of the eight may signal.
    let mut bed = bed().await;
    bed.add("c", "ann").await;
    let (lobby, c) = (room("lobby"), channel("c"));
    let removals = (0..8).map(|_| bed.rooms.remove(&lobby, &c));
    for removed in futures_util::future::join_all(removals).await {
        removed.unwrap();
    }
    assert_eq!((bed.told().await, bed.told().await), ("+ann".into(), "-ann".into()));
    bed.quiet().await;
}

// behaviour: 2.8 user-deleted
#[actix_web::test]
async fn deleting_a_user_is_told_once_for_each_room() {
    // Differs on purpose (W16): there nobody hears of it.
    let mut bed = bed().await;
    bed.add("1", "ann").await;
    bed.add("2", "ann").await;
    bed.add("3", "bob").await;
    bed.rooms.add(&room("attic"), &channel("1"), Some(&user("ann"))).await.unwrap();
    for joined in ["+ann", "+ann", "+bob", "+ann in attic"] {
        assert_eq!(bed.told().await, joined);
    }
    assert_eq!(bed.rooms.remove_user(&user("ann"), None).await.unwrap(), 3);
    let mut told = [bed.told().await, bed.told().await];
    told.sort();
    assert_eq!(told, ["bulk ann in attic", "bulk ann,ann"]);
    bed.quiet().await;
    assert_eq!(bed.here().await, 1);
}

// behaviour: 2.8 room-deleted
#[actix_web::test]
async fn deleting_a_room_is_told_once() {
    // Differs on purpose (W16): there nobody hears of it.
    let mut bed = bed().await;
    bed.add("1", "ann").await;
    bed.told().await;
    assert_eq!(bed.rooms.remove_room(&room("lobby"), None).await.unwrap(), 1);
    assert_eq!(bed.told().await, "bulk ann");
    bed.quiet().await;
}

// behaviour: 2.2 stale-object
#[actix_web::test]
async fn a_removal_is_of_this_room_and_this_channel_whatever_the_caller_believes() {
    // Differs on purpose (W7): there a stale or foreign object is removed from another room than the signal names.
    let mut bed = bed().await;
    bed.add("c", "ann").await;
    bed.rooms.add(&room("other"), &channel("c"), Some(&user("ann"))).await.unwrap();
    assert_eq!([bed.told().await, bed.told().await], ["+ann", "+ann in other"]);
    let other = bed.rooms.room(&room("other"));
    for _ in 0..2 {
        other.remove(&channel("c")).await.unwrap();
    }
    assert_eq!(bed.told().await, "-ann in other");
    bed.quiet().await;
    assert_eq!(bed.here().await, 1);
}

// behaviour: 2.2 no-room-made
#[actix_web::test]
async fn a_removal_makes_no_room() {
    let bed = bed().await;
    bed.rooms.remove(&room("nowhere"), &channel("c")).await.unwrap();
    bed.rooms.leave_all(&channel("c")).await.unwrap();
    assert!(bed.rows().await.is_empty());
}
