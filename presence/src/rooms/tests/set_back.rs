//! A database that is set back under open sockets, as a standby without the last commits or a restored backup would do it.

use sea_orm::{ConnectionTrait, DatabaseConnection, TransactionTrait};

use super::prelude::*;
use crate::store::{
    SqlStore, Store,
    trial::{Kind, Trial, on_each_kind},
};

on_each_kind! {
    a_database_without_its_last_hundred_commits_has_all_open_sockets_again_within_two_comparisons,
    a_presence_whose_leave_the_database_has_lost_leaves_again_although_its_room_is_empty,
    a_node_whose_incarnation_the_database_has_lost_reads_all_its_rooms_again,
}

const ROOMS: usize = 10;
const SOCKETS: usize = 200;
const COMPARISON: Duration = secs(5);
/// For the readings and writes after a comparison on a busy machine. A third comparison would come later.
const MARGIN: Duration = secs(3);
const GRACE: Duration = secs(60);

async fn node_on(trial: &Trial, name: &str) -> Rooms {
    let config = config().reconcile_interval(COMPARISON).build().unwrap();
    let store = SqlStore::connect(&trial.url).unwrap();
    let rooms = Rooms::start_as_another_process(config, store, NodeName::new(name).unwrap());
    PruningSupervisor::spawn(&rooms);
    rooms.ready().await;
    rooms
}

/// The tables that the writer of a node changes, each after those that its rows name.
const TABLES: [&str; 4] = ["rooms", "presences", "last_commits", "room_changes"];

/// The tables in which nodes are known, and those that the writers change.
const ALL_TABLES: [&str; 6] = ["nodes", "leases", "rooms", "presences", "last_commits", "room_changes"];

async fn copy_tables(database: &DatabaseConnection, tables: &[&str]) {
    for table in tables {
        database.execute_unprepared(&format!("CREATE TABLE copy_of_{table} AS SELECT * FROM {table}")).await.unwrap();
    }
}

async fn set_back(database: &DatabaseConnection, tables: &[&str]) {
    let transaction = database.begin().await.unwrap();
    for table in tables.iter().rev() {
        transaction.execute_unprepared(&format!("DELETE FROM {table}")).await.unwrap();
    }
    for table in tables {
        let bring_back = format!("INSERT INTO {table} SELECT * FROM copy_of_{table}");
        transaction.execute_unprepared(&bring_back).await.unwrap();
    }
    transaction.commit().await.unwrap();
}

/// An open socket, and the room that it is in.
struct OpenSocket {
    name: String,
    room: RoomName,
    client: FakeClient,
}

impl OpenSocket {
    /// Each second socket can be resumed.
    fn new(node: &Rooms, n: usize) -> Self {
        let name = format!("u{n}");
        let client = FakeClient::new(node, Some(user(&name)));
        let client = if n.is_multiple_of(2) { client.with_token(&name, GRACE) } else { client };
        Self { name, room: room(&format!("room {}", n % ROOMS)), client }
    }

    /// Joins, by a commit of its own.
    async fn joined(node: &Rooms, n: usize) -> Self {
        let socket = Self::new(node, n);
        socket.client.join(&socket.room).await.unwrap();
        socket
    }
}

/// Whether the rooms of all nodes, and what the clients see, are exactly these sockets.
async fn all_agree(nodes: [&Rooms; 2], sockets: &[OpenSocket]) -> bool {
    let mut expected: BTreeMap<&RoomName, BTreeSet<String>> = BTreeMap::new();
    for socket in sockets {
        expected.entry(&socket.room).or_default().insert(socket.name.clone());
    }
    let sees = |socket: &OpenSocket| socket.client.sees().into_iter().collect::<BTreeSet<_>>();
    if !sockets.iter().all(|socket| sees(socket) == expected[&socket.room]) {
        return false;
    }
    for (room, names) in &expected {
        let ids: BTreeSet<_> =
            sockets.iter().filter(|socket| socket.room == **room).map(|socket| socket.client.me()).collect();
        let stored = nodes[0].this_node().store.load((*room).clone()).await.unwrap().unwrap().presences;
        if stored.iter().map(|one| one.id.to_string()).collect::<BTreeSet<_>>() != ids {
            return false;
        }
        for node in nodes {
            let members = node.members(room).await.unwrap();
            let users = members.iter().filter_map(|member| member.user()).map(|user| user.as_str().to_owned());
            if users.collect::<BTreeSet<_>>() != *names {
                return false;
            }
        }
    }
    true
}

/// How often each user went online and offline.
fn online_changes(changes: [&mut Subscription; 2]) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for changes in changes {
        while let Some(Some(event)) = tokio::task::unconstrained(changes.next()).now_or_never() {
            for user in event.user_online().iter().chain(event.user_offline()) {
                *times.entry(user.as_str().to_owned()).or_insert(0) += 1;
            }
        }
    }
    times
}

