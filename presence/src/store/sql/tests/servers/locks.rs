//! How long nodes keep locks, and wait for those of others.

use std::{cell::Cell, time::Instant};

use tokio::sync::Notify;

use super::*;

#[tokio::test]
async fn a_lease_is_renewed_while_transactions_of_its_node_go_on() {
    for &kind in KINDS {
        let database = database(kind).await;
        let (store, node) = joined(&database).await;
        let store = store.with_wait_timeout(Duration::from_secs(1));
        let writing = Transaction::begin_as(&store.once.database, node, transaction::Lock::Shared).await.unwrap();
        let name = room(0);
        let positions = writing.rooms(&[&name]).await.unwrap();
        let Write::Join(presence) = join(node) else { panic!("it joins") };
        writing.insert(&[(positions[0].epoch, (presence, None))]).await.unwrap();
        store.renew(node, LEASE).await.unwrap();
        writing.commit().await.unwrap();
    }
}

#[tokio::test]
async fn a_node_that_is_suspended_in_a_transaction_loses_the_locks_of_its_rooms() {
    for &kind in KINDS {
        let database = database(kind).await;
        let (suspended, other) = (joined(&database).await, joined(&database).await);
        let writing =
            Transaction::begin_as(&suspended.0.once.database, suspended.1, transaction::Lock::Shared).await.unwrap();
        let name = room(0);
        writing.rooms(&[&name]).await.unwrap();
        // A statement waits for a lock for at most 5 s.
        let writes = RoomWrites { room: name, writes: vec![join(other.1)] };
        other.0.commit(other.1, Attempt::next(), [writes].into()).await.unwrap();
        assert!(matches!(writing.commit().await, Err(StoreError::Unavailable(_))), "{kind:?}");
    }
}

