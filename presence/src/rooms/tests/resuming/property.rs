//! Sockets that join, are lost, return on either node and leave, in any order, while the database and rooms fail.

use proptest::{
    collection::vec,
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config as Cases, RngAlgorithm, TestRng, TestRunner},
};

use crate::rooms::tests::prelude::*;

const GRACE: u64 = 10;
const USERS: u8 = 4;

#[derive(Debug, Clone)]
enum ResumeStep {
    /// A socket joins with the token of the user, also if the former one is still open.
    Come {
        user: u8,
        node: usize,
    },
    Lose {
        user: u8,
    },
    Leave {
        user: u8,
    },
    Update {
        user: u8,
        n: u8,
    },
    Pass {
        ms: u64,
    },
    /// The database of a node is away for a moment.
    Away {
        node: usize,
    },
    /// The room of a node fails.
    Fail {
        node: usize,
    },
}

fn step() -> impl Strategy<Value = ResumeStep> {
    prop_oneof![
        8 => (0..USERS, 0..2_usize).prop_map(|(user, node)| ResumeStep::Come { user, node }),
        6 => (0..USERS).prop_map(|user| ResumeStep::Lose { user }),
        1 => (0..USERS).prop_map(|user| ResumeStep::Leave { user }),
        2 => (0..USERS, 0..9_u8).prop_map(|(user, n)| ResumeStep::Update { user, n }),
        6 => (0..3000_u64).prop_map(|ms| ResumeStep::Pass { ms }),
        1 => (0..2_usize).prop_map(|node| ResumeStep::Away { node }),
        1 => (0..2_usize).prop_map(|node| ResumeStep::Fail { node }),
    ]
}

struct ResumeWorld {
    nodes: [TestNode; 2],
    bobs: [FakeClient; 2],
    /// The socket of each user, and its meta.
    here: BTreeMap<u8, FakeClient>,
    meta: BTreeMap<u8, u8>,
    /// Since when each lost user has been away.
    lost: BTreeMap<u8, u64>,
    /// The users that left, or were away for too long. Notices about them are allowed.
    gone: BTreeSet<u8>,
}

impl ResumeWorld {
    async fn start() -> Self {
        let database = MemoryStore::new(Clock::system());
        let quick = || config().lease(secs(60)).max_age(secs(600)).grace(secs(GRACE)).reconcile_interval(secs(2));
        let nodes = [node_on(&database, "here", quick()).await, node_on(&database, "there", quick()).await];
        let bobs = [nodes[0].member("bob 0").await, nodes[1].member("bob 1").await];
        let crowd = Self {
            nodes,
            bobs,
            here: BTreeMap::new(),
            meta: BTreeMap::new(),
            lost: BTreeMap::new(),
            gone: BTreeSet::new(),
        };
        pass(secs(5)).await;
        crowd
    }

    fn now(&self) -> u64 {
        self.nodes[0].rooms.this_node().now().0
    }

    async fn go(&mut self, step: &ResumeStep) {
        match *step {
            ResumeStep::Come { user, node } => {
                let name = format!("u{user}");
                let client = self.nodes[node].client(&name).with_token(&name, secs(GRACE));
                client.join(lobby()).await.unwrap();
                // Near the end of the grace, the return or the leave may be first.
                if self.lost.remove(&user).is_some_and(|since| self.now() > since + GRACE * 1000 - 500) {
                    self.gone.insert(user);
                }
                if let Some(former) = self.here.insert(user, client) {
                    // It is superseded: its connection is closed, now or by reconcile, or breaks before.
                    former.vanish();
                }
            }
            ResumeStep::Lose { user } => {
                if let Some(client) = self.here.remove(&user) {
                    client.lose(lobby());
                    self.lost.insert(user, self.now());
                }
            }
            ResumeStep::Leave { user } => {
                if let Some(client) = self.here.remove(&user) {
                    client.leave(lobby()).await.unwrap();
                    self.meta.remove(&user);
                    self.gone.insert(user);
                }
            }
            ResumeStep::Update { user, n } => {
                if let Some(client) = self.here.get(&user) {
                    client.update(lobby(), &format!(r#"{{"n":{n}}}"#)).await.unwrap();
                    self.meta.insert(user, n);
                }
            }
            ResumeStep::Pass { ms: time } => pass(ms(time)).await,
            ResumeStep::Away { node } => {
                self.nodes[node].store.faults.hang();
                pass(ms(500)).await;
                self.nodes[node].store.faults.release();
                pass(secs(1)).await;
            }
            ResumeStep::Fail { node } => {
                self.nodes[node].rooms.table().send_running(lobby(), ToRoom::Panic);
                pass(secs(3)).await;
            }
        }
    }

    async fn check(mut self, steps: &[ResumeStep]) {
        pass(secs(GRACE * 2)).await;
        settle().await;
        for (user, since) in &self.lost {
            assert!(self.now() > since + GRACE * 1000);
            self.gone.insert(*user);
        }
        let mut expected: Vec<_> = self.here.keys().map(|user| format!("u{user}")).collect();
        expected.extend(["bob 0".to_owned(), "bob 1".into()]);
        expected.sort();
        let children: usize = self.nodes.iter().map(TestNode::children).sum();
        assert_eq!(children, expected.len(), "each presence is looked after by one task: {steps:?}");
        for (node, bob) in self.nodes.iter().zip(&self.bobs) {
            assert_eq!((bob.sees(), node.rows(lobby()).await), (expected.clone(), expected.clone()), "{steps:?}");
            assert_eq!(node.names(lobby()).await, expected, "{steps:?}");
            let snapshot = node.store.database().load(lobby().clone()).await.unwrap().unwrap();
            assert!(snapshot.presences.iter().all(|presence| !presence.held), "{steps:?}");
            for (user, client) in &self.here {
                let shown = bob.view().here.get(&client.me()).cloned();
                let (name, meta) = shown.unwrap_or_else(|| panic!("u{user} has another presence: {steps:?}"));
                assert_eq!(name, format!("u{user}"));
                if !self.gone.contains(user) {
                    let said = self.meta.get(user).map(|n| u64::from(*n));
                    assert_eq!(meta["n"].as_u64(), said, "the meta of u{user}: {steps:?}");
                }
            }
            for user in (0..USERS).filter(|user| !self.gone.contains(user)) {
                let events = bob.view().changes;
                let count = |what: String| events.iter().filter(|one| **one == what).count();
                assert_eq!(count(format!("-u{user}")), 0, "u{user} was never gone: {events:?}, {steps:?}");
                assert!(count(format!("+u{user}")) <= 1, "u{user} came once: {events:?}, {steps:?}");
            }
        }
    }
}

#[actix::test]
async fn a_presence_that_is_resumed_in_time_never_left_and_all_nodes_agree_in_the_end() {
    tokio::time::pause();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Cases::default(), rng);
    let histories = vec(step(), 1..40);
    for _ in 0..30 {
        let steps = histories.new_tree(&mut runner).unwrap().current();
        let mut crowd = ResumeWorld::start().await;
        for step in &steps {
            crowd.go(step).await;
        }
        crowd.check(&steps).await;
    }
}
