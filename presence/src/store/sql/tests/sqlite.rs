//! SQLite: files, locks, faults and query plans.

mod commits;
mod statements;

use std::{path::Path, sync::Arc, time::Duration};

use parking_lot::Mutex;
use sea_orm::{ConnectionTrait, DbBackend, QueryTrait, Statement, TryGetable, sea_query::Expr};
use tempfile::TempDir;

use super::super::*;
use crate::{
    model::{Meta, Presence},
    name::{ChannelName, NodeName},
    session::SessionHash,
    store::{NodeStore, Write},
};

const LEASE: Duration = Duration::from_secs(10);

fn connect(folder: &Path) -> SqlStore {
    SqlStore::connect(&format!("sqlite://{}/presence.db", folder.display())).unwrap()
}

async fn prepared(folder: &Path) -> (SqlStore, NodeId) {
    let store = connect(folder);
    store.prepare().await.unwrap();
    let node = NodeId::random();
    store.register(node, NodeName::new("here").unwrap(), LEASE).await.unwrap();
    (store, node)
}

fn room(name: &str) -> RoomName {
    RoomName::new(name).unwrap()
}

fn presence(node: NodeId, channel: impl AsRef<str>) -> Arc<Presence> {
    Arc::new(Presence::new(PresenceId::random(), ChannelName::new(channel).unwrap(), None, node))
}

fn joins(name: &str, presences: &[Arc<Presence>]) -> Vec<RoomWrites> {
    vec![RoomWrites { room: room(name), writes: presences.iter().cloned().map(Write::Join).collect() }]
}

fn crowd(node: NodeId, size: usize) -> Vec<Arc<Presence>> {
    (0..size).map(|n| presence(node, n.to_string())).collect()
}

#[tokio::test]
async fn everything_is_kept_after_the_process_has_ended() {
    let folder = TempDir::new().unwrap();
    let (store, node) = prepared(folder.path()).await;
    store.commit(node, Attempt::next(), joins("lobby", &crowd(node, 10)).into()).await.unwrap();
    let before = store.load(room("lobby")).await.unwrap().unwrap();
    drop(store);
    let store = connect(folder.path());
    store.prepare().await.unwrap();
    assert_eq!(store.load(room("lobby")).await.unwrap().unwrap(), before);
    store.renew(node, LEASE).await.unwrap();
}

#[tokio::test]
async fn a_database_that_is_away_at_first_is_used_once_it_exists() {
    let folder = TempDir::new().unwrap();
    let later = folder.path().join("later");
    std::fs::create_dir(&later).unwrap();
    let store = connect(&later);
    std::fs::remove_dir(&later).unwrap();
    assert!(matches!(store.prepare().await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.load(room("lobby")).await, Err(StoreError::Unavailable(_))));
    std::fs::create_dir(&later).unwrap();
    store.prepare().await.unwrap();
    assert_eq!(store.load(room("lobby")).await.unwrap(), None);
}

#[test]
fn a_store_can_be_created_before_any_runtime_and_outlive_it() {
    let folder = TempDir::new().unwrap();
    let store = connect(folder.path());
    for _ in 0..2 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(store.prepare()).unwrap();
        assert_eq!(runtime.block_on(store.load(room("lobby"))).unwrap(), None);
    }
}

#[test]
fn a_bad_url_is_refused_at_once() {
    for url in [
        "sqlite:",
        "sqlite://",
        "mssql://localhost/presence",
        "mysql://localhost",
        "presence.db",
        "sqlite://x.db?mode=odd",
        "sqlite:///no/such/folder/x.db",
    ] {
        assert!(matches!(SqlStore::connect(url), Err(StoreError::Refused(_))), "{url}");
    }
}

fn move_file(from: &Path, to: &Path) {
    for beside in ["", "-wal", "-shm"] {
        let name = |path: &Path| format!("{}{beside}", path.display());
        std::fs::rename(name(from), name(to)).unwrap();
    }
}

fn assert_moved<T: std::fmt::Debug>(outcome: Result<T, StoreError>) {
    let error = outcome.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)) && error.needs_operator(), "{error:?}");
}