#[tokio::test]
async fn a_node_that_is_suspended_in_a_transaction_keeps_no_other_from_being_fenced() {
    for &kind in KINDS {
        let database = database(kind).await;
        let (judge, node) = joined(&database).await;
        let judge = judge.with_wait_timeout(Duration::from_secs(1));
        let (suspended, dead) = (joined(&database).await, joined(&database).await);
        for (store, node) in [&suspended, &dead] {
            let writes = RoomWrites { room: room(0), writes: vec![join(*node)] };
            store.commit(*node, Attempt::next(), [writes].into()).await.unwrap();
        }
        let writing =
            Transaction::begin_as(&suspended.0.once.database, suspended.1, transaction::Lock::Shared).await.unwrap();
        database.connect().await.execute_unprepared("UPDATE leases SET lease_until = 0").await.unwrap();
        judge.renew(node, LEASE).await.unwrap();
        assert_eq!(judge.fence(node).await.unwrap(), [dead.1], "{kind:?}");
        drop(writing);
        let mut both = [suspended.1, dead.1];
        both.sort_unstable();
        while judge.fence(node).await.unwrap() != both {
            tokio::task::yield_now().await;
        }
        let refused = suspended.0.renew(suspended.1, LEASE).await;
        assert!(matches!(refused, Err(StoreError::Fenced { superseded: false, .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn a_lease_that_is_being_renewed_keeps_no_other_from_being_fenced() {
    for &kind in KINDS {
        let database = database(kind).await;
        let (judge, node) = joined(&database).await;
        let ((renewing, first), (other, dead)) = (joined(&database).await, joined(&database).await);
        // A dead node without presences is forgotten at once.
        for (store, node) in [(&renewing, first), (&other, dead)] {
            let writes = RoomWrites { room: room(0), writes: vec![join(node)] };
            store.commit(node, Attempt::next(), [writes].into()).await.unwrap();
        }
        database.connect().await.execute_unprepared("UPDATE leases SET lease_until = 0").await.unwrap();
        judge.renew(node, LEASE).await.unwrap();
        let renewal = renewing.once.database.write().await.unwrap();
        statement::lock_leases(vec![first.as_uuid()]).all(&renewal).await.unwrap();
        assert_eq!(judge.fence(node).await.unwrap(), [dead], "{kind:?}");
        drop(renewal);
    }
}

#[tokio::test]
async fn who_cleans_up_waits_for_a_lock_for_a_sixth_of_a_lease() {
    for &kind in KINDS {
        let database = database(kind).await;
        let (other, (store, node)) = (joined(&database).await, joined(&database).await);
        store.once.limit_waits(Duration::from_secs(6), Duration::from_secs(5));
        let (former, dead) = joined(&database).await;
        let writes = RoomWrites { room: room(0), writes: vec![join(dead)] };
        former.commit(dead, Attempt::next(), [writes].into()).await.unwrap();
        database.connect().await.execute_unprepared("UPDATE leases SET lease_until = 0").await.unwrap();
        for node in [node, other.1] {
            store.renew(node, LEASE).await.unwrap();
        }
        assert_eq!(store.fence(node).await.unwrap(), [dead]);
        // Another node cleans up after the same one.
        let cleaning = Transaction::begin_as(&other.0.once.database, other.1, Lock::Shared).await.unwrap();
        cleaning.status_of(dead, Lock::Exclusive).await.unwrap();
        let left = store.clear(node, dead, ClearMode::HoldResumable(Duration::ZERO), u64::MAX).await.unwrap();
        assert_eq!(left, Batch::default(), "{kind:?}: it is left to the other");
        // The node itself, after a restart, holds what it left.
        let since = Instant::now();
        let refused = store.clear(node, dead, ClearMode::HoldAll(Duration::ZERO), u64::MAX).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{kind:?}: {refused:?}");
        // The database would have ended the transaction of the other after 2 s.
        assert!(since.elapsed() < Duration::from_millis(1900), "{kind:?}: {:?}", since.elapsed());
        drop(cleaning);
        store.clear(node, dead, ClearMode::HoldResumable(Duration::ZERO), u64::MAX).await.unwrap();
        // Other calls wait as long as before.
        let former = Transaction::begin_as(&store.once.database, node, Lock::Shared).await.unwrap();
        assert_eq!(lock_timeout(kind, &former).await, if kind == ServerKind::Postgres { "5s" } else { "5" });
    }
}

#[tokio::test]
async fn a_name_is_taken_over_while_several_lanes_of_the_former_node_write_without_a_pause() {
    // On PostgreSQL the former node was never without a transaction that shared the lock of its row, and the later one waited for that.
    for &kind in KINDS {
        let database = database(kind).await;
        let (former, node) = joined(&database).await;
        let (begun, is_busy) = (Cell::new(0), Notify::new());
        let lane = async |n: u32| {
            // They last for different times, so that they overlap.
            let millis = 20 + 5 * n;
            let lasts = match kind {
                ServerKind::Postgres => format!("SELECT pg_sleep(0.0{millis})"),
                ServerKind::MySql => format!("SELECT SLEEP(0.0{millis})"),
            };
            loop {
                match Transaction::begin_as(&former.once.database.for_lane(None), node, Lock::Shared).await {
                    Ok(writing) => {
                        begun.set(begun.get() + 1);
                        is_busy.notify_one();
                        writing.connection().execute_unprepared(&lasts).await.unwrap();
                        writing.commit().await.unwrap();
                    }
                    Err(StoreError::Fenced { superseded: true, .. }) => return,
                    Err(error) => panic!("{kind:?}: {error}"),
                }
            }
        };
        let taken = async {
            while begun.get() < 20 {
                is_busy.notified().await;
            }
            let (later, name) = (SqlStore::connect(&database.url()).unwrap(), NodeName::new(node.to_string()).unwrap());
            let since = Instant::now();
            // The limit for locks does not end the wait: it is one for each of the transactions.
            let taken = tokio::time::timeout(LEASE / 6, later.register(NodeId::random(), name, LEASE)).await;
            taken.expect("the lanes leave it no moment").unwrap();
            since.elapsed()
        };
        let (taken, ..) = tokio::join!(taken, lane(0), lane(1), lane(2), lane(3), lane(4));
        assert!(taken < Duration::from_secs(1), "{kind:?}: {taken:?}");
    }
}

/// How long statements of this transaction wait for a lock, as the server says it.
async fn lock_timeout(kind: ServerKind, transaction: &Transaction) -> String {
    let setting = match kind {
        ServerKind::Postgres => "current_setting('lock_timeout')",
        _ => "CAST(@@innodb_lock_wait_timeout AS CHAR)",
    };
    setting_of(transaction, setting).await
}

async fn setting_of(transaction: &Transaction, setting: &str) -> String {
    let connection = transaction.connection();
    let query = Statement::from_string(connection.get_database_backend(), format!("SELECT {setting}"));
    connection.query_one_raw(query).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn each_transaction_sets_its_limits_also_in_a_session_without_them() {
    let database = database(ServerKind::Postgres).await;
    let (store, node) = joined(&database).await;
    let store = store.with_connections(1);
    store.once.limit_waits(LEASE, Duration::from_secs(3));
    // As a pooler gives it that forgot what the node has set.
    store.once.database.writer.execute_unprepared("RESET ALL").await.unwrap();
    let transaction = store.once.write_as(node).await.unwrap();
    for (setting, value) in [("lock_timeout", "5s"), ("idle_in_transaction_session_timeout", "2s")] {
        let found = setting_of(&transaction, &format!("current_setting('{setting}')")).await;
        assert_eq!(found, value, "{setting}");
    }
    let limit = setting_of(&transaction, "coalesce(current_setting('transaction_timeout', true), 'unknown')").await;
    assert!(["3s", "unknown"].contains(&limit.as_str()), "{limit}");
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn a_commit_with_patience_names_the_rooms_that_others_have_locked() {
    for &kind in KINDS {
        let database = database(kind).await;
        let (other, (store, node)) = (joined(&database).await, joined(&database).await);
        let changes =
            || -> Changes { (0..3).map(|n| RoomWrites { room: room(n), writes: vec![join(node)] }).collect() };
        store.commit(node, Attempt::next(), changes()).await.unwrap();
        let writing = Transaction::begin_as(&other.0.once.database, other.1, Lock::Shared).await.unwrap();
        writing.rooms(&[&room(1)]).await.unwrap();
        let since = Instant::now();
        let busy = store.commit(node, Attempt::next().with_patience(Duration::from_millis(250)), changes()).await;
        let Err(StoreError::Busy { rooms }) = busy else { panic!("{kind:?}: {busy:?}") };
        assert_eq!(rooms, [room(1)], "{kind:?}");
        let waited = since.elapsed();
        assert!(waited > Duration::from_millis(200) && waited < Duration::from_millis(900), "{kind:?}: {waited:?}");
        writing.commit().await.unwrap();
        store.commit(node, Attempt::next().with_patience(Duration::from_millis(250)), changes()).await.unwrap();
        // The names of new rooms are locked as well, by whoever is creating them.
        let creating = Transaction::begin_as(&other.0.once.database, other.1, Lock::Shared).await.unwrap();
        creating.rooms(&[&room(3)]).await.unwrap();
        let new = || -> Changes { [room(0), room(3)].map(|room| RoomWrites { room, writes: vec![join(node)] }).into() };
        let busy = store.commit(node, Attempt::next().with_patience(Duration::from_millis(250)), new()).await;
        let Err(StoreError::Busy { rooms }) = busy else { panic!("{kind:?}: {busy:?}") };
        assert_eq!(rooms, [room(3)], "{kind:?}");
    }
}
