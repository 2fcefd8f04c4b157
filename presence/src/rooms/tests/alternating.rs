//! A node removes in one transaction at a time: the writer's, of those it prunes, and the supervisor's have turns.

use actix::Addr;
use futures_util::future::join_all;
use tokio::{sync::oneshot, time::Instant};

use super::bench::{Client, Kind, Node, Span, config, lobby, ms, node_with, pass, room, secs, settle};
use crate::{
    PruningSupervisor,
    actor::{PruneRooms, Sweep},
    config::OnStale,
    name::UserId,
    room::ToRoom,
};

/// How many leaves go into the first transaction that has nothing else to do.
const BATCH: usize = 1024;

/// A node with so many in the lobby, whose supervisor does what it is asked and nothing by itself.
async fn crowded(count: usize) -> (Node, Addr<PruningSupervisor>, Vec<Client>) {
    let seldom = config().on_stale(OnStale::Keep).sweep_interval(secs(3600)).prune_interval(secs(3600));
    let node = node_with(seldom.prune_rooms_interval(secs(3600))).await;
    let supervisor = PruningSupervisor::spawn(&node.rooms);
    let crowd = node.crowd(count).await;
    pass(secs(1)).await;
    node.store.forget_spans();
    (node, supervisor, crowd)
}

/// Has everybody in the lobby pruned, as the deadlines do.
fn prune(node: &Node) {
    node.rooms.table().send_running(lobby(), ToRoom::Prune { max_age: secs(0), reply: oneshot::channel().0 });
}

/// What began, in its order, and how long after `from`.
fn begun(spans: &[Span], from: Instant) -> Vec<(Kind, u128)> {
    spans.iter().map(|span| (span.kind, span.begun.duration_since(from).as_millis())).collect()
}

/// No two of these were under way at once.
fn check_one_at_a_time(spans: &[Span]) {
    let all_over = spans.windows(2).all(|two| two[0].ended.is_some_and(|ended| ended <= two[1].begun));
    assert!(all_over, "{spans:#?}");
}

