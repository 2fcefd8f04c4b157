//! Presences that outlive their node, or go to another.

use super::{GRACE, ann, rows, two};
use crate::{
    CloseCode,
    clock::Clock,
    config::{ConfigBuilder, Durability},
    rooms::tests::bench::{Client, Node, config, heard, lobby, ms, node_on, pass, secs, settle},
    store::{MemoryStore, RoomStore},
};

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
    assert_eq!(first.closes(), [CloseCode::SUPERSEDED]);
    first.lose(lobby());
    alive(&[&bob, &second], 30).await;
    assert_eq!((bob.count(), heard(&mut changes)), (frames, vec![]));
    // And back again.
    let third = ann(&here);
    third.join(lobby()).await.unwrap();
    alive(&[&bob, &second, &third], 3).await;
    assert_eq!((third.me(), second.closes(), bob.count()), (first.me(), vec![CloseCode::SUPERSEDED], frames));
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
    assert_eq!((first.closes(), bob.sees()), (vec![CloseCode::SUPERSEDED], vec!["bob".to_owned()]));
    assert_eq!(rows(&here).await.len(), 1);
}

#[actix::test]
async fn one_who_resumes_while_the_room_is_read_is_let_in_when_that_is_over() {
    // That a presence is resumed has no version. So the reading, from before, was not found to be late, no other followed, and the
    // first visitors of a server that had just started were turned away after 5 s.
    let (here, there) = two_nodes().await;
    let _bob = there.member("bob").await;
    let [ann, cid] = ["ann", "cid"].map(|name| there.client(name).with_token(name, GRACE));
    for client in [&ann, &cid] {
        client.join(lobby()).await.unwrap();
        client.lose(lobby());
    }
    pass(secs(1)).await;
    here.store.hang_after_load();
    let [first, second] = ["ann", "cid"].map(|name| here.client(name).with_token(name, GRACE));
    let begun = here.rooms.this_node().now();
    let later = async {
        pass(ms(10)).await;
        second.join(lobby()).await
    };
    let release = async {
        pass(ms(100)).await;
        here.store.release_loads();
    };
    let (one, other, ()) = futures_util::join!(first.join(lobby()), later, release);
    one.unwrap();
    other.unwrap();
    assert!(here.rooms.this_node().now().since(begun) < secs(1));
    assert_eq!((first.me(), second.me()), (ann.id(lobby()).to_string(), cid.id(lobby()).to_string()));
    assert_eq!(second.sees(), ["ann", "bob", "cid"]);
}

