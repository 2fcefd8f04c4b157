//! Touches cost one write to memory. They are written to the database later, together and not too often.

use super::prelude::*;

async fn beat(clients: &[FakeClient], every: Duration, times: u32) {
    for _ in 0..times {
        pass(every).await;
        clients.iter().for_each(FakeClient::touch);
    }
}

/// The least time between two writes of the same row.
fn closest(touches: &[(Instant, PresenceId)]) -> Duration {
    let mut rows: HashMap<PresenceId, Vec<Instant>> = HashMap::new();
    for (at, id) in touches {
        rows.entry(*id).or_default().push(*at);
    }
    let gaps = rows.values().flat_map(|times| times.windows(2).map(|pair| pair[1] - pair[0]));
    gaps.min().expect("some row was written twice")
}

// behaviour: W8 cheap-touch
#[actix::test]
async fn a_touch_makes_no_call_to_the_database() {
    let node = node().await;
    let ann = node.member("ann").await;
    node.store.commits();
    let calls = node.store.faults.calls();
    for _ in 0..10_000 {
        ann.touch();
    }
    settle().await;
    assert_eq!(node.store.faults.calls(), calls);
}

#[actix::test]
async fn a_row_is_written_at_most_once_in_an_interval_however_often_it_is_touched() {
    let node = node().await;
    let crowd = node.crowd(20).await;
    beat(&crowd, secs(1), 150).await;
    let touches = node.store.touches();
    assert!(closest(&touches) >= secs(15), "{:?}", closest(&touches));
    assert!((9 * 20..=10 * 20).contains(&touches.len()), "ten intervals, twenty rows: {}", touches.len());
}

#[actix::test]
async fn rows_are_written_in_bulk() {
    let node = node().await;
    let mut crowd = Vec::new();
    for n in 0..100 {
        crowd.push(node.member(&format!("u{n}")).await);
        pass(ms(10)).await;
    }
    beat(&crowd, secs(5), 12).await;
    let rows = node.store.touches();
    assert!(rows.len() >= 300, "{}", rows.len());
    let mut transactions: Vec<_> = rows.iter().map(|(at, _)| *at).collect();
    transactions.dedup();
    assert!(transactions.windows(2).all(|pair| pair[1] - pair[0] >= ms(900)), "{transactions:?}");
}

#[actix::test]
async fn the_row_of_a_silent_presence_is_not_written() {
    let node = node().await;
    let _ann = node.member("ann").await;
    pass(secs(60)).await;
    assert_eq!(node.store.touches().len(), 0);
}

#[actix::test]
async fn touches_are_written_also_during_an_endless_flow_of_changes() {
    // They were written only when no changes were pending.
    let node = node_with(config().max_age(secs(20))).await;
    let crowd = node.crowd(10).await;
    let busy = std::rc::Rc::new(node.member("busy").await);
    node.store.commits_take(ms(20));
    let updates = async {
        for n in 0.. {
            let busy = busy.clone();
            actix::spawn(async move { busy.update(lobby(), &format!(r#"{{"n":{n}}}"#)).await });
            tokio::time::sleep(ms(5)).await;
        }
    };
    tokio::select! {
        () = beat(&crowd, secs(1), 20) => {}
        () = updates => {}
    }
    let touches = node.store.touches();
    assert!(touches.len() >= 3 * 10, "{}", touches.len());
}

#[actix::test]
async fn touches_wait_for_a_database_that_is_away_and_are_written_on_its_return() {
    let node = node().await;
    let crowd = node.crowd(5).await;
    node.store.faults.fail_next(usize::MAX);
    beat(&crowd, secs(2), 10).await;
    node.store.faults.fail_next(0);
    node.store.touches();
    pass(secs(6)).await;
    assert_eq!(node.store.touches().len(), 5);
}

#[actix::test]
async fn a_presence_that_left_is_not_touched() {
    let node = node().await;
    let ann = node.member("ann").await;
    pass(secs(14)).await;
    ann.touch();
    ann.leave(lobby()).await.unwrap();
    pass(secs(60)).await;
    assert_eq!(node.store.touches().len(), 0);
}

#[actix::test]
async fn a_shutdown_writes_the_last_touches_before_the_node_goes() {
    let node = node().await;
    let crowd = node.crowd(3).await;
    pass(secs(5)).await;
    crowd.iter().for_each(FakeClient::touch);
    assert_eq!(node.store.touches().len(), 0, "their rows would learn of it when the interval is over");
    node.store.commits_take(ms(1));
    node.shutdown().await;
    assert_eq!(node.store.touches().len(), 3);
}

#[actix::test]
async fn a_join_waits_for_no_more_than_one_transaction_of_touches_however_many_there_are() {
    let node = node().await;
    let (crowd, late) = (node.crowd(3_500).await, node.client("late"));
    pass(secs(14)).await;
    crowd.iter().for_each(FakeClient::touch);
    node.store.touches_take(ms(10));
    node.store.calls();
    // The first touches are written at once, and later ones are gathered.
    while node.store.touches().len() < 1_000 {
        pass(ms(1)).await;
    }
    late.join(lobby()).await.unwrap();
    pass(secs(1)).await;
    let calls = node.store.calls();
    let under_way = calls.iter().position(|call| *call == WriterCall::Touch(1_000)).unwrap();
    assert_eq!(calls[under_way + 1], WriterCall::Commit(1), "right after the one that was under way");
    let touches = calls.iter().filter_map(|call| if let WriterCall::Touch(rows) = call { Some(*rows) } else { None });
    let sizes: Vec<_> = touches.collect();
    assert!(sizes.iter().sum::<usize>() == 3_500 && sizes.iter().all(|rows| *rows <= 1_000), "{sizes:?}");
}

#[actix::test]
async fn rows_that_are_rarely_written_cost_nobody_a_grace_and_keep_no_silent_member() {
    // Another node took the time in the row for the last sign of life.
    let rarely = || quick().touch_flush_interval(secs(600)).prune_interval(secs(1));
    let [here, there] = nodes(rarely).await;
    let silent = there.member("silent").await;
    let ann = here.member("ann").await;
    let bob = there.client("bob").with_token("a-token-of-bob-that-is-long", secs(30));
    bob.join(lobby()).await.unwrap();
    alive(&[&ann, &bob], secs(62)).await;
    assert_eq!(pruned(&silent), 1, "its node has its deadline in memory");
    alive(&[&ann, &bob], secs(240)).await;
    assert_eq!(there.store.touches().len(), 0);
    there.store.faults.hang();
    // After the lease and a sweep the dead node's presences are held.
    alive(&[&ann, &bob], secs(25)).await;
    assert_eq!(ann.sees(), ["ann", "bob"], "its grace is not over");
    alive(&[&ann, &bob], secs(15)).await;
    assert_eq!(ann.sees(), ["ann"]);
}

fn pruned(client: &FakeClient) -> usize {
    let is_removal = |message: &ToConnection| matches!(message, ToConnection::Removed { .. });
    client.connection_messages().iter().filter(|message| is_removal(message)).count()
}
