//! Which node cleans up after a dead one, so that the others do not begin to do so as well while it is at work.

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[derive(DeriveIden)]
enum Nodes {
    Table,
    Cleaner,
    CleanerUntil,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[expect(elided_lifetimes_in_paths, reason = "the trait's own signature elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut cleaner = ColumnDef::new(Nodes::Cleaner);
        match manager.get_database_backend() {
            DbBackend::Postgres => cleaner.uuid(),
            _ => cleaner.binary_len(16),
        };
        // One column in each statement, as SQLite wants it. MySQL does not undo one if the record of the migration is lost.
        for (name, column) in
            [("cleaner", cleaner.take()), ("cleaner_until", ColumnDef::new(Nodes::CleanerUntil).big_integer().take())]
        {
            if !manager.has_column("nodes", name).await? {
                manager.alter_table(Table::alter().table(Nodes::Table).add_column(column).take()).await?;
            }
        }
        Ok(())
    }
}
