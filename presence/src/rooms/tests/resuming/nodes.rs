//! Presences that outlive their node, or are resumed on another.

use crate::rooms::tests::prelude::*;

use super::{GRACE, ann, rows, two};

#[actix::test]
async fn a_lost_presence_is_resumed_on_another_node_without_any_notice() {
    let [here, there] = nodes(quick).await;
    let (bob, first) = two(&here).await;
    let cid = there.member("cid").await;
    alive(&[&bob, &cid], secs(3)).await;
    let (mut changes, mut others) = (here.changes(), there.changes());
    let frames = (bob.count(), cid.count());
    first.lose(lobby());
    pass(secs(1)).await;
    let second = ann(&there);
    second.join(lobby()).await.unwrap();
    assert_eq!((second.me(), second.view().here[&first.me()].1["busy"].clone()), (first.me(), true.into()));
    alive(&[&bob, &cid, &second], secs(30)).await;
    assert_eq!((bob.count(), cid.count()), frames);
    assert_eq!((published(&mut changes), published(&mut others)), (vec![], vec![]));
    for node in [&here, &there] {
        let members = format!("{:?}", node.members(lobby()).await.unwrap());
        assert!(!members.contains("held: true"), "{members}");
    }
    // The presence belongs to that node now, and the former node does nothing for it.
    second.leave(lobby()).await.unwrap();
    alive(&[&bob, &cid], secs(3)).await;
    assert_eq!((bob.sees(), cid.sees()), (vec!["bob".to_owned(), "cid".into()], vec!["bob".to_owned(), "cid".into()]));
}

#[actix::test]
async fn a_token_in_use_on_another_node_resumes_the_presence_and_reconcile_closes_the_former_socket() {
    let [here, there] = nodes(quick).await;
    let (bob, first) = two(&here).await;
    let mut changes = here.changes();
    let frames = bob.count();
    let second = ann(&there);
    second.join(lobby()).await.unwrap();
    assert_eq!((second.me(), first.close_codes()), (first.me(), vec![]));
    alive(&[&bob, &second, &first], secs(3)).await;
    assert_eq!(first.close_codes(), [CloseCode::SUPERSEDED]);
    first.lose(lobby());
    alive(&[&bob, &second], secs(30)).await;
    assert_eq!((bob.count(), published(&mut changes)), (frames, vec![]));
    // And back again.
    let third = ann(&here);
    third.join(lobby()).await.unwrap();
    alive(&[&bob, &second, &third], secs(3)).await;
    assert_eq!((third.me(), second.close_codes(), bob.count()), (first.me(), vec![CloseCode::SUPERSEDED], frames));
    assert_eq!((here.children(), there.children()), (2, 0));
}

#[actix::test]
async fn a_presence_that_was_resumed_on_another_node_and_left_there_is_not_restored() {
    // Its former node noticed that it was gone, and made its socket join again.
    let [here, there] = nodes(quick).await;
    let (bob, first) = two(&here).await;
    let second = ann(&there);
    second.join(lobby()).await.unwrap();
    second.leave(lobby()).await.unwrap();
    alive(&[&bob, &first], secs(5)).await;
    assert_eq!((first.close_codes(), bob.sees()), (vec![CloseCode::SUPERSEDED], vec!["bob".to_owned()]));
    assert_eq!(rows(&here).await.len(), 1);
}

