//! Who is in a room, and who is told of it.

use crate::conformance::bed::{Heard, bed, bed_with, channel, room, secs, user};
use presence::{CloseCode, Config, Error, Meta, Notify, OnStale, testing::Received};

// behaviour: W1 no-zombies
#[actix_web::test]
async fn who_is_pruned_and_kept_open_hears_of_it_and_nothing_of_the_room() {
    let mut bed = bed_with(|config| config.on_stale(OnStale::Keep)).await;
    let mut ann = bed.member("ann").await;
    bed.leap(secs(61)).await;
    assert_eq!(bed.hears().await, Heard::Removed("lobby".into()));
    bed.rooms.send(&room("lobby"), "hello").await.unwrap();
    assert!(ann.socket.receive_nothing().await);
    ann.socket.send_text("rejoin");
    bed.settle().await;
    assert_eq!(bed.here().await, 1);
}

// behaviour: W2 bulk-names
#[actix_web::test]
async fn a_bulk_event_names_who_left() {
    let mut bed = bed().await;
    bed.add("1", "ann").await;
    bed.told().await;
    bed.leap(secs(61)).await;
    assert_eq!(bed.told().await, "bulk ann");
}

// behaviour: W3 deltas
#[actix_web::test]
async fn who_is_there_is_told_what_changed_and_not_everything() {
    let bed = bed_with(|config| config.notify(Notify::Diff)).await;
    let mut ann = bed.member("ann").await;
    let state: serde_json::Value = ann.socket.receive_json().await;
    let _bob = bed.member("bob").await;
    let diff: serde_json::Value = ann.socket.receive_json().await;
    assert_eq!((&state["type"], &diff["type"]), (&"presence.state".into(), &"presence.diff".into()));
    assert_eq!((&diff["from"], diff["joins"].as_array().unwrap().len()), (&state["version"], 1));
}

// behaviour: W4 rebind
#[actix_web::test]
async fn a_presence_that_changes_its_user_is_the_same_presence() {
    let mut bed = bed().await;
    bed.add("c", "").await;
    let before = bed.changes.next().await.added().unwrap().id;
    bed.add("c", "ann").await;
    let presence::PresenceChange::Updated(after) = bed.changes.next().await.change else { panic!("updated") };
    assert_eq!((after.id, after.user.clone()), (before, Some(user("ann"))));
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

// behaviour: W6 no-ghosts
#[actix_web::test]
async fn a_join_whose_database_hangs_is_taken_back() {
    let mut bed = bed().await;
    bed.store.hang();
    assert!(bed.rooms.add(&room("lobby"), &channel("c"), None).await.is_err());
    bed.store.release();
    bed.leap(secs(5)).await;
    assert_eq!(bed.here().await, 0);
    // Nobody waited for it any more, so the database was not told to commit it, and there is nothing to tell.
    bed.quiet().await;
}

// behaviour: W6 no-ghosts
#[actix_web::test]
async fn a_socket_that_is_gone_cannot_be_added_by_its_name() {
    // There it is added all the same, and stays until it is pruned.
    let mut bed = bed().await;
    let ann = bed.member("ann").await;
    ann.socket.lose();
    assert_eq!((bed.told().await, bed.told().await), ("+ann".into(), "-ann".into()));
    let added = bed.rooms.add(&room("lobby"), &ann.channel, Some(&user("ann"))).await;
    assert!(matches!(added, Err(Error::SocketClosed)), "{added:?}");
    bed.quiet().await;
    assert_eq!(bed.here().await, 0);
}

// behaviour: W7 exactly-once
#[actix_web::test]
async fn eight_racing_adds_are_told_once_and_survive_the_pruning_of_rooms() {
    let mut bed = bed().await;
    let (lobby, c) = (room("lobby"), channel("c"));
    let adds = futures_util::future::join_all((0..8).map(|_| bed.rooms.add(&lobby, &c, None)));
    let (added, pruned) = tokio::join!(adds, bed.rooms.prune_rooms());
    pruned.unwrap();
    assert!(added.iter().all(Result::is_ok));
    assert_eq!(bed.told().await, "+?");
    bed.quiet().await;
}

// behaviour: W8 cheap-touch
#[actix_web::test]
async fn a_thousand_touches_ask_nothing_of_the_database() {
    let bed = bed().await;
    bed.add("c", "ann").await;
    bed.settle().await;
    let calls = bed.store.calls();
    for _ in 0..1000 {
        bed.rooms.touch(&channel("c"));
    }
    bed.settle().await;
    assert_eq!(bed.store.calls(), calls);
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

// behaviour: W16 deletion-closes
#[actix_web::test]
async fn a_deleted_users_sockets_are_closed_if_asked() {
    let bed = bed().await;
    let mut ann = bed.member("ann").await;
    bed.rooms.remove_user(&user("ann"), Some(presence::Close::new(CloseCode(4001), "removed"))).await.unwrap();
    assert_eq!(ann.socket.receive().await, Received::Close(Some(CloseCode(4001))));
}

// behaviour: W20 own-rows-on-start
#[actix_web::test]
async fn a_node_that_starts_again_under_its_name_drops_what_it_left() {
    let bed = bed().await;
    bed.add("c", "ann").await;
    let config = Config::builder().room_threads(0).build().unwrap();
    let name = presence::NodeName::new("here").unwrap();
    let again = presence::Rooms::start_as_another_process(config, bed.store.clone(), name);
    presence::PruningSupervisor::spawn(&again);
    again.ready().await;
    for _ in 0..8 {
        bed.leap(secs(2)).await;
    }
    assert_eq!(again.count(&room("lobby")).await.unwrap().presences, 0);
}

// behaviour: W24 metadata
#[actix_web::test]
async fn each_presence_has_a_meta_and_a_users_tabs_are_one_member() {
    let bed = bed().await;
    bed.add("1", "ann").await;
    bed.add("2", "ann").await;
    let members = bed.rooms.members(&room("lobby")).await.unwrap();
    let [member] = &members[..] else { panic!("{members:?}") };
    let tabs = member.presences();
    assert_eq!((tabs.len(), &tabs[0].meta), (2, &Meta::default()));
}

// behaviour: W24 first-and-last
#[actix_web::test]
async fn a_users_first_socket_and_the_last_one_are_told_apart_from_the_others() {
    let mut bed = bed().await;
    bed.add("1", "ann").await;
    bed.add("2", "ann").await;
    assert_eq!(bed.changes.next().await.user_online(), [user("ann")]);
    assert_eq!(bed.changes.next().await.user_online(), []);
    bed.rooms.remove(&room("lobby"), &channel("1")).await.unwrap();
    bed.rooms.remove(&room("lobby"), &channel("2")).await.unwrap();
    assert_eq!(bed.changes.next().await.user_offline(), []);
    assert_eq!(bed.changes.next().await.user_offline(), [user("ann")]);
}
