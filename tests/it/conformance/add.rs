//! Adding.

use super::bed::{bed, channel, room, secs, user};
use presence::{
    Error, Frame, GroupName, UserId,
    testing::{Received, TestChannel},
};

// behaviour: 2.1 add-returns-room
#[actix_web::test]
async fn add_returns_the_room() {
    let bed = bed().await;
    let lobby = bed.rooms.add(&room("lobby"), &channel("c"), None).await.unwrap();
    assert_eq!((lobby.name().as_str(), lobby.anonymous_count().await.unwrap()), ("lobby", 1));
}

// behaviour: 2.1 order-of-effects
#[actix_web::test]
async fn who_is_announced_is_in_the_group_already() {
    let mut bed = bed().await;
    let mut ann = bed.member("ann").await;
    assert_eq!(bed.told().await, "+ann");
    bed.rooms.send(&room("lobby"), "hello").await.unwrap();
    assert_eq!(ann.socket.receive_text().await, "hello");
}

// behaviour: 2.1 anonymous-user
#[actix_web::test]
async fn no_user_is_an_anonymous_presence() {
    let mut bed = bed().await;
    bed.add("c", "").await;
    assert_eq!(bed.told().await, "+?");
    assert_eq!(bed.rooms.anonymous_count(&room("lobby")).await.unwrap(), 1);
}

// behaviour: 2.1 idempotent-re-add
#[actix_web::test]
async fn an_idempotent_re_add_emits_nothing() {
    let mut bed = bed().await;
    bed.add("c", "ann").await;
    assert_eq!(bed.told().await, "+ann");
    bed.add("c", "ann").await;
    bed.quiet().await;
    assert_eq!(bed.here().await, 1);
}

// behaviour: 2.1 re-add-and-last-seen
#[actix_web::test]
async fn a_re_add_refreshes_last_seen() {
    // Differs on purpose (W5): there `last_seen` stays as it was.
    let bed = bed().await;
    bed.add("c", "ann").await;
    bed.leap(secs(40)).await;
    bed.add("c", "ann").await;
    bed.leap(secs(40)).await;
    assert_eq!(bed.here().await, 1);
}

// behaviour: 2.1 re-add-as-another-user
#[actix_web::test]
async fn a_re_add_as_another_user_rebinds_with_one_event() {
    // Differs on purpose (W4): there it is an IntegrityError.
    let mut bed = bed().await;
    for (who, event) in [("", "+?"), ("ann", "~ann"), ("bob", "~bob"), ("", "~?")] {
        bed.add("c", who).await;
        assert_eq!(bed.told().await, event);
    }
    bed.quiet().await;
    assert_eq!(bed.here().await, 1);
}

// behaviour: 2.1 failed-add-leaves-nothing
#[actix_web::test]
async fn an_add_that_fails_leaves_no_ghost_and_no_event() {
    // Differs on purpose (W6): there the row stays, unsignalled and in no group.
    let mut bed = bed().await;
    bed.store.fail_next(usize::MAX);
    let failed = bed.rooms.add(&room("lobby"), &channel("c"), Some(&user("ann"))).await;
    assert!(matches!(failed, Err(Error::StoreUnavailable(_))), "{failed:?}");
    bed.store.fail_next(0);
    bed.leap(secs(5)).await;
    bed.quiet().await;
    assert_eq!(bed.here().await, 0);
    bed.add("c", "ann").await;
    assert_eq!(bed.told().await, "+ann");
}

// behaviour: 1 one-presence-per-socket
#[actix_web::test]
async fn a_user_with_three_tabs_has_three_presences_and_a_socket_may_be_in_many_rooms() {
    let bed = bed().await;
    for tab in ["1", "2", "3"] {
        bed.add(tab, "ann").await;
    }
    bed.rooms.add(&room("other"), &channel("1"), Some(&user("ann"))).await.unwrap();
    assert_eq!((bed.here().await, bed.rooms.rooms_of(&user("ann")).await.unwrap().len()), (3, 2));
}

// behaviour: 1 case-sensitive-names
#[actix_web::test]
async fn names_are_case_sensitive() {
    let bed = bed().await;
    bed.add("c", "ann").await;
    assert_eq!(bed.rooms.count(&room("Lobby")).await.unwrap().presences, 0);
}

// behaviour: 3 joiner-sees-own-join
#[actix_web::test]
async fn the_joiner_sees_its_own_join() {
    let bed = super::bed::bed_with(|config| config.notify(presence::Notify::List)).await;
    let mut ann = bed.member("ann").await;
    let Received::Frame(Frame::Text(text)) = ann.socket.receive().await else { panic!("a list") };
    let list: serde_json::Value = serde_json::from_str(&text).unwrap();
    let payload = serde_json::json!({"channel_name": "lobby", "members": ["ann"], "lurkers": 0});
    assert_eq!(list, serde_json::json!({"type": "presence", "payload": payload}));
}

// behaviour: 2.1 no-half-made-user
#[actix_web::test]
async fn what_is_no_user_is_refused_before_anything_is_made() {
    // Differs on purpose (W6): there an unsuitable user raises when the room is made already, and leaves it behind empty.
    let bed = bed().await;
    assert_eq!(UserId::new("").unwrap_err().to_string(), "a user id must not be empty");
    assert!(bed.rows().await.is_empty());
}

// behaviour: 2.1 add-to-deleted-room
#[actix_web::test]
async fn a_handle_of_a_room_that_was_deleted_adds_to_a_new_one() {
    // Differs on purpose (W7): there it is a foreign-key error.
    let mut bed = bed().await;
    let lobby = bed.rooms.room(&room("lobby"));
    lobby.add(&channel("1"), None).await.unwrap();
    lobby.remove(&channel("1")).await.unwrap();
    bed.leap(secs(10)).await;
    assert_eq!(bed.rooms.prune_rooms().await.unwrap(), 1);
    lobby.add(&channel("2"), None).await.unwrap();
    assert_eq!([bed.told().await, bed.told().await, bed.told().await], ["+?", "-?", "+?"]);
    assert_eq!(bed.rows().await, ["lobby"]);
}

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
