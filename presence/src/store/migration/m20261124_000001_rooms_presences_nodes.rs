//! The first schema.
//!
//! Ids are UUIDs as 16 bytes, times are milliseconds since 1970, names are compared as bytes. There is no index on
//! `last_seen`: every touch would write to it, and only a prune would read it.
//!
//! On MySQL, every statement that changes the schema ends the transaction. So each table is created in one statement with all its
//! indexes, and skipped if it exists: an interrupted migration is run again.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[derive(DeriveIden)]
enum Nodes {
    Table,
    Id,
    Name,
    LostName,
    StartedAt,
    LeaseUntil,
    FencedAt,
}

#[derive(DeriveIden)]
enum Rooms {
    Table,
    Id,
    ChannelName,
    Version,
    CreatedAt,
}

#[derive(DeriveIden)]
enum Presences {
    Table,
    Id,
    RoomId,
    ChannelName,
    UserId,
    Meta,
    NodeId,
    SessionHash,
    HeldUntil,
    JoinedAt,
    LastSeen,
}

#[derive(DeriveIden)]
enum PruneRequests {
    Table,
    RequestId,
    NodeId,
    NodeName,
    AskedBy,
    MaxAge,
    Pruned,
}

/// A column that holds a UUID in 16 bytes.
fn id(backend: DbBackend, column: impl IntoIden) -> ColumnDef {
    let mut definition = ColumnDef::new(column);
    match backend {
        DbBackend::Postgres => definition.uuid(),
        _ => definition.binary_len(16),
    };
    definition.not_null().take()
}

/// A column whose texts are compared as bytes. This is the default of SQLite; on MySQL the whole table has this collation.
fn name(backend: DbBackend, column: impl IntoIden) -> ColumnDef {
    let mut definition = ColumnDef::new(column);
    definition.string_len(255);
    if backend == DbBackend::Postgres {
        definition.extra("COLLATE \"C\"");
    }
    definition.take()
}