#[tokio::test]
async fn a_file_that_was_moved_is_not_used_until_it_is_back() {
    let folder = TempDir::new().unwrap();
    let (file, aside) = (folder.path().join("presence.db"), folder.path().join("aside.db"));
    let (store, node) = prepared(folder.path()).await;
    let crowd = crowd(node, 2);
    store.commit(node, Attempt::next(), joins("lobby", &crowd[..1]).into()).await.unwrap();
    move_file(&file, &aside);
    assert_moved(store.renew(node, LEASE).await);
    assert_moved(store.commit(node, Attempt::next(), joins("lobby", &crowd[1..]).into()).await);
    assert_moved(store.load(room("lobby")).await);
    assert_moved(store.positions([room("lobby")].into()).await);
    assert_moved(store.prepare().await);
    assert!(!file.exists(), "no other file is created");
    // A copy at the same path is another file.
    std::fs::copy(&aside, &file).unwrap();
    assert_moved(store.renew(node, LEASE).await);
    assert_moved(store.load(room("lobby")).await);
    std::fs::remove_file(&file).unwrap();
    move_file(&aside, &file);
    store.renew(node, LEASE).await.unwrap();
    store.commit(node, Attempt::next(), joins("lobby", &crowd[1..]).into()).await.unwrap();
    assert_eq!(store.load(room("lobby")).await.unwrap().unwrap().presences.len(), 2);
}

#[tokio::test]
async fn open_does_not_create_a_database() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("presence.db");
    for url in [format!("sqlite://{}", file.display()), format!("sqlite://{}?mode=rwc", file.display())] {
        let store = SqlStore::open(&url).unwrap();
        assert!(matches!(store.load(room("lobby")).await, Err(StoreError::Unavailable(_))));
        assert!(matches!(store.prepare().await, Err(StoreError::Unavailable(_))));
        assert!(matches!(store.pending_migrations().await, Err(StoreError::Unavailable(_))));
        assert!(!file.exists());
    }
    assert!(matches!(SqlStore::open("presence.db"), Err(StoreError::Refused(_))));
    assert!(SqlStore::open("sqlite:///no/such/folder/x.db").is_ok(), "it may exist later");
}

