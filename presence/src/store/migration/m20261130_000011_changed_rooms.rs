//! What a node needs to ask only for what has changed: the time of the last change of each room, counts of the renewals and commits of each
//! node, and counts that all nodes share.
//!
//! A lease without a count is of a node of an earlier version, which does not record when it changes a room. It works on beside later ones.

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[derive(DeriveIden)]
enum Rooms {
    Table,
    ChangedAt,
}

#[derive(DeriveIden)]
enum Leases {
    Table,
    Renewals,
}

#[derive(DeriveIden)]
enum LastCommits {
    Table,
    Commits,
}

#[derive(DeriveIden)]
enum SharedCounts {
    Table,
    Id,
    Prunes,
    SetBacks,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[expect(elided_lifetimes_in_paths, reason = "the trait's own signature elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // Each step checks whether it was done: MySQL does not undo the first step if the second fails.
        if !manager.has_column("rooms", "changed_at").await? {
            let changed_at = ColumnDef::new(Rooms::ChangedAt).big_integer().not_null().default(0).take();
            manager.alter_table(Table::alter().table(Rooms::Table).add_column(changed_at).take()).await?;
        }
        if !manager.has_index("rooms", "rooms_changed").await? {
            let changed = Index::create().name("rooms_changed").table(Rooms::Table).col(Rooms::ChangedAt).take();
            manager.create_index(changed).await?;
        }
        if !manager.has_column("leases", "renewals").await? {
            let renewals = ColumnDef::new(Leases::Renewals).big_integer().take();
            manager.alter_table(Table::alter().table(Leases::Table).add_column(renewals).take()).await?;
        }
        if !manager.has_column("last_commits", "commits").await? {
            let commits = ColumnDef::new(LastCommits::Commits).big_integer().not_null().default(0).take();
            manager.alter_table(Table::alter().table(LastCommits::Table).add_column(commits).take()).await?;
        }
        let mut table = Table::create()
            .table(SharedCounts::Table)
            .if_not_exists()
            .col(ColumnDef::new(SharedCounts::Id).integer().not_null().primary_key())
            .col(ColumnDef::new(SharedCounts::Prunes).big_integer().not_null())
            .col(ColumnDef::new(SharedCounts::SetBacks).big_integer().not_null())
            .take();
        if manager.get_database_backend() == DbBackend::MySql {
            table.engine("InnoDB");
        }
        manager.create_table(table).await?;
        let row = Query::select().column(SharedCounts::Id).from(SharedCounts::Table).take();
        if manager.get_connection().query_one(&row).await?.is_some() {
            return Ok(());
        }
        let insert = Query::insert()
            .into_table(SharedCounts::Table)
            .columns([SharedCounts::Id, SharedCounts::Prunes, SharedCounts::SetBacks])
            .values_panic([1.into(), 0.into(), 0.into()])
            .take();
        manager.get_connection().execute(&insert).await.map(drop)
    }
}
