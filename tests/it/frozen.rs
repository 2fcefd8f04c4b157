//! One of three nodes is suspended within a transaction, under load: what the others and their members notice of that.
//!
//! The rooms of its transaction stay locked until the database ends it. So joins into these rooms are late for a moment, and no other join
//! is. When the node is considered dead, its members leave; and when it continues, their sockets, which are still open, are back.

mod load;
mod suspended;

use crate::support::backend::{Backend, BackendKind};
use crate::support::guest::Guest;
use crate::support::http::becomes;
use crate::support::server::ChatServer;
use crate::support::{BOUND, Duration, SLACK, alone, millis, secs};
use load::{Join, Joins, Visitor, longest_pause, percentile};
use sea_orm::DatabaseConnection;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// By when members of other nodes see nobody of the stopped one any more: a lease, a sweep and 2 s.
const GONE: Duration = millis(5_500);
/// As short as that a test has several rounds in a minute. Nothing is limited for a client, because each comes and goes all the time.
const SETTINGS: [(&str, &str); 6] = [
    ("PRESENCE_LEASE", "3s"),
    ("PRESENCE_SWEEP_INTERVAL", "500ms"),
    ("PRESENCE_RECONCILE_INTERVAL", "1s"),
    ("PRESENCE_NOTIFY_INTERVAL", "10ms"),
    ("PRESENCE_JOINS_PER_SECOND", "0"),
    ("PRESENCE_MESSAGES_PER_SECOND", "0"),
];
const NODES: usize = 3;
/// Rooms in which all nodes have members who come and go all the time.
const SHARED: [&str; 2] = ["lobby", "kitchen"];
/// So many on each node come and go in each of these rooms, without a pause, and so many in rooms of their own.
const SHARED_VISITORS: usize = 2;
const OWN_VISITORS: usize = 12;
/// How often one joins its own room: so rarely that a join which waits for a lock does not delay the next one.
const PACE: Duration = secs(1);
/// How long joins are measured before a node is stopped: longer than a lease, since no node judges another before.
const UNDISTURBED: Duration = secs(4);
/// After this time no join into a room that the stopped node had locked fails.
const LOCKED: Duration = secs(3);
const BEAT: Duration = secs(5);
/// A join that waits for the lock of the stopped node takes 2 s: so long does the database wait for that node. If joins into other rooms waited
/// for it too, none would end meanwhile.
const PAUSE: Duration = millis(1_500);
/// What a join may take in any case if nothing else runs.
const NOISE: Duration = millis(50);

fn name(node: usize, rest: &str) -> String {
    format!("n{node}.{rest}")
}

struct Cluster {
    kind: BackendKind,
    session: DatabaseConnection,
    nodes: Vec<ChatServer>,
    /// Those who stay: of each node one in each shared room.
    members: Vec<Vec<Guest>>,
    visitors: Vec<JoinHandle<()>>,
    joins: Joins,
    /// Dropped after the nodes.
    backend: Backend,
}

impl Cluster {
    async fn start(kind: BackendKind) -> Self {
        let backend = Backend::shared(kind).await;
        let mut cluster = Self {
            kind,
            session: backend.connect().await,
            nodes: Vec::new(),
            members: Vec::new(),
            visitors: Vec::new(),
            joins: Joins::default(),
            backend,
        };
        for _ in 0..NODES {
            // Past the proxy, which would run on the threads of the clients.
            let url = cluster.backend.direct();
            let server = ChatServer::start_with(&["--workers", "1", "--database-url", &url], &SETTINGS).await;
            becomes(&server, "/readyz", 200, BOUND).await;
            cluster.nodes.push(server);
        }
        for node in 0..NODES {
            let mut members = Vec::new();
            for room in SHARED {
                members.push(Guest::join(&cluster.nodes[node], room, &*name(node, "stays"), BEAT).await);
            }
            cluster.members.push(members);
        }
        for node in 0..NODES {
            for n in 0..SHARED.len() * SHARED_VISITORS {
                let (room, user) = (SHARED[n % SHARED.len()].to_owned(), name(node, &format!("shared{n}")));
                cluster.visitor(node, true, room, user, Duration::ZERO);
            }
            for n in 0..OWN_VISITORS {
                let (room, user) = (format!("own {node} {n}"), name(node, &format!("own{n}")));
                cluster.visitor(node, false, room, user, PACE);
            }
        }
        cluster
    }

    fn visitor(&mut self, node: usize, shared: bool, room: String, user: String, pace: Duration) {
        let visitor = Visitor { node, shared, room, user, pace, joins: self.joins.clone() };
        self.visitors.push(visitor.begin(&self.nodes[node]));
    }

    /// Waits until all members of the other nodes have those who stay on this one in their rosters, under the ids that they were given,
    /// or until they have nobody of this node.
    async fn others_see(&mut self, node: usize, there: bool) {
        let ids: Vec<String> = self.members[node].iter().map(|member| member.seen().roster.me).collect();
        let (prefix, stays) = (name(node, ""), name(node, "stays"));
        for other in (0..NODES).filter(|other| *other != node) {
            for (member, id) in self.members[other].iter_mut().zip(&ids) {
                let what = format!("node {node} {} for those of node {other}", if there { "there" } else { "gone" });
                member
                    .until(&what, BOUND, |seen| match there {
                        true => seen.roster.users.get(&stays).is_some_and(|ids| ids.len() == 1 && ids.contains_key(id)),
                        false => !seen.roster.users.keys().any(|user| user.starts_with(&prefix)),
                    })
                    .await;
            }
        }
    }

