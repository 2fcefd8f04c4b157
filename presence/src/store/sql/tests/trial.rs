//! Helpers for tests of databases: an empty database of each kind, and many nodes at once.

use std::{sync::Barrier, thread};

use sea_orm::DatabaseConnection;

/// The kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    #[cfg(feature = "sqlite")]
    Sqlite,
    #[cfg(feature = "postgres")]
    Postgres,
    #[cfg(feature = "mysql")]
    MySql,
}

/// Defines a test for each of these functions on each kind of database.
macro_rules! on_each_kind {
    ($($test:ident),+ $(,)?) => {
        #[cfg(feature = "sqlite")]
        mod sqlite {
            $(#[test] fn $test() { super::$test($crate::store::trial::Kind::Sqlite); })+
        }
        #[cfg(feature = "postgres")]
        mod postgres {
            $(#[test] fn $test() { super::$test($crate::store::trial::Kind::Postgres); })+
        }
        #[cfg(feature = "mysql")]
        mod mysql {
            $(#[test] fn $test() { super::$test($crate::store::trial::Kind::MySql); })+
        }
    };
}
pub(crate) use on_each_kind;

/// A database that is empty at first. It is removed when this is dropped.
pub(crate) struct Trial {
    pub(crate) url: String,
    _kept: Kept,
}

#[expect(dead_code, reason = "dropping them removes the database")]
enum Kept {
    #[cfg(feature = "sqlite")]
    Folder(tempfile::TempDir),
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    Database(presence_test_servers::Database),
}

impl Trial {
    pub(crate) fn of(kind: Kind) -> Self {
        #[cfg(any(feature = "postgres", feature = "mysql"))]
        let on_server = |kind| {
            let database = block_on(presence_test_servers::database(kind));
            Self { url: database.url(), _kept: Kept::Database(database) }
        };
        match kind {
            #[cfg(feature = "sqlite")]
            Kind::Sqlite => {
                let folder = tempfile::TempDir::new().unwrap();
                Self { url: format!("sqlite://{}/presence.db", folder.path().display()), _kept: Kept::Folder(folder) }
            }
            #[cfg(feature = "postgres")]
            Kind::Postgres => on_server(presence_test_servers::ServerKind::Postgres),
            #[cfg(feature = "mysql")]
            Kind::MySql => on_server(presence_test_servers::ServerKind::MySql),
        }
    }

    /// A connection without a store. A missing file is created.
    pub(crate) async fn connect(&self) -> DatabaseConnection {
        let made = if self.url.starts_with("sqlite") { "?mode=rwc" } else { "" };
        let mut options = sea_orm::ConnectOptions::new(format!("{}{made}", self.url));
        options.max_connections(1).sqlx_logging(false);
        sea_orm::Database::connect(options).await.unwrap()
    }
}

pub(crate) fn block_on<T>(run: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run)
}

/// Runs something on many threads at once, each with its own runtime, like many processes.
pub(crate) fn at_once<F: Future<Output = ()>>(threads: usize, run: impl Fn(usize) -> F + Sync) {
    let barrier = Barrier::new(threads);
    thread::scope(|scope| {
        for thread in 0..threads {
            let (run, barrier) = (&run, &barrier);
            scope.spawn(move || {
                barrier.wait();
                block_on(run(thread));
            });
        }
    });
}
