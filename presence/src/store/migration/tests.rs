//! Databases of all former schemas are migrated, with all their rows.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement};
use sea_orm_migration::MigratorTrait;

use super::Migrator;
use crate::{
    model::Presence,
    name::{ChannelName, NodeId, NodeName, PresenceId, RoomName},
    session::{Session, SessionHash},
    store::{
        Attempt, NodeStore, RoomStore, RoomWrites, SqlStore, Store, StoreError, Write,
        trial::{Kind, Trial, at_once, block_on, on_each_kind},
    },
};

on_each_kind! { each_former_schema_is_migrated, a_schema_of_a_later_version_is_refused }

const ROOM: u8 = 1;
const NODE: u8 = 2;
const ASKED: u8 = 3;
const ANN: u8 = 4;
const BOB: u8 = 5;
const REQUEST: u8 = 6;
const TOKEN: SessionHash = SessionHash::from_bytes([7; 32]);

/// An id that ends with this digit, as a literal of the database.
fn id(backend: DbBackend, digit: u8) -> String {
    let hex = format!("{digit:032x}");
    match backend {
        DbBackend::Postgres => format!("'{hex}'"),
        _ => format!("x'{hex}'"),
    }
}

/// The migration that gave leases a table of their own.
const LEASES: usize = 8;

/// What a test knows of the rows that it inserts: a condition for each, in the schema of then and in that of now.
struct Filled {
    then: Vec<String>,
    now: Vec<String>,
}

/// Inserts rows into a schema after this many migrations.
async fn fill(database: &DatabaseConnection, migrations: usize) -> Filled {
    let backend = database.get_database_backend();
    let then = rows(backend, migrations, migrations);
    for (table, row) in &then {
        let (columns, values): (Vec<_>, Vec<_>) = row.iter().cloned().unzip();
        let insert = format!("INSERT INTO {table} ({}) VALUES ({})", columns.join(", "), values.join(", "));
        database.execute_unprepared(&insert).await.unwrap_or_else(|error| panic!("{insert}: {error}"));
    }
    let conditions = |rows: Vec<(&str, Vec<(&str, String)>)>| {
        let is = |(column, value): &(&str, String)| format!("{column} = {value}");
        let condition = |(table, row): (&str, Vec<_>)| {
            format!("{table} WHERE {}", row.iter().map(is).collect::<Vec<_>>().join(" AND "))
        };
        rows.into_iter().map(condition).collect()
    };
    Filled { then: conditions(then), now: conditions(rows(backend, migrations, Migrator::migrations().len())) }
}

