//! The process that began each incarnation. A process whose name was taken over logs which process did it.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[derive(DeriveIden)]
enum Nodes {
    Table,
    Process,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[expect(elided_lifetimes_in_paths, reason = "the trait's own signature elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // MySQL does not undo this if the record of the migration is lost.
        if manager.has_column("nodes", "process").await? {
            return Ok(());
        }
        let process = ColumnDef::new(Nodes::Process).text().take();
        manager.alter_table(Table::alter().table(Nodes::Table).add_column(process).take()).await
    }
}
