//! Its weaknesses, which are not ours. Those of which the sections' tests speak are marked there by their rows.

use super::bed::{Heard, bed, bed_with, channel, leap, room, secs, user};
use presence::config::{Notify, OnStale};
use presence::name::RoomName;
use presence::testing::Received;
use presence::{CloseCode, Config, Meta};

// behaviour: W1 no-zombies
#[actix_web::test]
async fn who_is_pruned_and_kept_open_hears_of_it_and_nothing_of_the_room() {
    let mut bed = bed_with(|config| config.on_stale(OnStale::Keep)).await;
    let mut ann = bed.member("ann").await;
    leap(secs(61)).await;
    assert_eq!(bed.hears().await, Heard::Removed("lobby".into()));
    bed.rooms.send(&room("lobby"), "hello").await;
    assert!(ann.socket.receive_nothing().await);
    ann.socket.send_text("rejoin");
    super::bed::settle().await;
    assert_eq!(bed.here().await, 1);
}

// behaviour: W2 bulk-names
#[actix_web::test]
async fn a_bulk_event_names_who_left() {
    let mut bed = bed().await;
    bed.add("1", "ann").await;
    bed.told().await;
    leap(secs(61)).await;
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
    let before = bed.changes.next().await.unwrap().added().unwrap().id;
    bed.add("c", "ann").await;
    let presence::PresenceChange::Updated(after) = bed.changes.next().await.unwrap().change else { panic!("updated") };
    assert_eq!((after.id, after.user.clone()), (before, Some(user("ann"))));
}

// behaviour: W5 re-add-keeps-membership
#[actix_web::test]
async fn a_re_add_of_a_socket_keeps_it_in_its_group() {
    let bed = bed().await;
    let mut ann = bed.member("ann").await;
    bed.rooms.add(&room("lobby"), &ann.channel, Some(&user("ann"))).await.unwrap();
    bed.rooms.send(&room("lobby"), "once").await;
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
    leap(secs(5)).await;
    assert_eq!(bed.here().await, 0);
    // The database did it after all, so it is told, and so is that it was taken back.
    assert_eq!((bed.told().await, bed.told().await), ("+?".into(), "-?".into()));
    bed.quiet().await;
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
    super::bed::settle().await;
    let calls = bed.store.calls();
    for _ in 0..1000 {
        bed.rooms.touch(&channel("c"));
    }
    super::bed::settle().await;
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

// behaviour: W11 removed-though-failing
#[actix_web::test]
async fn the_presence_goes_though_the_handler_panics() {
    let mut bed = bed().await;
    let mut ann = bed.member("ann").await;
    ann.socket.send_text("panic");
    ann.socket.receive().await;
    assert_eq!((bed.told().await, bed.told().await), ("+ann".into(), "-ann".into()));
}

// behaviour: W14 isolated-subscribers
#[actix_web::test]
async fn a_subscriber_that_panics_keeps_nobody_from_hearing() {
    use actix::{Actor, Context, Handler};
    struct Bad;
    impl Actor for Bad {
        type Context = Context<Self>;
    }
    impl Handler<presence::PresenceChanged> for Bad {
        type Result = ();
        fn handle(&mut self, _: presence::PresenceChanged, _: &mut Self::Context) {
            panic!("told to panic");
        }
    }
    let mut bed = bed().await;
    let arbiter = actix::Arbiter::new();
    let bad = Bad::start_in_arbiter(&arbiter.handle(), |_| Bad);
    bed.rooms.subscribe(None, bad.recipient());
    bed.add("1", "ann").await;
    bed.add("2", "bob").await;
    assert_eq!((bed.told().await, bed.told().await), ("+ann".into(), "+bob".into()));
}

// behaviour: W15 after-the-commit
#[actix_web::test]
async fn nothing_is_told_before_it_is_committed() {
    let mut bed = bed().await;
    bed.store.hang();
    let rooms = bed.rooms.clone();
    let add = actix_web::rt::spawn(async move { rooms.add(&room("lobby"), &channel("c"), None).await.map(drop) });
    bed.quiet().await;
    bed.store.release();
    add.await.unwrap().unwrap();
    assert_eq!(bed.told().await, "+?");
}

// behaviour: W16 deletion-closes
#[actix_web::test]
async fn a_deleted_users_sockets_are_closed_if_asked() {
    let bed = bed().await;
    let mut ann = bed.member("ann").await;
    bed.rooms.remove_user(&user("ann"), Some(CloseCode(4001).into())).await.unwrap();
    assert_eq!(ann.socket.receive().await, Received::Close(Some(CloseCode(4001))));
}

// behaviour: W17 membership-lasts
#[actix_web::test]
async fn a_membership_lasts_as_long_as_the_socket() {
    let bed = bed().await;
    let mut ann = bed.member("ann").await;
    for _ in 0..130 {
        leap(secs(50)).await;
        ann.socket.send_text("\"heartbeat\"");
        super::bed::settle().await;
    }
    for n in 0..130 {
        bed.rooms.send(&room("lobby"), n.to_string()).await;
    }
    for n in 0..130 {
        assert_eq!(ann.socket.receive_text().await, n.to_string());
    }
}

// behaviour: W18 names
#[test]
fn a_name_is_any_text_of_255_bytes_and_an_error_names_the_rule() {
    for fine in ["a b", "a/b:c!", "Grüße 🦀", &"x".repeat(255)] {
        assert!(RoomName::new(fine).is_ok(), "{fine}");
    }
    assert!(RoomName::new("x".repeat(256)).unwrap_err().to_string().contains("255 bytes"));
    assert!(RoomName::new("a\n").unwrap_err().to_string().contains("control"));
}

// behaviour: W20 own-rows-on-start
#[actix_web::test]
async fn a_node_that_starts_again_under_its_name_drops_what_it_left() {
    let bed = bed().await;
    bed.add("c", "ann").await;
    let again = presence::Rooms::start(Config::builder().room_threads(0).build().unwrap(), bed.store.clone());
    presence::PruningSupervisor::spawn(&again, presence::name::NodeName::new("here").unwrap());
    again.ready().await;
    for _ in 0..8 {
        leap(secs(2)).await;
    }
    assert_eq!(again.count(&room("lobby")).await.unwrap().presences, 0);
}

// behaviour: W21 settings-checked-at-start
#[test]
fn a_setting_of_the_wrong_kind_is_refused_at_start() {
    let error = serde_json::from_str::<Config>(r#"{"max_age": 60}"#).unwrap_err().to_string();
    assert!(error.contains("max_age"), "{error}");
    assert!(Config::builder().max_age(secs(0)).build().is_err());
}

// behaviour: W24 metadata
#[actix_web::test]
async fn each_presence_has_a_meta_and_a_users_tabs_are_one_member() {
    let bed = bed().await;
    bed.add("1", "ann").await;
    bed.add("2", "ann").await;
    let members = bed.rooms.members(&room("lobby")).await.unwrap();
    let [presence::Member::User(_, tabs)] = &members[..] else { panic!("{members:?}") };
    assert_eq!((tabs.len(), &tabs[0].meta), (2, &Meta::default()));
}