#[actix::test]
async fn a_resume_during_a_load_succeeds_when_the_load_is_over() {
    // That a presence is resumed has no version. So the reading, from before, was not found to be late, no other followed, and the
    // first visitors of a server that had just started were turned away after 5 s.
    let [here, there] = nodes(quick).await;
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
async fn a_load_that_shows_a_resume_before_its_commit_is_answered_removes_nobody() {
    // The room knew the socket by the id of its request, and considered the presence one without a socket.
    let [here, there] = nodes(quick).await;
    let (bob, first) = (here.member("bob").await, ann(&there));
    first.join(lobby()).await.unwrap();
    first.lose(lobby());
    alive(&[&bob], secs(3)).await;
    let mut changes = here.changes();
    here.store.hang_after_commit();
    let second = ann(&here);
    let meanwhile = async {
        let _dan = there.member("dan").await;
        alive(&[&bob], secs(3)).await;
        here.store.release_commits();
    };
    let (joined, ()) = futures_util::join!(second.join(lobby()), meanwhile);
    joined.unwrap();
    alive(&[&bob, &second], secs(5)).await;
    assert_eq!((second.me(), second.close_codes()), (first.id(lobby()).to_string(), vec![]));
    assert!(bob.sees().contains(&"ann".to_owned()));
    assert_eq!(published(&mut changes), NONE);
}

#[actix::test]
async fn an_update_that_waits_for_a_missing_change_is_sent_although_its_socket_is_lost() {
    // The hold put the new meta into the roster before its version arrived, so no notice was sent.
    let [here, there] = nodes(quick).await;
    let (bob, first) = two(&here).await;
    let _cid = there.member("cid").await;
    first.update(lobby(), r#"{"n":1}"#).await.unwrap();
    first.lose(lobby());
    let second = ann(&here);
    second.join(lobby()).await.unwrap();
    alive(&[&bob, &second], secs(5)).await;
    assert_eq!(bob.view().here[&second.me()].1, serde_json::json!({"n": 1}));
}

#[actix::test]
async fn a_node_that_was_fenced_does_not_reclaim_a_presence_that_was_resumed_elsewhere() {
    let [here, there] = nodes(quick).await;
    let [bob, cid] = there.members_named(["bob", "cid"]).await;
    let (first, dan) = (ann(&here), here.client("dan").with_token("dan", GRACE));
    first.join(lobby()).await.unwrap();
    dan.join(lobby()).await.unwrap();
    alive(&[&bob, &cid, &first, &dan], secs(5)).await;
    assert_eq!(bob.sees(), ["ann", "bob", "cid", "dan"]);
    let frames = bob.count();
    here.store.faults.hang();
    alive(&[&bob, &cid, &first, &dan], secs(6)).await;
    let second = ann(&there);
    second.join(lobby()).await.unwrap();
    assert_eq!(second.me(), first.me());
    here.store.faults.release();
    alive(&[&bob, &cid, &first, &dan, &second], secs(10)).await;
    assert_eq!((first.close_codes(), dan.close_codes()), (vec![CloseCode::SUPERSEDED], vec![]));
    alive(&[&bob, &cid, &dan, &second], secs(20)).await;
    assert_eq!((bob.count(), bob.sees().len()), (frames, 4), "dan was held, and is back before anybody could tell");
    assert_eq!((here.children(), there.children()), (1, 3));
}

#[actix::test]
async fn after_a_crash_a_socket_with_a_token_resumes_its_presence_and_the_others_leave() {
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let old = node_on(&database, "here", quick()).await;
    let (bob, first) = two(&old).await;
    let before = bob.view();
    old.store.faults.hang(); // The process is gone.
    let new = node_on(&database, "here", quick()).await;
    let mut changes = new.changes();
    let second = ann(&new);
    second.join(lobby()).await.unwrap();
    assert_eq!((second.me(), second.view().here), (first.me(), before.here));
    assert_eq!((second.view().states, second.view().diffs, published(&mut changes)), (1, 0, vec![]));
    alive(&[&second], secs(20)).await;
    assert_eq!((second.sees(), published(&mut changes)), (vec!["ann".to_owned()], vec!["-[bob]".to_owned()]));
}

#[actix::test]
async fn a_shutdown_holds_presences_from_its_beginning_and_the_next_start_resumes_them() {
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let old = node_on(&database, "here", quick()).await;
    let (bob, first) = two(&old).await;
    let mut changes = old.changes();
    old.rooms.hubs().sockets.send_modify(|open| *open += 1);
    let ((), ()) = tokio::join!(old.shutdown(), async {
        settle().await;
        assert!(rows(&old).await[0].2, "it is held while its socket is still open");
        assert_eq!(
            (first.close_codes(), bob.close_codes()),
            (vec![CloseCode::RESTARTING], vec![CloseCode::RESTARTING])
        );
        first.lose(lobby());
        bob.lose(lobby());
        settle().await;
        old.rooms.hubs().sockets.send_modify(|open| *open -= 1);
    });
    assert_eq!(published(&mut changes), ["-bob"]);
    let new = node_on(&database, "here", quick()).await;
    let second = ann(&new);
    second.join(lobby()).await.unwrap();
    assert_eq!((second.me(), second.sees()), (first.me(), vec!["ann".to_owned()]));
    assert_eq!(second.view().here[&second.me()].1["busy"], true);
    alive(&[&second], secs(20)).await;
    assert_eq!(second.view().changes, NONE);
}

#[actix::test]
async fn no_grace_runs_during_a_shutdown_and_until_the_next_start() {
    // All graces began with the shutdown, however long it took.
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
        alive(&[&cid], secs(5)).await;
        old.rooms.hubs().sockets.send_modify(|open| *open -= 1);
    });
    let took = old.rooms.this_node().now().since(began);
    assert!(took >= secs(4), "{took:?}");
    alive(&[&cid], GRACE - secs(1)).await;
    let new = node_on(&database, "here", quick()).await;
    alive(&[&cid], GRACE - secs(1)).await;
    assert_eq!((published(&mut changes), cid.sees()), (vec![], vec!["ann".to_owned(), "cid".into()]));
    let second = ann(&new);
    second.join(lobby()).await.unwrap();
    alive(&[&cid, &second], secs(20)).await;
    assert_eq!((second.me(), published(&mut changes)), (first.me(), vec![]));
}

