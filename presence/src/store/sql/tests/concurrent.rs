//! Many nodes that use one database at once.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    super::*,
    trial::{Kind, Trial, at_once, block_on, on_each_kind},
};
use crate::{
    model::{Meta, Presence},
    name::{ChannelName, NodeName},
    session::{Session, SessionHash},
    store::{ClearMode, NodeStore, Resumed, SweepShare, Write},
};

const LEASE: Duration = Duration::from_secs(60);
const NODES: usize = 4;

on_each_kind! {
    nodes_prepare_an_empty_database_at_once,
    nodes_share_a_room_without_an_error,
    writers_of_overlapping_rooms_never_see_a_deadlock,
}

async fn joined(trial: &Trial) -> (SqlStore, NodeId) {
    let store = SqlStore::connect(&trial.url).unwrap();
    store.prepare().await.unwrap();
    let node = NodeId::random();
    store.register(node, NodeName::new(node.to_string()).unwrap(), LEASE).await.unwrap();
    (store, node)
}

fn room(n: usize) -> RoomName {
    RoomName::new(format!("room {n}")).unwrap()
}

fn presence(node: NodeId) -> Arc<Presence> {
    let id = PresenceId::random();
    Arc::new(Presence::new(id, ChannelName::new(id.to_string()).unwrap(), None, node))
}

fn join(node: NodeId) -> RoomWrites {
    RoomWrites { room: room(0), writes: vec![Write::Join(presence(node))] }
}

fn nodes_prepare_an_empty_database_at_once(kind: Kind) {
    for _ in 0..3 {
        let trial = Trial::of(kind);
        at_once(NODES, async |_| {
            let (store, node) = joined(&trial).await;
            store.commit(node, Attempt::next(), [join(node)].into()).await.unwrap();
            assert_eq!(store.pending_migrations().await.unwrap(), Vec::<String>::new());
        });
    }
}

fn nodes_share_a_room_without_an_error(kind: Kind) {
    const COMMITS: usize = 50;
    let trial = Trial::of(kind);
    let versions = Mutex::new(Vec::new());
    at_once(NODES, async |_| {
        let (store, node) = joined(&trial).await;
        for _ in 0..COMMITS {
            let commits = store.commit(node, Attempt::next(), [join(node)].into()).await.unwrap();
            versions.lock().push(commits[0].version.0);
            let loaded = store.load(room(0)).await.unwrap().unwrap();
            assert!(loaded.version >= commits[0].version);
            assert_eq!(loaded.presences.len() as u64, loaded.version.0, "a load shows one moment");
        }
    });
    let mut versions = versions.into_inner();
    versions.sort_unstable();
    assert_eq!(versions, (1..=(NODES * COMMITS) as u64).collect::<Vec<_>>());
}

