//! The migrations of the schema, one file for each, in order. A released migration never changes.

mod m20261124_000001_rooms_presences_nodes;
mod m20261124_000002_grace;
mod m20261124_000003_removals;
mod m20261124_000004_rooms_of_a_node;
mod m20261124_000005_fewer_index_writes;
mod m20261124_000006_last_commits;
mod m20261129_000007_process_of_a_life;
mod m20261130_000008_leases;
mod m20261130_000009_pages_with_space;
mod m20261130_000010_lanes;
mod m20261130_000011_changed_rooms;
mod m20261130_000012_cleaners;
mod m20261201_000013_room_changes;
#[cfg(test)]
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod tests;

use std::{collections::HashSet, sync::Arc};

use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbErr, DynIden,
    sea_query::{IntoIden, Query},
};
use sea_orm_migration::{IntoSchemaManagerConnection, MigrationTrait, MigratorTrait, SchemaManager};

use super::StoreError;

struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261124_000001_rooms_presences_nodes::Migration),
            Box::new(m20261124_000002_grace::Migration),
            Box::new(m20261124_000003_removals::Migration),
            Box::new(m20261124_000004_rooms_of_a_node::Migration),
            Box::new(m20261124_000005_fewer_index_writes::Migration),
            Box::new(m20261124_000006_last_commits::Migration),
            Box::new(m20261129_000007_process_of_a_life::Migration),
            Box::new(m20261130_000008_leases::Migration),
            Box::new(m20261130_000009_pages_with_space::Migration),
            Box::new(m20261130_000010_lanes::Migration),
            Box::new(m20261130_000011_changed_rooms::Migration),
            Box::new(m20261130_000012_cleaners::Migration),
            Box::new(m20261201_000013_room_changes::Migration),
        ]
    }

    /// Not the default name of sea-orm, because the application may have its own migrations in the same database.
    fn migration_table_name() -> DynIden {
        "presence_migrations".into_iden()
    }
}

/// The schema has a migration that this version of the crate does not know.
#[derive(Debug, thiserror::Error)]
#[error("the schema is of a later version: it has migration `{migration}`")]
struct FromTheFuture {
    migration: String,
}

/// Brings the schema up to date within `transaction`, which must exclude all other migrations. Returns the names of the
/// migrations that it applied.
pub(super) async fn run(
    transaction: &DatabaseTransaction,
    store_error: impl Fn(DbErr) -> StoreError,
) -> Result<Vec<String>, StoreError> {
    // Checked first, because the user of a node need not have the right to create tables.
    let missing = pending(transaction, &store_error).await?;
    if !missing.is_empty() {
        Migrator::up(transaction, None).await.map_err(&store_error)?;
    }
    Ok(missing)
}

/// The names of the migrations that [`run`] would apply. Writes nothing.
pub(super) async fn pending<'c, C>(
    connection: &'c C,
    store_error: impl Fn(DbErr) -> StoreError,
) -> Result<Vec<String>, StoreError>
where
    C: ConnectionTrait,
    &'c C: IntoSchemaManagerConnection<'c>,
{
    let table = Migrator::migration_table_name();
    if !SchemaManager::new(connection).has_table(table.to_string()).await.map_err(&store_error)? {
        return missing([]);
    }
    let versions = Query::select().column("version").from(table).take();
    let rows = connection.query_all(&versions).await.map_err(&store_error)?;
    let applied: Result<Vec<String>, _> = rows.iter().map(|row| row.try_get_by_index(0)).collect();
    missing(applied.map_err(store_error)?)
}

fn missing(applied: impl IntoIterator<Item = String>) -> Result<Vec<String>, StoreError> {
    let applied: HashSet<String> = applied.into_iter().collect();
    let known: Vec<String> = Migrator::migrations().iter().map(|migration| migration.name().to_owned()).collect();
    match applied.iter().find(|applied| !known.contains(applied)) {
        Some(later) => Err(StoreError::Refused(Arc::new(FromTheFuture { migration: later.clone() }))),
        None => Ok(known.into_iter().filter(|known| !applied.contains(known)).collect()),
    }
}
