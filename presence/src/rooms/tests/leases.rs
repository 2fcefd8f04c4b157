//! The node's own life: its supervisor, its lease, its name, its end.

use actix::{Actor, Context, Handler};
use futures_util::FutureExt;
use tokio::time::timeout;

use super::bench::{
    Log, config, heard, lobby, ms, node, node_on, node_with, own_node_on, pass, room, secs, settle, short,
    starting_node_on, unsupervised_node_on, user,
};
use crate::{
    CloseCode, Error, PresenceChanged, PruningSupervisor,
    clock::Clock,
    config::{ConfigBuilder, Durability},
    name::ChannelName,
    store::{MemoryStore, RoomStore},
};

fn database() -> MemoryStore {
    tokio::time::pause();
    MemoryStore::new(Clock::system())
}

fn often() -> ConfigBuilder {
    config().lease(secs(3))
}

#[actix::test]
async fn without_a_supervisor_sockets_work_and_one_warning_says_what_is_not_cleaned_up() {
    // A forgotten line turned every socket away.
    let (database, log) = (database(), Log::of_warnings());
    let node = unsupervised_node_on(&database, "here", often());
    let (ann, bob, cid) = (node.client("ann"), node.client("bob").with_token("bob", secs(10)), node.client("cid"));
    for client in [&ann, &bob, &cid] {
        client.join(lobby()).await.unwrap();
    }
    let (incarnation, lines) = (node.node(), log.lines());
    assert!(incarnation.is_some() && lines.len() == 1, "{lines:?}");
    for part in ["PruningSupervisor::spawn", "dead nodes", "empty rooms"] {
        assert!(lines[0].contains(part), "{part}: {lines:?}");
    }
    bob.lose(lobby());
    let other = unsupervised_node_on(&database, "other", often());
    let _dan = other.member("dan").await;
    other.store.faults.hang(); // Its process is gone.
    for _ in 0..3 {
        pass(secs(25)).await;
        ann.touch();
    }
    assert_eq!(node.node(), incarnation, "the lease is kept");
    assert_eq!(ann.sees(), ["ann", "dan"], "silent and lost sockets leave, and what a dead node left stays");
    assert_eq!((node.remove_user(&user("ann"), None).await.unwrap(), node.prune_rooms().await.unwrap()), (1, 0));
    PruningSupervisor::spawn(&node.rooms);
    pass(secs(5)).await;
    assert_eq!(node.rows(lobby()).await, Vec::<String>::new());
}

#[actix::test]
async fn a_node_is_ready_when_the_database_knows_it() {
    let node = starting_node_on(&database(), "here", config());
    node.store.faults.fail_next(usize::MAX);
    pass(secs(10)).await;
    assert!(node.ready().now_or_never().is_none() && !node.is_ready() && node.node().is_none());
    let ann = node.client("ann");
    assert!(matches!(ann.join(lobby()).await, Err(Error::StoreUnavailable(_))));
    node.store.faults.fail_next(0);
    node.ready().await;
    assert!(node.is_ready() && node.node().is_some());
    pass(secs(2)).await;
    assert_eq!((node.rows(lobby()).await, node.running()), (Vec::<String>::new(), 0));
    ann.join(lobby()).await.unwrap();
}

#[actix::test]
async fn a_join_that_comes_before_the_node_is_known_waits_for_that() {
    let node = starting_node_on(&database(), "here", config());
    node.store.faults.hang();
    let ann = node.client("ann");
    let (joined, ()) = tokio::join!(ann.join(lobby()), async {
        pass(secs(2)).await;
        node.store.faults.release();
    });
    joined.unwrap();
    let snapshot = node.store.database().load(lobby().clone()).await.unwrap().unwrap();
    assert_eq!(Some(snapshot.presences[0].node), node.node(), "and belongs to the life that was then begun");
}

#[actix::test]
async fn a_node_whose_name_was_taken_before_it_knew_that_it_had_it_is_superseded() {
    // It asked for ever for a life that was over.
    let database = database();
    let node = starting_node_on(&database, "here", often());
    node.store.lose_registrations(usize::MAX);
    pass(secs(1)).await;
    let other = node_on(&database, "here", often()).await;
    pass(secs(20)).await;
    assert!(node.is_superseded() && other.is_ready() && !node.is_ready());
}

