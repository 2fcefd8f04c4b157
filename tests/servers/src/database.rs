//! A database of its own for each test.

use std::{
    sync::{Mutex, OnceLock, PoisonError},
    thread,
};

use sea_orm::{ConnectOptions, ConnectionTrait, DatabaseConnection, DbErr};
use uuid::Uuid;

use crate::{CommitSync, Server, ServerKind};

/// An empty database, dropped when this is.
#[derive(Debug)]
pub struct Database {
    kind: ServerKind,
    server: String,
    name: String,
    /// The users that were made for it, each with what it may do.
    users: Mutex<Vec<(String, Vec<String>)>>,
}

/// Makes a database on the server that all tests share: the one that `PRESENCE_TEST_POSTGRES` or `PRESENCE_TEST_MYSQL`
/// names, and else one that is started now and ends with this process.
pub async fn database(kind: ServerKind) -> Database {
    static POSTGRES: OnceLock<Server> = OnceLock::new();
    static MYSQL: OnceLock<Server> = OnceLock::new();
    let (variable, server) = match kind {
        ServerKind::Postgres => ("PRESENCE_TEST_POSTGRES", &POSTGRES),
        ServerKind::MySql => ("PRESENCE_TEST_MYSQL", &MYSQL),
    };
    let url = std::env::var(variable).ok().filter(|url| !url.is_empty());
    let url = url.unwrap_or_else(|| server.get_or_init(|| Server::start(kind, CommitSync::None)).url());
    Database::make(kind, &url).await
}

impl Database {
    pub(crate) async fn make(kind: ServerKind, server: &str) -> Self {
        let database = Self {
            kind,
            server: server.trim_end_matches('/').to_owned(),
            name: format!("t{}", Uuid::new_v4().simple()),
            users: Mutex::default(),
        };
        database.create("").await;
        database
    }

    async fn create(&self, options: &str) {
        let create = match self.kind {
            ServerKind::Postgres => format!("CREATE DATABASE {} TEMPLATE template0 {options}", self.name),
            ServerKind::MySql => format!("CREATE DATABASE {} {options}", self.name),
        };
        let made = run(self.kind, &self.server, &create).await;
        made.unwrap_or_else(|error| panic!("no database on {}: {error}", self.server));
    }

    fn drop_statement(&self) -> String {
        match self.kind {
            ServerKind::Postgres => format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name),
            ServerKind::MySql => format!("DROP DATABASE IF EXISTS {}", self.name),
        }
    }

    /// Drops it, whoever is connected, and makes an empty one of its name, with these options of `CREATE DATABASE`. Its users
    /// may do there what they might.
    ///
    /// # Panics
    /// If the server is away, or does not know such an option.
    pub async fn make_anew(&self, options: &str) {
        let dropped = run(self.kind, &self.server, &self.drop_statement()).await;
        dropped.unwrap_or_else(|error| panic!("{error}"));
        self.create(options).await;
        let users = self.users.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let admin = self.connect().await;
        for (user, grants) in users {
            grant(&admin, &user, &grants).await;
        }
    }

    /// Its address, with name and password.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}/{}", self.server, self.name)
    }

    /// Its address for a new user, who may do there what is granted and no more: `SELECT ON rooms`, say, or, in this database
    /// of MySQL, `SELECT ON *`.
    ///
    /// # Panics
    /// If the server is away, or does not know such a right.
    pub async fn user(&self, grants: &[&str]) -> String {
        let user = format!("u{}", &Uuid::new_v4().simple().to_string()[..24]);
        let create = match self.kind {
            ServerKind::Postgres => format!("CREATE ROLE {user} LOGIN PASSWORD '{user}'"),
            ServerKind::MySql => format!("CREATE USER '{user}'@'%' IDENTIFIED BY '{user}'"),
        };
        let admin = self.connect().await;
        let made = admin.execute_unprepared(&create).await;
        made.unwrap_or_else(|error| panic!("{create}: {error}"));
        let grants: Vec<String> = grants.iter().map(|&grant| grant.to_owned()).collect();
        grant(&admin, &user, &grants).await;
        let (scheme, host) = self.server.split_once("://").expect("it is a URL");
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        let url = format!("{scheme}://{user}:{user}@{host}/{}", self.name);
        self.users.lock().unwrap_or_else(PoisonError::into_inner).push((user, grants));
        url
    }

    /// A connection to it, for what a test has to see or to break.
    ///
    /// # Panics
    /// If the server is away.
    pub async fn connect(&self) -> DatabaseConnection {
        connect(self.url()).await.expect("the server is there")
    }

    /// Ends every connection to it, whatever it is doing.
    ///
    /// # Panics
    /// If the server is away.
    pub async fn kill_connections(&self) {
        let (own, other) = match self.kind {
            ServerKind::Postgres => (
                "postgres",
                format!("SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE datname = '{}'", self.name),
            ),
            ServerKind::MySql => (
                "information_schema",
                format!("SELECT CONCAT('KILL ', id) FROM information_schema.processlist WHERE db = '{}'", self.name),
            ),
        };
        let admin = connect(format!("{}/{own}", self.server)).await.expect("the server is there");
        let statement = sea_orm::Statement::from_string(admin.get_database_backend(), other);
        let rows = admin.query_all_raw(statement).await.expect("the user may do everything");
        if self.kind == ServerKind::MySql {
            for row in rows {
                let kill: String = row.try_get_by_index(0).expect("it is a text");
                // It may be gone by itself.
                let _ = admin.execute_unprepared(&kill).await;
            }
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let mut drop = vec![self.drop_statement()];
        let users = std::mem::take(self.users.get_mut().unwrap_or_else(PoisonError::into_inner));
        drop.extend(users.iter().map(|(user, _)| match self.kind {
            ServerKind::Postgres => format!("DROP ROLE IF EXISTS {user}"),
            ServerKind::MySql => format!("DROP USER IF EXISTS {user}"),
        }));
        // A runtime of its own, since the one of the test may be the caller. A server that is away needs no tidying.
        let (kind, server) = (self.kind, self.server.clone());
        let _ = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                for statement in drop {
                    run(kind, &server, &statement).await.map_err(std::io::Error::other)?;
                }
                std::io::Result::Ok(())
            })
        })
        .join();
    }
}

async fn grant(admin: &DatabaseConnection, user: &str, grants: &[String]) {
    for grant in grants {
        let granted = admin.execute_unprepared(&format!("GRANT {grant} TO {user}")).await;
        granted.unwrap_or_else(|error| panic!("{grant}: {error}"));
    }
}

async fn run(kind: ServerKind, server: &str, statement: &str) -> Result<(), DbErr> {
    let admin = match kind {
        ServerKind::Postgres => format!("{server}/postgres"),
        ServerKind::MySql => format!("{server}/mysql"),
    };
    let connection = connect(admin).await?;
    connection.execute_unprepared(statement).await?;
    connection.close().await
}

async fn connect(url: String) -> Result<DatabaseConnection, DbErr> {
    let options = ConnectOptions::new(url)
        .max_connections(1)
        .acquire_timeout(std::time::Duration::from_secs(20))
        .connect_timeout(std::time::Duration::from_secs(20))
        .sqlx_logging(false)
        .to_owned();
    sea_orm::Database::connect(options).await
}
