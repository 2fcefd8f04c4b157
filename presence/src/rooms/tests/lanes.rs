//! Another transaction keeps the lock of a room, as a node does that is suspended within a transaction.

use sea_orm::{ConnectionTrait, DatabaseTransaction, TransactionTrait};

use super::prelude::*;
use crate::store::{
    SqlStore,
    trial::{Kind, Trial},
};

/// Defines a test on each kind of server for each of these functions.
macro_rules! on_servers {
    ($($test:ident),+ $(,)?) => {
        #[cfg(feature = "postgres")]
        mod postgres {
            $(#[test] fn $test() { super::$test(Kind::Postgres); })+
            use super::Kind;
        }
        #[cfg(feature = "mysql")]
        mod mysql {
            $(#[test] fn $test() { super::$test(Kind::MySql); })+
            use super::Kind;
        }
    };
}

on_servers! {
    other_rooms_go_on_while_a_room_is_locked_and_it_goes_on_when_it_is_free,
    a_shutdown_waits_for_a_room_that_was_set_aside,
}

async fn node_on(trial: &Trial) -> Rooms {
    // Callers wait for as long as the test keeps a lock.
    let config = Config::builder().store_timeout(secs(60)).build().unwrap();
    let rooms = Rooms::start(config, SqlStore::connect(&trial.url).unwrap(), NodeName::new("here").unwrap());
    PruningSupervisor::spawn(&rooms);
    rooms.ready().await;
    rooms
}

/// A transaction of another process that has locked this room.
async fn lock(trial: &Trial, room: &RoomName) -> DatabaseTransaction {
    let transaction = trial.connect().await.begin().await.unwrap();
    let lock = format!("SELECT id FROM rooms WHERE channel_name = '{room}' FOR UPDATE");
    transaction.execute_unprepared(&lock).await.unwrap();
    transaction
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(secs(20), what).await.expect("it does not wait for the lock")
}

fn other_rooms_go_on_while_a_room_is_locked_and_it_goes_on_when_it_is_free(kind: Kind) {
    let trial = Trial::of(kind);
    actix::System::new().block_on(async {
        let rooms = node_on(&trial).await;
        let client = |name: &str| FakeClient::new(&rooms, Some(user(name)));
        let (ann, bar) = (client("ann"), room("bar"));
        ann.join(lobby()).await.unwrap();
        ann.join(&bar).await.unwrap();
        let mut changes = rooms.changes_of(lobby());
        let locked = lock(&trial, lobby()).await;

        let (bob, cid) = (client("bob"), client("cid"));
        let mut into_lobby = std::pin::pin!(async {
            let (joined, left) = tokio::join!(bob.join(lobby()), ann.leave(lobby()));
            assert!(joined.is_ok() && left.is_ok(), "{joined:?}, {left:?}");
            bob.leave(lobby()).await.unwrap();
            bob.join(lobby()).await.unwrap();
        });
        // In one transaction with those of the locked room.
        let joined = soon(async {
            tokio::select! {
                biased;
                () = &mut into_lobby => panic!("the room is locked"),
                joined = cid.join(&bar) => joined,
            }
        });
        joined.await.unwrap();
        for n in 0..20 {
            let other = client(&format!("u{n}"));
            let new = room(&format!("r{n}"));
            let joins = async { tokio::join!(other.join(&bar), other.join(&new)) };
            let joined = soon(async {
                tokio::select! {
                    () = &mut into_lobby => panic!("the room is locked"),
                    joined = joins => joined,
                }
            });
            assert!(matches!(joined.await, (Ok(()), Ok(()))));
        }
        assert_eq!(rooms.users(lobby()).await.unwrap().len(), 1);
        assert!(rooms.is_ready(), "the database answers");

        locked.rollback().await.unwrap();
        soon(into_lobby).await;
        assert_eq!(rooms.users(lobby()).await.unwrap(), [user("bob")]);
        let mut seen = published(&mut changes);
        seen[..2].sort();
        assert_eq!(seen, ["+bob", "-ann", "-bob", "+bob"]);
        rooms.shutdown().await;
    });
}

fn a_shutdown_waits_for_a_room_that_was_set_aside(kind: Kind) {
    let trial = Trial::of(kind);
    actix::System::new().block_on(async {
        let rooms = node_on(&trial).await;
        let ann = FakeClient::new(&rooms, Some(user("ann")));
        ann.join(lobby()).await.unwrap();
        let locked = lock(&trial, lobby()).await;
        let left = ann.leave(lobby());
        tokio::pin!(left);
        assert!(tokio::time::timeout(ms(500), &mut left).await.is_err());
        let down = rooms.shutdown();
        tokio::pin!(down);
        assert!(tokio::time::timeout(ms(100), &mut down).await.is_err());
        locked.rollback().await.unwrap();
        down.await;
        let store = SqlStore::connect(&trial.url).unwrap();
        let presences = crate::store::RoomStore::load(&store, lobby().clone()).await.unwrap().unwrap().presences;
        assert_eq!(presences, []);
    });
}
