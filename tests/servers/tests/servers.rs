//! That servers end, stop and come back as tests expect of them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::TcpStream;

use presence_test_servers::{Durability, Kind, Server};
use sea_orm::{ConnectionTrait, TransactionTrait};

const KINDS: [Kind; 2] = [Kind::Postgres, Kind::MySql];

fn port(server: &Server) -> u16 {
    server.url().rsplit(':').next().unwrap().parse().unwrap()
}

fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_crash() {
    for kind in KINDS {
        let server = Server::start(kind, Durability::None);
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
        let server = Server::start(kind, Durability::None);
        let (one, other) = (server.database().await, server.database().await);
        let (victim, bystander) = (one.connect().await, other.connect().await);
        let (victim, bystander) = (victim.begin().await.unwrap(), bystander.begin().await.unwrap());
        one.kill_connections().await;
        assert!(victim.execute_unprepared("SELECT 1").await.is_err(), "{kind:?}");
        bystander.execute_unprepared("SELECT 1").await.unwrap();
        one.connect().await.execute_unprepared("SELECT 1").await.unwrap();
    }
}

#[test]
fn a_server_and_its_data_end_with_their_owner() {
    for kind in KINDS {
        let server = Server::start(kind, Durability::None);
        let (port, folder) = (port(&server), server.folder());
        assert!(listens(port) && folder.exists());
        drop(server);
        assert!(!listens(port) && !folder.exists());
    }
}