#[actix::test]
async fn a_lease_that_ran_out_unnoticed_is_renewed_and_nothing_is_lost() {
    let node = node_with(often()).await;
    let ann = node.member("ann").await;
    let (life, mut changes) = (node.node(), node.changes());
    node.store.faults.hang();
    pass(secs(20)).await;
    node.store.faults.release();
    pass(secs(10)).await;
    assert_eq!((node.node(), heard(&mut changes), ann.sees()), (life, Vec::new(), vec!["ann".to_owned()]));
}

#[actix::test]
async fn the_lease_is_renewed_also_while_a_commit_hangs() {
    let database = database();
    let node = node_on(&database, "here", often()).await;
    let other = node_on(&database, "other", often()).await;
    let _ann = node.member("ann").await;
    let (life, mut changes) = (node.node(), other.changes());
    node.store.hang_after_commit();
    let bob = node.client("bob");
    let _ = bob.join(lobby()).await;
    pass(secs(20)).await;
    assert_eq!((node.node(), heard(&mut changes)), (life, Vec::new()));
}

#[actix::test]
async fn a_node_that_starts_under_the_name_of_one_that_runs_takes_its_place() {
    let database = database();
    let old = node_on(&database, "here", often()).await;
    let (ann, bob) = (old.member("ann").await, old.member("bob").await);
    let log = Log::of_warnings();
    assert!(!old.is_superseded());
    let new = node_on(&database, "here", often()).await;
    pass(secs(3)).await;
    assert!(old.is_superseded());
    let said: Vec<_> = log.lines().into_iter().filter(|line| line.contains("started its rooms twice")).collect();
    let names_it = said.iter().all(|line| line.contains(&new.node().unwrap().to_string()));
    assert!(said.len() == 1 && names_it, "{:?}", log.lines());
    drop(log);
    assert_eq!((ann.closes(), bob.closes()), (vec![CloseCode::RESTARTING], vec![CloseCode::RESTARTING]));
    assert!(matches!(old.client("cid").join(lobby()).await, Err(Error::ShuttingDown)));
    assert!(!old.is_ready() && new.is_ready());
    ann.join(lobby()).await.unwrap_err();
    let back = new.member("ann").await;
    pass(secs(15)).await;
    assert_eq!(back.sees(), ["ann"], "and those who did not come to it leave after their grace");
    assert!(new.is_ready() && new.node().is_some(), "the loser does not take the name back");
}

#[actix::test]
async fn a_node_that_lost_its_name_ends_only_when_the_other_has_ended() {
    // Each took the name back when it was started again, and no visitor could stay with either.
    let database = database();
    let old = node_on(&database, "here", often()).await;
    let superseded = old.superseded();
    tokio::pin!(superseded);
    let new = node_on(&database, "here", often()).await;
    assert!(timeout(secs(600), superseded.as_mut()).await.is_err());
    assert!(new.is_ready());
    new.shutdown().await;
    timeout(secs(4), superseded).await.expect("the name is free");
}

#[actix::test]
async fn a_node_that_lost_its_name_waits_two_leases_for_one_that_was_killed_or_is_cut_off() {
    let database = database();
    let old = node_on(&database, "here", often()).await;
    let superseded = old.superseded();
    tokio::pin!(superseded);
    let new = node_on(&database, "here", often()).await;
    new.store.faults.hang();
    assert!(timeout(secs(4), superseded.as_mut()).await.is_err());
    timeout(secs(6), superseded).await.expect("it does not come back");
}

#[actix::test]
async fn rooms_that_are_started_twice_in_one_process_under_one_name_fail_at_once_and_leave_the_first_alone() {
    // As in the closure of `HttpServer::new`. The later took the place of the earlier.
    let database = database();
    let first = own_node_on(&database, "here", often());
    first.ready().await;
    let ann = first.member("ann").await;
    let log = Log::of_warnings();
    let second = own_node_on(&database, "here", often());
    let supervisor = PruningSupervisor::spawn(&second.rooms);
    let lines = log.lines();
    assert!(lines.len() == 1 && lines[0].contains("ERROR"), "{lines:?}");
    for part in ["`here`", "once", "before `HttpServer::new`"] {
        assert!(lines[0].contains(part), "{part}: {lines:?}");
    }
    pass(secs(20)).await;
    let joined = second.client("bob").join(lobby()).await;
    assert!(matches!(&joined, Err(Error::NameInUse { name }) if name.as_str() == "here"), "{joined:?}");
    assert!(matches!(second.prune_rooms().await, Err(Error::NameInUse { .. })));
    assert!(matches!(supervisor.send(crate::actor::Sweep).await.unwrap(), Err(Error::NameInUse { .. })));
    let called = second.add(lobby(), &ChannelName::new("job").unwrap(), None).await;
    assert!(matches!(called, Err(Error::NameInUse { .. })));
    let why = second.not_ready().unwrap().to_string();
    assert_eq!(why, "other rooms of this process have the name of this node", "and not that it is starting");
    assert!(!second.is_ready() && second.node().is_none() && second.store.faults.calls() == 0);
    ann.touch();
    assert!(first.is_ready() && first.names(lobby()).await == ["ann"] && ann.closes().is_empty());
    assert_eq!(log.lines().len(), 1, "{:?}", log.lines());
    // Under another name, or on another database, rooms of this process are their own.
    let elsewhere = MemoryStore::new(Clock::system());
    for other in [own_node_on(&database, "there", often()), own_node_on(&elsewhere, "here", often())] {
        other.ready().await;
    }
    second.shutdown().await;
    assert!(first.is_ready());
    first.shutdown().await;
    own_node_on(&database, "here", often()).ready().await;
}

