//! Three nodes whose sockets come and go, on one database. Loads may be slow, and the database may lose changes that it has confirmed.
//! The nodes have no other connection.
//!
//! Each node does what the room's actor does, with the decisions of [`own`](crate::model::own) and the [`Replica`] of production. When
//! nothing is in progress any more, each roster has exactly the sockets that are open and those that are held.

mod database;
mod node;

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use self::{
    database::ModelDatabase,
    node::{ModelNode, ToModelRoom},
};
use crate::{clock::Tick, model::Presence, name::PresenceId};

const NODES: usize = 3;
/// Far more rounds than it takes until nothing is in progress.
const ROUNDS: usize = 30;

#[derive(Debug, Clone)]
enum SocketStep {
    /// A socket joins, one leaves, and one is lost and held.
    Join(usize),
    Leave(usize, prop::sample::Index),
    Lose(usize, prop::sample::Index),
    /// A grace expires.
    GraceOver(usize, prop::sample::Index),
    /// The pending writes of a node are committed. Its room does not know it yet.
    Commit(usize),
    /// The room of a node handles its next message.
    Handle(usize),
    /// The room fails while it handles the message, and restarts.
    Fail(usize),
    /// A node compares its room with the database, and loads it if the database is ahead.
    Compare(usize),
    /// The database answers a load; the answer arrives, or the load fails and begins again.
    Answer(usize),
    Finish(usize),
    LoadAgain(usize),
    /// The second node fences the first and removes its presences. The first is alive, and begins a new incarnation.
    Fence(usize, usize),
    /// The room is deleted if it is empty.
    Prune,
    /// The database loses up to this many of its last changes. Connections break, so loads in progress begin again.
    Crash(usize),
}

fn step() -> impl Strategy<Value = SocketStep> {
    let node = || 0..NODES;
    let which = any::<prop::sample::Index>;
    prop_oneof![
        8 => node().prop_map(SocketStep::Join),
        6 => (node(), which()).prop_map(|(node, which)| SocketStep::Leave(node, which)),
        2 => (node(), which()).prop_map(|(node, which)| SocketStep::Lose(node, which)),
        1 => (node(), which()).prop_map(|(node, which)| SocketStep::GraceOver(node, which)),
        12 => node().prop_map(SocketStep::Commit),
        18 => node().prop_map(SocketStep::Handle),
        1 => node().prop_map(SocketStep::Fail),
        3 => node().prop_map(SocketStep::Compare),
        4 => node().prop_map(SocketStep::Answer),
        6 => node().prop_map(SocketStep::Finish),
        1 => node().prop_map(SocketStep::LoadAgain),
        1 => (node(), node()).prop_map(|(dead, finder)| SocketStep::Fence(dead, finder)),
        1 => Just(SocketStep::Prune),
        1 => (1..4_usize).prop_map(SocketStep::Crash),
    ]
}

/// Removes presences of dead nodes, and held presences that no node knows.
fn sweep(nodes: &mut [ModelNode], database: &mut ModelDatabase) {
    let is_abandoned = |one: &Presence| {
        let knows = |node: &ModelNode| if one.held { node.lost.contains_key(&one.id) } else { node.node == one.node };
        !nodes.iter().any(knows)
    };
    if database.room.presences.values().any(|one| is_abandoned(one)) {
        let commit = database.remove(is_abandoned);
        nodes[0].mailbox.push_back(ToModelRoom::Changed(commit));
    }
}

/// Runs until nothing is in progress.
fn run_until_quiet(nodes: &mut [ModelNode], database: &mut ModelDatabase, now: &mut Tick) {
    for _ in 0..ROUNDS {
        now.0 += 1;
        for node in &mut *nodes {
            node.now = *now;
            node.commit(database);
            while !node.mailbox.is_empty() {
                node.handle();
            }
            node.finish(database);
        }
        if nodes.iter().all(ModelNode::is_quiet) {
            sweep(nodes, database);
            nodes.iter_mut().for_each(|node| node.compare(database));
            if nodes.iter().all(ModelNode::is_quiet) {
                return;
            }
        }
    }
    panic!("it does not end");
}