    fn nobody_was_closed(&self) {
        assert!(self.visitors.iter().all(|visitor| !visitor.is_finished()), "all visitors go on");
        for member in self.members.iter().flatten() {
            let seen = member.seen();
            assert!(seen.end.is_none() && seen.refused.is_empty(), "{:?} {:?}", seen.end, seen.refused);
        }
    }
}

/// What one round measured.
struct Round {
    undisturbed: Own,
    frozen: Own,
    /// The longest time in which no join into another room ended on one of the nodes.
    pause: Duration,
    /// After this time no member of another node saw one of the stopped node any more.
    gone: Duration,
}

/// How long joins into other rooms took.
struct Own {
    count: usize,
    p50: Duration,
    p99: Duration,
}

impl std::fmt::Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} joins, median {:.1?}, 99th percentile {:.1?}", self.count, self.p50, self.p99)
    }
}

impl Own {
    fn of(joins: &[Join]) -> Self {
        let times = || joins.iter().filter(|join| !join.shared).map(|join| join.took);
        assert!(times().count() > 20, "too few joins: {}", times().count());
        Self { count: times().count(), p50: percentile(0.5, times()), p99: percentile(0.99, times()) }
    }
}

impl Cluster {
    async fn round(&mut self, round: usize) -> Round {
        let frozen = fastrand::usize(..NODES);
        for node in 0..NODES {
            self.others_see(node, true).await;
        }
        let begun = Instant::now();
        tokio::time::sleep_until(begun + UNDISTURBED).await;
        let undisturbed = self.joins.due_between(begun, Instant::now(), frozen);

        let log = self.nodes[frozen].log().len();
        let (tries, stopped) = suspended::within_a_transaction(&self.nodes[frozen], self.kind, &self.session).await;
        let waiting = suspended::waiting(self.kind, &self.session).await;
        self.others_see(frozen, false).await;
        let gone = stopped.elapsed();
        // One bound for all of them, and so long at least that late joins have ended.
        tokio::time::sleep_until(stopped + GONE).await;
        let ended = Instant::now();
        let during = self.joins.between(stopped, ended, frozen);

        self.nodes[frozen].signal("CONT").await;
        self.others_see(frozen, true).await;
        let back = ended.elapsed();
        let lines = self.nodes[frozen].log();
        self.nobody_was_closed();

        let running = (0..NODES).filter(|node| *node != frozen);
        let pause = running.map(|node| longest_pause(&during, node, stopped, ended)).max().unwrap_or_default();
        let result = Round { undisturbed: Own::of(&undisturbed), frozen: Own::of(&during), pause, gone };
        let shared = || during.iter().filter(|join| join.shared);
        let refused = shared().filter(|join| join.refused.is_some()).count();
        println!(
            "{:?} round {round}: stopped at try {tries}, {waiting} waited for a lock; own rooms: undisturbed {:?}, frozen {:?}, none for {pause:.1?}; shared rooms: \
             {} joins, slowest {:.1?}, undisturbed {:.1?}, {refused} refused; gone after {gone:.1?}, back after {back:.1?}",
            self.kind,
            result.undisturbed,
            result.frozen,
            shared().count(),
            percentile(1.0, shared().map(|join| join.took)),
            percentile(1.0, undisturbed.iter().filter(|join| join.shared).map(|join| join.took)),
        );
        assert!(lines[log..].contains("other nodes considered this node dead"), "it is fenced: {}", &lines[log..]);
        let late = during.iter().find(|join| join.due >= stopped + LOCKED && join.refused.is_some());
        assert!(late.is_none(), "refused although no lock is kept any more: {late:?}");
        let own = during.iter().find(|join| !join.shared && join.refused.is_some());
        assert!(own.is_none(), "refused in a room that the node does not have: {own:?}");
        result
    }
}

/// Two rounds beside other tests, by which times are late.
async fn twice(kind: BackendKind) {
    let _alone = alone().await;
    let mut cluster = Cluster::start(kind).await;
    for round in 0..2 {
        let Round { pause, gone, .. } = cluster.round(round).await;
        assert!(pause < PAUSE, "no join into another room for {pause:?}");
        assert!(gone <= GONE + SLACK, "its members are gone after {gone:?}");
    }
}

/// Many rounds with nothing beside them.
async fn twenty_times(kind: BackendKind) {
    let _alone = alone().await;
    let mut cluster = Cluster::start(kind).await;
    let mut all = Vec::new();
    for round in 0..20 {
        all.push(cluster.round(round).await);
    }
    for Round { undisturbed, frozen, pause, gone } in all {
        let bound = (undisturbed.p99 * 2).max(NOISE);
        assert!(frozen.p99 <= bound, "joins into other rooms: {frozen:?}, undisturbed {undisturbed:?}");
        assert!(pause < PAUSE, "no join into another room for {pause:?}");
        assert!(gone <= GONE, "its members are gone after {gone:?}");
    }
}

/// Both databases, for a few rounds and for many.
macro_rules! on {
    ($($kind:ident: $module:ident),*) => {
        $(
            mod $module {
                use crate::support::backend::BackendKind::$kind;

                #[tokio::test]
                async fn a_node_that_is_suspended_within_a_transaction_holds_up_no_other_room() {
                    super::twice($kind).await;
                }

                #[tokio::test]
                #[ignore = "minutes, and nothing else may run: `tests/run --large`"]
                async fn a_node_that_is_suspended_twenty_times_holds_up_no_other_room() {
                    super::twenty_times($kind).await;
                }
            }
        )*
    };
}

on! { Postgres: postgres, MySql: mysql }