/// A minute in `tests/run`, otherwise three seconds.
fn time() -> Duration {
    let given = std::env::var("PRESENCE_TEST_WRITERS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(given.unwrap_or(3))
}

fn writers_of_overlapping_rooms_never_see_a_deadlock(kind: Kind) {
    let trial = Trial::of(kind);
    let history = History::default();
    let rounds = Mutex::new(Vec::new());
    at_once(NODES, async |thread| {
        let (store, node) = joined(&trial).await;
        let mut writer = NodeThread { thread, node, here: Default::default() };
        let until = Instant::now() + time();
        let mut round = 0;
        while Instant::now() < until {
            writer.run_round(&store, round, &history).await;
            round += 1;
        }
        rounds.lock().push(round);
    });
    println!("{kind:?}: rounds {:?}", rounds.into_inner());
    let store = SqlStore::connect(&trial.url).unwrap();
    block_on(history.check(&store));
}

const ROOMS: usize = 6;
/// How many resume tokens each room has. All writers use them.
const TOKENS: u8 = 3;
const SOON: Duration = Duration::from_millis(1);

/// A node that makes all calls of a node, in rooms that other nodes use, too.
struct NodeThread {
    thread: usize,
    node: NodeId,
    /// The presences of this node in each room, as far as it knows.
    here: [VecDeque<Arc<Presence>>; ROOMS],
}

impl NodeThread {
    async fn run_round(&mut self, store: &SqlStore, round: usize, history: &History) {
        let node = self.node;
        // Each node has another order.
        let mut rooms: Vec<_> = (0..ROOMS).filter(|room| !(round + room).is_multiple_of(3)).collect();
        rooms.rotate_left((round + self.thread) % 4);
        let writes: Vec<_> = rooms.iter().map(|n| self.writes(*n, round)).collect();
        let commits = store.commit(node, Attempt::next(), writes.clone().into()).await.unwrap();
        for (n, commit) in rooms.iter().zip(&commits) {
            let here = &mut self.here[*n];
            for Resumed { presence, .. } in &commit.resumed {
                here.retain(|other| other.id != presence.id);
                here.push_back(presence.clone());
            }
            here.extend(commit.delta.joined.iter().cloned());
        }
        history.add(commits);

        let seen: Vec<_> = self.here.iter().flatten().rev().map(|presence| (presence.id, Duration::ZERO)).collect();
        store.touch(node, seen.clone().into()).await.unwrap();
        store.renew(node, LEASE).await.unwrap();
        history.add(store.sweep(node, SweepShare::whole(), 10).await.unwrap().commits);
        history.add(store.prune(node, SOON, Duration::ZERO, 10).await.unwrap().commits);
        history.add(store.remove(node, RemovalTarget::Room(room(round % ROOMS)), 10).await.unwrap().commits);
        assert_eq!(store.fence(node).await.unwrap(), []);
        let nothing = store.clear(node, node, ClearMode::HoldAll(LEASE), 10).await.unwrap();
        assert_eq!(nothing, Batch::default(), "it is alive");
        store.prune_rooms(node).await.unwrap();
        store.load(room(round % ROOMS)).await.unwrap();
        store.rooms(None, u64::MAX).await.unwrap();
    }

    /// Two presences join, one of them with a token that another presence may have, on any node. Of the others, one changes, one is
    /// held and two leave.
    fn writes(&mut self, n: usize, round: usize) -> RoomWrites {
        let token = u8::try_from(round % usize::from(TOKENS)).unwrap();
        let hash = SessionHash::from_bytes([u8::try_from(n).unwrap() * TOKENS + token; 32]);
        let session = Session { hash, grace: SOON };
        let mut writes =
            vec![Write::Join(presence(self.node)), Write::Resume { presence: presence(self.node), session }];
        let here = &mut self.here[n];
        for what in 0..4.min(here.len().saturating_sub(4)) {
            let Some(presence) = here.pop_front() else { break };
            let (id, channel) = (presence.id, presence.channel.clone());
            writes.push(match what {
                0 => {
                    here.push_back(presence);
                    let meta = Some(Meta::from_json(&format!(r#"{{"round":{round}}}"#)).unwrap());
                    Write::Update { id, channel, user: None, meta }
                }
                1 => Write::Hold { id, channel, grace: SOON },
                _ => Write::Leave { id, channel },
            });
        }
        RoomWrites { room: room(n), writes }
    }
}

/// All commits of each epoch of each room.
#[derive(Default)]
struct History(Mutex<BTreeMap<(RoomName, Epoch), Vec<RoomCommit>>>);

impl History {
    fn add(&self, commits: Vec<RoomCommit>) {
        let mut history = self.0.lock();
        for commit in commits.into_iter().filter(RoomCommit::is_new_version) {
            history.entry((commit.room.clone(), commit.epoch)).or_default().push(commit);
        }
    }

    /// Checks that no version is missing or occurs twice, and that the commits in their order lead to what the store has.
    async fn check(self, store: &SqlStore) {
        let mut changes = 0;
        for ((room, epoch), mut commits) in self.0.into_inner() {
            commits.sort_unstable_by_key(|commit| commit.version);
            let mut here = BTreeMap::new();
            for (commit, version) in commits.iter().zip(1..) {
                assert_eq!(commit.version.0, version, "{room}");
                for presence in &commit.delta.left {
                    assert!(here.remove(&presence.id).is_some(), "{room}: {presence:?} left twice");
                }
                for presence in &commit.delta.joined {
                    assert!(
                        here.insert(presence.id, presence.meta.clone()).is_none(),
                        "{room}: {presence:?} joined twice"
                    );
                }
                for presence in &commit.delta.updated {
                    here.insert(presence.id, presence.meta.clone()).unwrap();
                }
            }
            changes += commits.len();
            let there = store.load(room.clone()).await.unwrap().filter(|there| there.epoch == epoch);
            let there = there.map(|there| {
                assert_eq!(there.version.0, commits.len() as u64, "{room}");
                there.presences.into_iter().map(|presence| (presence.id, presence.meta.clone())).collect()
            });
            assert_eq!(here, there.unwrap_or_default(), "{room}");
        }
        println!("{changes} changes of rooms");
        assert!(changes > 0);
    }
}
