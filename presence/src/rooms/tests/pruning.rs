//! Those who fall silent: when they go, how it is told, and who stays.

use super::bench::{Client, advance, config, heard, leap, lobby, ms, node, node_with, pass, room, secs, settle};
use crate::{
    CloseCode, PruningSupervisor,
    actor::{PrunePresences, PruneRooms},
    config::OnStale,
    delivery::ToConnection,
    room::ToRoom,
};

/// The rooms that it was told it is not in any more, and the code with which it is closed.
fn pruned_from(client: &Client) -> Vec<(String, Option<CloseCode>)> {
    let pruned = |told| match told {
        ToConnection::Removed { room, close } => Some((room.as_str().to_owned(), close.map(|close| close.code))),
        _ => None,
    };
    client.told().into_iter().filter_map(pruned).collect()
}

// behaviour: 2.5 strictly-older; 2.9 max-age; W2 bulk-names
#[actix::test]
async fn a_presence_seen_exactly_max_age_ago_stays_and_a_moment_later_it_goes_once() {
    let node = node().await;
    let (ann, bob) = (node.member("ann").await, node.member("bob").await);
    pass(secs(1)).await;
    let (mut changes, seen) = (node.changes(), node.rooms.this_node().now());
    ann.touch();
    for _ in 0..60 {
        leap(secs(1)).await;
        bob.touch();
    }
    // Even if it is looked at just now.
    node.rooms.table().send_running(lobby(), ToRoom::Stale(ann.id(lobby())));
    settle().await;
    assert_eq!((node.rooms.this_node().now().since(seen), heard(&mut changes)), (secs(60), Vec::new()));
    assert_eq!(node.names(lobby()).await, ["ann", "bob"]);
    pass(ms(5)).await;
    assert_eq!(heard(&mut changes), ["-[ann]"]);
    bob.touch();
    pass(secs(50)).await;
    assert_eq!((heard(&mut changes), bob.screen().told), (Vec::new(), vec!["-ann".to_owned()]));
    assert_eq!((node.rows(lobby()).await, node.children()), (vec!["bob".to_owned()], 1));
}

#[actix::test]
async fn those_who_are_due_in_one_turn_are_one_event_and_one_frame() {
    let node = node().await;
    let crowd = node.crowd(50).await;
    let bob = node.member("bob").await;
    pass(secs(30)).await;
    bob.touch();
    let (mut changes, before) = (node.changes(), bob.count());
    pass(secs(31)).await;
    let heard = heard(&mut changes);
    assert_eq!((heard.len(), heard[0].split(' ').count()), (1, 50), "{heard:?}");
    assert_eq!((bob.count() - before, bob.sees()), (1, vec!["bob".to_owned()]));
    assert!(crowd.iter().all(|one| pruned_from(one).len() == 1));
}

#[actix::test]
async fn one_who_is_seen_at_the_last_moment_stays() {
    let node = node().await;
    let ann = node.member("ann").await;
    let mut changes = node.changes();
    for _ in 0..5 {
        advance(secs(60) + ms(1)).await;
        // The deadline has passed, and the room is told, but before it looks there is a sign of life.
        node.rooms.table().send_running(lobby(), ToRoom::Stale(ann.id(lobby())));
        ann.touch();
        settle().await;
    }
    assert_eq!((heard(&mut changes), node.names(lobby()).await), (Vec::new(), vec!["ann".to_owned()]));
}

#[actix::test]
async fn one_whose_frame_waits_for_its_consumer_is_not_stale_until_it_was_handled() {
    let node = node().await;
    let ann = node.member("ann").await;
    let mut changes = node.changes();
    pass(secs(50)).await;
    ann.touch.set_backlog(true);
    pass(secs(100)).await;
    assert_eq!((heard(&mut changes), node.prune_presences(None).await.unwrap()), (Vec::new(), 0));
    ann.touch.set_backlog(false);
    pass(secs(20)).await;
    assert_eq!(heard(&mut changes), ["-[ann]"], "and then soon, if what it sent was no touch");
}

#[actix::test]
async fn one_whose_frame_comes_while_its_room_is_told_of_the_deadline_is_not_stale() {
    // The child found it stale, and by the time the room looked, a frame had come in and waited for the consumer.
    let node = node().await;
    let ann = node.member("ann").await;
    let mut changes = node.changes();
    advance(secs(60) + ms(1)).await;
    node.rooms.table().send_running(lobby(), ToRoom::Stale(ann.id(lobby())));
    ann.touch.set_backlog(true);
    settle().await;
    assert_eq!(heard(&mut changes), Vec::<String>::new());
    ann.touch.set_backlog(false);
    pass(secs(20)).await;
    assert_eq!(heard(&mut changes), ["-[ann]"], "its deadline is not put off by a whole `max_age`");
}

#[actix::test]
async fn a_stale_socket_is_told_that_it_is_closed_and_left_out_of_the_group() {
    check_stale(OnStale::Close).await;
}

// behaviour: 2.3 touch-revives-nobody; 2.5 prune-and-the-socket; W1 no-zombies
#[actix::test]
async fn a_stale_socket_that_is_kept_is_told_so_and_left_out_of_the_group() {
    check_stale(OnStale::Keep).await;
}

