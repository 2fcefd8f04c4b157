//! `presence_changed`: which subscriber receives which events, when, and in which order.

use actix::{Actor, ActorContext, Context, Handler};

use super::prelude::*;
use crate::actor::Subscribe;

/// An actor of an application that records the events that it receives. It may panic or stop at one of them.
#[derive(Default)]
struct Listener {
    published: Rc<RefCell<Vec<PresenceChanged>>>,
    panics_at: Option<usize>,
    stops_at: Option<usize>,
}

impl Actor for Listener {
    type Context = Context<Self>;
}

impl Handler<PresenceChanged> for Listener {
    type Result = ();

    fn handle(&mut self, event: PresenceChanged, ctx: &mut Self::Context) {
        let published = self.published.borrow().len() + 1;
        self.published.borrow_mut().push(event);
        if self.stops_at == Some(published) {
            ctx.stop();
        }
        assert_ne!(self.panics_at, Some(published), "the test wants it so");
    }
}

fn shorts(published: &Rc<RefCell<Vec<PresenceChanged>>>) -> Vec<String> {
    published.borrow().iter().map(|event| short(&event.change)).collect()
}

#[actix::test]
async fn an_actor_receives_the_events_of_all_rooms_or_of_one() {
    let node = node().await;
    let all = Listener::default();
    let one = Listener::default();
    let by_message = Listener::default();
    let published = [&all, &one, &by_message].map(|listener| listener.published.clone());
    node.subscribe(None, all.start().recipient());
    node.subscribe(Some(&room("attic")), one.start().recipient());
    let subscriber = by_message.start().recipient();
    node.addr().send(Subscribe { room: Some(room("attic")), subscriber }).await.unwrap();
    let ann = node.member("ann").await;
    let bob = node.client("bob");
    bob.join(&room("attic")).await.unwrap();
    ann.leave(lobby()).await.unwrap();
    bob.leave(&room("attic")).await.unwrap();
    settle().await;
    assert_eq!(shorts(&published[0]), ["+ann", "+bob", "-ann", "-bob"]);
    assert_eq!(
        (shorts(&published[1]), shorts(&published[2])),
        (vec!["+bob".to_owned(), "-bob".into()], shorts(&published[1]))
    );
}

