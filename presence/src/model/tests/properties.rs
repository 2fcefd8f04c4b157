//! The model as a whole: several nodes, each with a replica and its members, one database with the true history, and a network between
//! them that loses, repeats and reorders deltas.

use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;

use crate::clock::Tick;

use crate::model::{
    Snapshot,
    notice::Notices,
    replica::{Applied, LoadedRoom, Replica},
    tests::{
        audience::Audience,
        truth::{TestCommit, TestWrite, Truth, all_visible, writes},
    },
};

const NODES: usize = 3;
const HOLD: Duration = Duration::from_millis(200);

#[derive(Debug, Clone)]
enum NetworkStep {
    Commit(Vec<TestWrite>),
    /// The room is deleted.
    End,
    /// A node receives any former delta, perhaps again.
    Receive(usize, prop::sample::Index),
    /// A node receives the newest delta.
    ReceiveNewest(usize),
    /// A node receives the delta after its position.
    ReceiveNext(usize),
    /// A node begins to load the room; the database answers; the answer arrives, or the load fails.
    Begin(usize),
    Read(usize),
    Finish(usize),
    Fail(usize),
    Join(usize, u8),
    Leave(usize, u8),
    Wait(u64),
}

fn step() -> impl Strategy<Value = NetworkStep> {
    let node = || 0..NODES;
    prop_oneof![
        8 => writes().prop_map(NetworkStep::Commit),
        1 => Just(NetworkStep::End),
        6 => (node(), any::<prop::sample::Index>()).prop_map(|(node, which)| NetworkStep::Receive(node, which)),
        4 => node().prop_map(NetworkStep::ReceiveNewest),
        6 => node().prop_map(NetworkStep::ReceiveNext),
        2 => node().prop_map(NetworkStep::Begin),
        1 => node().prop_map(NetworkStep::Read),
        3 => node().prop_map(NetworkStep::Finish),
        1 => node().prop_map(NetworkStep::Fail),
        4 => (node(), 0..5u8).prop_map(|(node, who)| NetworkStep::Join(node, who)),
        2 => (node(), 0..5u8).prop_map(|(node, who)| NetworkStep::Leave(node, who)),
        5 => prop_oneof![0..5u64, 0..150u64].prop_map(NetworkStep::Wait),
    ]
}

#[derive(Debug)]
struct ReplicaNode {
    replica: Replica,
    notices: Notices<u8>,
    audience: Audience,
    waiting: BTreeSet<u8>,
    /// A load in progress, with the answer of the database, and the moment of the answer.
    load: Option<Option<(Option<Snapshot>, usize)>>,
    /// The moment of the replica, and the newest moment of which it has received a delta.
    at: usize,
    received: usize,
}

impl ReplicaNode {
    fn new(limit: u64) -> Self {
        Self {
            replica: Replica::default(),
            notices: Notices::new(Duration::from_millis(limit)),
            audience: Audience::default(),
            waiting: BTreeSet::new(),
            load: None,
            at: 0,
            received: 0,
        }
    }

    fn receive(&mut self, truth: &Truth, now: Tick, commit: TestCommit) {
        let TestCommit { epoch, version, delta } = commit;
        self.received = self.received.max(truth.moment_of((epoch, version)));
        match self.replica.apply(now, epoch, version, delta) {
            Applied::Changed(changes) => self.notices.changed(now, changes),
            Applied::Early => assert!(self.replica.reload_at(HOLD).is_some_and(|at| at <= now.after(HOLD))),
            Applied::Reload => assert!(self.replica.reload_at(Duration::from_secs(3600)).is_some_and(|at| at <= now)),
        }
        self.check(truth);
    }

    fn begin(&mut self) {
        self.load = Some(None);
        self.replica.reloading();
    }

    fn read(&mut self, truth: &Truth) {
        if let Some(answer) = &mut self.load {
            answer.get_or_insert_with(|| (truth.snapshot(), truth.moments.len() - 1));
        }
    }

    fn finish(&mut self, truth: &Truth, now: Tick) {
        self.read(truth);
        if let Some(Some((answer, moment))) = self.load.take() {
            let before = self.replica.reload(answer.map(LoadedRoom::from));
            if self.replica.position().is_none() {
                assert!(moment >= self.at, "it never goes back");
                self.at = moment;
            }
            if let Some(before) = before {
                self.notices.changed(now, self.replica.roster().changes_since(&before));
            }
            self.check(truth);
        }
    }