async fn check_stale(on_stale: OnStale) {
    let node = node_with(config().on_stale(on_stale)).await;
    let (ann, bob) = (node.member("ann").await, node.member("bob").await);
    pass(secs(30)).await;
    bob.touch();
    pass(secs(31)).await;
    let _ = ann.frames();
    let close = (on_stale == OnStale::Close).then_some(CloseCode::STALE);
    assert_eq!(pruned_from(&ann), [("lobby".to_owned(), close)]);
    node.send(lobby(), r#""after""#).await.unwrap();
    bob.update(lobby(), r#"{"n":1}"#).await.unwrap();
    node.touch(&ann.channel);
    pass(secs(1)).await;
    assert_eq!((ann.frames().len(), bob.screen().messages.len()), (0, 1));
    assert_eq!(node.names(lobby()).await, ["bob"], "a touch brings nobody back");
}

// behaviour: W1 no-zombies
#[actix::test]
async fn one_who_was_pruned_and_kept_may_join_again() {
    let node = node_with(config().on_stale(OnStale::Keep)).await;
    let ann = node.member("ann").await;
    pass(secs(61)).await;
    ann.leave(lobby()).await.unwrap();
    ann.join(lobby()).await.unwrap();
    assert_eq!((ann.sees(), node.names(lobby()).await), (vec!["ann".to_owned()], vec!["ann".to_owned()]));
}

// behaviour: 2.5 strictly-older; 2.5 one-bulk-event-per-room; 2.5 prune-nothing; 2.5 room-form; 2.5 all-rooms
#[actix::test]
async fn pruning_by_call_counts_who_went_and_says_so_in_one_event_per_room() {
    let node = node().await;
    let (cid, _crowd) = (node.client("cid"), node.crowd(5).await);
    cid.join(&room("attic")).await.unwrap();
    node.client("dan").join(&room("cellar")).await.unwrap();
    leap(secs(10)).await;
    let late = node.member("late").await;
    let mut changes = node.changes();
    assert_eq!(node.prune_presences(Some(secs(10))).await.unwrap(), 0, "seen just so long ago, or less");
    leap(ms(1)).await;
    assert_eq!(node.room(&room("cellar")).prune_presences(Some(secs(10))).await.unwrap(), 1, "of that room alone");
    assert_eq!(heard(&mut changes), ["-[dan]"]);
    assert_eq!(node.prune_presences(Some(secs(10))).await.unwrap(), 6);
    let mut told = heard(&mut changes);
    told.sort();
    assert_eq!(told, ["-[cid]", "-[u0 u1 u2 u3 u4]"]);
    assert_eq!(node.names(lobby()).await, ["late"]);
    assert_eq!(node.prune_presences(Some(secs(10))).await.unwrap(), 0, "pruning again changes nothing");
    assert_eq!(heard(&mut changes), Vec::<String>::new());
    pass(ms(200)).await;
    assert_eq!(late.sees(), ["late"]);
}

#[actix::test]
async fn pruning_by_call_counts_the_last_member_of_a_room_too() {
    // The room stopped with its last member, before it had answered.
    let node = node().await;
    let _ann = node.member("ann").await;
    pass(secs(10)).await;
    assert_eq!(node.prune_presences(Some(secs(5))).await.unwrap(), 1);
}

// behaviour: 2.5 age-zero
#[actix::test]
async fn age_zero_prunes_everyone_who_was_seen_in_this_very_moment_too() {
    let node = node().await;
    let (ann, _bob) = (node.member("ann").await, node.member("bob").await);
    pass(ms(10)).await;
    ann.touch();
    assert_eq!(node.prune_presences(Some(secs(0))).await.unwrap(), 2);
    assert!(node.names(lobby()).await.is_empty());
}

// behaviour: 2.5 rooms-stay; 5 messages
#[actix::test]
async fn the_supervisor_prunes_when_it_is_asked_by_message() {
    let node = node().await;
    let supervisor = PruningSupervisor::spawn(&node.rooms);
    let ann = node.member("ann").await;
    pass(secs(2)).await;
    assert_eq!(supervisor.send(PrunePresences(Some(secs(1)))).await.unwrap().unwrap(), 1);
    assert_eq!(supervisor.send(PruneRooms).await.unwrap().unwrap(), 1, "its room stayed until now");
    assert_eq!(pruned_from(&ann).len(), 1);
    assert!(format!("{:?}", node.store.database()).contains("nodes: 1, rooms: 0"), "there is one supervisor");
}

#[actix::test]
async fn a_prune_while_the_store_is_away_is_announced_on_its_return_and_once() {
    let node = node().await;
    let (ann, bob) = (node.member("ann").await, node.member("bob").await);
    pass(secs(55)).await;
    bob.touch();
    node.store.faults.fail_next(usize::MAX);
    let mut changes = node.changes();
    pass(secs(20)).await;
    assert_eq!((pruned_from(&ann).len(), heard(&mut changes)), (1, Vec::new()));
    node.store.faults.fail_next(0);
    pass(secs(2)).await;
    assert_eq!((heard(&mut changes), bob.sees()), (vec!["-[ann]".to_owned()], vec!["bob".to_owned()]));
}
