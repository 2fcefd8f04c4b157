//! Requests may remove a user or a room, too.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[derive(DeriveIden)]
enum PruneRequests {
    Table,
    Removal,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[expect(elided_lifetimes_in_paths, reason = "the trait's own signature elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // MySQL does not undo this if the next statement fails.
        if manager.has_column("prune_requests", "removal").await? {
            return Ok(());
        }
        let removal = ColumnDef::new(PruneRequests::Removal).text().null().take();
        manager.alter_table(Table::alter().table(PruneRequests::Table).add_column(removal).take()).await
    }
}
