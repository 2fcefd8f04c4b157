//! That servers end, stop and come back as tests expect of them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{net::TcpStream, path::Path};

use presence_test_servers::{CommitSync, Server, ServerKind};
use sea_orm::{ConnectionTrait, Statement, TransactionTrait};

const KINDS: [ServerKind; 2] = [ServerKind::Postgres, ServerKind::MySql];

fn port(server: &Server) -> u16 {
    server.url().rsplit(':').next().unwrap().parse().unwrap()
}

fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_crash() {
    for kind in KINDS {
        let server = Server::start(kind, CommitSync::None);
        let database = server.database().await;
        let connection = database.connect().await;
        connection.execute_unprepared("CREATE TABLE t (n INT PRIMARY KEY)").await.unwrap();
        connection.execute_unprepared("INSERT INTO t VALUES (1)").await.unwrap();
        server.stop_hard();
        assert!(!listens(port(&server)));
        assert!(connection.execute_unprepared("INSERT INTO t VALUES (2)").await.is_err());
        server.start_again();
        let again = database.connect().await.execute_unprepared("DELETE FROM t").await.unwrap();
        assert_eq!(again.rows_affected(), 1);
    }
}

#[tokio::test]
async fn killed_connections_are_of_that_database_only() {
    for kind in KINDS {
        let server = Server::start(kind, CommitSync::None);
        let (one, other) = (server.database().await, server.database().await);
        let (victim, bystander) = (one.connect().await, other.connect().await);
        let (victim, bystander) = (victim.begin().await.unwrap(), bystander.begin().await.unwrap());
        one.kill_connections().await;
        assert!(victim.execute_unprepared("SELECT 1").await.is_err(), "{kind:?}");
        bystander.execute_unprepared("SELECT 1").await.unwrap();
        one.connect().await.execute_unprepared("SELECT 1").await.unwrap();
    }
}

#[tokio::test]
async fn temporary_tables_are_in_the_servers_own_folder() {
    // In a folder that all share, a server that started removed those of the others, which failed then, or did not start.
    let server = Server::start(ServerKind::MySql, CommitSync::None);
    let connection = server.database().await.connect().await;
    let asked = Statement::from_string(connection.get_database_backend(), "SELECT @@tmpdir");
    let row = connection.query_one_raw(asked).await.unwrap().unwrap();
    let folder: String = row.try_get_by_index(0).unwrap();
    assert_eq!(Some(Path::new(&folder)), server.folder().parent());
}

#[tokio::test]
async fn a_user_may_do_what_is_granted_and_no_more() {
    for kind in KINDS {
        let server = Server::start(kind, CommitSync::None);
        let database = server.database().await;
        database.connect().await.execute_unprepared("CREATE TABLE t (n INT)").await.unwrap();
        let url = database.user(&["SELECT ON t"]).await;
        let user = sea_orm::Database::connect(url).await.unwrap();
        user.execute_unprepared("SELECT * FROM t").await.unwrap();
        assert!(user.execute_unprepared("INSERT INTO t VALUES (1)").await.is_err(), "{kind:?}");
    }
}

#[test]
fn a_server_and_its_data_end_with_their_owner() {
    for kind in KINDS {
        let server = Server::start(kind, CommitSync::None);
        let (port, folder) = (port(&server), server.folder());
        assert!(listens(port) && folder.exists());
        drop(server);
        assert!(!listens(port) && !folder.exists());
    }
}
