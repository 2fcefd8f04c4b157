//! `presence migrate`.

use serde::Serialize;

use crate::store::SqlStore;

use super::{failure::Failure, report::Report, table::Medium};

#[derive(Debug, Serialize)]
pub(super) struct Migrated {
    applied: Vec<String>,
}

pub(super) async fn migrate(store: &SqlStore) -> Result<Migrated, Failure> {
    Ok(Migrated { applied: store.migrate().await? })
}

impl Report for Migrated {
    fn text(&self, _: Medium) -> String {
        if self.applied.is_empty() {
            return "the schema is up to date\n".to_owned();
        }
        self.applied.iter().map(|migration| format!("applied {migration}\n")).collect()
    }
}
