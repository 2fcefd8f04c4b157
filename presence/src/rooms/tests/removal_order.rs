//! A node has one removal in progress at a time: a transaction of the writer with pruned presences, or one of the supervisor.

use actix::Addr;
use tokio::sync::oneshot;

use super::prelude::*;
use crate::actor::{PruneRooms, Sweep};

/// How many leaves a first transaction with leaves only contains.
const BATCH: usize = 1024;

/// A node with so many members in the lobby, whose supervisor works on request only.
async fn crowded(count: usize) -> (TestNode, Addr<PruningSupervisor>, Vec<FakeClient>) {
    let seldom = config().on_stale(OnStale::Keep).sweep_interval(secs(3600)).prune_interval(secs(3600));
    let node = node_with(seldom.prune_rooms_interval(secs(3600))).await;
    let supervisor = PruningSupervisor::spawn(&node.rooms);
    let crowd = node.crowd(count).await;
    pass(secs(1)).await;
    node.store.forget_spans();
    (node, supervisor, crowd)
}

/// Prunes all members of the lobby.
fn prune(node: &TestNode) {
    node.rooms.table().send_running(lobby(), ToRoom::Prune { max_age: secs(0), reply: oneshot::channel().0 });
}

/// The transactions in the order of their beginnings, and how many milliseconds after `from` each began.
fn begun(spans: &[Span], from: Instant) -> Vec<(TransactionKind, u128)> {
    spans.iter().map(|span| (span.transaction, span.begun.duration_since(from).as_millis())).collect()
}

/// Checks that no two of these were in progress at once.
fn check_one_at_a_time(spans: &[Span]) {
    let all_over = spans.windows(2).all(|two| two[0].ended.is_some_and(|ended| ended <= two[1].begun));
    assert!(all_over, "{spans:#?}");
}

#[actix::test]
async fn during_a_removal_of_the_supervisor_a_prune_waits_and_a_join_does_not_wait_for_the_prune() {
    let (node, supervisor, _crowd) = crowded(20).await;
    node.store.removals_take(secs(1));
    node.store.commits_take(ms(300));
    let (begin, bob) = (Instant::now(), node.client("bob"));
    let (swept, pruned, joined) = tokio::join!(
        supervisor.send(PruneRooms),
        async {
            settle().await;
            node.prune_presences(Some(secs(0))).await
        },
        async {
            pass(ms(100)).await;
            bob.join(&room("attic")).await.unwrap();
            begin.elapsed()
        }
    );
    assert!(joined < ms(450), "{joined:?}");
    assert_eq!((swept.unwrap().unwrap(), pruned.unwrap()), (0, 20));
    let spans = node.store.spans();
    let kinds: Vec<_> = spans.iter().map(|span| span.transaction).collect();
    assert_eq!(kinds, [TransactionKind::Removal, TransactionKind::Commit(1), TransactionKind::Commit(20)]);
    let removals: Vec<_> = spans.into_iter().filter(|span| span.transaction != TransactionKind::Commit(1)).collect();
    check_one_at_a_time(&removals);
}

#[actix::test]
async fn a_removal_during_a_large_prune_runs_after_the_transaction_in_progress() {
    let (node, supervisor, _crowd) = crowded(2 * BATCH + BATCH / 2).await;
    node.store.removals_take(secs(1));
    node.store.commits_take(ms(300));
    let (pruned, swept) = tokio::join!(node.prune_presences(Some(secs(0))), async {
        pass(ms(100)).await;
        supervisor.send(PruneRooms).await
    });
    assert_eq!((pruned.unwrap(), swept.unwrap().unwrap()), (2 * BATCH + BATCH / 2, 0));
    let spans = node.store.spans();
    let kinds: Vec<_> = spans.iter().map(|span| span.transaction).collect();
    let [full, rest] = [TransactionKind::Commit(BATCH), TransactionKind::Commit(BATCH / 2)];
    assert_eq!(kinds, [full, TransactionKind::Removal, full, rest]);
    check_one_at_a_time(&spans);
}

#[actix::test]
async fn a_join_during_a_prune_is_written_before_a_removal_that_waits() {
    let (node, supervisor, _crowd) = crowded(20).await;
    node.store.removals_take(secs(1));
    node.store.commits_take(ms(300));
    let bob = node.client("bob");
    prune(&node);
    settle().await;
    let (swept, joined) = tokio::join!(supervisor.send(PruneRooms), async {
        settle().await;
        bob.join(&room("attic")).await
    });
    assert!(joined.is_ok() && swept.unwrap().is_ok());
    let kinds: Vec<_> = node.store.spans().iter().map(|span| span.transaction).collect();
    assert_eq!(kinds, [TransactionKind::Commit(20), TransactionKind::Commit(1), TransactionKind::Removal]);
}