/// Takes the steps, waits until nothing is in progress, and compares the rosters with the sockets.
fn take(steps: Vec<SocketStep>) {
    let mut database = ModelDatabase::default();
    let mut nodes: Vec<ModelNode> = (0..NODES).map(|_| ModelNode::new(database.new_node())).collect();
    let mut now = Tick(0);
    let crashes = steps.iter().any(|step| matches!(step, SocketStep::Crash(_)));
    for step in steps {
        now.0 += 1;
        nodes.iter_mut().for_each(|node| node.now = now);
        match step {
            SocketStep::Join(node) => nodes[node].join(&mut database),
            SocketStep::Leave(node, which) => nodes[node].close_any(&which, ToModelRoom::Leave),
            SocketStep::Lose(node, which) => nodes[node].close_any(&which, ToModelRoom::Lose),
            SocketStep::GraceOver(node, which) => nodes[node].grace_over(&which),
            SocketStep::Commit(node) => nodes[node].commit(&mut database),
            SocketStep::Handle(node) => nodes[node].handle(),
            SocketStep::Fail(node) => nodes[node].fail(),
            SocketStep::Compare(node) => nodes[node].compare(&database),
            SocketStep::Answer(node) => nodes[node].answer(&database),
            SocketStep::Finish(node) => nodes[node].finish(&database),
            SocketStep::LoadAgain(node) => {
                if nodes[node].load.is_some() {
                    nodes[node].begin();
                }
            }
            SocketStep::Fence(dead, finder) => {
                if dead != finder && database.room.at.is_some() {
                    let incarnation = nodes[dead].node;
                    let commit = database.remove(|one| one.node == incarnation && !one.held);
                    nodes[finder].mailbox.push_back(ToModelRoom::Changed(commit));
                    nodes[dead].node = database.new_node();
                    nodes[dead].mailbox.push_back(ToModelRoom::Rejoin);
                }
            }
            SocketStep::Prune => {
                if database.room.presences.is_empty() {
                    database.room.at = None;
                    database.history.clear();
                }
            }
            SocketStep::Crash(changes) => {
                for node in &mut nodes {
                    // Earlier answers have arrived.
                    while !node.mailbox.is_empty() {
                        node.handle();
                    }
                    if node.load.is_some() {
                        node.begin();
                    }
                }
                database.crash(changes);
                now.0 += 1;
                for node in &mut nodes {
                    node.now = now;
                    node.compare(&database);
                }
            }
        }
    }
    run_until_quiet(&mut nodes, &mut database, &mut now);
    // A held presence that the database lost is not restored, since it has no socket.
    let held = |id: &PresenceId| !crashes || database.room.presences.contains_key(id);
    let held = nodes.iter().flat_map(|node| node.lost.keys()).filter(|id| held(id));
    let mut truth: Vec<_> = nodes.iter().flat_map(|node| node.open.keys()).chain(held).copied().collect();
    truth.sort_unstable();
    assert_eq!(&ModelNode::ids(&database.room.presences), &truth);
    for node in &nodes {
        let roster: Vec<_> = node.replica.roster().iter().map(|one| one.id).collect();
        assert_eq!(&roster, &truth);
        assert_eq!(ModelNode::ids(&node.here), ModelNode::ids(&node.open));
    }
}

#[test]
fn a_presence_that_another_change_of_the_room_shows_after_its_socket_was_lost_is_removed() {
    use SocketStep::{Commit, Crash, Fail, Finish, Handle, Join, Lose};
    // The node has one socket, so any index chooses it.
    let first = any::<prop::sample::Index>().new_tree(&mut TestRunner::deterministic()).unwrap().current();
    take(vec![
        Join(1),
        Handle(1),
        Commit(1),
        Crash(1),
        Join(0),
        Finish(1),
        Lose(1, first),
        Fail(1),
        Handle(0),
        Commit(0),
        Finish(1),
    ]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn with_slow_loads_each_roster_ends_up_with_the_open_sockets_and_no_presence_is_added_after_it_left(
        steps in prop::collection::vec(step(), 1..150),
    ) {
        take(steps);
    }
}
