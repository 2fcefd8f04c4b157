//! Leaves space in the pages of PostgreSQL for the next versions of the rows that are updated most. A row that moves to another page is
//! entered into each index again, and the page is written as well.

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

/// How much of a page PostgreSQL fills with new rows, in per cent. The rows of nodes are few, and each is updated several times a second.
const FILL: [(&str, u8); 3] = [("rooms", 70), ("leases", 50), ("last_commits", 50)];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[expect(elided_lifetimes_in_paths, reason = "the trait's own signature elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if manager.get_database_backend() == DbBackend::Postgres {
            for (table, fill) in FILL {
                let fill = format!("ALTER TABLE {table} SET (fillfactor = {fill})");
                manager.get_connection().execute_unprepared(&fill).await?;
            }
        }
        Ok(())
    }
}