#[actix::test]
async fn rounds_of_the_supervisor_and_a_prune_run_one_after_the_other() {
    let (node, supervisor, _crowd) = crowded(20).await;
    node.store.removals_take(secs(1));
    node.store.commits_take(ms(300));
    let begin = Instant::now();
    let (first, second, _) = tokio::join!(supervisor.send(PruneRooms), supervisor.send(PruneRooms), async {
        settle().await;
        prune(&node);
        settle().await;
        supervisor.send(PruneRooms).await
    });
    assert_eq!((first.unwrap().unwrap(), second.unwrap().unwrap()), (0, 0));
    let spans = node.store.spans();
    check_one_at_a_time(&spans);
    let kinds: Vec<_> = spans.iter().map(|span| span.transaction).collect();
    assert_eq!(
        kinds,
        [TransactionKind::Removal, TransactionKind::Removal, TransactionKind::Commit(20), TransactionKind::Removal],
        "in the order in which they came"
    );
    assert!(begin.elapsed() < ms(3400));
}

#[actix::test]
async fn a_removal_of_the_supervisor_that_hangs_delays_a_prune_for_at_most_store_timeout() {
    let (node, supervisor, _crowd) = crowded(20).await;
    node.store.removals_take(secs(3600));
    let begin = Instant::now();
    supervisor.do_send(PruneRooms);
    settle().await;
    prune(&node);
    pass(secs(6)).await;
    let spans = begun(&node.store.spans(), begin);
    assert_eq!(spans[0], (TransactionKind::Removal, 0));
    assert!(spans[1].0 == TransactionKind::Commit(20) && (5000..5100).contains(&spans[1].1), "{spans:?}");
    assert_eq!(node.rows(lobby()).await, NONE);
}

#[actix::test]
async fn a_prune_that_hangs_delays_the_supervisor_for_at_most_store_timeout() {
    let (node, supervisor, _crowd) = crowded(20).await;
    node.store.commits_take(secs(3600));
    let begin = Instant::now();
    prune(&node);
    settle().await;
    let swept = supervisor.send(PruneRooms).await.unwrap();
    assert_eq!(swept.unwrap(), 0);
    let spans = begun(&node.store.spans(), begin);
    assert!(
        matches!(spans[..], [(TransactionKind::Commit(20), 0), (TransactionKind::Removal, 5000..5100), ..]),
        "{spans:?}"
    );
    node.store.commits_take(secs(0));
    pass(secs(10)).await;
    assert_eq!((node.rows(lobby()).await, node.running()), (Vec::<String>::new(), 0));
}

#[actix::test]
async fn during_an_outage_the_supervisor_fails_at_once_and_both_continue_afterwards() {
    let (node, supervisor, _crowd) = crowded(20).await;
    node.store.faults.fail_next(usize::MAX);
    prune(&node);
    for _ in 0..20 {
        let begin = Instant::now();
        assert!(supervisor.send(Sweep).await.unwrap().is_err());
        assert!(begin.elapsed() < ms(50), "the database says so, and it is not for the prune to say");
        pass(ms(700)).await;
    }
    node.store.faults.fail_next(0);
    pass(secs(3)).await;
    assert_eq!((supervisor.send(Sweep).await.unwrap().unwrap(), node.rows(lobby()).await), (0, Vec::new()));
}

#[actix::test]
async fn many_removals_that_wait_for_a_slow_database_all_succeed() {
    let (node, _supervisor, _crowd) = crowded(1).await;
    node.store.removals_take(secs(3));
    let ghosts: Vec<UserId> = (0..6).map(|n| UserId::new(format!("ghost {n}")).unwrap()).collect();
    let removed = join_all(ghosts.iter().map(|ghost| node.remove_user(ghost, None))).await;
    assert!(removed.iter().all(|removed| matches!(removed, Ok(0))), "{removed:?}");
    check_one_at_a_time(&node.store.spans());
}

#[actix::test]
async fn a_shutdown_waits_for_a_removal_no_longer_than_for_its_writer() {
    let (node, supervisor, _crowd) = crowded(20).await;
    node.store.removals_take(secs(3600));
    supervisor.do_send(PruneRooms);
    settle().await;
    prune(&node);
    settle().await;
    let begin = Instant::now();
    node.shutdown().await;
    assert!((secs(2)..ms(2100)).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    assert!(format!("{:?}", node.store.database()).contains("nodes: 0"));
}
