//! PostgreSQL and MySQL: lost connections, the clock, query plans, rights.

mod locks;
mod statements;

use std::{sync::Arc, time::Duration};

use presence_test_servers::{Database, ServerKind, database};
use sea_orm::{ConnectionTrait, DbBackend, Statement};

use super::super::*;
use crate::{
    model::Presence,
    name::{ChannelName, NodeName},
    store::{ClearMode, NodeState, NodeStore, Write},
};

const LEASE: Duration = Duration::from_secs(60);

const KINDS: &[ServerKind] = &[
    #[cfg(feature = "postgres")]
    ServerKind::Postgres,
    #[cfg(feature = "mysql")]
    ServerKind::MySql,
];

async fn joined(database: &Database) -> (SqlStore, NodeId) {
    let store = SqlStore::connect(&database.url()).unwrap();
    store.prepare().await.unwrap();
    let node = NodeId::random();
    store.register(node, NodeName::new(node.to_string()).unwrap(), LEASE).await.unwrap();
    (store, node)
}

fn room(n: usize) -> RoomName {
    RoomName::new(format!("room {n}")).unwrap()
}

fn join(node: NodeId) -> Write {
    let id = PresenceId::random();
    Write::Join(Arc::new(Presence::new(id, ChannelName::new(id.to_string()).unwrap(), None, node)))
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn an_encoding_without_every_character_is_refused() {
    let database = database(ServerKind::Postgres).await;
    database.make_anew("ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'").await;
    let store = SqlStore::connect(&database.url()).unwrap();
    let refused = store.prepare().await.unwrap_err();
    assert!(matches!(&refused, StoreError::Refused(_)) && refused.needs_operator(), "{refused:?}");
    assert!(refused.remedy().unwrap().contains("LATIN1"), "{refused:?}");
    assert!(!store.pending_migrations().await.unwrap().is_empty(), "no table was created");
    database.make_anew("ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'").await;
    let (store, node) = joined(&database).await;
    let writes = RoomWrites { room: RoomName::new("сад 🌳").unwrap(), writes: vec![join(node)] };
    store.commit(node, Attempt::next(), [writes].clone().into()).await.unwrap();
    assert_eq!(store.rooms(None, u64::MAX).await.unwrap()[0].room.as_str(), "сад 🌳");
}

#[tokio::test]
async fn several_hosts_are_refused_by_name() {
    for scheme in ["postgres", "postgresql", "mysql", "mariadb"] {
        for rest in ["a,b/x", "ann:p@a:1,b:2/x", "ann:p@a%2Cb/x", "/x?sslmode=disable&host=a,b", "a/x?port=1,2"] {
            let url = format!("{scheme}://{rest}");
            let Err(StoreError::Refused(source)) = SqlStore::connect(&url) else { panic!("{url} is refused") };
            assert!(source.is::<crate::store::SeveralHosts>() || source.is::<MissingFeature>(), "{url}: {source}");
        }
    }
    #[cfg(feature = "postgres")]
    SqlStore::connect("postgres://ann:a,b@one/x?application_name=a,b").unwrap();
}

#[tokio::test]
async fn a_single_server_is_no_cluster() {
    for &kind in KINDS {
        joined(&database(kind).await).await.0.once.database.examine().await.unwrap();
    }
}

#[tokio::test]
async fn a_late_transaction_of_a_dead_node_writes_nothing() {
    for &kind in KINDS {
        let database = database(kind).await;
        let (judge, dead) = (joined(&database).await, joined(&database).await);
        dead.0
            .commit(dead.1, Attempt::next(), [RoomWrites { room: room(0), writes: vec![join(dead.1)] }].into())
            .await
            .unwrap();
        database.connect().await.execute_unprepared("UPDATE leases SET lease_until = 0").await.unwrap();
        judge.0.renew(judge.1, LEASE).await.unwrap();
        assert_eq!(judge.0.fence(judge.1).await.unwrap(), [dead.1]);
        let mode = ClearMode::HoldResumable(LEASE);
        assert_eq!(judge.0.clear(judge.1, dead.1, mode, 10).await.unwrap().handled, 1);
        let late = dead
            .0
            .commit(dead.1, Attempt::next(), [RoomWrites { room: room(0), writes: vec![join(dead.1)] }].into())
            .await;
        assert!(matches!(late, Err(StoreError::Fenced { .. })), "{late:?}");
        assert_eq!(judge.0.load(room(0)).await.unwrap().unwrap().presences, []);
    }
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn the_row_of_a_room_stays_in_its_page_when_the_room_changes() {
    const ROOMS: usize = 500;
    let database = database(ServerKind::Postgres).await;
    let (store, node) = joined(&database).await;
    let join_rooms = async |step| {
        let rooms = (0..ROOMS).step_by(step).map(|n| RoomWrites { room: room(n), writes: vec![join(node)] });
        store.commit(node, Attempt::next(), rooms.collect()).await.unwrap();
    };
    let connection = database.connect().await;
    let pages = async || {
        let pages = "SELECT string_agg(id || split_part(ctid::text, ',', 1), ' ' ORDER BY id) FROM rooms";
        let row = connection.query_one_raw(Statement::from_string(DbBackend::Postgres, pages)).await.unwrap();
        row.unwrap().try_get_by_index::<String>(0).unwrap()
    };
    join_rooms(1).await;
    let before = pages().await;
    // So few that the former versions of the rows can stay as well.
    join_rooms(5).await;
    assert_eq!(pages().await, before);
}

#[tokio::test]
async fn times_are_by_the_clock_of_the_database() {
    for &kind in KINDS {
        let database = database(kind).await;
        let (store, _) = joined(&database).await;
        let nodes = store.nodes().await.unwrap();
        assert!(nodes[0].age < Duration::from_secs(30), "{:?}", nodes[0]);
        assert!(matches!(nodes[0].state, NodeState::Live { left } if left > LEASE / 2 && left <= LEASE));
    }
}

#[tokio::test]
async fn connections_that_were_lost_in_the_pool_make_no_call_fail() {
    for &kind in KINDS {
        let database = database(kind).await;
        let (store, node) = joined(&database).await;
        assert_eq!(store.load(room(0)).await.unwrap(), None);
        database.kill_connections().await;
        assert_eq!(store.load(room(0)).await.unwrap(), None);
        store.renew(node, LEASE).await.unwrap();
    }
}

#[tokio::test]
async fn calls_fail_while_a_server_is_away_and_work_when_it_is_back() {
    for &kind in KINDS {
        let server = presence_test_servers::Server::start(kind, presence_test_servers::CommitSync::None);
        let database = server.database().await;
        server.stop_hard();
        let store = SqlStore::connect(&database.url()).unwrap().with_wait_timeout(Duration::from_secs(1));
        assert!(matches!(store.prepare().await, Err(StoreError::Unavailable(_))));
        server.start_again();
        store.prepare().await.unwrap();
    }
}

#[tokio::test]
async fn presences_of_a_dead_node_are_read_room_by_room_in_the_order_of_an_index() {
    for &kind in KINDS {
        let database = database(kind).await;
        let (store, node) = joined(&database).await;
        // Rooms are joined in turn, so that the presences of a room are scattered over the table.
        for _ in 0..20 {
            let rooms = (0..50).map(|n| RoomWrites { room: room(n), writes: (0..5).map(|_| join(node)).collect() });
            store.commit(node, Attempt::next(), rooms.collect()).await.unwrap();
        }
        let connection = database.connect().await;
        let (analyze, explain) = match kind {
            ServerKind::Postgres => ("ANALYZE presences", "EXPLAIN "),
            _ => ("ANALYZE TABLE presences", "EXPLAIN FORMAT=JSON "),
        };
        connection.execute_unprepared(analyze).await.unwrap();
        let backend = store.once.database.dialect().backend();
        let unheld = statement::unheld(backend, node, 1000).into_statement(backend);
        for mut statement in [unheld, statement::unheld_ids(backend, node, 1000).into_statement(backend)] {
            statement.sql.insert_str(0, explain);
            let plan = store.once.database.readers().query_all_raw(statement).await.unwrap();
            let plan: Vec<String> = plan.iter().map(|step| step.try_get_by_index(0).unwrap()).collect();
            let plan = plan.join("\n");
            assert!(plan.contains("presences_node_room"), "{plan}");
            assert!(!plan.contains("Sort") && !plan.contains("filesort"), "{plan}");
        }
    }
}

#[tokio::test]
async fn a_room_is_loaded_in_the_order_of_an_index_with_and_without_statistics() {
    // PostgreSQL estimated that a page takes all that is left of a room, and sorted that for each page of a new room of 100,000.
    for &kind in KINDS {
        let database = database(kind).await;
        let (store, node) = joined(&database).await;
        for _ in 0..5 {
            let writes = RoomWrites { room: room(0), writes: (0..1000).map(|_| join(node)).collect() };
            store.commit(node, Attempt::next(), [writes].clone().into()).await.unwrap();
        }
        let (_, epoch, _) = store.positions([room(0)].into()).await.unwrap().remove(0);
        let connection = database.connect().await;
        let dialect = store.once.database.dialect();
        let (analyze, explain) = match kind {
            ServerKind::Postgres => ("ANALYZE presences", "EXPLAIN "),
            _ => ("ANALYZE TABLE presences", "EXPLAIN FORMAT=JSON "),
        };
        for prepare in ["SELECT 1", analyze] {
            connection.execute_unprepared(prepare).await.unwrap();
            let mut page = dialect.page(epoch, "", PRESENCES_PER_PAGE);
            page.sql.insert_str(0, explain);
            let plan = connection.query_all_raw(page).await.unwrap();
            let plan: Vec<String> = plan.iter().map(|step| step.try_get_by_index(0).unwrap()).collect();
            let plan = plan.join("\n");
            assert!(plan.contains("presences_room_channel"), "{prepare}: {plan}");
            assert!(!plan.contains("Sort") && !plan.contains("filesort"), "{prepare}: {plan}");
        }
    }
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn postgres_deletes_by_key_with_and_without_statistics() {
    let database = database(ServerKind::Postgres).await;
    let (store, node) = joined(&database).await;
    let mut there = Vec::new();
    for n in 0..10 {
        let writes = RoomWrites { room: room(n), writes: (0..1000).map(|_| join(node)).collect() };
        let commit = store.commit(node, Attempt::next(), [writes].clone().into()).await.unwrap().remove(0);
        there.extend(commit.delta.joined.into_iter().map(|presence| (presence, commit.epoch)));
    }
    let connection = database.connect().await;
    let dialect = store.once.database.dialect().clone();
    for (analyze, size) in [("SELECT 1", 1), ("SELECT 1", 20), ("ANALYZE presences", 1), ("ANALYZE presences", 20)] {
        connection.execute_unprepared(analyze).await.unwrap();
        let some = &there[..size];
        let ids: Vec<_> = some.iter().map(|(presence, _)| presence.id.as_uuid()).collect();
        let leaves: Vec<_> = some.iter().map(|(presence, room)| (presence.id, *room, &presence.channel)).collect();
        let keys = chunk::keys(dialect.backend(), &ids).remove(0);
        let delete = statement::delete_removable(keys, statement::RemovalFilter::UnheldOf(node));
        for mut statement in [dialect.backend().build(&delete), dialect.delete_returning(&leaves).unwrap()] {
            statement.sql.insert_str(0, "EXPLAIN ");
            let plan = connection.query_all_raw(statement).await.unwrap();
            let plan: Vec<String> = plan.iter().map(|step| step.try_get_by_index(0).unwrap()).collect();
            let plan = plan.join("\n");
            assert!(plan.contains("presences_pkey") && !plan.contains("Seq Scan"), "{analyze}, {size}: {plan}");
        }
    }
}

/// The rights to migrate and to run a node, from `docs/configuration.md`.
fn rights(kind: ServerKind) -> [Vec<String>; 2] {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, table) = page.split_once("\n| | to migrate | to run |\n").unwrap();
    let database = match kind {
        ServerKind::Postgres => "| PostgreSQL |",
        ServerKind::MySql => "| MariaDB, MySQL |",
    };
    let row = table.lines().find_map(|line| line.strip_prefix(database)).unwrap();
    let mut columns = row.split('|').map(|column| {
        let rights = column.split('`').skip(1).step_by(2);
        rights.map(|right| if kind == ServerKind::MySql { format!("{right} ON *") } else { right.to_owned() }).collect()
    });
    std::array::from_fn(|_| columns.next().unwrap())
}

#[tokio::test]
async fn a_node_needs_no_rights_but_to_read_and_write_rows() {
    // It tried to create the table of migrations.
    for &kind in KINDS {
        let database = database(kind).await;
        let [migrates, runs] = rights(kind);
        let user = async |rights: Vec<String>| {
            let rights: Vec<&str> = rights.iter().map(String::as_str).collect();
            database.user(&rights).await
        };
        let owner = SqlStore::connect(&user(migrates).await).unwrap();
        assert!(!owner.migrate().await.unwrap().is_empty());
        let store = SqlStore::connect(&user(runs).await).unwrap();
        store.prepare().await.unwrap();
        let node = NodeId::random();
        store.register(node, NodeName::new("here").unwrap(), LEASE).await.unwrap();
        let commits = store
            .commit(node, Attempt::next(), [RoomWrites { room: room(0), writes: vec![join(node)] }].into())
            .await
            .unwrap();
        let joined = &commits[0].delta.joined[0];
        store.touch(node, [(joined.id, Duration::ZERO)].into()).await.unwrap();
        let leave = Write::Leave { id: joined.id, channel: joined.channel.clone() };
        store.commit(node, Attempt::next(), [RoomWrites { room: room(0), writes: vec![leave] }].into()).await.unwrap();
        assert_eq!(store.prune_rooms(node).await.unwrap(), 1);
        store.retire(node, Duration::ZERO).await.unwrap();
    }
}

#[tokio::test]
async fn a_missing_right_is_named_with_its_table() {
    // It was logged as a database that is away, and the log did not say which right was missing.
    for &kind in KINDS {
        let database = database(kind).await;
        SqlStore::connect(&database.url()).unwrap().migrate().await.unwrap();
        let rights: &[&str] = match kind {
            ServerKind::Postgres => {
                &["SELECT ON presence_migrations", "SELECT, INSERT, UPDATE, DELETE ON rooms, presences, nodes"]
            }
            ServerKind::MySql => &["SELECT, UPDATE, DELETE ON *"],
        };
        let store = SqlStore::connect(&database.user(rights).await).unwrap();
        let refused = store.register(NodeId::random(), NodeName::new("here").unwrap(), LEASE).await.unwrap_err();
        assert!(matches!(&refused, StoreError::Unavailable(_)) && refused.lacks_right(), "{refused:?}");
        let error = match kind {
            // The error of PostgreSQL names only the table. `check_connection` names the rights.
            ServerKind::Postgres => store.check_connection().await.unwrap_err(),
            ServerKind::MySql => refused,
        };
        let remedy = error.remedy().unwrap();
        let (right, table) = match kind {
            ServerKind::Postgres => ("INSERT ON last_commits", "DELETE ON prune_requests"),
            ServerKind::MySql => ("INSERT command denied", "nodes"),
        };
        assert!(remedy.contains(right) && remedy.contains(table), "{remedy}");
    }
}

#[cfg(feature = "mysql")]
#[tokio::test]
async fn settings_of_the_server_neither_truncate_results_nor_change_statements() {
    // With the limit, only two rooms and presences seemed to exist. With the mode, the node did not start.
    let server = presence_test_servers::Server::start(ServerKind::MySql, presence_test_servers::CommitSync::None);
    let database = server.database().await;
    let admin = database.connect().await;
    for setting in ["sql_select_limit = 2", "sql_big_selects = 0", "max_join_size = 1", "sql_mode = 'ORACLE'"] {
        admin.execute_unprepared(&format!("SET GLOBAL {setting}")).await.unwrap();
    }
    let (store, node) = joined(&database).await;
    let rooms: Vec<_> = (0..5).map(|n| RoomWrites { room: room(n), writes: vec![join(node), join(node)] }).collect();
    let commits = store.commit(node, Attempt::next(), rooms.clone().into()).await.unwrap();
    let names: Vec<RoomName> = (0..5).map(room).collect();
    assert_eq!(
        (store.positions(names.clone().into()).await.unwrap().len(), store.rooms(None, u64::MAX).await.unwrap().len()),
        (5, 5)
    );
    let leave = |presence: &Arc<Presence>| Write::Leave { id: presence.id, channel: presence.channel.clone() };
    let leaves = commits.iter().map(|commit| RoomWrites {
        room: commit.room.clone(),
        writes: commit.delta.joined.iter().map(leave).collect(),
    });
    let left = store.commit(node, Attempt::next(), leaves.collect()).await.unwrap();
    assert_eq!(left.iter().map(|commit| commit.delta.left.len()).sum::<usize>(), 10);
}

#[cfg(feature = "mysql")]
#[tokio::test]
async fn a_server_that_refuses_changes_without_a_key_counts_prunes_and_reports() {
    // A removal of empty rooms was rolled back, again and again.
    let server = presence_test_servers::Server::start(ServerKind::MySql, presence_test_servers::CommitSync::None);
    let database = server.database().await;
    database.connect().await.execute_unprepared("SET GLOBAL sql_safe_updates = 1").await.unwrap();
    let (store, node) = joined(&database).await;
    let write = async |writes| {
        let rooms = [RoomWrites { room: room(0), writes: vec![writes] }];
        store.commit(node, Attempt::next(), rooms.into()).await.unwrap().remove(0)
    };
    let joined = write(join(node)).await.delta.joined.remove(0);
    write(Write::Leave { id: joined.id, channel: joined.channel.clone() }).await;
    let counts = async || {
        let recent = store.recent_changes(node, Duration::MAX, 1).await.unwrap();
        (recent.prunes, recent.set_backs)
    };
    let (prunes, set_backs) = counts().await;
    assert_eq!(store.prune_rooms(node).await.unwrap(), 1);
    store.report_set_back(set_backs, set_backs + 1).await.unwrap();
    assert_eq!(counts().await, (prunes + 1, set_backs + 1));
}

#[cfg(feature = "mysql")]
#[tokio::test]
async fn thousands_of_the_largest_metas_fit_into_packets_of_a_megabyte() {
    let server = presence_test_servers::Server::start(ServerKind::MySql, presence_test_servers::CommitSync::None);
    let database = server.database().await;
    database.connect().await.execute_unprepared("SET GLOBAL max_allowed_packet = 1048576").await.unwrap();
    let (store, node) = joined(&database).await;
    let meta = |fill: &str| {
        let json = format!(r#"{{"fill":"{}"}}"#, fill.repeat(crate::model::meta::MAX_META_BYTES - 11));
        Some(crate::model::Meta::from_json(&json).unwrap())
    };
    let joins: Vec<_> = (0..2_000).map(|_| join(node)).collect();
    let commits =
        store.commit(node, Attempt::next(), [RoomWrites { room: room(0), writes: joins }].into()).await.unwrap();
    let all = &commits[0].delta.joined;
    let update = |presence: &Arc<Presence>| {
        let (id, channel) = (presence.id, presence.channel.clone());
        Write::Update { id, channel, user: None, meta: meta("a") }
    };
    let updates = RoomWrites { room: room(0), writes: all.iter().map(update).collect() };
    assert_eq!(
        store.commit(node, Attempt::next(), [updates].clone().into()).await.unwrap()[0].delta.updated.len(),
        2_000
    );
    // Large rows are inserted, and overwritten for another user.
    let other = |presence: &Arc<Presence>, change: &str| {
        Arc::new(Presence { user: Some(UserId::new(change).unwrap()), ..presence.changed(None, meta("b")) })
    };
    let leave = |presence: &Arc<Presence>| Write::Leave { id: presence.id, channel: presence.channel.clone() };
    store
        .commit(node, Attempt::next(), [RoomWrites { room: room(0), writes: all.iter().map(leave).collect() }].into())
        .await
        .unwrap();
    for user in ["ann", "bob"] {
        let writes = all.iter().map(|presence| Write::Join(other(presence, user))).collect();
        store.commit(node, Attempt::next(), [RoomWrites { room: room(0), writes }].into()).await.unwrap();
    }
    let loaded = store.load(room(0)).await.unwrap().unwrap().presences;
    assert!(loaded.iter().all(|presence| presence.user.as_ref().is_some_and(|user| user.as_str() == "bob")));
    // All presences are touched at once.
    let seen: Vec<_> = (0..30_000).map(|n| (all[n % 2_000].id, Duration::ZERO)).collect();
    store.touch(node, seen.clone().into()).await.unwrap();
    assert_eq!((loaded.len(), store.retire(node, Duration::ZERO).await.unwrap()[0].delta.left.len()), (2_000, 2_000));
}
