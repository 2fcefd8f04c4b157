//! The last commit of each node in each of its lanes. A node of an earlier version has the lane 0, and works on beside later ones. SQLite has
//! one lane, so there the node alone stays the key.

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[expect(elided_lifetimes_in_paths, reason = "the trait's own signature elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // MySQL does not undo this if the record of the migration is lost.
        if manager.has_column("last_commits", "lane").await? {
            return Ok(());
        }
        let add = "ALTER TABLE last_commits ADD COLUMN lane integer NOT NULL DEFAULT 0";
        let alter = match manager.get_database_backend() {
            DbBackend::Postgres => {
                format!("{add}, DROP CONSTRAINT last_commits_pkey, ADD PRIMARY KEY (node_id, lane)")
            }
            DbBackend::MySql => format!("{add}, DROP PRIMARY KEY, ADD PRIMARY KEY (node_id, lane)"),
            _ => add.to_owned(),
        };
        manager.get_connection().execute_unprepared(&alter).await.map(drop)
    }
}
