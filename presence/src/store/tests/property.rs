//! For any sequence of calls, all stores return the same, and their commits add up to what they contain.

mod calls;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use proptest::prelude::*;
use tempfile::TempDir;

use crate::{
    ResumeToken,
    model::{Meta, OnlineChanges, Presence},
    name::{ChannelName, NodeId, NodeName, PresenceId, RequestId, RoomName, UserId, Version},
    store::{
        self, Attempt, Batch, ClearMode, MemoryStore, NodeSummary, Order, Removal, RemovalTarget, RoomCommit,
        RoomStore, RoomWrites, Session, SqlStore, Store, StoreError, SweepShare, Write,
    },
    testing::store::ManualClock,
};

use self::calls::{PresenceStep, StoreCall, request};

const LEASE: Duration = Duration::from_secs(10);

const NODES: usize = 3;
const PRESENCES: usize = 6;
const REQUESTS: usize = 2;

type PresencesById = BTreeMap<PresenceId, Arc<Presence>>;

/// The version of a room, the presences that joined, left, changed, were resumed and were refused, and the users who went online and
/// offline.
type CommitOutcome = (Version, [PresencesById; 4], [Vec<UserId>; 2], Vec<PresenceId>);

/// The parts of a result that are equal in all stores. Epochs are random, and some orders are not promised.
#[derive(Debug, PartialEq, Eq)]
enum Returned {
    Commits(BTreeMap<RoomName, CommitOutcome>),
    Nodes(Vec<NodeId>),
    Count(u64),
    Done,
    Fenced(NodeId, bool),
    Refused,
    Unavailable,
}

impl From<StoreError> for Returned {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Fenced { node, superseded } => Self::Fenced(node, superseded),
            StoreError::Refused(_) => Self::Refused,
            StoreError::Unavailable(_) | StoreError::Busy { .. } => Self::Unavailable,
        }
    }
}

impl From<&[RoomCommit]> for Returned {
    fn from(commits: &[RoomCommit]) -> Self {
        let by_id = |presences: &[Arc<Presence>]| presences.iter().map(|p| (p.id, p.clone())).collect();
        let commits = commits.iter().map(|commit| {
            let delta = &commit.delta;
            let [joined, left, updated] = [&delta.joined, &delta.left, &delta.updated].map(|p| by_id(p));
            let taken = commit.resumed.iter().map(|taken| (taken.requested, taken.presence.clone())).collect();
            let outcome =
                (commit.version, [joined, left, updated, taken], users(&commit.online_changes), commit.refused.clone());
            (commit.room.clone(), outcome)
        });
        Self::Commits(commits.collect())
    }
}

/// The names and ids of one run.
struct RunIds {
    presences: Vec<PresenceId>,
    /// The current incarnation of each node, and the one before.
    incarnations: Vec<NodeId>,
    requests: Vec<RequestId>,
    time: ManualClock,
}

fn room(n: u8) -> RoomName {
    RoomName::new(format!("room {n}")).unwrap()
}

fn user(n: u8) -> UserId {
    UserId::new(format!("user {n}")).unwrap()
}

impl RunIds {
    fn new() -> Self {
        Self {
            presences: (0..PRESENCES).map(|_| PresenceId::random()).collect(),
            incarnations: (0..NODES * 2).map(|_| NodeId::random()).collect(),
            requests: (0..REQUESTS).map(|_| RequestId::random()).collect(),
            time: ManualClock::new(),
        }
    }