fn number(column: impl IntoIden) -> ColumnDef {
    ColumnDef::new(column).big_integer().take()
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[expect(elided_lifetimes_in_paths, reason = "the trait's own signature elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let backend = manager.get_database_backend();
        let tables = [
            (nodes(backend), Vec::new()),
            (rooms(backend), Vec::new()),
            (presences(backend), indexes_of_presences(backend)),
            (prune_requests(backend), indexes_of_prune_requests()),
        ];
        if backend == DbBackend::MySql {
            let collation = collation(manager.get_connection()).await?;
            for (mut table, indexes) in tables {
                table.if_not_exists().engine("InnoDB").character_set("utf8mb4").collate(collation);
                for mut index in indexes {
                    table.index(&mut index);
                }
                manager.create_table(table).await?;
            }
            return Ok(());
        }
        let (tables, indexes): (Vec<_>, Vec<_>) = tables.into_iter().unzip();
        for table in tables {
            manager.create_table(table).await?;
        }
        for index in indexes.into_iter().flatten() {
            manager.create_index(index).await?;
        }
        Ok(())
    }
}

/// The collation that compares bytes, and considers trailing blanks. `utf8mb4_bin` ignores them.
async fn collation(connection: &SchemaManagerConnection<'_>) -> Result<&'static str, DbErr> {
    let version = Query::select().expr(Expr::cust("VERSION()")).take();
    let row = connection.query_one(&version).await?;
    let version: String = row.map(|row| row.try_get_by_index(0)).transpose()?.unwrap_or_default();
    Ok(if version.contains("MariaDB") { "utf8mb4_nopad_bin" } else { "utf8mb4_0900_bin" })
}

fn nodes(backend: DbBackend) -> TableCreateStatement {
    Table::create()
        .table(Nodes::Table)
        .col(id(backend, Nodes::Id).primary_key())
        .col(name(backend, Nodes::Name).unique_key())
        .col(name(backend, Nodes::LostName))
        .col(number(Nodes::StartedAt).not_null())
        .col(number(Nodes::LeaseUntil).not_null())
        .col(number(Nodes::FencedAt))
        .take()
}

fn rooms(backend: DbBackend) -> TableCreateStatement {
    Table::create()
        .table(Rooms::Table)
        .col(id(backend, Rooms::Id).primary_key())
        .col(name(backend, Rooms::ChannelName).not_null().unique_key())
        .col(number(Rooms::Version).not_null())
        .col(number(Rooms::CreatedAt).not_null())
        .take()
}

fn presences(backend: DbBackend) -> TableCreateStatement {
    let mut room = ForeignKey::create()
        .from(Presences::Table, Presences::RoomId)
        .to(Rooms::Table, Rooms::Id)
        .on_delete(ForeignKeyAction::Restrict)
        .take();
    let mut node = ForeignKey::create()
        .from(Presences::Table, Presences::NodeId)
        .to(Nodes::Table, Nodes::Id)
        .on_delete(ForeignKeyAction::Restrict)
        .take();
    Table::create()
        .table(Presences::Table)
        .col(id(backend, Presences::Id).primary_key())
        .col(id(backend, Presences::RoomId))
        .col(name(backend, Presences::ChannelName).not_null())
        .col(name(backend, Presences::UserId))
        .col(ColumnDef::new(Presences::Meta).text().not_null())
        .col(id(backend, Presences::NodeId))
        .col(ColumnDef::new(Presences::SessionHash).binary_len(32))
        .col(number(Presences::HeldUntil))
        .col(number(Presences::JoinedAt).not_null())
        .col(number(Presences::LastSeen).not_null())
        .foreign_key(&mut room)
        .foreign_key(&mut node)
        .take()
}

fn prune_requests(backend: DbBackend) -> TableCreateStatement {
    use PruneRequests::{AskedBy, MaxAge, NodeId, NodeName, Pruned, RequestId};
    let mut asker = ForeignKey::create()
        .from(PruneRequests::Table, AskedBy)
        .to(Nodes::Table, Nodes::Id)
        .on_delete(ForeignKeyAction::Cascade)
        .take();
    Table::create()
        .table(PruneRequests::Table)
        .col(id(backend, RequestId))
        // Not a foreign key, because an answer stays when its node ends.
        .col(id(backend, NodeId))
        .col(name(backend, NodeName).not_null())
        .col(id(backend, AskedBy))
        .col(number(MaxAge).not_null())
        .col(number(Pruned))
        .primary_key(Index::create().col(RequestId).col(NodeId))
        .foreign_key(&mut asker)
        .take()
}

fn indexes_of_presences(backend: DbBackend) -> Vec<IndexCreateStatement> {
    use Presences::{ChannelName, HeldUntil, NodeId, RoomId, SessionHash, UserId};
    vec![
        index("presences_room_channel", [RoomId, ChannelName]).unique().take(),
        sparse(backend, SessionHash, index("presences_room_session", [RoomId, SessionHash]).unique()),
        index("presences_channel", [ChannelName]),
        // With `held_until`, so that the presences of a dead node that are not held are found without reading the others.
        index("presences_node", [NodeId, HeldUntil]),
        sparse(backend, HeldUntil, &mut index("presences_held", [HeldUntil])),
        sparse(backend, UserId, &mut index("presences_user_room", [UserId, RoomId])),
    ]
}

fn indexes_of_prune_requests() -> Vec<IndexCreateStatement> {
    vec![
        Index::create().name("prune_requests_node").table(PruneRequests::Table).col(PruneRequests::NodeId).take(),
        Index::create().name("prune_requests_asker").table(PruneRequests::Table).col(PruneRequests::AskedBy).take(),
    ]
}

fn index<const N: usize>(name: &str, columns: [Presences; N]) -> IndexCreateStatement {
    let mut index = Index::create().name(name).table(Presences::Table).take();
    for column in columns {
        index.col(column);
    }
    index
}

/// Leaves rows without a value in `column` out of the index, if the database supports it. Most rows have none, and each join would
/// write to the index.
fn sparse(backend: DbBackend, column: Presences, index: &mut IndexCreateStatement) -> IndexCreateStatement {
    if backend != DbBackend::MySql {
        index.and_where(Expr::col(column).is_not_null());
    }
    index.take()
}
