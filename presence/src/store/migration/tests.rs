//! A database as the first migration made it is brought forward with what is in it.

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend};
use sea_orm_migration::MigratorTrait;

use super::Migrator;
use crate::{
    name::RoomName,
    store::{SqlStore, Store},
};

/// Text of a UUID that ends with this digit, as the database writes one.
fn id(backend: DbBackend, digit: u8) -> String {
    let hex = format!("{digit:032x}");
    match backend {
        DbBackend::Postgres => format!("'{hex}'"),
        _ => format!("x'{hex}'"),
    }
}

async fn is_brought_forward(old: DatabaseConnection, url: &str) {
    let backend = old.get_database_backend();
    Migrator::up(&old, Some(1)).await.unwrap();
    let (node, room, one, other) = (id(backend, 1), id(backend, 2), id(backend, 3), id(backend, 4));
    for rows in [
        format!("INSERT INTO nodes (id, name, started_at, lease_until) VALUES ({node}, 'here', 1, 2)"),
        format!("INSERT INTO rooms (id, channel_name, version, created_at) VALUES ({room}, 'lobby', 7, 1)"),
        format!(
            "INSERT INTO presences (id, room_id, channel_name, user_id, meta, node_id, joined_at, last_seen) \
             VALUES ({one}, {room}, 'a', 'ann', '{{\"n\":1}}', {node}, 1, 1), ({other}, {room}, 'b', NULL, '{{}}', {node}, 1, 1)"
        ),
    ] {
        old.execute_unprepared(&rows).await.unwrap_or_else(|error| panic!("{rows}: {error}"));
    }
    old.close().await.unwrap();

    let store = SqlStore::connect(url).unwrap();
    let pending = store.pending_migrations().await.unwrap();
    assert_eq!(pending.len(), Migrator::migrations().len() - 1);
    assert_eq!(store.migrate().await.unwrap(), pending);
    let lobby = store.load(&RoomName::new("lobby").unwrap()).await.unwrap().unwrap();
    assert_eq!(lobby.version.0, 7);
    let who: Vec<_> =
        lobby.presences.iter().map(|presence| (presence.channel.as_str(), presence.user.is_some())).collect();
    assert_eq!(who, [("a", true), ("b", false)]);
    assert_eq!(store.rooms().await.unwrap()[0].presences, 2);
    assert_eq!(store.nodes().await.unwrap().len(), 1);
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn sqlite_is_brought_forward() {
    let folder = tempfile::TempDir::new().unwrap();
    let url = format!("sqlite://{}/presence.db?mode=rwc", folder.path().display());
    is_brought_forward(sea_orm::Database::connect(&url).await.unwrap(), &url).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn postgres_is_brought_forward() {
    let database = presence_test_servers::database(presence_test_servers::Kind::Postgres).await;
    is_brought_forward(database.connect().await, &database.url()).await;
}

#[cfg(feature = "mysql")]
#[tokio::test]
async fn mysql_is_brought_forward() {
    let database = presence_test_servers::database(presence_test_servers::Kind::MySql).await;
    is_brought_forward(database.connect().await, &database.url()).await;
}