    fn write(&self, node: usize, in_room: u8, presence: usize, change: &PresenceStep) -> Write {
        let id = self.presences[presence];
        let channel = |n: u8| ChannelName::new(format!("channel {n}")).unwrap();
        let meta = |n: u8| Meta::from_json(["{}", r#"{"n":1}"#, r#"{"n":"it's"}"#][usize::from(n)]).unwrap();
        match *change {
            PresenceStep::Join { channel: at, user, meta: says } => {
                let user = user.map(self::user);
                let presence = Presence::new(id, channel(at), user, self.incarnations[node]);
                Write::Join(Arc::new(Presence { meta: meta(says), ..presence }))
            }
            PresenceStep::Restore { channel: at, user, token } | PresenceStep::Resume { channel: at, user, token } => {
                let user = user.map(self::user);
                let token = ResumeToken::new(format!("{token:016}")).unwrap();
                let hash = token.hash(&room(in_room), user.as_ref());
                let session = Session { hash, grace: Duration::from_secs(10 * u64::from(at)) };
                let presence = Arc::new(Presence::new(id, channel(at), user, self.incarnations[node]));
                match change {
                    PresenceStep::Restore { .. } => Write::Restore { presence, session },
                    _ => Write::Resume { presence, session },
                }
            }
            PresenceStep::JoinWithin { channel: at, token, limit } => {
                let hash = |token| ResumeToken::new(format!("{token:016}")).unwrap().hash(&room(in_room), None);
                let session = token.map(|token| Session { hash: hash(token), grace: Duration::from_secs(10) });
                let presence = Arc::new(Presence::new(id, channel(at), None, self.incarnations[node]));
                Write::JoinWithin { presence, session, limit }
            }
            PresenceStep::Hold { channel: at, grace } => {
                Write::Hold { id, channel: channel(at), grace: Duration::from_secs(grace) }
            }
            PresenceStep::Leave { channel: at } => Write::Leave { id, channel: channel(at) },
            PresenceStep::Update { channel: at, user, meta: says } => {
                let user = user.map(|user| user.map(self::user));
                Write::Update { id, channel: channel(at), user, meta: Some(meta(says)) }
            }
        }
    }

    async fn call(&self, store: &dyn Store, request: &StoreCall) -> (Returned, Vec<RoomCommit>) {
        let incarnations = &self.incarnations;
        let replayed = |commits: Result<Vec<RoomCommit>, StoreError>| match commits {
            Ok(commits) => (Returned::from(&*commits), commits),
            Err(error) => (error.into(), Vec::new()),
        };
        let batch = |batch: Result<Batch, StoreError>| replayed(batch.map(|batch| batch.commits));
        let quiet = |answer: Result<Returned, StoreError>| (answer.unwrap_or_else(Returned::from), Vec::new());
        match request {
            StoreCall::Commit { node, writes } => {
                let rooms = writes.iter().map(|(name, changes)| RoomWrites {
                    room: room(*name),
                    writes: changes
                        .iter()
                        .map(|(presence, change)| self.write(*node, *name, *presence, change))
                        .collect(),
                });
                replayed(store.commit(incarnations[*node], Attempt::next(), rooms.collect()).await)
            }
            StoreCall::Touch { node, presences, ago } => {
                let ago = Duration::from_secs(*ago);
                let seen: Vec<_> = presences.iter().map(|presence| (self.presences[*presence], ago)).collect();
                quiet(store.touch(incarnations[*node], seen.clone().into()).await.map(|()| Returned::Done))
            }
            StoreCall::Pass { .. } => (Returned::Done, Vec::new()),
            StoreCall::Restart { node } => {
                let name = NodeName::new(format!("node {node}")).unwrap();
                quiet(store.register(incarnations[*node], name.clone(), LEASE).await.map(Returned::Nodes))
            }
            StoreCall::Renew { node } => quiet(store.renew(incarnations[*node], LEASE).await.map(|_| Returned::Done)),
            StoreCall::Fence { node } => quiet(store.fence(incarnations[*node]).await.map(Returned::Nodes)),
            StoreCall::Clear { node, dead, all } => {
                let grace = Duration::from_secs(20);
                let mode = if *all { ClearMode::HoldAll(grace) } else { ClearMode::HoldResumable(grace) };
                batch(store.clear(incarnations[*node], incarnations[*dead], mode, u64::MAX).await)
            }
            StoreCall::Sweep { node } => batch(store.sweep(incarnations[*node], SweepShare::whole(), u64::MAX).await),
            StoreCall::Prune { node, age } => batch(
                store
                    .prune(incarnations[*node], Duration::from_secs(*age), Duration::from_secs(*age / 2), u64::MAX)
                    .await,
            ),
            StoreCall::PruneRooms { node } => quiet(store.prune_rooms(incarnations[*node]).await.map(Returned::Count)),
            StoreCall::RemoveRoom { node, room: name } => {
                batch(store.remove(incarnations[*node], RemovalTarget::Room(room(*name)), u64::MAX).await)
            }
            StoreCall::RemoveUser { node, user: name } => {
                batch(store.remove(incarnations[*node], RemovalTarget::User(user(*name)), u64::MAX).await)
            }
            StoreCall::Ask { node, request, age } => {
                let order = match age {
                    Some(age) => Order::Prune { max_age: Duration::from_secs(*age) },
                    None => Order::Remove(Removal { target: RemovalTarget::User(user(0)), close: None }),
                };
                let asked = store
                    .send_request(incarnations[*node], store::Request { id: self.requests[*request], order })
                    .await;
                quiet(asked.map(|_| Returned::Done))
            }
            StoreCall::Withdraw { node, request } => {
                let withdrawn = store.withdraw(incarnations[*node], self.requests[*request]).await;
                quiet(withdrawn.map(|()| Returned::Done))
            }
            StoreCall::Answer { node, request, pruned } => {
                let answered = store.answer(incarnations[*node], self.requests[*request], *pruned).await;
                quiet(answered.map(|()| Returned::Done))
            }
            StoreCall::Retire { node, closed } => {
                replayed(store.retire(incarnations[*node], Duration::from_secs(*closed)).await)
            }
        }
    }
}

/// All lists of a store, without the epochs, which are random.
#[derive(Debug, PartialEq, Eq)]
struct Listed {
    rooms: Vec<(RoomName, Version, [u64; 4])>,
    nodes: Vec<NodeSummary>,
    asked: Vec<Vec<store::Request>>,
    answers: Vec<Vec<store::Answer>>,
}

async fn list(names: &RunIds, store: &dyn Store) -> Listed {
    let rooms = store.rooms(None, u64::MAX).await.unwrap().into_iter();
    let rooms = rooms.map(|room| (room.room, room.version, [room.users, room.anonymous, room.presences, room.held]));
    let (mut asked, mut answers) = (Vec::new(), Vec::new());
    for node in &names.incarnations {
        asked.push(store.open_requests(*node).await.unwrap());
    }
    for request in &names.requests {
        answers.push(store.answers(*request).await.unwrap());
    }
    Listed { rooms: rooms.collect(), nodes: store.nodes().await.unwrap(), asked, answers }
}

/// A room, built only from deltas.
#[derive(Default)]
struct ReplayedRoom {
    version: Version,
    members: BTreeMap<PresenceId, (Option<UserId>, Meta)>,
}

/// The users who went online and offline. Which presence made the difference is not checked: presences that leave together have no
/// promised order.
fn users(changes: &OnlineChanges) -> [Vec<UserId>; 2] {
    [&changes.online, &changes.offline]
        .map(|users| users.values().cloned().collect::<BTreeSet<_>>().into_iter().collect())
}

impl ReplayedRoom {
    fn users(&self) -> BTreeSet<UserId> {
        self.members.values().filter_map(|(user, _)| user.clone()).collect()
    }
}

/// Applies commits, and checks that none repeats a change or reports one that did not happen.
fn fold(rooms: &mut BTreeMap<RoomName, ReplayedRoom>, commits: &[RoomCommit]) {
    for commit in commits {
        let RoomCommit { room, version, delta, resumed, online_changes, .. } = commit;
        let replayed = rooms.entry(room.clone()).or_default();
        let before = replayed.users();
        let step = u64::from(commit.is_new_version());
        assert_eq!(version.0, replayed.version.0 + step, "exactly one version for each change of {room}");
        replayed.version = *version;
        let mut others = resumed.iter().filter(|one| delta.joined.iter().all(|joined| joined.id != one.presence.id));
        assert!(others.all(|one| replayed.members.contains_key(&one.presence.id)), "a resumed presence existed before");
        for presence in &delta.joined {
            let was = replayed.members.insert(presence.id, (presence.user.clone(), presence.meta.clone()));
            assert_eq!(was, None, "a presence that exists does not join");
        }
        for presence in &delta.updated {
            let now = (presence.user.clone(), presence.meta.clone());
            let was = replayed.members.insert(presence.id, now.clone());
            assert!(was.is_some_and(|was| was != now), "an update changes an existing presence");
        }
        for presence in &delta.left {
            let last = replayed.members.remove(&presence.id);
            assert_eq!(last, Some((presence.user.clone(), presence.meta.clone())), "a presence leaves as it was last");
        }
        let (now, [online, offline]) = (replayed.users(), users(online_changes));
        assert!(now.difference(&before).eq(&online), "users with a first presence are online: {commit:?}");
        assert!(before.difference(&now).eq(&offline), "users without a presence left are offline: {commit:?}");
    }
}

async fn check(requests: Vec<StoreCall>) {
    let mut names = RunIds::new();
    let folder = TempDir::new().unwrap();
    let (memory, time) = (MemoryStore::new(names.time.clock()), names.time.clone());
    let sql = SqlStore::connect(&format!("sqlite://{}/presence.db", folder.path().display())).unwrap();
    let sql = sql.with_wall_clock(move || time.millis());
    sql.prepare().await.unwrap();
    sql.track_online();
    for node in 0..NODES {
        for store in [&memory as &dyn Store, &sql] {
            let _ = names.call(store, &StoreCall::Restart { node }).await;
        }
    }
    let mut rooms = BTreeMap::new();
    for request in requests {
        match request {
            StoreCall::Pass { seconds } => names.time.advance(Duration::from_secs(seconds)),
            StoreCall::Restart { node } => {
                names.incarnations[NODES + node] = names.incarnations[node];
                names.incarnations[node] = NodeId::random();
            }
            _ => {}
        }
        let (of_memory, _) = names.call(&memory, &request).await;
        let (of_sql, commits) = names.call(&sql, &request).await;
        assert_eq!(of_memory, of_sql, "{request:?}");
        assert_eq!(list(&names, &memory).await, list(&names, &sql).await, "{request:?}");
        fold(&mut rooms, &commits);
        for name in [0, 1].map(room) {
            let snapshots = [memory.load(name.clone()).await.unwrap(), sql.load(name.clone()).await.unwrap()];
            let [memory, sql] = snapshots.map(|snapshot| {
                let snapshot = snapshot?;
                let members: BTreeMap<_, _> = snapshot.presences.into_iter().map(|p| (p.id, p)).collect();
                Some((snapshot.version, members))
            });
            assert_eq!(memory, sql, "{request:?}");
            match sql {
                Some((version, members)) => {
                    let replayed = rooms.entry(name).or_default();
                    let members: BTreeMap<_, _> =
                        members.values().map(|p| (p.id, (p.user.clone(), p.meta.clone()))).collect();
                    assert_eq!((version, &members), (replayed.version, &replayed.members), "snapshot = sum of deltas");
                }
                None => {
                    let gone = rooms.remove(&name).unwrap_or_default();
                    assert!(gone.members.is_empty(), "only empty rooms are pruned");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn stores_agree_and_deltas_add_up_to_the_snapshot(requests in proptest::collection::vec(request(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check(requests));
    }
}
