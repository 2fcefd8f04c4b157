//! Three nodes whose sockets come and go, on one database whose readings may be slow and which may lose what it has confirmed, with
//! nothing between them but that.
//!
//! Each node does what the room's actor does, with the decisions of [`own`](super) and the [`Replica`] of production. When all is
//! quiet, each roster is what is true: the sockets that are open, and those that are held.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use proptest::prelude::*;
use uuid::Uuid;

use super::{Care, Own, after_changes, after_reading};
use crate::{
    clock::Tick,
    model::{
        Delta, Presence, Snapshot,
        delta::Change,
        reached::Reached,
        replica::{Applied, Reading, Replica},
    },
    name::{ChannelName, Epoch, NodeId, PresenceId, Version},
};

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

#[derive(Debug, Clone)]
enum Write {
    Join(Arc<Presence>),
    Leave(Arc<Presence>),
    Hold(Arc<Presence>),
}

impl Write {
    fn id(&self) -> PresenceId {
        let (Self::Join(one) | Self::Leave(one) | Self::Hold(one)) = self;
        one.id
    }
}

/// What a transaction came to.
#[derive(Debug, Clone)]
struct Commit {
    batch: u64,
    writes: Vec<Write>,
    at: (Epoch, Version),
    delta: Delta,
}

/// The room, as the database has it.
#[derive(Debug, Clone, Default)]
struct Room {
    at: Option<(Epoch, Version)>,
    presences: BTreeMap<PresenceId, Arc<Presence>>,
    /// Who left because its own node said so: it never comes again.
    left: BTreeSet<PresenceId>,
}

#[derive(Debug, Default)]
struct Database {
    room: Room,
    /// What it was before each change.
    history: Vec<Room>,
    lives: u128,
    nodes: u128,
    sockets: u128,
}

impl Database {
    fn commit(&mut self, node: NodeId, batch: u64, writes: Vec<Write>) -> Commit {
        let before = self.room.clone();
        let mut delta = Delta::default();
        for write in &writes {
            let there = self.room.presences.get(&write.id()).cloned();
            match (write, there) {
                (Write::Join(one), there) => {
                    let now = Arc::new(Presence { node, held: false, ..Presence::clone(one) });
                    if there.is_none() {
                        assert!(!self.room.left.contains(&one.id), "one who has left is added again");
                        delta.joined.push(now.clone());
                    }
                    self.room.presences.insert(one.id, now);
                }
                (Write::Leave(_), Some(there)) => {
                    self.room.presences.remove(&there.id);
                    self.room.left.insert(there.id);
                    delta.left.push(there);
                }
                (Write::Hold(_), Some(there)) => {
                    let held = Presence { held: true, ..Presence::clone(&there) };
                    self.room.presences.insert(there.id, Arc::new(held));
                }
                (Write::Leave(_) | Write::Hold(_), None) => {}
            }
        }
        let at = self.advance(&delta);
        if !delta.is_empty() {
            self.history.push(before);
        }
        Commit { batch, writes, at, delta }
    }

    fn advance(&mut self, delta: &Delta) -> (Epoch, Version) {
        let (epoch, version) = self.room.at.unwrap_or_else(|| {
            self.lives += 1;
            (Epoch::from_uuid(Uuid::from_u128(self.lives)), Version(0))
        });
        let at = (epoch, if delta.is_empty() { version } else { version.next() });
        self.room.at = Some(at);
        at
    }

    /// Removes those for whom `goes` holds, without the help of their node.
    fn remove(&mut self, goes: impl Fn(&Presence) -> bool) -> Commit {
        let before = self.room.clone();
        let left: Vec<_> = self.room.presences.extract_if(.., |_, one| goes(one)).map(|(_, one)| one).collect();
        let delta = Delta { left, ..Delta::default() };
        let at = self.advance(&delta);
        if !delta.is_empty() {
            self.history.push(before);
        }
        Commit { batch: 0, writes: Vec::new(), at, delta }
    }

    fn crash(&mut self, changes: usize) {
        let kept = self.history.len().saturating_sub(changes);
        if let Some(room) = self.history.drain(kept..).next() {
            self.room = room;
        }
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let (epoch, version) = self.room.at?;
        Some(Snapshot { epoch, version, presences: self.room.presences.values().cloned().collect() })
    }

    fn new_node(&mut self) -> NodeId {
        self.nodes += 1;
        NodeId::from_uuid(Uuid::from_u128(self.nodes))
    }
}

/// Said to a node's room.
#[derive(Debug, Clone)]
enum Message {
    Join(Arc<Presence>),
    Leave(Arc<Presence>),
    Lose(Arc<Presence>),
    Committed(Commit),
    /// Of the node's own removals.
    Changed(Commit),
    /// The node has another life.
    Rejoin,
}

/// A reading that is under way: what the database answered, if it has.
type Answer = Option<Option<Snapshot>>;