fn a_database_without_its_last_hundred_commits_has_all_open_sockets_again_within_two_comparisons(kind: Kind) {
    let trial = Trial::of(kind);
    actix::System::new().block_on(async {
        let (here, there) = (node_on(&trial, "here").await, node_on(&trial, "there").await);
        let nodes = [&here, &there];
        let node_of = |n: usize| nodes[n / ROOMS % 2];
        let mut sockets = join_all((0..SOCKETS - 50).map(|n| OpenSocket::joined(node_of(n), n))).await;
        let database = trial.connect().await;
        copy_tables(&database, &TABLES).await;
        // At least fifty commits are joins, and twenty-five each leaves, lost sockets and resumes. Half of the resumes are on the other node.
        for n in SOCKETS - 50..SOCKETS {
            sockets.push(OpenSocket::joined(node_of(n), n).await);
        }
        for gone in sockets.drain(..25) {
            gone.client.leave(&gone.room).await.unwrap();
        }
        let can_be_resumed: Vec<usize> = (25..75_usize).filter(|n| n.is_multiple_of(2)).collect();
        for n in can_be_resumed {
            let at = sockets.iter().position(|socket| socket.name == format!("u{n}")).unwrap();
            sockets[at].client.lose(&sockets[at].room.clone());
            sockets[at] = OpenSocket::joined(if n.is_multiple_of(4) { &here } else { &there }, n).await;
        }
        while !all_agree(nodes, &sockets).await {
            tokio::task::yield_now().await;
        }
        let (mut changes, mut others) = (here.changes(), there.changes());
        set_back(&database, &TABLES).await;
        let begun = std::time::Instant::now();
        while !all_agree(nodes, &sockets).await {
            assert!(begun.elapsed() <= COMPARISON * 2 + MARGIN, "it takes longer than two comparisons");
            tokio::task::yield_now().await;
        }
        for socket in &sockets {
            assert_eq!(socket.client.close_codes(), [], "{}", socket.name);
        }
        let times = online_changes([&mut changes, &mut others]);
        assert!(times.values().all(|times| *times <= 1), "{times:?}");
        here.shutdown().await;
        there.shutdown().await;
    });
}

fn a_presence_whose_leave_the_database_has_lost_leaves_again_although_its_room_is_empty(kind: Kind) {
    let trial = Trial::of(kind);
    actix::System::new().block_on(async {
        // A node holds such a presence for two comparisons and a time-out, since another node may have its socket.
        let config = config().reconcile_interval(ms(100)).store_timeout(secs(1)).sweep_interval(ms(100));
        let store = SqlStore::connect(&trial.url).unwrap();
        let node = Rooms::start_as_another_process(config.build().unwrap(), store, NodeName::new("here").unwrap());
        PruningSupervisor::spawn(&node);
        node.ready().await;
        let ann = node_client(&node, "ann").await;
        let database = trial.connect().await;
        copy_tables(&database, &TABLES).await;
        ann.leave(lobby()).await.unwrap();
        while node.running() > 0 {
            tokio::task::yield_now().await;
        }
        set_back(&database, &TABLES).await;
        let members = async || node.this_node().store.load(lobby().clone()).await.unwrap().unwrap().presences.len();
        assert_eq!(members().await, 1);
        let begun = std::time::Instant::now();
        while members().await > 0 {
            assert!(begun.elapsed() <= secs(10), "it stays listed");
            tokio::task::yield_now().await;
        }
        node.shutdown().await;
    });
}

fn a_node_whose_incarnation_the_database_has_lost_reads_all_its_rooms_again(kind: Kind) {
    let trial = Trial::of(kind);
    actix::System::new().block_on(async {
        let (store, there) = (SqlStore::connect(&trial.url).unwrap(), NodeId::random());
        store.prepare().await.unwrap();
        store.register(there, NodeName::new("there").unwrap(), secs(3600)).await.unwrap();
        let presence = |name| Arc::new(Presence::new(PresenceId::random(), channel(name), Some(user(name)), there));
        let joins = async |name| {
            let writes = RoomWrites { room: lobby().clone(), writes: vec![Write::Join(presence(name))] };
            store.commit(there, Attempt::next(), [writes].into()).await.unwrap();
        };
        let database = trial.connect().await;
        joins("bob").await;
        copy_tables(&database, &ALL_TABLES).await;
        joins("cid").await;
        joins("dan").await;
        // What has become of the room some time after the loss, when another node has given the versions that are lost a second time.
        database.execute_unprepared("UPDATE rooms SET changed_at = changed_at - 3600").await.unwrap();
        for table in ALL_TABLES {
            let bring_back = format!("CREATE TABLE later_{table} AS SELECT * FROM {table}");
            database.execute_unprepared(&bring_back).await.unwrap();
        }
        set_back(&database, &ALL_TABLES).await;
        let config = config().reconcile_interval(ms(100)).lease(secs(3)).build().unwrap();
        let here = SqlStore::connect(&trial.url).unwrap();
        let here = Rooms::start_as_another_process(config, here, NodeName::new("here").unwrap());
        here.ready().await;
        let (incarnation, (members, _changes)) = (here.node(), here.members_and_changes(lobby()).await.unwrap());
        assert_eq!(members.len(), 1);
        let job = channel("job");
        here.add(lobby(), &job, None).await.unwrap();
        here.remove(lobby(), &job).await.unwrap();
        for table in ALL_TABLES {
            database.execute_unprepared(&format!("DROP TABLE copy_of_{table}")).await.unwrap();
            let rename = format!("ALTER TABLE later_{table} RENAME TO copy_of_{table}");
            database.execute_unprepared(&rename).await.unwrap();
        }
        set_back(&database, &ALL_TABLES).await;
        let begun = std::time::Instant::now();
        let is_right = async || here.node() != incarnation && here.users(lobby()).await.unwrap().len() == 3;
        while !is_right().await {
            assert!(begun.elapsed() <= secs(20), "{:?}", here.users(lobby()).await);
            tokio::task::yield_now().await;
        }
        here.shutdown().await;
    });
}

async fn node_client(node: &Rooms, name: &str) -> FakeClient {
    let client = FakeClient::new(node, Some(user(name)));
    client.join(lobby()).await.unwrap();
    client
}
