//! Silent presences: when they leave, how this is sent, and which presences stay.

use super::prelude::*;
use crate::actor::{PrunePresences, PruneRooms};

/// The rooms of which the connection was notified that its presence was removed, with the code of its Close.
fn pruned_from(client: &FakeClient) -> Vec<(String, Option<CloseCode>)> {
    let pruned = |message| match message {
        ToConnection::Removed { room, close } => Some((room.as_str().to_owned(), close.map(|close| close.code))),
        _ => None,
    };
    client.connection_messages().into_iter().filter_map(pruned).collect()
}

// behaviour: 2.5 strictly-older; 2.9 max-age; W2 bulk-names
#[actix::test]
async fn a_presence_seen_exactly_max_age_ago_stays_and_a_moment_later_it_leaves_once() {
    let node = node().await;
    let [ann, bob] = node.members_named(["ann", "bob"]).await;
    pass(secs(1)).await;
    let (mut changes, seen) = (node.changes(), node.rooms.this_node().now());
    ann.touch();
    for _ in 0..60 {
        leap(secs(1)).await;
        bob.touch();
    }
    // Also if the room checks it at this moment.
    node.rooms.table().send_running(lobby(), ToRoom::Stale(ann.id(lobby())));
    settle().await;
    assert_eq!((node.rooms.this_node().now().since(seen), published(&mut changes)), (secs(60), Vec::new()));
    assert_eq!(node.names(lobby()).await, ["ann", "bob"]);
    pass(ms(5)).await;
    assert_eq!(published(&mut changes), ["-[ann]"]);
    bob.touch();
    pass(secs(50)).await;
    assert_eq!((published(&mut changes), bob.view().changes), (Vec::new(), vec!["-ann".to_owned()]));
    assert_eq!((node.rows(lobby()).await, node.children()), (vec!["bob".to_owned()], 1));
}

#[actix::test]
async fn presences_that_become_stale_together_are_one_event_and_one_frame() {
    let node = node().await;
    let crowd = node.crowd(50).await;
    let bob = node.member("bob").await;
    pass(secs(30)).await;
    bob.touch();
    let (mut changes, before) = (node.changes(), bob.count());
    pass(secs(31)).await;
    let published = published(&mut changes);
    assert_eq!((published.len(), published[0].split(' ').count()), (1, 50), "{published:?}");
    assert_eq!((bob.count() - before, bob.sees()), (1, vec!["bob".to_owned()]));
    assert!(crowd.iter().all(|one| pruned_from(one).len() == 1));
}

#[actix::test]
async fn a_touch_after_the_deadline_and_before_the_check_keeps_the_presence() {
    let node = node().await;
    let ann = node.member("ann").await;
    let mut changes = node.changes();
    for _ in 0..5 {
        advance(secs(60) + ms(1)).await;
        // The deadline has passed and the room is notified, but a touch comes before it checks.
        node.rooms.table().send_running(lobby(), ToRoom::Stale(ann.id(lobby())));
        ann.touch();
        settle().await;
    }
    assert_eq!((published(&mut changes), node.names(lobby()).await), (Vec::new(), vec!["ann".to_owned()]));
}

#[actix::test]
async fn a_presence_is_not_stale_while_a_frame_waits_for_its_consumer() {
    let node = node().await;
    let ann = node.member("ann").await;
    let mut changes = node.changes();
    pass(secs(50)).await;
    ann.touch.set_backlog(true);
    pass(secs(100)).await;
    assert_eq!((published(&mut changes), node.prune_presences(None).await.unwrap()), (Vec::new(), 0));
    ann.touch.set_backlog(false);
    pass(secs(20)).await;
    assert_eq!(published(&mut changes), ["-[ann]"], "and then soon, if what it sent was no touch");
}

#[actix::test]
async fn a_frame_that_arrives_while_the_room_checks_the_deadline_keeps_the_presence() {
    // The task of the presence reported it as stale, and before the room checked it, a frame had arrived and waited for the consumer.
    let node = node().await;
    let ann = node.member("ann").await;
    let mut changes = node.changes();
    advance(secs(60) + ms(1)).await;
    node.rooms.table().send_running(lobby(), ToRoom::Stale(ann.id(lobby())));
    ann.touch.set_backlog(true);
    settle().await;
    assert_eq!(published(&mut changes), NONE);
    ann.touch.set_backlog(false);
    pass(secs(20)).await;
    assert_eq!(published(&mut changes), ["-[ann]"], "its deadline is not put off by a whole `max_age`");
}

// behaviour: 2.3 touch-revives-nobody; 2.5 prune-and-the-socket; W1 no-zombies
#[actix::test]
async fn a_stale_socket_is_closed_or_notified_as_the_settings_say_and_receives_nothing_more_of_the_room() {
    tokio::time::pause();
    check_stale(OnStale::Close).await;
    check_stale(OnStale::Keep).await;
}

async fn check_stale(on_stale: OnStale) {
    let node = new_node(config().on_stale(on_stale)).await;
    let [ann, bob] = node.members_named(["ann", "bob"]).await;
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
    assert_eq!((ann.frames().len(), bob.view().messages.len()), (0, 1));
    assert_eq!(node.names(lobby()).await, ["bob"], "a touch brings nobody back");
}