#[actix::test]
async fn a_reading_that_shows_a_resume_before_its_commit_is_answered_takes_nobody_out() {
    // The room knew the socket by the id that it had asked for, and took the presence for one without a socket.
    let (here, there) = two_nodes().await;
    let (bob, first) = (here.member("bob").await, ann(&there));
    first.join(lobby()).await.unwrap();
    first.lose(lobby());
    alive(&[&bob], 3).await;
    let mut changes = here.changes();
    here.store.hang_after_commit();
    let second = ann(&here);
    let meanwhile = async {
        let _dan = there.member("dan").await;
        alive(&[&bob], 3).await;
        here.store.release_commits();
    };
    let (joined, ()) = futures_util::join!(second.join(lobby()), meanwhile);
    joined.unwrap();
    alive(&[&bob, &second], 5).await;
    assert_eq!((second.me(), second.closes()), (first.id(lobby()).to_string(), vec![]));
    assert!(bob.sees().contains(&"ann".to_owned()));
    assert_eq!(heard(&mut changes), Vec::<String>::new());
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
    assert_eq!((first.closes(), dan.closes()), (vec![CloseCode::SUPERSEDED], vec![]));
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
    old.rooms.hubs().sockets.send_modify(|open| *open += 1);
    let ((), ()) = tokio::join!(old.shutdown(), async {
        settle().await;
        assert!(rows(&old).await[0].2, "it is held while its socket is still open");
        assert_eq!((first.closes(), bob.closes()), (vec![CloseCode::RESTARTING], vec![CloseCode::RESTARTING]));
        first.lose(lobby());
        bob.lose(lobby());
        settle().await;
        old.rooms.hubs().sockets.send_modify(|open| *open -= 1);
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
async fn no_grace_runs_while_its_node_shuts_down_nor_until_the_next_start() {
    // The grace of all counted from the first moment of the shutdown, however long that took.
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let old = node_on(&database, "here", quick()).await;
    let (bob, first) = two(&old).await;
    let watcher = node_on(&database, "watcher", quick()).await;
    let cid = watcher.member("cid").await;
    let mut changes = watcher.changes();
    old.rooms.hubs().sockets.send_modify(|open| *open += 1);
    let began = old.rooms.this_node().now();
    let ((), ()) = tokio::join!(old.shutdown(), async {
        settle().await;
        first.lose(lobby());
        bob.leave(lobby()).await.unwrap();
        // One socket keeps the shutdown waiting.
        alive(&[&cid], 5).await;
        old.rooms.hubs().sockets.send_modify(|open| *open -= 1);
    });
    let took = old.rooms.this_node().now().since(began);
    assert!(took >= secs(4), "{took:?}");
    alive(&[&cid], GRACE.as_secs() - 1).await;
    let new = node_on(&database, "here", quick()).await;
    alive(&[&cid], GRACE.as_secs() - 1).await;
    assert_eq!((heard(&mut changes), cid.sees()), (vec![], vec!["ann".to_owned(), "cid".into()]));
    let second = ann(&new);
    second.join(lobby()).await.unwrap();
    alive(&[&cid, &second], 20).await;
    assert_eq!((second.me(), heard(&mut changes)), (first.me(), vec![]));
}

#[actix::test]
async fn a_presence_with_a_token_belongs_to_the_life_that_its_node_began_anew() {
    // Only those without a token were given to the new life, as far as the room knew.
    let (here, there) = two_nodes().await;
    let first = ann(&here);
    first.join(lobby()).await.unwrap();
    let before = here.node();
    here.store.faults.hang();
    alive(&[&first], 8).await;
    here.store.faults.release();
    alive(&[&first], 3).await;
    assert_ne!(here.node(), before, "it was taken for dead");
    let members = here.members(lobby()).await.unwrap();
    let lives = members.iter().map(|member| Some(member.presences()[0].node));
    assert_eq!(lives.collect::<Vec<_>>(), [here.node()]);
    drop(there);
}

/// A socket resumes a presence of another node, and makes an update before its join is written.
async fn check_early_update(durability: Durability) {
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let settings = || quick().durability(durability);
    let here = node_on(&database, "here", settings()).await;
    let there = node_on(&database, "there", settings()).await;
    let (bob, first) = (there.member("bob").await, ann(&here));
    first.join(lobby()).await.unwrap();
    alive(&[&bob, &first], 1).await;
    first.lose(lobby());
    alive(&[&bob], 3).await;
    there.store.commits_take(ms(100));
    let second = ann(&there);
    let update = async {
        pass(ms(50)).await;
        second.update(lobby(), r#"{"n":1}"#).await
    };
    let (joined, updated) = futures_util::join!(second.join(lobby()), update);
    joined.unwrap();
    updated.unwrap();
    alive(&[&bob, &second], 3).await;
    assert_eq!(second.me(), first.id(lobby()).to_string());
    assert_eq!(bob.screen().here[&second.me()].1, serde_json::json!({"n": 1}));
    let snapshot = database.load(lobby().clone()).await.unwrap().unwrap();
    let stored = snapshot.presences.iter().find(|one| one.id == first.id(lobby()));
    assert_eq!(stored.unwrap().meta.as_str(), r#"{"n":1}"#);
}

#[actix::test]
async fn an_update_before_the_commit_of_its_join_changes_the_presence_that_the_join_resumes() {
    // It was queued for the id that the join had asked for, which was in no row.
    check_early_update(Durability::Committed).await;
}

#[actix::test]
async fn an_update_after_a_relaxed_join_changes_the_presence_that_the_join_resumes() {
    check_early_update(Durability::Relaxed).await;
}
