//! The suite, run by the stores of this crate.

#[cfg(feature = "sqlite")]
mod property;

mod memory {
    use crate::{store::MemoryStore, testing::store::ManualClock};

    async fn make(time: ManualClock) -> (MemoryStore, ()) {
        (MemoryStore::new(time.clock()), ())
    }

    crate::store_suite!(make);
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use tempfile::TempDir;

    use crate::{
        store::{SqlStore, Store},
        testing::store::ManualClock,
    };

    async fn make(time: ManualClock) -> (SqlStore, TempDir) {
        let folder = TempDir::new().unwrap();
        let url = format!("sqlite://{}/presence.db", folder.path().display());
        let store = SqlStore::connect(&url).unwrap().with_wall_clock(move || time.millis());
        store.prepare().await.unwrap();
        (store, folder)
    }

    crate::store_suite!(make);
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
macro_rules! suite_on_server {
    ($module:ident, $kind:ident) => {
        mod $module {
            use presence_test_servers::{Database, ServerKind, database};

            use crate::{
                store::{SqlStore, Store},
                testing::store::ManualClock,
            };

            async fn make(time: ManualClock) -> (SqlStore, Database) {
                let database = database(ServerKind::$kind).await;
                let store = SqlStore::connect(&database.url()).unwrap().with_wall_clock(move || time.millis());
                store.prepare().await.unwrap();
                (store, database)
            }

            crate::store_suite!(make);
        }
    };
}

#[cfg(feature = "postgres")]
suite_on_server!(postgres, Postgres);
#[cfg(feature = "mysql")]
suite_on_server!(mysql, MySql);

#[cfg(feature = "sqlite")]
mod sqlite_in_memory {
    use crate::{
        store::{SqlStore, Store},
        testing::store::ManualClock,
    };

    async fn make(time: ManualClock) -> (SqlStore, ()) {
        let store = SqlStore::connect("sqlite::memory:").unwrap().with_wall_clock(move || time.millis());
        store.prepare().await.unwrap();
        (store, ())
    }

    crate::store_suite!(make);
}
