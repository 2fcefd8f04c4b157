//! The last commit of each node. After a lost answer, a node finds here whether the commit was done.

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
            // MySQL does not undo this if the next statement fails.
            .if_not_exists()
            .col(node.not_null().primary_key())
            .col(ColumnDef::new(LastCommits::Attempt).big_integer().not_null())
            .foreign_key(&mut of_a_life)
            .take();
        if backend == DbBackend::MySql {
            table.engine("InnoDB");
        }
        manager.create_table(table).await?;
        // Rows for the incarnations that exist already.
        let noted = Query::select().column(LastCommits::NodeId).from(LastCommits::Table).take();
        let lives = Query::select()
            .column(Nodes::Id)
            .expr(Expr::val(0))
            .from(Nodes::Table)
            .and_where(Expr::col(Nodes::Id).not_in_subquery(noted))
            .take();
        let places = Query::insert()
            .into_table(LastCommits::Table)
            .columns([LastCommits::NodeId, LastCommits::Attempt])
            .select_from(lives)
            .map_err(|error| DbErr::Custom(error.to_string()))?
            .take();
        manager.get_connection().execute(&places).await.map(drop)
    }
}
