//! The log of the changes of the last seconds, from which nodes read what they miss of a room.
//!
//! A node of an earlier version writes nothing into it. What it changes is missing there, and then the others read the whole room.

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[derive(DeriveIden)]
enum RoomChanges {
    Table,
    RoomId,
    Version,
    NodeId,
    Delta,
    MadeAt,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[expect(elided_lifetimes_in_paths, reason = "the trait's own signature elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let backend = manager.get_database_backend();
        let id = |column| match backend {
            DbBackend::Postgres => ColumnDef::new(column).uuid().not_null().take(),
            _ => ColumnDef::new(column).binary_len(16).not_null().take(),
        };
        let mut delta = ColumnDef::new(RoomChanges::Delta);
        match backend {
            // Its plain type ends at 65,535 bytes.
            DbBackend::MySql => delta.custom("mediumblob"),
            _ => delta.blob(),
        };
        let mut table = Table::create()
            .table(RoomChanges::Table)
            .if_not_exists()
            .col(id(RoomChanges::RoomId))
            .col(ColumnDef::new(RoomChanges::Version).big_integer().not_null())
            .col(id(RoomChanges::NodeId))
            .col(delta.not_null().take())
            .col(ColumnDef::new(RoomChanges::MadeAt).big_integer().not_null())
            .primary_key(Index::create().col(RoomChanges::RoomId).col(RoomChanges::Version))
            .take();
        let mut made_at =
            Index::create().name("room_changes_made").table(RoomChanges::Table).col(RoomChanges::MadeAt).take();
        if backend == DbBackend::MySql {
            // In one statement, because each ends the transaction.
            table.engine("InnoDB").index(&mut made_at);
            return manager.create_table(table).await;
        }
        manager.create_table(table).await?;
        manager.create_index(made_at.if_not_exists().take()).await
    }
}