#[actix::test]
async fn while_the_supervisor_removes_a_prune_waits_and_a_join_does_not_wait_for_the_prune() {
    let (node, supervisor, _crowd) = crowded(20).await;
    node.store.removals_take(secs(1));
    node.store.commits_take(ms(300));
    let (begin, bob) = (Instant::now(), node.client("bob"));
    let (swept, pruned, joined) = tokio::join!(
        supervisor.send(Sweep),
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
    let kinds: Vec<_> = spans.iter().map(|span| span.kind).collect();
    assert_eq!(kinds, [Kind::Removal, Kind::Commit(1), Kind::Commit(20)]);
    let removals: Vec<_> = spans.into_iter().filter(|span| span.kind != Kind::Commit(1)).collect();
    check_one_at_a_time(&removals);
}

#[actix::test]
async fn who_begins_to_remove_while_many_are_pruned_has_the_turn_after_the_transaction_that_is_under_way() {
    let (node, supervisor, _crowd) = crowded(2 * BATCH + BATCH / 2).await;
    node.store.removals_take(secs(1));
    node.store.commits_take(ms(300));
    let (pruned, swept) = tokio::join!(node.prune_presences(Some(secs(0))), async {
        pass(ms(100)).await;
        supervisor.send(Sweep).await
    });
    assert_eq!((pruned.unwrap(), swept.unwrap().unwrap()), (2 * BATCH + BATCH / 2, 0));
    let spans = node.store.spans();
    let kinds: Vec<_> = spans.iter().map(|span| span.kind).collect();
    let [full, rest] = [Kind::Commit(BATCH), Kind::Commit(BATCH / 2)];
    assert_eq!(kinds, [full, Kind::Removal, full, rest]);
    check_one_at_a_time(&spans);
}

#[actix::test]
async fn a_join_that_comes_while_some_are_pruned_goes_before_who_waits_to_remove() {
    let (node, supervisor, _crowd) = crowded(20).await;
    node.store.removals_take(secs(1));
    node.store.commits_take(ms(300));
    let bob = node.client("bob");
    prune(&node);
    settle().await;
    let (swept, joined) = tokio::join!(supervisor.send(Sweep), async {
        settle().await;
        bob.join(&room("attic")).await
    });
    assert!(joined.is_ok() && swept.unwrap().is_ok());
    let kinds: Vec<_> = node.store.spans().iter().map(|span| span.kind).collect();
    assert_eq!(kinds, [Kind::Commit(20), Kind::Commit(1), Kind::Removal]);
}

#[actix::test]
async fn rounds_of_the_supervisor_and_a_prune_have_turns() {
    let (node, supervisor, _crowd) = crowded(20).await;
    node.store.removals_take(secs(1));
    node.store.commits_take(ms(300));
    let begin = Instant::now();
    let (first, second, _) = tokio::join!(supervisor.send(Sweep), supervisor.send(PruneRooms), async {
        settle().await;
        prune(&node);
        settle().await;
        supervisor.send(Sweep).await
    });
    assert_eq!((first.unwrap().unwrap(), second.unwrap().unwrap()), (0, 0));
    let spans = node.store.spans();
    check_one_at_a_time(&spans);
    let kinds: Vec<_> = spans.iter().map(|span| span.kind).collect();
    assert_eq!(
        kinds,
        [Kind::Removal, Kind::Removal, Kind::Commit(20), Kind::Removal],
        "in the order in which they came"
    );
    assert!(begin.elapsed() < ms(3400));
}

#[actix::test]
async fn a_call_of_the_supervisor_that_hangs_keeps_a_prune_no_longer_than_the_database_may_take() {
    let (node, supervisor, _crowd) = crowded(20).await;
    node.store.removals_take(secs(3600));
    let begin = Instant::now();
    supervisor.do_send(Sweep);
    settle().await;
    prune(&node);
    pass(secs(6)).await;
    let spans = begun(&node.store.spans(), begin);
    assert_eq!(spans[0], (Kind::Removal, 0));
    assert!(spans[1].0 == Kind::Commit(20) && (5000..5100).contains(&spans[1].1), "{spans:?}");
    assert_eq!(node.rows(lobby()).await, Vec::<String>::new());
}

#[actix::test]
async fn a_prune_that_hangs_keeps_the_supervisor_no_longer_than_the_database_may_take() {
    let (node, supervisor, _crowd) = crowded(20).await;
    node.store.commits_take(secs(3600));
    let begin = Instant::now();
    prune(&node);
    settle().await;
    let swept = supervisor.send(Sweep).await.unwrap();
    assert_eq!(swept.unwrap(), 0);
    let spans = begun(&node.store.spans(), begin);
    assert!(matches!(spans[..], [(Kind::Commit(20), 0), (Kind::Removal, 5000..5100), ..]), "{spans:?}");
    node.store.commits_take(secs(0));
    pass(secs(10)).await;
    assert_eq!((node.rows(lobby()).await, node.running()), (Vec::<String>::new(), 0));
}

#[actix::test]
async fn while_the_database_is_away_both_find_out_and_both_go_on_when_it_is_back() {
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
async fn however_many_removals_wait_for_a_slow_database_each_has_its_turn() {
    let (node, _supervisor, _crowd) = crowded(1).await;
    node.store.removals_take(secs(3));
    let ghosts: Vec<UserId> = (0..6).map(|n| UserId::new(format!("ghost {n}")).unwrap()).collect();
    let removed = join_all(ghosts.iter().map(|ghost| node.remove_user(ghost, None))).await;
    assert!(removed.iter().all(|removed| matches!(removed, Ok(0))), "{removed:?}");
    check_one_at_a_time(&node.store.spans());
}

#[actix::test]
async fn a_shutdown_waits_for_a_turn_no_longer_than_for_its_writer() {
    let (node, supervisor, _crowd) = crowded(20).await;
    node.store.removals_take(secs(3600));
    supervisor.do_send(Sweep);
    settle().await;
    prune(&node);
    settle().await;
    let begin = Instant::now();
    node.shutdown().await;
    assert!((secs(2)..ms(2100)).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    assert!(format!("{:?}", node.store.database()).contains("nodes: 0"));
}
