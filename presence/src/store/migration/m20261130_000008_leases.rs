//! The lease of each incarnation has a row of its own, which no transaction that writes presences locks. Such transactions lock the row
//! in `nodes`, also by the foreign key of presences, and kept renewals waiting.

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[derive(DeriveIden)]
enum Leases {
    Table,
    NodeId,
    LeaseUntil,
}

#[derive(DeriveIden)]
enum Nodes {
    Table,
    Id,
    LeaseUntil,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[expect(elided_lifetimes_in_paths, reason = "the trait's own signature elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let backend = manager.get_database_backend();
        let mut node = ColumnDef::new(Leases::NodeId);
        match backend {
            DbBackend::Postgres => node.uuid(),
            _ => node.binary_len(16),
        };
        let mut of_a_node = ForeignKey::create()
            .from(Leases::Table, Leases::NodeId)
            .to(Nodes::Table, Nodes::Id)
            .on_delete(ForeignKeyAction::Cascade)
            .take();
        let mut table = Table::create()
            .table(Leases::Table)
            // MySQL does not undo this if a later statement fails.
            .if_not_exists()
            .col(node.not_null().primary_key())
            .col(ColumnDef::new(Leases::LeaseUntil).big_integer().not_null())
            .foreign_key(&mut of_a_node)
            .take();
        if backend == DbBackend::MySql {
            table.engine("InnoDB");
        }
        manager.create_table(table).await?;
        if !manager.has_column("nodes", "lease_until").await? {
            return Ok(());
        }
        let moved = Query::select().column(Leases::NodeId).from(Leases::Table).take();
        let leases = Query::select()
            .columns([Nodes::Id, Nodes::LeaseUntil])
            .from(Nodes::Table)
            .and_where(Expr::col(Nodes::Id).not_in_subquery(moved))
            .take();
        let move_them = Query::insert()
            .into_table(Leases::Table)
            .columns([Leases::NodeId, Leases::LeaseUntil])
            .select_from(leases)
            .map_err(|error| DbErr::Custom(error.to_string()))?
            .take();
        manager.get_connection().execute(&move_them).await?;
        manager.alter_table(Table::alter().table(Nodes::Table).drop_column(Nodes::LeaseUntil).take()).await
    }
}