#[derive(Debug)]
struct Node {
    node: NodeId,
    /// The sockets that are open, by their presences.
    open: BTreeMap<PresenceId, Arc<Presence>>,
    mailbox: VecDeque<Message>,
    /// What was given to the writer.
    pending: VecDeque<Write>,
    reading: Option<Answer>,
    /// The number of the last batch that the writer has begun.
    begun: u64,
    now: Tick,
    reached: Reached,
    replica: Replica,
    here: BTreeMap<PresenceId, Arc<Presence>>,
    joining: BTreeMap<PresenceId, Arc<Presence>>,
    /// Of those who join, where their commits led to, once that is known, and how many readings were begun by then.
    committed: BTreeMap<PresenceId, ((Epoch, Version), u64)>,
    readings: u64,
    leaving: BTreeMap<PresenceId, Arc<Presence>>,
    lost: BTreeMap<PresenceId, Arc<Presence>>,
}

impl Own for Node {
    fn here(&self, id: PresenceId) -> Option<&Arc<Presence>> {
        self.here.get(&id)
    }

    fn all_here(&self) -> impl Iterator<Item = &Arc<Presence>> {
        self.here.values()
    }

    fn is_under_way(&self, Presence { id, .. }: &Presence) -> bool {
        self.joining.contains_key(id) || self.leaving.contains_key(id) || self.lost.contains_key(id)
    }

    fn lives(&self, presence: &Presence) -> bool {
        self.open.get(&presence.id).is_some_and(|open| open.channel == presence.channel)
    }
}

/// One of several, or `None` if there are none.
fn choose<'a>(which: &prop::sample::Index, all: &'a BTreeMap<PresenceId, Arc<Presence>>) -> Option<&'a Arc<Presence>> {
    (!all.is_empty()).then(|| all.values().nth(which.index(all.len()))).flatten()
}

impl Node {
    fn new(node: NodeId) -> Self {
        Self {
            node,
            open: BTreeMap::new(),
            mailbox: VecDeque::new(),
            pending: VecDeque::new(),
            reading: None,
            begun: 0,
            now: Tick(0),
            reached: Reached::default(),
            replica: Replica::default(),
            here: BTreeMap::new(),
            joining: BTreeMap::new(),
            committed: BTreeMap::new(),
            readings: 0,
            leaving: BTreeMap::new(),
            lost: BTreeMap::new(),
        }
    }

    fn come(&mut self, database: &mut Database) {
        database.sockets += 1;
        let (id, name) = (database.sockets, format!("socket {}", database.sockets));
        let id = PresenceId::from_uuid(Uuid::from_u128(id));
        let one = Arc::new(Presence::new(id, ChannelName::new(name).unwrap(), None, self.node));
        self.open.insert(id, one.clone());
        self.mailbox.push_back(Message::Join(one));
    }

    fn go(&mut self, which: &prop::sample::Index, message: fn(Arc<Presence>) -> Message) {
        if let Some(one) = choose(which, &self.open).cloned() {
            self.open.remove(&one.id);
            self.mailbox.push_back(message(one));
        }
    }

    fn take_out(&mut self, one: Arc<Presence>) {
        self.pending.push_back(Write::Leave(one.clone()));
        self.leaving.insert(one.id, one);
    }

    fn hold(&mut self, one: &Presence) {
        let held = Arc::new(Presence { held: true, ..one.clone() });
        self.replica.hand_over(&held);
        self.pending.push_back(Write::Hold(held.clone()));
        self.lost.insert(held.id, held);
    }

    fn grace_over(&mut self, which: &prop::sample::Index) {
        if let Some(one) = choose(which, &self.lost).cloned() {
            self.lost.remove(&one.id);
            self.take_out(one);
        }
    }

    /// As the writer: a presence is in a transaction once.
    fn commit(&mut self, database: &mut Database) {
        let (mut ids, mut writes) = (BTreeSet::new(), Vec::new());
        while let Some(write) = self.pending.pop_front_if(|write| ids.insert(write.id())) {
            writes.push(write);
        }
        if !writes.is_empty() {
            self.begun += 1;
            let commit = database.commit(self.node, self.begun, writes);
            self.mailbox.push_back(Message::Committed(commit));
        }
    }

    fn handle(&mut self) {
        let Some(message) = self.mailbox.pop_front() else { return };
        match message {
            Message::Join(one) => {
                self.pending.push_back(Write::Join(one.clone()));
                self.joining.insert(one.id, one);
            }
            Message::Leave(one) => {
                self.joining.remove(&one.id);
                self.here.remove(&one.id);
                if !self.leaving.contains_key(&one.id) {
                    self.take_out(one);
                }
            }
            Message::Lose(one) => {
                if let Some(here) = self.here.remove(&one.id) {
                    self.hold(&here);
                } else if self.joining.remove(&one.id).is_some() {
                    self.take_out(one);
                }
            }
            Message::Committed(Commit { batch, writes, at, delta }) => {
                if self.reached.refutes_commit(batch, at, !delta.is_empty()) {
                    self.replica.distrust(self.now);
                }
                for write in &writes {
                    if let Write::Leave(one) = write {
                        self.leaving.remove(&one.id);
                    }
                }
                self.apply(at, delta);
                for write in writes {
                    match write {
                        Write::Leave(one) => self.replica.departs(one.id, one.channel.clone(), at),
                        Write::Join(one) => {
                            self.replica.returns(one.id);
                            if self.joining.contains_key(&one.id) {
                                self.committed.insert(one.id, (at, self.readings));
                            }
                        }
                        Write::Hold(_) => {}
                    }
                }
                self.join_those_removed(0);
            }
            Message::Changed(Commit { at, delta, .. }) => self.apply(at, delta),
            Message::Rejoin => {
                self.pending.extend(self.here.values().cloned().map(Write::Join));
            }
        }
        self.note_position();
        self.read_if_needed();
    }

