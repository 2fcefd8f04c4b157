//! Three nodes whose sockets come and go, on one database. Loads may be slow, and the database may lose changes that it has confirmed.
//! The nodes have no other connection.
//!
//! Each node does what the room's actor does, with the decisions of [`own`](crate::model::own) and the [`Replica`] of production. When
//! nothing is in progress any more, each roster has exactly the sockets that are open and those that are held.

mod database;
mod node;

use proptest::prelude::*;

use self::{
    database::Database,
    node::{Message, Node},
};
use crate::{clock::Tick, model::Presence, name::PresenceId};

const NODES: usize = 3;
/// Far more rounds than it takes until nothing is under way any more.
const ROUNDS: usize = 30;

#[derive(Debug, Clone)]
enum Step {
    /// A socket comes, one leaves, and one is lost that is held.
    Come(usize),
    Leave(usize, prop::sample::Index),
    Lose(usize, prop::sample::Index),
    /// One who is held does not return in time.
    GraceOver(usize, prop::sample::Index),
    /// What waits on a node is committed. Its room does not know yet.
    Commit(usize),
    /// The room of a node handles its next message.
    Handle(usize),
    /// It fails over it, and starts over.
    Fail(usize),
    /// A node compares its room with the database, and reads it if that is ahead.
    Compare(usize),
    /// The database answers a reading; the answer comes, or the reading fails and is begun anew.
    Read(usize),
    Finish(usize),
    ReadAgain(usize),
    /// The second node finds the first dead and removes its presences; it lives, and begins another life.
    Fence(usize, usize),
    /// The room is deleted, if nobody is in it.
    Prune,
    /// The database loses its last changes, so many or fewer. Connections break, so whatever waits for an answer asks again.
    Crash(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 0..NODES;
    let which = any::<prop::sample::Index>;
    prop_oneof![
        8 => node().prop_map(Step::Come),
        6 => (node(), which()).prop_map(|(node, which)| Step::Leave(node, which)),
        2 => (node(), which()).prop_map(|(node, which)| Step::Lose(node, which)),
        1 => (node(), which()).prop_map(|(node, which)| Step::GraceOver(node, which)),
        12 => node().prop_map(Step::Commit),
        18 => node().prop_map(Step::Handle),
        1 => node().prop_map(Step::Fail),
        3 => node().prop_map(Step::Compare),
        4 => node().prop_map(Step::Read),
        6 => node().prop_map(Step::Finish),
        1 => node().prop_map(Step::ReadAgain),
        1 => (node(), node()).prop_map(|(dead, finder)| Step::Fence(dead, finder)),
        1 => Just(Step::Prune),
        1 => (1..4_usize).prop_map(Step::Crash),
    ]
}

/// Sweeps what a dead node left, and those whose grace is over though no node knows.
fn sweep(nodes: &mut [Node], database: &mut Database) {
    let forgotten = |one: &Presence| {
        let knows = |node: &Node| if one.held { node.lost.contains_key(&one.id) } else { node.node == one.node };
        !nodes.iter().any(knows)
    };
    if database.room.presences.values().any(|one| forgotten(one)) {
        let commit = database.remove(forgotten);
        nodes[0].mailbox.push_back(Message::Changed(commit));
    }
}

/// Lets everything happen that is under way, and what follows from it.
fn rest(nodes: &mut [Node], database: &mut Database, now: &mut Tick) {
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
        if nodes.iter().all(Node::is_quiet) {
            sweep(nodes, database);
            nodes.iter_mut().for_each(|node| node.compare(database));
            if nodes.iter().all(Node::is_quiet) {
                return;
            }
        }
    }
    panic!("it does not come to rest");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn with_slow_readings_each_roster_is_in_the_end_the_sockets_that_are_open_and_nobody_is_added_who_has_left(
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut database = Database::default();
        let mut nodes: Vec<Node> = (0..NODES).map(|_| Node::new(database.new_node())).collect();
        let mut now = Tick(0);
        let crashes = steps.iter().any(|step| matches!(step, Step::Crash(_)));
        for step in steps {
            now.0 += 1;
            nodes.iter_mut().for_each(|node| node.now = now);
            match step {
                Step::Come(node) => nodes[node].come(&mut database),
                Step::Leave(node, which) => nodes[node].go(&which, Message::Leave),
                Step::Lose(node, which) => nodes[node].go(&which, Message::Lose),
                Step::GraceOver(node, which) => nodes[node].grace_over(&which),
                Step::Commit(node) => nodes[node].commit(&mut database),
                Step::Handle(node) => nodes[node].handle(),
                Step::Fail(node) => nodes[node].fail(),
                Step::Compare(node) => nodes[node].compare(&database),
                Step::Read(node) => nodes[node].read(&database),
                Step::Finish(node) => nodes[node].finish(&database),
                Step::ReadAgain(node) => {
                    if nodes[node].reading.is_some() {
                        nodes[node].begin();
                    }
                }
                Step::Fence(dead, finder) => {
                    if dead != finder && database.room.at.is_some() {
                        let life = nodes[dead].node;
                        let commit = database.remove(|one| one.node == life && !one.held);
                        nodes[finder].mailbox.push_back(Message::Changed(commit));
                        nodes[dead].node = database.new_node();
                        nodes[dead].mailbox.push_back(Message::Rejoin);
                    }
                }
                Step::Prune => {
                    if database.room.presences.is_empty() {
                        database.room.at = None;
                        database.history.clear();
                    }
                }
                Step::Crash(changes) => {
                    for node in &mut nodes {
                        // What was answered before has arrived.
                        while !node.mailbox.is_empty() {
                            node.handle();
                        }
                        if node.reading.is_some() {
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
        rest(&mut nodes, &mut database, &mut now);
        // One who was held when the database lost it is not brought back, since it has no socket.
        let held = |id: &PresenceId| !crashes || database.room.presences.contains_key(id);
        let held = nodes.iter().flat_map(|node| node.lost.keys()).filter(|id| held(id));
        let mut truth: Vec<_> = nodes.iter().flat_map(|node| node.open.keys()).chain(held).copied().collect();
        truth.sort_unstable();
        prop_assert_eq!(&Node::ids(&database.room.presences), &truth);
        for node in &nodes {
            let roster: Vec<_> = node.replica.roster().iter().map(|one| one.id).collect();
            prop_assert_eq!(&roster, &truth);
            prop_assert_eq!(Node::ids(&node.here), Node::ids(&node.open));
        }
    }
}