/// The rows that are inserted after this many migrations, as they are in a schema after `schema` migrations.
fn rows(backend: DbBackend, migrations: usize, schema: usize) -> Vec<(&'static str, Vec<(&'static str, String)>)> {
    let [room, node, asked] = [ROOM, NODE, ASKED].map(|digit| id(backend, digit));
    let [ann, bob, request] = [ANN, BOB, REQUEST].map(|digit| id(backend, digit));
    let bytes = "07".repeat(32);
    let token = if backend == DbBackend::Postgres { format!("'\\x{bytes}'") } else { format!("x'{bytes}'") };
    let mut here = vec![("id", &*node), ("name", "'here'"), ("started_at", "1")];
    let mut there = vec![("id", &*asked), ("lost_name", "'there'"), ("started_at", "1"), ("fenced_at", "3")];
    let mut rows = Vec::new();
    if schema < LEASES {
        here.push(("lease_until", "2"));
        there.push(("lease_until", "2"));
    } else {
        rows.extend([&node, &asked].map(|node| ("leases", vec![("node_id", &**node), ("lease_until", "2")])));
    }
    // The rows of nodes first, to which the others refer.
    rows.splice(0..0, [("nodes", here), ("nodes", there)]);
    rows.push(("rooms", vec![("id", &room), ("channel_name", "'lobby'"), ("version", "7"), ("created_at", "4")]));
    let of = |id, channel, meta| {
        vec![("id", id), ("room_id", &*room), ("channel_name", channel), ("meta", meta), ("node_id", &*node)]
    };
    let mut with_token = of(&ann, "'a'", r#"'{"n":1}'"#);
    with_token.extend([("user_id", "'ann'"), ("session_hash", &token), ("joined_at", "5"), ("last_seen", "6")]);
    let mut held = of(&bob, "'b'", "'{}'");
    held.extend([("held_until", "9000000000000"), ("joined_at", "7"), ("last_seen", "8")]);
    let mut request = vec![
        ("request_id", &*request),
        ("node_id", &asked),
        ("node_name", "'there'"),
        ("asked_by", &node),
        ("max_age", "9"),
        ("pruned", "10"),
    ];
    // Columns of later schemas.
    if migrations >= 2 {
        with_token.push(("grace", "11"));
    }
    if migrations >= 3 {
        request.push(("removal", r#"'{"target":{"user":"bob"},"close":null}'"#));
    }
    rows.extend([("presences", with_token), ("presences", held), ("prune_requests", request)]);
    let owned = |(column, value): (&'static str, &str)| (column, value.to_owned());
    rows.into_iter().map(|(table, row)| (table, row.into_iter().map(owned).collect())).collect()
}

async fn hold(database: &DatabaseConnection, conditions: &[String]) {
    for condition in conditions {
        let count = format!("SELECT COUNT(*) FROM {condition}");
        let row = database.query_one_raw(Statement::from_string(database.get_database_backend(), count)).await.unwrap();
        assert_eq!(row.unwrap().try_get_by_index::<i64>(0).unwrap(), 1, "{condition}");
    }
}

fn each_former_schema_is_migrated(kind: Kind) {
    for migrations in 1..=Migrator::migrations().len() {
        let trial = Trial::of(kind);
        let conditions = block_on(async {
            let old = trial.connect().await;
            Migrator::up(&old, u32::try_from(migrations).ok()).await.unwrap();
            let filled = fill(&old, migrations).await;
            hold(&old, &filled.then).await;
            let pending = SqlStore::connect(&trial.url).unwrap().pending_migrations().await.unwrap();
            assert_eq!(pending.len(), Migrator::migrations().len() - migrations);
            old.close().await.unwrap();
            filled.now
        });
        // Many nodes migrate at once, as after an update of all nodes.
        at_once(4, async |_| SqlStore::connect(&trial.url).unwrap().prepare().await.unwrap());
        block_on(async {
            hold(&trial.connect().await, &conditions).await;
            is_used(&SqlStore::connect(&trial.url).unwrap()).await;
        });
    }
}

fn a_schema_of_a_later_version_is_refused(kind: Kind) {
    let trial = Trial::of(kind);
    block_on(async {
        let store = SqlStore::connect(&trial.url).unwrap();
        store.prepare().await.unwrap();
        let later = "INSERT INTO presence_migrations (version, applied_at) VALUES ('m20991231_235959_telepathy', 0)";
        trial.connect().await.execute_unprepared(later).await.unwrap();
        for refused in [store.prepare().await, store.pending_migrations().await.map(drop)] {
            let Err(StoreError::Refused(source)) = refused else { panic!("{refused:?}") };
            assert!(source.to_string().contains("m20991231_235959_telepathy"));
        }
    });
}

/// Checks that this version reads and changes what an older version wrote.
async fn is_used(store: &SqlStore) {
    assert_eq!(store.pending_migrations().await.unwrap(), Vec::<String>::new());
    let name = RoomName::new("lobby").unwrap();
    let lobby = store.load(name.clone()).await.unwrap().unwrap();
    let who: Vec<_> = lobby.presences.iter().map(|presence| (presence.channel.as_str(), presence.held)).collect();
    assert_eq!((lobby.version.0, who), (7, vec![("a", false), ("b", true)]));
    assert_eq!(store.rooms(None, u64::MAX).await.unwrap()[0].presences, 2);
    assert_eq!(store.nodes().await.unwrap().len(), 2);

    // Ann returns to a later incarnation of the node, with her token.
    let node = NodeId::random();
    let lease = Duration::from_secs(10);
    let former = store.register(node, NodeName::new("here").unwrap(), lease).await.unwrap();
    assert_eq!(former.len(), 1);
    let back = Presence::new(PresenceId::random(), ChannelName::new("c").unwrap(), None, node);
    let session = Session { hash: TOKEN, grace: lease };
    let back = Write::Resume { presence: back.into(), session };
    let commits =
        store.commit(node, Attempt::next(), [RoomWrites { room: name, writes: vec![back] }].into()).await.unwrap();
    let ann = &commits[0].resumed[0].presence;
    assert_eq!((ann.id, ann.user.as_ref().unwrap().as_str()), (lobby.presences[0].id, "ann"));
    assert_eq!(ann.meta.as_str(), r#"{"n":1}"#);
}

/// MySQL cannot undo statements that change the schema: the last migration was done, but not recorded.
#[cfg(feature = "mysql")]
#[test]
fn a_migration_that_was_interrupted_is_run_again() {
    for migrations in 1..=Migrator::migrations().len() {
        let trial = Trial::of(Kind::MySql);
        block_on(async {
            let old = trial.connect().await;
            Migrator::up(&old, u32::try_from(migrations).ok()).await.unwrap();
            let filled = fill(&old, migrations).await;
            let last = "DELETE FROM presence_migrations ORDER BY version DESC LIMIT 1";
            old.execute_unprepared(last).await.unwrap();
            let store = SqlStore::connect(&trial.url).unwrap();
            assert_eq!(store.migrate().await.unwrap().len(), Migrator::migrations().len() - migrations + 1);
            hold(&old, &filled.now).await;
            is_used(&store).await;
        });
    }
}