#[tokio::test]
async fn a_migration_is_pending_until_it_is_applied() {
    let folder = TempDir::new().unwrap();
    let store = connect(folder.path());
    let pending = store.pending_migrations().await.unwrap();
    assert!(!pending.is_empty());
    assert_eq!(store.pending_migrations().await.unwrap(), pending, "the call changes nothing");
    assert_eq!(store.migrate().await.unwrap(), pending);
    assert_eq!(store.pending_migrations().await.unwrap(), Vec::<String>::new());
    assert_eq!(store.migrate().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_file_that_is_no_database_is_unavailable_until_it_is_removed() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("presence.db");
    std::fs::write(&file, "Dear diary, ".repeat(1000)).unwrap();
    let store = connect(folder.path());
    assert!(matches!(store.prepare().await, Err(StoreError::Unavailable(_))));
    std::fs::remove_file(&file).unwrap();
    store.prepare().await.unwrap();
}

#[tokio::test]
async fn dropped_tables_make_the_store_unavailable_instead_of_refusing_each_change() {
    // Each change was refused and logged, and leaves were lost.
    let folder = TempDir::new().unwrap();
    let (store, node) = prepared(folder.path()).await;
    let lobby = joins("lobby", &crowd(node, 2));
    for change in ["ALTER TABLE presences RENAME COLUMN meta TO moved", "DROP TABLE presences", "DROP TABLE nodes"] {
        store.once.database.writer.execute_unprepared(change).await.unwrap();
        let outcome = store.commit(node, Attempt::next(), lobby.clone().into()).await;
        assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{change}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_read_only_file_can_be_read_and_is_unavailable_for_writing() {
    let folder = TempDir::new().unwrap();
    let (store, node) = prepared(folder.path()).await;
    store.commit(node, Attempt::next(), joins("lobby", &crowd(node, 3)).into()).await.unwrap();
    let url = format!("sqlite://{}/presence.db?mode=ro", folder.path().display());
    let read_only = SqlStore::connect(&url).unwrap();
    assert_eq!(read_only.load(room("lobby")).await.unwrap().unwrap().presences.len(), 3);
    assert!(matches!(read_only.renew(node, LEASE).await, Err(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn a_full_disk_makes_the_store_unavailable_until_it_has_space() {
    let folder = TempDir::new().unwrap();
    let (store, node) = prepared(folder.path()).await;
    store.once.database.writer.execute_unprepared("PRAGMA max_page_count = 20").await.unwrap();
    let many = joins("lobby", &crowd(node, 5_000));
    for _ in 0..3 {
        let full = store.commit(node, Attempt::next(), many.clone().into()).await;
        assert!(matches!(full, Err(StoreError::Unavailable(_))), "{full:?}");
    }
    store.once.database.writer.execute_unprepared("PRAGMA max_page_count = 1000000").await.unwrap();
    let commits = store.commit(node, Attempt::next(), many.clone().into()).await.unwrap();
    assert_eq!((commits[0].version.0, commits[0].delta.joined.len()), (1, 5_000));
}

#[tokio::test]
async fn a_transaction_that_sqlite_rolls_back_by_itself_does_not_spoil_the_connection() {
    // The driver considered it open for ever, and later transactions began as savepoints, which take no lock.
    let folder = TempDir::new().unwrap();
    let (store, node) = prepared(folder.path()).await;
    let other = connect(folder.path());
    let fails =
        "CREATE TRIGGER fails BEFORE INSERT ON presences BEGIN SELECT RAISE(ROLLBACK, 'as a failing disk'); END";
    other.once.database.writer.execute_unprepared(fails).await.unwrap();
    let lobby = joins("lobby", &crowd(node, 5));
    assert!(store.commit(node, Attempt::next(), lobby.clone().into()).await.is_err());
    other.once.database.writer.execute_unprepared("DROP TRIGGER fails").await.unwrap();
    let locks = store.once.database.write().await.unwrap();
    let waits = tokio::time::timeout(Duration::from_millis(50), other.once.database.write()).await;
    assert!(waits.is_err(), "one transaction writes at a time");
    drop(locks);
    assert_eq!(store.commit(node, Attempt::next(), lobby.clone().into()).await.unwrap()[0].version.0, 1);
}

#[tokio::test]
async fn a_writer_waits_for_a_lock_and_may_be_dropped() {
    let folder = TempDir::new().unwrap();
    let (store, node) = prepared(folder.path()).await;
    let other = connect(folder.path());
    let lock = other.once.database.write().await.unwrap();
    let gives_up = joins("lobby", &[presence(node, "a")]);
    let gives_up =
        tokio::time::timeout(Duration::from_millis(50), store.commit(node, Attempt::next(), gives_up.clone().into()))
            .await;
    assert!(gives_up.is_err());
    assert_eq!(store.load(room("lobby")).await.unwrap(), None, "a reader does not wait");
    let waits = joins("lobby", &[presence(node, "b")]);
    let (commits, ()) = tokio::join!(store.commit(node, Attempt::next(), waits.clone().into()), async { drop(lock) });
    assert_eq!(commits.unwrap()[0].version.0, 1);
}

#[tokio::test]
async fn a_batch_of_any_size_is_committed_whole() {
    let folder = TempDir::new().unwrap();
    let (store, node) = prepared(folder.path()).await;
    let all = crowd(node, 12_345);
    store.commit(node, Attempt::next(), joins("lobby", &all).into()).await.unwrap();
    let metas = all.iter().map(|presence| Write::Update {
        id: presence.id,
        channel: presence.channel.clone(),
        user: None,
        meta: Some(crate::model::Meta::from_json(r#"{"n":1}"#).unwrap()),
    });
    let commits = store
        .commit(node, Attempt::next(), [RoomWrites { room: room("lobby"), writes: metas.collect() }].into())
        .await
        .unwrap();
    assert_eq!((commits[0].version.0, commits[0].delta.updated.len()), (2, 12_345));
    let rooms: Vec<_> = (0..3_000).flat_map(|n| joins(&format!("room {n}"), &[presence(node, "a")])).collect();
    assert_eq!(store.commit(node, Attempt::next(), rooms.clone().into()).await.unwrap().len(), 3_000);
    let commits = store.retire(node, Duration::ZERO).await.unwrap();
    assert_eq!(commits.len(), 3_001);
    assert_eq!(commits.iter().map(|commit| commit.delta.left.len()).sum::<usize>(), 12_345 + 3_000);
}

#[tokio::test]
async fn a_row_that_this_crate_cannot_have_written_is_refused() {
    let folder = TempDir::new().unwrap();
    let (store, node) = prepared(folder.path()).await;
    store.commit(node, Attempt::next(), joins("lobby", &crowd(node, 1)).into()).await.unwrap();
    store.once.database.writer.execute_unprepared("UPDATE presences SET meta = '[1'").await.unwrap();
    assert!(matches!(store.load(room("lobby")).await, Err(StoreError::Refused(_))));
}

/// The value of `PRAGMA name` on the writing connection.
async fn pragma<T: TryGetable>(store: &SqlStore, name: &str) -> T {
    let statement = Statement::from_string(DbBackend::Sqlite, format!("PRAGMA {name}"));
    let row = store.once.database.writer.query_one_raw(statement).await.unwrap().unwrap();
    row.try_get_by_index(0).unwrap()
}

#[tokio::test]
async fn the_setting_synchronous_reaches_the_database() {
    let folder = TempDir::new().unwrap();
    for (synchronous, expected) in [(Synchronous::Normal, 1), (Synchronous::Full, 2)] {
        let store = connect(folder.path()).with_synchronous(synchronous);
        store.prepare().await.unwrap();
        assert_eq!(pragma::<i32>(&store, "synchronous").await, expected);
        assert_eq!(pragma::<String>(&store, "journal_mode").await, "wal");
    }
}

#[tokio::test]
async fn a_new_file_has_pages_of_1_kib_and_an_existing_file_keeps_its_own() {
    let folder = TempDir::new().unwrap();
    assert_eq!(pragma::<i64>(&prepared(folder.path()).await.0, "page_size").await, 1_024);
    let folder = TempDir::new().unwrap();
    let url = format!("sqlite://{}/presence.db?mode=rwc", folder.path().display());
    let made_before = sea_orm::Database::connect(url).await.unwrap();
    made_before.execute_unprepared("PRAGMA page_size = 8192; CREATE TABLE another (id INTEGER)").await.unwrap();
    made_before.close().await.unwrap();
    assert_eq!(pragma::<i64>(&prepared(folder.path()).await.0, "page_size").await, 8_192);
}

#[tokio::test]
async fn a_stored_meta_that_is_nested_too_deep_is_read_as_empty() {
    let folder = TempDir::new().unwrap();
    let (store, node) = prepared(folder.path()).await;
    let crowd = crowd(node, 2);
    store.commit(node, Attempt::next(), joins("lobby", &crowd).into()).await.unwrap();
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(126), "]".repeat(126));
    let deep = format!("UPDATE presences SET meta = '{deep}' WHERE channel_name = '0'");
    store.once.database.writer.execute_unprepared(&deep).await.unwrap();
    let read = store.load(room("lobby")).await.unwrap().unwrap().presences;
    let mut metas: Vec<_> = read.iter().map(|one| (one.channel.as_str(), one.meta.as_str())).collect();
    metas.sort_unstable();
    assert_eq!(metas, [("0", "{}"), ("1", "{}")]);
    let meta = Some(crate::model::Meta::from_json(r#"{"n":1}"#).unwrap());
    let update = Write::Update { id: crowd[0].id, channel: crowd[0].channel.clone(), user: None, meta };
    let update = vec![RoomWrites { room: room("lobby"), writes: vec![update] }];
    let commits = store.commit(node, Attempt::next(), update.clone().into()).await.unwrap();
    assert_eq!(commits[0].delta.updated[0].meta.as_str(), r#"{"n":1}"#, "the next update replaces it");
}
