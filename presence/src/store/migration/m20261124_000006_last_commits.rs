//! Each node's last commit: by it a node that heard no answer learns whether it was done.

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[derive(DeriveIden)]
enum LastCommits {
    Table,
    NodeId,
    Attempt,
}

#[derive(DeriveIden)]
enum Nodes {
    Table,
    Id,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[expect(elided_lifetimes_in_paths, reason = "the trait's own signature elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let backend = manager.get_database_backend();
        let mut node = ColumnDef::new(LastCommits::NodeId);
        match backend {
            DbBackend::Postgres => node.uuid(),
            _ => node.binary_len(16),
        };
        let mut of_a_life = ForeignKey::create()
            .from(LastCommits::Table, LastCommits::NodeId)
            .to(Nodes::Table, Nodes::Id)
            .on_delete(ForeignKeyAction::Cascade)
            .take();
        let mut table = Table::create()
            .table(LastCommits::Table)
            // MySQL does not undo it if what follows fails.
            .if_not_exists()
            .col(node.not_null().primary_key())
            .col(ColumnDef::new(LastCommits::Attempt).big_integer().not_null())
            .foreign_key(&mut of_a_life)
            .take();
        if backend == DbBackend::MySql {
            table.engine("InnoDB");
        }
        manager.create_table(table).await
    }
}
