//! Adds the grace of each presence, and an index on resume tokens.
//!
//! The hash of a token includes the room, so that one statement finds the tokens of many rooms.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[derive(DeriveIden)]
enum Presences {
    Table,
    SessionHash,
    Grace,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[expect(elided_lifetimes_in_paths, reason = "the trait's own signature elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // Each step checks whether it was done: MySQL does not undo the first step if the second fails.
        if !manager.has_column("presences", "grace").await? {
            let grace = ColumnDef::new(Presences::Grace).big_integer().take();
            manager.alter_table(Table::alter().table(Presences::Table).add_column(grace).take()).await?;
        }
        if manager.has_index("presences", "presences_room_session").await? {
            let old = Index::drop().name("presences_room_session").table(Presences::Table).to_owned();
            manager.drop_index(old).await?;
        }
        if manager.has_index("presences", "presences_session").await? {
            return Ok(());
        }
        let mut session = Index::create().name("presences_session").table(Presences::Table).take();
        session.col(Presences::SessionHash).unique();
        if manager.get_database_backend() != DbBackend::MySql {
            session.and_where(Expr::col(Presences::SessionHash).is_not_null());
        }
        manager.create_index(session.take()).await
    }
}