// behaviour: W20 own-rows-on-start
#[actix::test]
async fn after_a_restart_what_was_left_is_held_and_leaves_after_the_grace_as_one_bulk_event_per_room() {
    let database = database();
    let old = node_on(&database, "here", config()).await;
    let crowd = old.crowd(5).await;
    let cid = old.client("cid");
    cid.join(&room("attic")).await.unwrap();
    old.store.faults.hang(); // The process is gone.
    let new = node_on(&database, "here", config()).await;
    let mut changes = new.changes();
    let ann = new.member("ann").await;
    assert_eq!(ann.sees().len(), 6, "pages that come back see a stable roster");
    pass(secs(9)).await;
    assert_eq!((heard(&mut changes), ann.frames().len()), (vec!["+ann".to_owned()], 0));
    pass(secs(4)).await;
    let mut told = heard(&mut changes);
    told.sort();
    assert_eq!(told, ["-[cid]", "-[u0 u1 u2 u3 u4]"]);
    assert_eq!((ann.sees(), ann.frames().len(), ann.screen().diffs), (vec!["ann".to_owned()], 0, 1));
    drop(crowd);
}

#[actix::test]
async fn a_shutdown_takes_leave_of_everyone_and_leaves_no_row() {
    let node = node().await;
    let crowd = node.crowd(5).await;
    let mut changes = node.changes();
    node.rooms.hubs().sockets.send_modify(|open| *open += 1);
    let ((), ()) = tokio::join!(node.shutdown(), async {
        settle().await;
        assert!(node.is_shutting_down() && crowd.iter().all(|one| one.closes() == [CloseCode::RESTARTING]));
        assert!(matches!(node.client("late").join(lobby()).await, Err(Error::ShuttingDown)));
        for one in &crowd[..3] {
            one.leave(lobby()).await.unwrap();
        }
        node.rooms.hubs().sockets.send_modify(|open| *open -= 1);
    });
    let mut told = heard(&mut changes);
    told.sort();
    assert_eq!(
        told,
        ["-[u3 u4]", "-u0", "-u1", "-u2"],
        "those whose sockets did not close in time are removed with the node"
    );
    pass(secs(60)).await;
    assert!(format!("{:?}", node.store.database()).contains("nodes: 0"), "{:?}", node.store.database());
    assert_eq!(node.rows(lobby()).await, Vec::<String>::new());
}

struct Listener(tokio::sync::mpsc::UnboundedSender<String>);

impl Actor for Listener {
    type Context = Context<Self>;
}

impl Handler<PresenceChanged> for Listener {
    type Result = ();

    fn handle(&mut self, event: PresenceChanged, _: &mut Self::Context) {
        let _ = self.0.send(short(&event.change));
    }
}

#[actix::test]
async fn a_presence_without_a_socket_leaves_at_a_shutdown_at_once_and_every_subscriber_hears_of_it() {
    // The shutdown waited 2 s for the room that it was in, and then no subscriber heard that it had left.
    let node = node().await;
    let bot = ChannelName::new("bot").unwrap();
    node.add(lobby(), &bot, Some(&user("bot"))).await.unwrap();
    let (heard_by_actor, mut actors) = tokio::sync::mpsc::unbounded_channel();
    node.subscribe(None, Listener(heard_by_actor).start().recipient());
    let (mut changes, began) = (node.changes(), node.rooms.this_node().now());
    node.shutdown().await;
    assert!(node.rooms.this_node().now().since(began) < ms(500), "{:?}", node.rooms.this_node().now().since(began));
    assert_eq!(heard(&mut changes), ["-bot"]);
    assert_eq!(actors.try_recv().as_deref(), Ok("-bot"), "before the shutdown is over");
    assert_eq!(node.rows(lobby()).await, Vec::<String>::new());
}

