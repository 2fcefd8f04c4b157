//! Removes what makes writes slow: an index by channel that no statement uses, and the full pages of PostgreSQL. A full page has no
//! space for the next version of a row, so each touch wrote to every index.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[derive(DeriveIden)]
enum Presences {
    Table,
}

/// How much of a page PostgreSQL fills with new rows, in per cent.
const FILL: u8 = 70;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[expect(elided_lifetimes_in_paths, reason = "the trait's own signature elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if manager.has_index("presences", "presences_channel").await? {
            manager.drop_index(Index::drop().name("presences_channel").table(Presences::Table).to_owned()).await?;
        }
        if manager.get_database_backend() == DbBackend::Postgres {
            let fill = format!("ALTER TABLE presences SET (fillfactor = {FILL})");
            manager.get_connection().execute_unprepared(&fill).await?;
        }
        Ok(())
    }
}
