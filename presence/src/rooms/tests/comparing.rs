//! What a node learns of the changes of others, and what it asks the database for that.

use super::prelude::*;

const INTERVAL: Duration = secs(5);
/// A round, and what follows from it.
const ROUND: Duration = secs(6);
/// All rounds after which each room was compared by its name.
const ALL_SLICES: Duration = secs(61);

/// Nodes that do nothing but compare.
fn comparing() -> ConfigBuilder {
    let hour = secs(3600);
    let config = config().lease(hour * 24).max_age(hour * 24).sweep_interval(hour).prune_interval(hour);
    config.reconcile_interval(INTERVAL).prune_rooms_interval(hour).max_rooms_per_socket(20_000)
}

fn rooms(count: usize) -> Vec<RoomName> {
    (0..count).map(|n| room(&format!("room {n}"))).collect()
}

/// Two nodes with a room for each of the clients. The clients are on the node `here`, and somebody has just joined their rooms on the other.
async fn joined_there(count: usize) -> ([TestNode; 2], Vec<FakeClient>, Vec<RoomName>) {
    let nodes = nodes(comparing).await;
    let rooms = rooms(count);
    let clients: Vec<_> = rooms.iter().map(|_| nodes[0].client("ann")).collect();
    for joined in join_all(clients.iter().zip(&rooms).map(|(client, room)| client.join(room))).await {
        joined.unwrap();
    }
    pass(INTERVAL * 2).await;
    all_add(&nodes[1], "bob", &rooms).await;
    assert_eq!(knowing(&clients), 0);
    (nodes, clients, rooms)
}

/// Adds a user without a socket to each of the rooms.
async fn all_add(node: &TestNode, name: &str, rooms: &[RoomName]) {
    let (name, user) = (channel(name), user(name));
    for added in join_all(rooms.iter().map(|room| node.add(room, &name, Some(&user)))).await {
        added.unwrap();
    }
}

/// How many of the clients know who has joined.
fn knowing(clients: &[FakeClient]) -> usize {
    clients.iter().filter(|client| client.sees() == ["ann", "bob"]).count()
}

#[actix::test]
async fn a_change_of_another_node_is_known_after_one_round() {
    let (_nodes, clients, _) = joined_there(24).await;
    pass(ROUND).await;
    assert_eq!(knowing(&clients), 24);
}

#[actix::test]
async fn a_change_whose_transaction_took_long_is_known_after_one_round() {
    let (nodes, clients, rooms) = joined_there(24).await;
    rooms.iter().for_each(|room| nodes[0].store.database().date_back(room, secs(8)));
    pass(ROUND).await;
    assert_eq!(knowing(&clients), 24);
}

#[actix::test]
async fn a_change_that_is_not_among_the_recent_ones_is_known_when_its_slice_was_compared() {
    let (nodes, clients, rooms) = joined_there(24).await;
    rooms.iter().for_each(|room| nodes[0].store.database().date_back(room, secs(3600)));
    pass(ROUND).await;
    assert!(knowing(&clients) < 24, "they were not compared yet");
    pass(ALL_SLICES).await;
    assert_eq!(knowing(&clients), 24);
}

#[actix::test]
async fn after_a_round_that_failed_all_rooms_are_compared() {
    let (nodes, clients, rooms) = joined_there(24).await;
    rooms.iter().for_each(|room| nodes[0].store.database().date_back(room, secs(3600)));
    pass(secs(4)).await;
    nodes[0].store.faults.fail_next(usize::MAX);
    pass(secs(2)).await;
    nodes[0].store.faults.fail_next(0);
    assert!(knowing(&clients) < 24, "the round failed");
    pass(INTERVAL).await;
    assert_eq!(knowing(&clients), 24);
}

#[actix::test]
async fn who_left_a_room_that_was_removed_at_once_is_not_listed_after_one_round() {
    let [here, there] = nodes(comparing).await;
    let ann = there.member("ann").await;
    pass(secs(600)).await;
    let (members, changes) = here.members_and_changes(lobby()).await.unwrap();
    assert_eq!(members.len(), 1);
    pass(secs(60)).await;
    ann.leave(lobby()).await.unwrap();
    assert_eq!(there.prune_rooms().await.unwrap(), 1);
    pass(ROUND).await;
    assert_eq!(here.names(lobby()).await, NONE);
    drop(changes);
}

#[actix::test]
async fn an_idle_node_with_ten_thousand_rooms_makes_two_calls_in_a_round() {
    let node = node_with(comparing()).await;
    let rooms = rooms(10_000);
    all_add(&node, "ann", &rooms).await;
    pass(secs(60)).await;
    let before = node.store.faults.calls();
    pass(secs(60)).await;
    assert_eq!(node.store.faults.calls() - before, 24);
}

const LOSS: &str = "the database has lost changes";

#[actix::test]
async fn changes_of_other_nodes_arrive_although_a_set_back_cannot_be_reported() {
    let (nodes, clients, _) = joined_there(24).await;
    let log = Log::of_warnings();
    nodes[0].store.refuse_reports(true);
    nodes[0].rooms.this_node().registration.note_set_back();
    pass(ROUND).await;
    assert_eq!(knowing(&clients), 24);
    pass(INTERVAL * 4).await;
    assert_eq!(log.lines_with(LOSS).len(), 1, "{:?}", log.lines());
    // The other node learns of it as soon as that is possible.
    nodes[0].store.refuse_reports(false);
    pass(INTERVAL * 4).await;
    assert_eq!(log.lines_with(LOSS).len(), 2, "{:?}", log.lines());
}

#[actix::test]
async fn a_loss_that_all_nodes_notice_is_one_warning_on_each() {
    let nodes: [_; 3] = nodes(comparing).await;
    let _members = join_all(nodes.iter().map(|node| node.member("ann"))).await;
    pass(INTERVAL * 2).await;
    let log = Log::of_warnings();
    nodes.iter().for_each(|node| node.rooms.this_node().registration.note_set_back());
    pass(INTERVAL * 4).await;
    assert_eq!(log.lines_with(LOSS).len(), 3, "{:?}", log.lines());
}