#[actix::test]
async fn a_shutdown_ends_in_time_whatever_the_database_does() {
    let node = node().await;
    let _crowd = node.crowd(5).await;
    node.store.faults.hang();
    let began = node.rooms.this_node().now();
    node.shutdown().await;
    assert!(node.rooms.this_node().now().since(began) <= secs(8) + ms(50));
}

#[actix::test]
async fn shutdowns_that_meet_are_one_and_each_caller_waits_for_its_end() {
    // The second one stopped the threads while the first still removed the row of the node. A caller that gave up stopped it, too.
    let node = node().await;
    let _ann = node.member("ann").await;
    node.store.retire_takes(secs(4));
    let (log, began) = (Log::of_warnings(), tokio::time::Instant::now());
    let given_up = timeout(ms(500), node.shutdown()).await;
    assert!(given_up.is_err());
    let both = [node.shutdown(), node.shutdown()].map(|shutdown| async {
        shutdown.await;
        began.elapsed()
    });
    for waited in futures_util::future::join_all(both).await {
        assert!((secs(4)..secs(9)).contains(&waited), "{waited:?}");
    }
    assert_eq!(log.lines(), Vec::<String>::new());
    assert!(format!("{:?}", node.store.database()).contains("nodes: 0"), "{:?}", node.store.database());
}

#[actix::test]
async fn a_node_that_is_shut_down_does_not_begin_another_life() {
    // A touch, a late leave or a renewal was refused, and so the node registered again.
    let node = node().await;
    let ann = node.member("ann").await;
    node.store.retire_takes(secs(4));
    node.shutdown().await;
    ann.leave(lobby()).now_or_never();
    node.rooms.this_node().writer.touch(ann.id(lobby()), node.rooms.this_node().now());
    pass(secs(60)).await;
    assert!(format!("{:?}", node.store.database()).contains("nodes: 0"), "{:?}", node.store.database());
}

#[actix::test]
async fn rooms_with_members_on_other_nodes_do_not_keep_a_shutdown_waiting() {
    let database = database();
    let (here, other) = (node_on(&database, "here", config()).await, node_on(&database, "other", config()).await);
    let (ann, _bob) = (here.member("ann").await, other.member("bob").await);
    pass(secs(6)).await;
    assert_eq!(here.names(lobby()).await, ["ann", "bob"]);
    ann.leave(lobby()).await.unwrap();
    let began = here.rooms.this_node().now();
    here.shutdown().await;
    assert!(here.rooms.this_node().now().since(began) < secs(1), "{:?}", here.rooms.this_node().now().since(began));
    pass(secs(6)).await;
    assert_eq!(other.names(lobby()).await, ["bob"]);
}

#[actix::test]
async fn a_relaxed_join_whose_answer_is_lost_is_there_in_the_next_life() {
    // It may be found done in the former life before the room brings those whom it knows into the next, or after.
    tokio::time::pause();
    for later in 0..4 {
        let database = MemoryStore::new(Clock::system());
        let node = node_on(&database, "here", often().durability(Durability::Relaxed)).await;
        let other = node_on(&database, "other", often()).await;
        // Because she is held, the life in which it was done is remembered, and so is what it did.
        let ann = node.client("ann").with_token("ann", secs(60));
        ann.join(&room("attic")).await.unwrap();
        pass(secs(1)).await;
        ann.lose(&room("attic"));
        pass(secs(1)).await;
        let (life, bob) = (node.node(), node.client("bob"));
        node.store.hang_after_commit();
        bob.join(lobby()).await.unwrap();
        settle().await;
        node.store.faults.hang();
        pass(secs(20)).await;
        assert_eq!(node.rows(lobby()).await, Vec::<String>::new(), "it was taken for dead");
        bob.touch();
        pass(ms(250 * later)).await;
        node.store.release_commits();
        node.store.faults.release();
        pass(secs(15)).await;
        assert_ne!(node.node(), life);
        let there = vec!["bob".to_owned()];
        assert_eq!((node.rows(lobby()).await, other.names(lobby()).await), (there.clone(), there), "{later}");
    }
}