#[actix::test]
async fn a_presence_with_a_token_belongs_to_the_new_incarnation_of_its_node() {
    // In the roster of the room, only presences without a token belonged to the new incarnation.
    let [here, there] = nodes(quick).await;
    let first = ann(&here);
    first.join(lobby()).await.unwrap();
    let before = here.node();
    here.store.faults.hang();
    alive(&[&first], secs(8)).await;
    here.store.faults.release();
    alive(&[&first], secs(3)).await;
    assert_ne!(here.node(), before, "it was taken for dead");
    let members = here.members(lobby()).await.unwrap();
    let lives = members.iter().map(|member| Some(member.presences()[0].node));
    assert_eq!(lives.collect::<Vec<_>>(), [here.node()]);
    drop(there);
}

#[actix::test]
async fn an_update_before_the_commit_of_its_join_changes_the_presence_that_the_join_resumes() {
    // It was queued for the id with which the join was requested, which was in no row.
    tokio::time::pause();
    check_early_update(Durability::Committed).await;
    check_early_update(Durability::Relaxed).await;
}

/// A socket resumes a presence of another node, and makes an update before its join is written.
async fn check_early_update(durability: Durability) {
    let database = MemoryStore::new(Clock::system());
    let settings = || quick().durability(durability);
    let here = node_on(&database, "here", settings()).await;
    let there = node_on(&database, "there", settings()).await;
    let (bob, first) = (there.member("bob").await, ann(&here));
    first.join(lobby()).await.unwrap();
    alive(&[&bob, &first], secs(1)).await;
    first.lose(lobby());
    alive(&[&bob], secs(3)).await;
    there.store.commits_take(ms(100));
    let second = ann(&there);
    let update = async {
        pass(ms(50)).await;
        second.update(lobby(), r#"{"n":1}"#).await
    };
    let (joined, updated) = futures_util::join!(second.join(lobby()), update);
    joined.unwrap();
    updated.unwrap();
    alive(&[&bob, &second], secs(3)).await;
    assert_eq!(second.me(), first.id(lobby()).to_string());
    assert_eq!(bob.view().here[&second.me()].1, serde_json::json!({"n": 1}));
    let snapshot = database.load(lobby().clone()).await.unwrap().unwrap();
    let stored = snapshot.presences.iter().find(|one| one.id == first.id(lobby()));
    assert_eq!(stored.unwrap().meta.as_str(), r#"{"n":1}"#);
}

#[actix::test]
async fn a_database_that_lost_joins_and_resumes_takes_no_presence_from_an_open_socket() {
    // Their presences were not in the database, or belonged to their former sockets. So the clients were told that a newer socket had
    // taken them over, and stayed away.
    tokio::time::pause();
    for and_then in [0, 5] {
        check_lost_resumes(and_then).await;
    }
}

/// The database loses joins and resumes that it had confirmed, and the room with them if nobody was in it. Then it makes so many others.
async fn check_lost_resumes(and_then: usize) {
    let database = MemoryStore::new(Clock::system());
    let (here, there) = (node_on(&database, "here", quick()).await, node_on(&database, "there", quick()).await);
    let before = here.store.database().crash_to_now();
    let (bob, old) = (here.member("bob").await, ann(&there));
    let dan = here.client("dan").with_token("dan", GRACE);
    old.join(lobby()).await.unwrap();
    dan.join(lobby()).await.unwrap();
    dan.lose(lobby());
    alive(&[&bob, &old], secs(3)).await;
    let between = here.store.database().crash_to_now();
    let [new, back, cid] = ["ann", "dan", "cid"].map(|name| here.client(name).with_token(name, GRACE));
    for client in [&new, &back, &cid] {
        client.join(lobby()).await.unwrap();
    }
    new.update(lobby(), r#"{"n":1}"#).await.unwrap();
    alive(&[&bob, &new, &back, &cid], secs(3)).await;
    assert_eq!((new.me(), back.me(), old.close_codes()), (old.me(), dan.me(), vec![CloseCode::SUPERSEDED]));
    let open = [&bob, &new, &back, &cid];
    for crash in [Box::new(between) as Box<dyn FnOnce()>, Box::new(before)] {
        crash();
        let mut crowd = Vec::new();
        for n in 0..and_then {
            crowd.push(here.member(&format!("u{n}")).await);
        }
        alive(&open, secs(12)).await;
        assert_eq!(open.map(|client| client.close_codes()), [const { vec![] }; 4]);
        for client in crowd {
            client.leave(lobby()).await.unwrap();
        }
        alive(&open, secs(12)).await;
        let mut expected = [("ann", &new), ("bob", &bob), ("cid", &cid), ("dan", &back)]
            .map(|(name, client)| (name.to_owned(), client.channel.as_str().to_owned(), false));
        expected.sort();
        assert_eq!(rows(&here).await, expected);
        for client in open {
            assert_eq!(client.sees(), ["ann", "bob", "cid", "dan"]);
            assert_eq!(client.view().here[&new.me()].1["n"], 1, "the meta that was lost, too");
        }
    }
}

#[actix::test]
async fn a_change_by_a_socket_whose_presence_was_resumed_elsewhere_closes_it_at_once() {
    // The change had no effect, and the socket learned why only when the rooms were compared.
    let [here, there] = nodes(quick).await;
    let (bob, first) = two(&here).await;
    let second = ann(&there);
    second.join(lobby()).await.unwrap();
    assert_eq!(first.close_codes(), []);
    first.update(lobby(), r#"{"busy":false}"#).await.unwrap();
    settle().await;
    assert_eq!((first.close_codes(), bob.sees()), (vec![CloseCode::SUPERSEDED], vec!["ann".to_owned(), "bob".into()]));
}

#[actix::test]
async fn a_lost_presence_that_was_resumed_elsewhere_before_it_was_held_is_not_held() {
    let [here, there] = nodes(quick).await;
    let (_bob, first) = two(&here).await;
    let second = ann(&there);
    second.join(lobby()).await.unwrap();
    first.lose(lobby());
    settle().await;
    let members = format!("{:?}", here.members(lobby()).await.unwrap());
    assert!(!members.contains("held: true"), "{members}");
}

#[actix::test]
async fn a_backup_from_before_a_restart_closes_no_socket_that_came_back_after_it() {
    // The backup lacked the incarnation of the node, which began another one, and considered the presences those of another node.
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let old = node_on(&database, "here", quick()).await;
    let (_bob, first) = two(&old).await;
    let restore = old.store.database().crash_to_now();
    old.store.faults.hang(); // The process is gone.
    let new = node_on(&database, "here", quick()).await;
    let second = ann(&new);
    second.join(lobby()).await.unwrap();
    second.update(lobby(), r#"{"n":1}"#).await.unwrap();
    alive(&[&second], secs(20)).await;
    let before = new.node();
    restore();
    alive(&[&second], secs(20)).await;
    assert_ne!(new.node(), before);
    assert_eq!((second.me(), second.close_codes()), (first.me(), vec![]));
    let there = rows(&new).await;
    assert!(there.contains(&("ann".to_owned(), second.channel.as_str().to_owned(), false)), "{there:?}");
    assert_eq!(second.view().here[&second.me()].1["n"], 1);
}
