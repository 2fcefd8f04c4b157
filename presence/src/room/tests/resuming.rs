//! Presences that outlive their sockets.

use futures_util::{FutureExt, future::join};

use super::bench::{Client, Node, config, heard, lobby, ms, node, node_on, pass, room, secs, settle};
use crate::{
    Error,
    clock::Clock,
    close_code::{RESTARTING, TAKEN_OVER},
    config::{ConfigBuilder, Durability},
    room::message::{ToHub, ToRoom},
    store::{MemoryStore, Store},
};

const GRACE: std::time::Duration = secs(10);

/// A socket of ann's with her token.
fn ann(node: &Node) -> Client {
    node.client("ann").with_token("ann", GRACE)
}

/// Bob, who looks on, and ann with her token, who says that she is busy.
async fn two(node: &Node) -> (Client, Client) {
    let (bob, first) = (node.member("bob").await, ann(node));
    first.join(lobby()).await.unwrap();
    first.update(lobby(), r#"{"busy":true}"#).await.unwrap();
    settle().await;
    pass(secs(1)).await;
    assert_eq!(bob.sees(), ["ann", "bob"]);
    bob.frames();
    (bob, first)
}

/// How many frames bob gets while this happens.
async fn told(bob: &Client, happens: impl Future<Output = ()>) -> usize {
    let before = bob.count();
    happens.await;
    pass(secs(1)).await;
    bob.count() - before
}

/// The rows of the lobby: user, channel, and whether it is held.
async fn rows(node: &Node) -> Vec<(String, String, bool)> {
    let snapshot = node.store.database().load(lobby()).await.unwrap();
    let mut rows: Vec<_> = snapshot
        .into_iter()
        .flat_map(|snapshot| snapshot.presences)
        .map(|one| (one.user.as_ref().unwrap().as_str().to_owned(), one.channel.as_str().to_owned(), one.held))
        .collect();
    rows.sort();
    rows
}

#[actix::test]
async fn who_returns_in_time_has_its_presence_again_and_others_are_told_nothing() {
    let node = node().await;
    let (bob, first) = two(&node).await;
    let mut changes = node.changes();
    let id = first.me();
    first.lose(lobby());
    assert_eq!(told(&bob, pass(secs(8))).await, 0);
    let held = node.members(lobby()).await.unwrap();
    assert!(format!("{held:?}").contains("held: true"), "{held:?}");
    assert_eq!(node.count(lobby()).await.unwrap().presences, 2, "who is held counts");

    let second = ann(&node);
    assert_eq!(told(&bob, async { second.join(lobby()).await.unwrap() }).await, 0);
    let screen = second.screen();
    assert_eq!((screen.states, screen.diffs, screen.me == id), (1, 0, true));
    assert_eq!(screen.here[&id].1["busy"], true);
    assert_eq!((screen.version, &screen.here), (bob.screen().version, &bob.screen().here));
    assert_eq!(told(&bob, pass(secs(20))).await, 0, "nothing is due any more");
    assert_eq!(heard(&mut changes), Vec::<String>::new());
    let members = node.members(lobby()).await.unwrap();
    assert!(!format!("{members:?}").contains("held: true"), "{members:?}");

    second.update(lobby(), r#"{"busy":false}"#).await.unwrap();
    second.leave(lobby()).await.unwrap();
    pass(secs(1)).await;
    assert_eq!((bob.sees(), heard(&mut changes)), (vec!["bob".to_owned()], vec!["~ann".to_owned(), "-ann".to_owned()]));
    assert_eq!(rows(&node).await.len(), 1);
}

#[actix::test]
async fn who_does_not_return_leaves_once_when_its_grace_is_over() {
    let node = node().await;
    let (bob, first) = two(&node).await;
    let mut changes = node.changes();
    first.lose(lobby());
    assert_eq!(told(&bob, pass(GRACE - secs(1) - ms(100))).await, 0);
    assert_eq!(told(&bob, pass(secs(1))).await, 1);
    assert_eq!((bob.sees(), heard(&mut changes)), (vec!["bob".to_owned()], vec!["-[ann]".to_owned()]));
    let second = ann(&node);
    assert_eq!(told(&bob, async { second.join(lobby()).await.unwrap() }).await, 1);
    assert_ne!(second.me(), first.me(), "it is another presence");
    assert_eq!((heard(&mut changes), node.children()), (vec!["+ann".to_owned()], 2));
}

#[actix::test]
async fn many_whose_grace_is_over_leave_in_one_event_and_many_return_in_silence() {
    let node = node().await;
    let bob = node.member("bob").await;
    let crowd = |node: &Node| -> Vec<_> {
        (0..50).map(|n| node.client(&format!("u{n}")).with_token(&n.to_string(), GRACE)).collect()
    };
    let first = crowd(&node);
    super::bench::join_all(&first, lobby()).await;
    pass(secs(1)).await;
    let (mut changes, frames) = (node.changes(), bob.count());
    first.iter().for_each(|one| one.lose(lobby()));
    pass(secs(5)).await;
    let second = crowd(&node);
    super::bench::join_all(&second, lobby()).await;
    pass(secs(20)).await;
    assert_eq!((heard(&mut changes), bob.count()), (vec![], frames));
    assert!(second.iter().zip(&first).all(|(second, first)| second.me() == first.me()));
    second.iter().for_each(|one| one.lose(lobby()));
    pass(secs(20)).await;
    let told = heard(&mut changes);
    assert_eq!((told.len(), told[0].matches('u').count(), bob.count() - frames), (1, 50, 1));
}

#[actix::test]
async fn without_a_token_or_a_grace_a_lost_socket_leaves_at_once() {
    let node = node().await;
    let (bob, _first) = two(&node).await;
    let (cid, dan) = (node.member("cid").await, node.client("dan").with_token("dan", secs(0)));
    dan.join(lobby()).await.unwrap();
    pass(secs(1)).await;
    for lost in [cid, dan] {
        assert_eq!(told(&bob, async { lost.lose(lobby()) }).await, 1);
    }
    assert_eq!(bob.sees(), ["ann", "bob"]);
}

#[actix::test]
async fn a_token_with_another_user_or_in_another_room_is_another_presence() {
    let node = node().await;
    let (bob, first) = two(&node).await;
    first.lose(lobby());
    let attic = room("attic");
    for (other, place) in [(node.client("eve"), lobby()), (node.anonymous(), lobby()), (node.client("ann"), &attic)] {
        let other = other.with_token("ann", GRACE);
        other.join(place).await.unwrap();
        assert_ne!(other.me(), first.me());
    }
    pass(secs(5)).await;
    assert_eq!(bob.sees(), ["ann", "bob", "eve"]);
    pass(secs(10)).await;
    assert_eq!(bob.sees(), ["bob", "eve"], "nobody took it over");
}

#[actix::test]
async fn a_socket_with_a_token_in_use_takes_over_and_the_former_is_closed() {
    let node = node().await;
    let (bob, first) = two(&node).await;
    let mut changes = node.changes();
    let second = ann(&node);
    assert_eq!(told(&bob, async { second.join(lobby()).await.unwrap() }).await, 0);
    assert_eq!((first.closes(), second.me()), (vec![TAKEN_OVER], first.me()));
    let late = async {
        // What the former does before it has heard.
        first.update(lobby(), r#"{"late":true}"#).await.unwrap_err();
        first.leave(lobby()).await.unwrap();
        first.lose(lobby());
        pass(secs(20)).await;
    };
    assert_eq!((told(&bob, late).await, heard(&mut changes)), (0, vec![]));
    assert_eq!(second.sees(), ["ann", "bob"]);
    let [row, _] = &rows(&node).await[..] else { panic!("two rows") };
    assert_eq!((row.1.as_str(), row.2), (second.channel.as_str(), false));
}

#[actix::test]
async fn an_explicit_leave_is_immediate_and_the_token_comes_anew() {
    let node = node().await;
    let (bob, first) = two(&node).await;
    let id = first.me();
    assert_eq!(told(&bob, async { first.leave(lobby()).await.unwrap() }).await, 1);
    first.join(lobby()).await.unwrap();
    assert_ne!(first.me(), id);
    assert_eq!(first.screen().here[&first.me()].1, serde_json::json!({}));
    first.lose(lobby());
    let second = ann(&node);
    second.join(lobby()).await.unwrap();
    assert_eq!(second.me(), first.me(), "the same token holds for the presence that came after");
    assert_eq!(bob.sees(), ["ann", "bob"]);
}

#[actix::test]
async fn one_socket_after_the_other_takes_over() {
    let node = node().await;
    let (bob, first) = two(&node).await;
    let id = first.me();
    let again = async {
        for _ in 0..20 {
            let next = ann(&node);
            next.join(lobby()).await.unwrap();
            assert_eq!(next.me(), id);
            next.lose(lobby());
        }
    };
    assert_eq!(told(&bob, again).await, 0);
    assert_eq!((node.children(), rows(&node).await.len()), (1, 2));
    pass(GRACE).await;
    assert_eq!((bob.sees(), rows(&node).await.len(), node.children()), (vec!["bob".to_owned()], 1, 1));
}

#[actix::test]
async fn of_two_who_come_with_one_token_at_once_the_later_has_the_presence() {
    tokio::time::pause();
    for durability in [Durability::Committed, Durability::Relaxed] {
        let node = node_on(&MemoryStore::new(Clock::system()), "here", config().durability(durability)).await;
        let bob = node.member("bob").await;
        let (first, second) = (ann(&node), ann(&node));
        let (one, two) = join(first.join(lobby()), second.join(lobby())).await;
        one.unwrap();
        two.unwrap();
        pass(secs(1)).await;
        assert_eq!(first.closes(), [TAKEN_OVER]);
        assert_eq!(second.sees(), ["ann", "bob"]);
        assert_eq!((bob.screen().told, node.children()), (vec!["+ann".to_owned()], 2));
    }
}

#[actix::test]
async fn a_socket_that_waited_to_take_over_and_is_gone_takes_nothing() {
    let node = node().await;
    let bob = node.member("bob").await;
    let (first, second) = (ann(&node), ann(&node));
    node.store.hang_after_commit();
    let mut joining = Box::pin(first.join(lobby()));
    assert!((&mut joining).now_or_never().is_none());
    settle().await;
    {
        let mut waiting = Box::pin(second.join(lobby()));
        assert!((&mut waiting).now_or_never().is_none());
        settle().await;
    }
    node.store.release_commits();
    joining.await.unwrap();
    pass(secs(1)).await;
    assert_eq!((first.closes(), bob.sees()), (vec![], vec!["ann".to_owned(), "bob".into()]));
}

#[actix::test]
async fn a_return_needs_no_database_and_what_it_missed_is_written_later() {
    let node = node().await;
    let (bob, first) = two(&node).await;
    node.store.faults.hang();
    first.lose(lobby());
    let second = ann(&node);
    let back = async { second.join(lobby()).now_or_never().map_or_else(|| (), |joined| joined.unwrap()) };
    assert_eq!(told(&bob, back).await, 0);
    second.join(lobby()).await.unwrap();
    assert_eq!((second.me(), second.sees()), (first.me(), vec!["ann".to_owned(), "bob".into()]));
    pass(secs(15)).await;
    node.store.faults.release();
    pass(secs(5)).await;
    let [row, _] = &rows(&node).await[..] else { panic!("two rows") };
    assert_eq!((row.1.as_str(), row.2), (second.channel.as_str(), false));
    assert_eq!(bob.screen().told, ["+ann", "~ann"]);
}

#[actix::test]
async fn who_does_not_return_while_the_database_is_away_leaves_when_it_is_back() {
    let node = node().await;
    let (bob, first) = two(&node).await;
    node.store.faults.hang();
    first.lose(lobby());
    assert_eq!(told(&bob, pass(secs(20))).await, 0);
    node.store.faults.release();
    pass(secs(5)).await;
    assert_eq!((bob.sees(), bob.screen().told.last().unwrap().as_str()), (vec!["bob".to_owned()], "-ann"));
    assert_eq!(rows(&node).await.len(), 1);
}

#[actix::test]
async fn an_update_under_way_is_not_lost_by_a_return() {
    let node = node().await;
    let (bob, first) = two(&node).await;
    node.store.hang_after_commit();
    let mut update = Box::pin(first.update(lobby(), r#"{"n":1}"#));
    assert!((&mut update).now_or_never().is_none());
    settle().await;
    first.lose(lobby());
    let second = ann(&node);
    second.join(lobby()).await.unwrap();
    second.update(lobby(), r#"{"n":2}"#).now_or_never();
    node.store.release_commits();
    update.await.unwrap();
    pass(secs(1)).await;
    assert_eq!(bob.screen().here[&second.me()].1["n"], 2);
    second.leave(lobby()).await.unwrap();
    pass(secs(1)).await;
    assert_eq!(bob.sees(), ["bob"], "it leaves as the socket that it is");
}

#[actix::test]
async fn a_socket_that_is_lost_while_it_joins_leaves_if_it_is_new() {
    let node = node().await;
    let bob = node.member("bob").await;
    let first = ann(&node);
    node.store.hang_after_commit();
    {
        let mut joining = Box::pin(first.join(lobby()));
        assert!((&mut joining).now_or_never().is_none());
        settle().await;
    }
    node.store.release_commits();
    pass(secs(1)).await;
    assert_eq!((bob.sees(), rows(&node).await.len()), (vec!["bob".to_owned()], 1));
    let second = ann(&node);
    second.join(lobby()).await.unwrap();
    assert_eq!(second.sees(), ["ann", "bob"]);
}

fn quick() -> ConfigBuilder {
    config().lease(secs(3)).sweep_interval(secs(1)).reconcile_interval(secs(2))
}

async fn two_nodes() -> (Node, Node) {
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    (node_on(&database, "here", quick()).await, node_on(&database, "there", quick()).await)
}

/// Lets time pass in which bob is heard of.
async fn alive(bobs: &[&Client], seconds: u64) {
    for _ in 0..seconds {
        pass(secs(1)).await;
        bobs.iter().for_each(|bob| bob.touch());
    }
}

#[actix::test]
async fn one_who_was_lost_returns_on_another_node_and_nobody_is_told() {
    let (here, there) = two_nodes().await;
    let (bob, first) = two(&here).await;
    let cid = there.member("cid").await;
    alive(&[&bob, &cid], 3).await;
    let (mut changes, mut others) = (here.changes(), there.changes());
    let frames = (bob.count(), cid.count());
    first.lose(lobby());
    pass(secs(1)).await;
    let second = ann(&there);
    second.join(lobby()).await.unwrap();
    assert_eq!((second.me(), second.screen().here[&first.me()].1["busy"].clone()), (first.me(), true.into()));
    alive(&[&bob, &cid, &second], 30).await;
    assert_eq!((bob.count(), cid.count()), frames);
    assert_eq!((heard(&mut changes), heard(&mut others)), (vec![], vec![]));
    for node in [&here, &there] {
        let members = format!("{:?}", node.members(lobby()).await.unwrap());
        assert!(!members.contains("held: true"), "{members}");
    }
    // It is that node's now: the other has nothing to say.
    second.leave(lobby()).await.unwrap();
    alive(&[&bob, &cid], 3).await;
    assert_eq!((bob.sees(), cid.sees()), (vec!["bob".to_owned(), "cid".into()], vec!["bob".to_owned(), "cid".into()]));
}

#[actix::test]
async fn a_token_in_use_on_another_node_is_taken_over_and_reconcile_closes_the_former() {
    let (here, there) = two_nodes().await;
    let (bob, first) = two(&here).await;
    let mut changes = here.changes();
    let frames = bob.count();
    let second = ann(&there);
    second.join(lobby()).await.unwrap();
    assert_eq!((second.me(), first.closes()), (first.me(), vec![]));
    alive(&[&bob, &second, &first], 3).await;
    assert_eq!(first.closes(), [TAKEN_OVER]);
    first.lose(lobby());
    alive(&[&bob, &second], 30).await;
    assert_eq!((bob.count(), heard(&mut changes)), (frames, vec![]));
    // And back again.
    let third = ann(&here);
    third.join(lobby()).await.unwrap();
    alive(&[&bob, &second, &third], 3).await;
    assert_eq!((third.me(), second.closes(), bob.count()), (first.me(), vec![TAKEN_OVER], frames));
    assert_eq!((here.children(), there.children()), (2, 0));
}

#[actix::test]
async fn one_who_was_taken_over_on_another_node_and_left_there_is_not_brought_back() {
    // Its former node found it gone, and had its socket join again.
    let (here, there) = two_nodes().await;
    let (bob, first) = two(&here).await;
    let second = ann(&there);
    second.join(lobby()).await.unwrap();
    second.leave(lobby()).await.unwrap();
    alive(&[&bob, &first], 5).await;
    assert_eq!((first.closes(), bob.sees()), (vec![TAKEN_OVER], vec!["bob".to_owned()]));
    assert_eq!(rows(&here).await.len(), 1);
}

#[actix::test]
async fn an_update_that_waits_for_a_change_before_it_is_told_although_its_socket_is_lost() {
    // The hold put the new meta into the roster before its version came, and so nobody was told of it.
    let (here, there) = two_nodes().await;
    let (bob, first) = two(&here).await;
    let _cid = there.member("cid").await;
    first.update(lobby(), r#"{"n":1}"#).await.unwrap();
    first.lose(lobby());
    let second = ann(&here);
    second.join(lobby()).await.unwrap();
    alive(&[&bob, &second], 5).await;
    assert_eq!(bob.screen().here[&second.me()].1, serde_json::json!({"n": 1}));
}

#[actix::test]
async fn a_node_that_comes_back_from_the_dead_does_not_take_back_what_was_resumed() {
    let (here, there) = two_nodes().await;
    let (bob, cid) = (there.member("bob").await, there.member("cid").await);
    let (first, dan) = (ann(&here), here.client("dan").with_token("dan", GRACE));
    first.join(lobby()).await.unwrap();
    dan.join(lobby()).await.unwrap();
    alive(&[&bob, &cid, &first, &dan], 5).await;
    assert_eq!(bob.sees(), ["ann", "bob", "cid", "dan"]);
    let frames = bob.count();
    here.store.faults.hang();
    alive(&[&bob, &cid, &first, &dan], 6).await;
    let second = ann(&there);
    second.join(lobby()).await.unwrap();
    assert_eq!(second.me(), first.me());
    here.store.faults.release();
    alive(&[&bob, &cid, &first, &dan, &second], 10).await;
    assert_eq!((first.closes(), dan.closes()), (vec![TAKEN_OVER], vec![]));
    alive(&[&bob, &cid, &dan, &second], 20).await;
    assert_eq!((bob.count(), bob.sees().len()), (frames, 4), "dan was held, and is back before anybody could tell");
    assert_eq!((here.children(), there.children()), (1, 3));
}

#[actix::test]
async fn after_a_crash_who_returns_has_its_presence_again_and_others_leave() {
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let old = node_on(&database, "here", quick()).await;
    let (bob, first) = two(&old).await;
    let before = bob.screen();
    old.store.faults.hang(); // The process is gone.
    let new = node_on(&database, "here", quick()).await;
    let mut changes = new.changes();
    let second = ann(&new);
    second.join(lobby()).await.unwrap();
    assert_eq!((second.me(), second.screen().here), (first.me(), before.here));
    assert_eq!((second.screen().states, second.screen().diffs, heard(&mut changes)), (1, 0, vec![]));
    alive(&[&second], 20).await;
    assert_eq!((second.sees(), heard(&mut changes)), (vec!["ann".to_owned()], vec!["-[bob]".to_owned()]));
}

#[actix::test]
async fn a_shutdown_holds_from_its_beginning_and_the_next_start_has_them() {
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let old = node_on(&database, "here", quick()).await;
    let (bob, first) = two(&old).await;
    let mut changes = old.changes();
    old.rooms.socket_opened();
    let ((), ()) = tokio::join!(old.shutdown(), async {
        settle().await;
        assert!(rows(&old).await[0].2, "it is held while its socket is still open");
        assert_eq!((first.closes(), bob.closes()), (vec![RESTARTING], vec![RESTARTING]));
        first.lose(lobby());
        bob.lose(lobby());
        settle().await;
        old.rooms.socket_closed();
    });
    assert_eq!(heard(&mut changes), ["-bob"]);
    let new = node_on(&database, "here", quick()).await;
    let second = ann(&new);
    second.join(lobby()).await.unwrap();
    assert_eq!((second.me(), second.sees()), (first.me(), vec!["ann".to_owned()]));
    assert_eq!(second.screen().here[&second.me()].1["busy"], true);
    alive(&[&second], 20).await;
    assert_eq!(second.screen().told, Vec::<String>::new());
}

#[actix::test]
async fn a_room_that_fails_forgets_neither_who_is_held_nor_who_can_be_resumed() {
    tokio::time::pause();
    for hard in [false, true] {
        let node = node_on(&MemoryStore::new(Clock::system()), "here", config()).await;
        let (bob, first) = two(&node).await;
        let dan = node.client("dan").with_token("dan", GRACE);
        dan.join(lobby()).await.unwrap();
        pass(secs(1)).await;
        let mut changes = node.changes();
        first.lose(lobby());
        settle().await;
        let fail = if hard { ToRoom::PanicInModel } else { ToRoom::Panic };
        node.rooms.tell_running(lobby(), fail);
        pass(secs(3)).await;
        let (second, twin) = (ann(&node), node.client("dan").with_token("dan", GRACE));
        second.join(lobby()).await.unwrap();
        twin.join(lobby()).await.unwrap();
        assert_eq!((second.me(), twin.me(), dan.closes()), (first.me(), dan.me(), vec![TAKEN_OVER]));
        node.rooms.tell_running(lobby(), ToRoom::Panic);
        pass(secs(3)).await;
        second.leave(lobby()).await.unwrap();
        twin.lose(lobby());
        pass(secs(20)).await;
        assert_eq!(
            (bob.sees(), heard(&mut changes)),
            (vec!["bob".to_owned()], vec!["-ann".to_owned(), "-[dan]".into()])
        );
    }
}

#[actix::test]
async fn a_presence_that_changes_hands_can_not_be_resumed_by_its_former_user() {
    let node = node().await;
    let (bob, first) = two(&node).await;
    let hub = node.rooms.local_hub();
    let presence = std::sync::Arc::new(crate::Presence {
        user: Some(super::bench::user("eve")),
        ..crate::Presence::clone(&first.presence(lobby()))
    });
    let rebound = node.rooms.join_again(lobby(), presence, Some(hub.hub.clone()), first.touch.clone()).await;
    rebound.unwrap();
    let second = ann(&node);
    second.join(lobby()).await.unwrap();
    assert_ne!(second.me(), first.me());
    pass(secs(1)).await;
    assert_eq!((bob.sees(), first.closes()), (vec!["ann".to_owned(), "bob".into(), "eve".into()], vec![]));
    hub.hub.addr.do_send(ToHub::Watch);
}

#[actix::test]
async fn who_is_held_is_spared_by_its_deadline_and_pruned_when_asked() {
    let node = node().await;
    let (bob, first) = two(&node).await;
    let cid = node.client("cid").with_token("cid", secs(60));
    cid.join(lobby()).await.unwrap();
    for _ in 0..11 {
        pass(secs(5)).await;
        bob.touch();
        first.touch();
    }
    // It was silent for nearly as long as it may; but now it is lost, and has its grace.
    cid.lose(lobby());
    for _ in 0..10 {
        pass(secs(5)).await;
        bob.touch();
        first.touch();
    }
    assert_eq!(bob.sees(), ["ann", "bob", "cid"]);
    assert_eq!(node.prune_presences(Some(secs(40))).await.unwrap(), 1);
    pass(secs(1)).await;
    assert_eq!(bob.sees(), ["ann", "bob"]);
    let again = node.client("cid").with_token("cid", secs(60));
    again.join(lobby()).await.unwrap();
    assert_ne!(again.me(), cid.me());
}

#[actix::test]
async fn nobody_resumes_while_the_node_shuts_down() {
    let node = node().await;
    let (_bob, first) = two(&node).await;
    first.lose(lobby());
    let ((), ()) = tokio::join!(node.shutdown(), async {
        settle().await;
        assert!(matches!(ann(&node).join(lobby()).await, Err(Error::ShuttingDown)));
    });
}