// behaviour: 2.2 removed-object; 3 pruned; 3 keywords
#[actix::test]
async fn an_event_has_its_room_its_presences_and_whether_it_is_a_bulk_change() {
    let node = node().await;
    let mut changes = node.changes();
    let [ann, bob] = node.members_named(["ann", "bob"]).await;
    let bob_is = bob.id(lobby());
    ann.update(lobby(), r#"{"n":1}"#).await.unwrap();
    bob.leave(lobby()).await.unwrap();
    let added = changes.next().await.unwrap();
    assert_eq!((&added.room, added.missed, added.bulk_change()), (lobby(), 0, false));
    let presence = added.added().unwrap();
    assert_eq!((presence.id, &presence.channel), (ann.id(lobby()), &ann.channel));
    let _ = changes.next().await;
    let PresenceChange::Updated(updated) = changes.next().await.unwrap().change else { panic!("an update") };
    assert_eq!((updated.id, updated.meta.as_str()), (ann.id(lobby()), r#"{"n":1}"#));
    let left = changes.next().await.unwrap();
    let gone = left.removed().unwrap();
    assert_eq!((gone.id, &gone.channel, &gone.user), (bob_is, &bob.channel, &Some(user("bob"))));
    assert!(left.added().is_none() && !left.bulk_change());
    pass(secs(61)).await;
    let pruned = changes.next().await.unwrap();
    assert!(pruned.bulk_change() && pruned.added().is_none() && pruned.removed().is_none());
    let PresenceChange::Bulk(left) = pruned.change else { panic!("a bulk change") };
    assert_eq!(left.iter().map(|one| one.id).collect::<Vec<_>>(), [ann.id(lobby())]);
}

// behaviour: W15 after-the-commit
#[actix::test]
async fn nothing_fires_before_the_commit() {
    let node = node().await;
    let bob = node.member("bob").await;
    let (mut changes, ann) = (node.changes(), node.client("ann"));
    node.store.commits_take(secs(2));
    let all = async {
        let (joined, updated, left) =
            tokio::join!(ann.join(lobby()), bob.update(lobby(), r#"{"n":1}"#), bob.leave(lobby()));
        assert!(joined.is_ok() && updated.is_err() && left.is_ok());
    };
    let ((), ()) = tokio::join!(all, async {
        pass(ms(1900)).await;
        assert_eq!(published(&mut changes), NONE);
    });
    settle().await;
    let mut published = published(&mut changes);
    published.sort();
    assert_eq!(published, ["+ann", "-bob"]);
}

#[actix::test]
async fn a_slow_subscriber_loses_its_oldest_events_and_receives_their_number() {
    let node = node().await;
    let (mut slow, mut quick) = (node.changes(), node.changes());
    let ann = node.client("ann");
    for _ in 0..Subscription::CAPACITY / 2 + 5 {
        ann.join(lobby()).await.unwrap();
        ann.leave(lobby()).await.unwrap();
        assert_eq!(published(&mut quick), ["+ann", "-ann"]);
        pass(ms(1)).await;
    }
    let first = slow.next().await.unwrap();
    assert_eq!((first.missed, first.added().is_some()), (10, true));
    assert_eq!(published(&mut slow).len(), Subscription::CAPACITY - 1);
    ann.join(lobby()).await.unwrap();
    assert_eq!(slow.next().await.unwrap().missed, 0, "it is events once");
}

// behaviour: W14 isolated-subscribers
#[actix::test]
async fn a_subscriber_that_panics_or_stops_loses_only_its_own_events() {
    let node = node().await;
    let (well, panics) = (Listener::default(), Listener { panics_at: Some(1), ..Listener::default() });
    let stops = Listener { stops_at: Some(2), ..Listener::default() };
    let published = [&well, &panics, &stops].map(|listener| listener.published.clone());
    for listener in [panics, stops, well] {
        node.subscribe(None, listener.start().recipient());
    }
    let [ann, bob] = node.members_named(["ann", "bob"]).await;
    ann.leave(lobby()).await.unwrap();
    bob.leave(lobby()).await.unwrap();
    settle().await;
    assert_eq!(shorts(&published[0]), ["+ann", "+bob", "-ann", "-bob"]);
    assert_eq!((shorts(&published[1]).len(), shorts(&published[2]).len()), (1, 2));
}

#[actix::test]
async fn a_dropped_subscription_leaves_no_queue() {
    // A thousand subscriptions that were dropped left a thousand queues.
    let node = node().await;
    for n in 0..100 {
        let room = room(&format!("r{n}"));
        let (one, two) = (node.changes_of(&room), node.changes_of(&room));
        drop(one);
        assert_eq!(node.rooms.this_node().signals.subscribed_rooms(), 1);
        drop(two);
    }
    assert_eq!(node.rooms.this_node().signals.subscribed_rooms(), 0);
}

// behaviour: W14 hanging-subscriber
#[actix::test]
async fn a_subscriber_that_hangs_delays_nobody_and_receives_the_number_of_missed_events() {
    struct Hangs(Rc<RefCell<Vec<u64>>>, Rc<tokio::sync::Notify>);
    impl Actor for Hangs {
        type Context = Context<Self>;
    }
    impl Handler<PresenceChanged> for Hangs {
        type Result = actix::ResponseFuture<()>;

        fn handle(&mut self, event: PresenceChanged, _: &mut Self::Context) -> Self::Result {
            self.0.borrow_mut().push(event.missed);
            let go_on = self.1.clone();
            Box::pin(async move { go_on.notified().await })
        }
    }
    let node = node().await;
    let (missed, go_on) = (Rc::<RefCell<Vec<u64>>>::default(), Rc::<tokio::sync::Notify>::default());
    node.subscribe(Some(lobby()), Hangs(missed.clone(), go_on.clone()).start().recipient());
    let (mut quick, ann) = (node.changes(), node.client("ann"));
    for _ in 0..Subscription::CAPACITY {
        ann.join(lobby()).await.unwrap();
        ann.leave(lobby()).await.unwrap();
        assert_eq!(published(&mut quick), ["+ann", "-ann"]);
        pass(ms(1)).await;
    }
    assert_eq!(*missed.borrow(), [0], "it is still at the first");
    go_on.notify_one();
    settle().await;
    assert_eq!(*missed.borrow(), [0, 2 * Subscription::CAPACITY as u64 - 1 - Subscription::CAPACITY as u64]);
}

#[actix::test]
async fn a_subscription_ends_with_the_rooms() {
    let node = node().await;
    let (mut all, mut one) = (node.changes(), node.changes_of(lobby()));
    node.shutdown().await;
    drop(node);
    settle().await;
    assert!(all.next().await.is_none() && one.next().await.is_none());
}
