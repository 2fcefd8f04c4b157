//! The model as a whole: several nodes, each with a replica and its members, one database that knows the truth, and
//! between them a network that loses, repeats and reorders.

use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;

use crate::clock::Tick;

use crate::model::{
    Snapshot,
    notice::Notices,
    replica::{Applied, Reading, Replica},
    tests::{
        audience::Audience,
        truth::{Commit, Truth, Write, looks, writes},
    },
};

const NODES: usize = 3;
const HOLD: Duration = Duration::from_millis(200);

#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<Write>),
    /// The room is deleted.
    End,
    /// A node hears of some change that ever was, perhaps again.
    Hear(usize, prop::sample::Index),
    /// A node hears of the newest change.
    HearNewest(usize),
    /// A node hears of the change that comes after what it knows.
    HearNext(usize),
    /// A node decides to read the room; the database answers it; the answer comes, or fails.
    Begin(usize),
    Read(usize),
    Finish(usize),
    Fail(usize),
    Join(usize, u8),
    Leave(usize, u8),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 0..NODES;
    prop_oneof![
        8 => writes().prop_map(Step::Commit),
        1 => Just(Step::End),
        6 => (node(), any::<prop::sample::Index>()).prop_map(|(node, which)| Step::Hear(node, which)),
        4 => node().prop_map(Step::HearNewest),
        6 => node().prop_map(Step::HearNext),
        2 => node().prop_map(Step::Begin),
        1 => node().prop_map(Step::Read),
        3 => node().prop_map(Step::Finish),
        1 => node().prop_map(Step::Fail),
        4 => (node(), 0..5u8).prop_map(|(node, who)| Step::Join(node, who)),
        2 => (node(), 0..5u8).prop_map(|(node, who)| Step::Leave(node, who)),
        5 => prop_oneof![0..5u64, 0..150u64].prop_map(Step::Wait),
    ]
}

#[derive(Debug)]
struct Node {
    replica: Replica,
    notices: Notices<u8>,
    audience: Audience,
    waiting: BTreeSet<u8>,
    /// A reading that is under way, with what the database answered, and at which moment.
    reading: Option<Option<(Option<Snapshot>, usize)>>,
    /// Which moment of the truth the replica is at, and which is the newest that it heard of.
    at: usize,
    heard: usize,
}

impl Node {
    fn new(limit: u64) -> Self {
        Self {
            replica: Replica::default(),
            notices: Notices::new(Duration::from_millis(limit)),
            audience: Audience::default(),
            waiting: BTreeSet::new(),
            reading: None,
            at: 0,
            heard: 0,
        }
    }

    fn hear(&mut self, truth: &Truth, now: Tick, commit: Commit) {
        let Commit { epoch, version, delta } = commit;
        self.heard = self.heard.max(truth.moment_of((epoch, version)));
        match self.replica.apply(now, epoch, version, delta) {
            Applied::Changed(changes) => self.notices.changed(now, changes),
            Applied::Early => assert!(self.replica.reload_at(HOLD).is_some_and(|at| at <= now.after(HOLD))),
            Applied::Reload => assert!(self.replica.reload_at(Duration::from_secs(3600)).is_some_and(|at| at <= now)),
        }
        self.check(truth);
    }

    fn begin(&mut self) {
        self.reading = Some(None);
        self.replica.reloading();
    }

    fn read(&mut self, truth: &Truth) {
        if let Some(answer) = &mut self.reading {
            answer.get_or_insert_with(|| (truth.snapshot(), truth.moments.len() - 1));
        }
    }

    fn finish(&mut self, truth: &Truth, now: Tick) {
        self.read(truth);
        if let Some(Some((answer, moment))) = self.reading.take() {
            let before = self.replica.reload(answer.map(Reading::from));
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

    /// What must hold after each step.
    fn check(&mut self, truth: &Truth) {
        let at = self.replica.position().map_or(self.at, |position| truth.moment_of(position));
        assert!(at >= self.at, "it never goes back");
        self.at = at;
        let moment = &truth.moments[at];
        assert_eq!(moment.position, self.replica.position());
        assert!(self.replica.roster().iter().eq(moment.presences.values()), "it is what the room was then");
        assert!(self.at >= self.heard || self.replica.reload_at(HOLD).is_some(), "it says that it is late");
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

    /// Does what is due until then.
    fn flush(&mut self, until: Tick) {
        if let (Some(due), Some(position)) = (self.notices.due().filter(|due| *due <= until), self.replica.position()) {
            let flush = self.notices.flush(due, position);
            assert!(flush.joiners.iter().copied().collect::<BTreeSet<_>>() == self.waiting);
            self.waiting.clear();
            self.audience.hear(flush, self.replica.roster());
            assert_eq!(self.notices.due(), None);
        }
        assert!(self.waiting.is_empty() || self.notices.due().is_some(), "whoever waits is served at some time");
    }

    /// Ends the reading that is under way, and reads the room once more if the replica asks for it.
    fn heal(&mut self, truth: &Truth, now: Tick) {
        self.finish(truth, now);
        if self.replica.reload_at(HOLD).is_some() {
            self.begin();
            self.finish(truth, now);
        }
        assert_eq!(self.replica.reload_at(HOLD), None, "one reading into which nothing comes is enough");
        assert!(self.at >= self.heard);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn over_a_bad_network_a_roster_may_be_late_but_is_never_wrong_and_members_believe_what_it_says(
        steps in prop::collection::vec(step(), 1..150),
        limit in prop_oneof![Just(0), Just(100)],
    ) {
        let mut truth = Truth::new();
        let mut nodes: Vec<Node> = (0..NODES).map(|_| Node::new(limit)).collect();
        let mut now = Tick(0);
        for step in steps {
            match step {
                Step::Commit(writes) => drop(truth.commit(&writes)),
                Step::End => truth.end(),
                Step::Hear(node, which) => {
                    if !truth.commits.is_empty() {
                        nodes[node].hear(&truth, now, which.get(&truth.commits).clone());
                    }
                }
                Step::HearNewest(node) => {
                    if let Some(newest) = truth.commits.last() {
                        nodes[node].hear(&truth, now, newest.clone());
                    }
                }
                Step::HearNext(node) => {
                    let node = &mut nodes[node];
                    let known = node.replica.position();
                    let next = truth.commits.iter().find(|commit| match known {
                        Some((epoch, version)) => commit.epoch == epoch && commit.version == version.next(),
                        None => true,
                    });
                    if let Some(next) = next {
                        node.hear(&truth, now, next.clone());
                    }
                }
                Step::Begin(node) => nodes[node].begin(),
                Step::Read(node) => nodes[node].read(&truth),
                Step::Finish(node) => nodes[node].finish(&truth, now),
                Step::Fail(node) => nodes[node].reading = None,
                Step::Join(node, who) => nodes[node].join(now, who),
                Step::Leave(node, who) => nodes[node].leave(who),
                Step::Wait(time) => now = Tick(now.0 + time),
            }
            for node in &mut nodes {
                node.flush(now);
            }
        }
        for node in &mut nodes {
            node.heal(&truth, now);
            // The last changes may all have been lost; then only a comparison with the database tells.
            if node.replica.position() != truth.now().position {
                node.begin();
                node.finish(&truth, now);
            }
            prop_assert_eq!(node.replica.position(), truth.now().position);
            prop_assert!(node.replica.roster().iter().eq(truth.now().presences.values()));
            node.flush(Tick(u64::MAX));
            prop_assert!(truth.now().position.is_none() || node.audience.all_believe(&looks(truth.now().presences.values())));
        }
    }
}
