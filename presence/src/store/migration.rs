//! How the schema came to be: one migration per file, in order, never changed once released.

mod m20261124_000001_rooms_presences_nodes;

use std::{collections::HashSet, sync::Arc};

use sea_orm::{DatabaseTransaction, DbErr, DynIden, sea_query::IntoIden};
use sea_orm_migration::{MigrationTrait, MigratorTrait};

use super::StoreError;

struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(m20261124_000001_rooms_presences_nodes::Migration)]
    }

    /// Not sea-orm's default: the application may keep its own migrations in the same database.
    fn migration_table_name() -> DynIden {
        "presence_migrations".into_iden()
    }
}

/// The schema holds something that this version of the crate does not know.
#[derive(Debug, thiserror::Error)]
#[error("the schema is of a later version: it has migration `{migration}`")]
struct FromTheFuture {
    migration: String,
}

/// Brings the schema up to date within `transaction`, which must exclude every other that does the same.
pub(super) async fn run(
    transaction: &DatabaseTransaction,
    store_error: impl Fn(DbErr) -> StoreError,
) -> Result<(), StoreError> {
    let applied = Migrator::get_migration_models(transaction).await.map_err(&store_error)?;
    let known: Vec<_> = Migrator::migrations();
    let known: HashSet<&str> = known.iter().map(|migration| migration.name()).collect();
    if let Some(later) = applied.iter().find(|applied| !known.contains(&*applied.version)) {
        return Err(StoreError::Refused(Arc::new(FromTheFuture { migration: later.version.clone() })));
    }
    if applied.len() < known.len() {
        Migrator::up(transaction, None).await.map_err(&store_error)?;
    }
    Ok(())
}