// behaviour: W1 no-zombies
#[actix::test]
async fn a_socket_whose_presence_was_pruned_may_join_again() {
    let node = node_with(config().on_stale(OnStale::Keep)).await;
    let ann = node.member("ann").await;
    pass(secs(61)).await;
    ann.leave(lobby()).await.unwrap();
    ann.join(lobby()).await.unwrap();
    assert_eq!((ann.sees(), node.names(lobby()).await), (vec!["ann".to_owned()], vec!["ann".to_owned()]));
}

// behaviour: 2.5 strictly-older; 2.5 one-bulk-event-per-room; 2.5 prune-nothing; 2.5 room-form; 2.5 all-rooms
#[actix::test]
async fn pruning_by_call_counts_the_presences_and_fires_one_event_per_room() {
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
    assert_eq!(published(&mut changes), ["-[dan]"]);
    assert_eq!(node.prune_presences(Some(secs(10))).await.unwrap(), 6);
    let mut events = published(&mut changes);
    events.sort();
    assert_eq!(events, ["-[cid]", "-[u0 u1 u2 u3 u4]"]);
    assert_eq!(node.names(lobby()).await, ["late"]);
    assert_eq!(node.prune_presences(Some(secs(10))).await.unwrap(), 0, "pruning again changes nothing");
    assert_eq!(published(&mut changes), NONE);
    pass(ms(200)).await;
    assert_eq!(late.sees(), ["late"]);
}

// behaviour: 2.5 age-zero
#[actix::test]
async fn age_zero_prunes_also_presences_that_were_seen_now() {
    let node = node().await;
    let [ann, _bob] = node.members_named(["ann", "bob"]).await;
    pass(ms(10)).await;
    ann.touch();
    assert_eq!(node.prune_presences(Some(secs(0))).await.unwrap(), 2);
    assert!(node.names(lobby()).await.is_empty());
}

// behaviour: 2.5 rooms-stay; 5 messages
#[actix::test]
async fn the_supervisor_prunes_on_request_by_message() {
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
async fn a_prune_during_an_outage_fires_one_event_when_the_database_is_back() {
    let node = node().await;
    let [ann, bob] = node.members_named(["ann", "bob"]).await;
    pass(secs(55)).await;
    bob.touch();
    node.store.faults.fail_next(usize::MAX);
    let mut changes = node.changes();
    pass(secs(20)).await;
    assert_eq!((pruned_from(&ann).len(), published(&mut changes)), (1, Vec::new()));
    node.store.faults.fail_next(0);
    pass(secs(2)).await;
    assert_eq!((published(&mut changes), bob.sees()), (vec!["-[ann]".to_owned()], vec!["bob".to_owned()]));
}

#[actix::test]
async fn a_touch_that_may_be_unwritten_counts_for_a_presence_without_a_node_unless_the_age_is_zero() {
    let rarely = config().touch_flush_interval(secs(600)).sweep_interval(secs(3600)).prune_interval(secs(3600));
    let node = node_with(rarely).await;
    let (database, dead) = (node.store.database(), NodeId::random());
    database.register(dead, NodeName::new("dead").unwrap(), ms(1)).await.unwrap();
    let presence = |name| Presence::new(PresenceId::random(), channel(name), Some(user(name)), dead);
    let (lost, ann) = (presence("lost"), presence("ann"));
    let hold = Write::Hold { id: lost.id, channel: lost.channel.clone(), grace: secs(3600) };
    for writes in [vec![Write::Join(lost.into()), Write::Join(ann.into())], vec![hold]] {
        let rooms = [RoomWrites { room: lobby().clone(), writes }];
        let _ = database.commit(dead, Attempt::next(), rooms.into()).await.unwrap();
    }
    pass(secs(91)).await;
    let prune = async |age| node.prune_presences(Some(secs(age))).await.unwrap();
    assert_eq!(
        (prune(90).await, node.rows(lobby()).await),
        (1, vec!["ann".to_owned()]),
        "its node has written all of the one that is held"
    );
    // The interval, and the time for which touches are gathered.
    pass(secs(600)).await;
    assert_eq!(prune(90).await, 0);
    assert_eq!(prune(0).await, 1);
}

#[actix::test]
async fn in_each_interval_one_node_prunes_empty_rooms_and_another_one_if_it_does_not() {
    // After each prune, all nodes compare all rooms.
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let config = || config().prune_rooms_interval(secs(60));
    let mut nodes = Vec::new();
    for name in ["here", "there", "yonder"] {
        nodes.push(node_on(&database, name, config()).await);
        pass(secs(15)).await;
    }
    let prunes = async || database.recent_changes(NodeId::random(), Duration::MAX, 1).await.unwrap().prunes;
    let empty_rooms = async |by: &TestNode| {
        for n in 0..60 {
            let (room, job) = (room(&format!("room {n}")), channel("job"));
            by.add(&room, &job, None).await.unwrap();
            by.remove(&room, &job).await.unwrap();
            pass(secs(10)).await;
        }
    };
    let before = prunes().await;
    empty_rooms(&nodes[2]).await;
    let alone = prunes().await;
    // One in each minute, and the first rounds of the two others.
    assert!((9..=12).contains(&(alone - before)), "{before} {alone}");
    // Whichever it was.
    nodes[0].store.faults.hang();
    nodes[1].store.faults.hang();
    empty_rooms(&nodes[2]).await;
    assert!((9..=11).contains(&(prunes().await - alone)), "{alone} {}", prunes().await);
}