    /// Checks the invariants after each step.
    fn check(&mut self, truth: &Truth) {
        let at = self.replica.position().map_or(self.at, |position| truth.moment_of(position));
        assert!(at >= self.at, "it never goes back");
        self.at = at;
        let moment = &truth.moments[at];
        assert_eq!(moment.position, self.replica.position());
        assert!(self.replica.roster().iter().eq(moment.presences.values()), "it is what the room was then");
        assert!(self.at >= self.received || self.replica.reload_at(HOLD).is_some(), "a late replica needs a load");
    }

    fn join(&mut self, now: Tick, who: u8) {
        if self.replica.position().is_some() && !self.audience.contains(who) && self.waiting.insert(who) {
            self.notices.joined(now, who);
        }
    }

    fn leave(&mut self, who: u8) {
        let forgotten = self.notices.forget(|joiner| *joiner == who);
        assert_eq!(!forgotten.is_empty(), self.waiting.remove(&who));
        assert!(!self.audience.leave(who) || forgotten.is_empty());
    }

    /// Flushes what is due until then.
    fn flush(&mut self, until: Tick) {
        if let (Some(due), Some(position)) = (self.notices.due().filter(|due| *due <= until), self.replica.position()) {
            let flush = self.notices.flush(due, position, 500, 500);
            assert!(flush.joiners.iter().copied().collect::<BTreeSet<_>>() == self.waiting);
            self.waiting.clear();
            self.audience.receive(flush, self.replica.roster());
            assert_eq!(self.notices.due(), None);
        }
        assert!(self.waiting.is_empty() || self.notices.due().is_some(), "each joiner gets its first frame");
    }

    /// Ends the load in progress, and loads the room once more if the replica needs it.
    fn heal(&mut self, truth: &Truth, now: Tick) {
        self.finish(truth, now);
        if self.replica.reload_at(HOLD).is_some() {
            self.begin();
            self.finish(truth, now);
        }
        assert_eq!(self.replica.reload_at(HOLD), None, "one load without new deltas is enough");
        assert!(self.at >= self.received);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn over_a_bad_network_rosters_may_be_late_but_never_wrong_and_members_agree_with_them(
        steps in prop::collection::vec(step(), 1..150),
        limit in prop_oneof![Just(0), Just(100)],
    ) {
        let mut truth = Truth::new();
        let mut nodes: Vec<ReplicaNode> = (0..NODES).map(|_| ReplicaNode::new(limit)).collect();
        let mut now = Tick(0);
        for step in steps {
            match step {
                NetworkStep::Commit(writes) => drop(truth.commit(&writes)),
                NetworkStep::End => truth.end(),
                NetworkStep::Receive(node, which) => {
                    if !truth.commits.is_empty() {
                        nodes[node].receive(&truth, now, which.get(&truth.commits).clone());
                    }
                }
                NetworkStep::ReceiveNewest(node) => {
                    if let Some(newest) = truth.commits.last() {
                        nodes[node].receive(&truth, now, newest.clone());
                    }
                }
                NetworkStep::ReceiveNext(node) => {
                    let node = &mut nodes[node];
                    let known = node.replica.position();
                    let next = truth.commits.iter().find(|commit| match known {
                        Some((epoch, version)) => commit.epoch == epoch && commit.version == version.next(),
                        None => true,
                    });
                    if let Some(next) = next {
                        node.receive(&truth, now, next.clone());
                    }
                }
                NetworkStep::Begin(node) => nodes[node].begin(),
                NetworkStep::Read(node) => nodes[node].read(&truth),
                NetworkStep::Finish(node) => nodes[node].finish(&truth, now),
                NetworkStep::Fail(node) => nodes[node].load = None,
                NetworkStep::Join(node, who) => nodes[node].join(now, who),
                NetworkStep::Leave(node, who) => nodes[node].leave(who),
                NetworkStep::Wait(time) => now = Tick(now.0 + time),
            }
            for node in &mut nodes {
                node.flush(now);
            }
        }
        for node in &mut nodes {
            node.heal(&truth, now);
            // The last deltas may all have been lost. Then only a comparison with the database shows it.
            if node.replica.position() != truth.now().position {
                node.begin();
                node.finish(&truth, now);
            }
            prop_assert_eq!(node.replica.position(), truth.now().position);
            prop_assert!(node.replica.roster().iter().eq(truth.now().presences.values()));
            node.flush(Tick(u64::MAX));
            prop_assert!(truth.now().position.is_none() || node.audience.all_know(&all_visible(truth.now().presences.values())));
        }
    }
}