    fn apply(&mut self, at: (Epoch, Version), delta: Delta) {
        let (epoch, version) = at;
        if delta.is_empty() {
            // Another's change led to that version.
            if !self.replica.has_reached(at) {
                self.begin();
            }
            self.let_in();
            return;
        }
        let left: Vec<_> = delta.left.iter().filter(|left| left.node == self.node).cloned().collect();
        match self.replica.apply(Tick(0), epoch, version, delta) {
            Applied::Changed(changes) => self.changed(&changes),
            Applied::Early | Applied::Reload => {
                left.iter().for_each(|left| self.replica.departs(left.id, left.channel.clone(), at));
            }
        }
    }

    fn changed(&mut self, changes: &[Change]) {
        for gone in changes.iter().filter(|change| change.now.is_none()).filter_map(|change| change.was.as_ref()) {
            self.lost.remove(&gone.id);
        }
        self.care(after_changes(changes, self));
        self.let_in();
    }

    fn let_in(&mut self) {
        let roster = self.replica.roster();
        let here = self.joining.extract_if(.., |id, _| roster.get(*id).is_some());
        self.here.extend(here);
    }

    fn care(&mut self, cares: Vec<Care>) {
        for care in cares {
            match care {
                Care::Adopt(one) => drop(self.here.insert(one.id, one)),
                Care::TakeOut(one) => self.take_out(one),
                Care::BringBack(one) => self.pending.push_back(Write::Join(one)),
                Care::LetGo(one) => {
                    self.here.remove(&one.id);
                    self.take_out(one);
                }
            }
        }
    }

    /// The room loses its memory over a message, which is lost, and what hubs and writer do not know.
    fn fail(&mut self) {
        if self.mailbox.pop_front_if(|one| matches!(one, Message::Leave(_) | Message::Lose(_))).is_none() {
            return;
        }
        // Hubs say who is on them, and channels whether they are still joining.
        self.here.retain(|id, _| self.open.contains_key(id));
        let gone: Vec<_> = self.joining.extract_if(.., |id, _| !self.open.contains_key(id)).collect();
        gone.into_iter().for_each(|(_, one)| self.take_out(one));
        self.pending.extend(self.joining.values().cloned().map(Write::Join));
        self.pending.extend(self.leaving.values().cloned().map(Write::Leave));
        self.begin();
    }

    fn begin(&mut self) {
        self.reading = Some(None);
        self.readings += 1;
        self.replica.reloading();
    }

    fn read(&mut self, database: &Database) {
        if let Some(answer) = &mut self.reading {
            answer.get_or_insert_with(|| database.snapshot());
        }
    }

    fn finish(&mut self, database: &Database) {
        self.read(database);
        if let Some(found) = self.reading.take().flatten() {
            if let Some(before) = self.replica.reload(found.map(Reading::from)) {
                let changes = self.replica.roster().changes_since(&before);
                self.changed(&changes);
            }
            for lost in self.lost.values() {
                self.replica.hand_over(lost);
            }
            self.care(after_reading(&self.replica, Some(self.node), self));
            self.join_those_removed(self.readings);
            self.let_in();
            self.note_position();
            self.read_if_needed();
        }
    }

    /// `read` is the number of the last reading that has come.
    fn join_those_removed(&mut self, read: u64) {
        let replica = &self.replica;
        let removed = |id: &PresenceId, (at, before): &mut ((Epoch, Version), u64)| {
            replica.roster().get(*id).is_none() && (replica.has_reached(*at) || *before < read)
        };
        for (id, _) in self.committed.extract_if(.., removed) {
            self.pending.extend(self.joining.get(&id).cloned().map(Write::Join));
        }
    }

    fn note_position(&mut self) {
        self.reached.note(self.now, self.replica.position(), || self.begun);
    }

    fn read_if_needed(&mut self) {
        if self.reading.is_none() && self.replica.reload_at(Duration::ZERO).is_some() {
            self.begin();
        }
    }

    fn compare(&mut self, database: &Database) {
        if database.room.at.is_some_and(|at| self.reached.refutes(self.now, at)) {
            self.replica.distrust(self.now);
            self.note_position();
        }
        if self.reading.is_none() && self.replica.position() != database.room.at {
            self.begin();
        }
    }

    fn is_quiet(&self) -> bool {
        self.mailbox.is_empty() && self.pending.is_empty() && self.reading.is_none()
    }

    fn ids(all: &BTreeMap<PresenceId, Arc<Presence>>) -> Vec<PresenceId> {
        all.keys().copied().collect()
    }
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
