//! The shutdown of a node: who leaves, how long it takes, and that nothing is left of the rooms afterwards.

use std::{rc::Weak as RcWeak, sync::Weak};

use actix::{Actor, Context, Handler};
use tokio::time::timeout;

use super::prelude::*;
use crate::{delivery::Sockets, rooms::RoomsInner};

struct Forwarder(tokio::sync::mpsc::UnboundedSender<String>);

impl Actor for Forwarder {
    type Context = Context<Self>;
}

impl Handler<PresenceChanged> for Forwarder {
    type Result = ();

    fn handle(&mut self, event: PresenceChanged, _: &mut Self::Context) {
        let _ = self.0.send(short(&event.change));
    }
}

#[actix::test]
async fn a_shutdown_closes_all_sockets_and_leaves_no_row() {
    let node = node().await;
    let crowd = node.crowd(5).await;
    let mut changes = node.changes();
    node.rooms.hubs().sockets.send_modify(|open| *open += 1);
    let ((), ()) = tokio::join!(node.shutdown(), async {
        settle().await;
        assert!(node.is_shutting_down() && crowd.iter().all(|one| one.close_codes() == [CloseCode::RESTARTING]));
        assert!(matches!(node.client("late").join(lobby()).await, Err(Error::ShuttingDown)));
        for one in &crowd[..3] {
            one.leave(lobby()).await.unwrap();
        }
        node.rooms.hubs().sockets.send_modify(|open| *open -= 1);
    });
    let mut events = published(&mut changes);
    events.sort();
    assert_eq!(
        events,
        ["-[u3 u4]", "-u0", "-u1", "-u2"],
        "those whose sockets did not close in time are removed with the node"
    );
    pass(secs(60)).await;
    assert!(format!("{:?}", node.store.database()).contains("nodes: 0"), "{:?}", node.store.database());
    assert_eq!(node.rows(lobby()).await, NONE);
}

#[actix::test]
async fn a_shutdown_removes_a_presence_without_a_socket_at_once_and_every_subscriber_receives_the_event() {
    // The shutdown waited 2 s for its room, and then no subscriber received the event of its leave.
    let node = node().await;
    let bot = channel("bot");
    node.add(lobby(), &bot, Some(&user("bot"))).await.unwrap();
    let (heard_by_actor, mut actors) = tokio::sync::mpsc::unbounded_channel();
    node.subscribe(None, Forwarder(heard_by_actor).start().recipient());
    let (mut changes, began) = (node.changes(), node.rooms.this_node().now());
    let log = Log::of_warnings();
    node.shutdown().await;
    assert!(node.rooms.this_node().now().since(began) < ms(500), "{:?}", node.rooms.this_node().now().since(began));
    assert_eq!(published(&mut changes), ["-bot"]);
    assert_eq!(actors.try_recv().as_deref(), Ok("-bot"), "before the shutdown is over");
    settle().await;
    assert_eq!(log.lines(), NONE);
    assert_eq!(node.rows(lobby()).await, NONE, "it is not brought back");
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
async fn simultaneous_shutdowns_are_one_and_each_caller_waits_for_its_end() {
    // The second shutdown stopped the threads while the first still deleted the row of the node. A caller that stopped waiting ended it, too.
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
    assert_eq!(log.lines(), NONE);
    assert!(format!("{:?}", node.store.database()).contains("nodes: 0"), "{:?}", node.store.database());
}

#[actix::test]
async fn a_node_that_is_shut_down_does_not_begin_another_incarnation() {
    // The database refused a touch, a late leave or a renewal, so the node registered again.
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
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
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

fn what_is_left(node: &TestNode) -> (Weak<RoomsInner>, RcWeak<std::cell::RefCell<Sockets>>) {
    (Arc::downgrade(&node.rooms.0), Rc::downgrade(&node.hubs().here().sockets))
}

#[actix::test]
async fn rooms_that_were_shut_down_are_dropped_with_their_last_handle_and_so_are_their_hubs() {
    let node = node().await;
    node.subscribe(None, Forwarder(tokio::sync::mpsc::unbounded_channel().0).start().recipient());
    let mut crowd = node.crowd(5).await;
    crowd[0].leave(lobby()).await.unwrap();
    crowd.push(node.client("other"));
    crowd[5].join(&room("attic")).await.unwrap();
    let channel = channel("job");
    node.add(lobby(), &channel, None).await.unwrap();
    node.names(&room("cellar")).await;
    node.shutdown().await;
    let late = crowd[2].leave(lobby()).await;
    assert!(matches!(late, Err(Error::ShuttingDown)), "no room is started for it");
    let (rooms, sockets) = what_is_left(&node);
    // The frames that a client has not read are kept until its connection ends.
    crowd.iter().for_each(|client| drop(client.frames()));
    drop((crowd, node));
    pass(secs(20)).await;
    assert_eq!((rooms.strong_count(), sockets.strong_count()), (0, 0));
}
