//! The members of a room and their changes, for a part of the application that follows them.

use futures_util::StreamExt;

use super::prelude::*;

/// The online users, kept as in the example of the documentation.
struct Online {
    users: BTreeSet<UserId>,
    changes: crate::MemberChanges,
}

impl Online {
    async fn of(node: &TestNode) -> Self {
        let (members, changes) = node.members_and_changes(lobby()).await.unwrap();
        Self { users: members.iter().filter_map(|member| member.user().cloned()).collect(), changes }
    }

    /// Who is online after all changes so far.
    fn now(&mut self) -> Vec<String> {
        while let Some(Some(changed)) = tokio::task::unconstrained(self.changes.next()).now_or_never() {
            self.users.extend(changed.user_online().iter().cloned());
            self.users.retain(|user| !changed.user_offline().contains(user));
        }
        self.users.iter().map(|user| user.as_str().to_owned()).collect()
    }
}

#[actix::test]
async fn the_members_with_the_changes_after_them_are_right_whenever_a_follower_begins() {
    let node = node().await;
    let _bob = node.member("bob").await;
    let joins = async {
        for n in 0..20 {
            let client = node.member(&format!("u{n}")).await;
            if n % 2 == 0 {
                client.leave(lobby()).await.unwrap();
            }
            std::mem::forget(client);
        }
    };
    let reads = async {
        let mut all = Vec::new();
        for _ in 0..10 {
            all.push(Online::of(&node).await);
            pass(Duration::from_millis(3)).await;
        }
        all
    };
    let ((), all) = futures_util::future::join(joins, reads).await;
    pass(secs(1)).await;
    let here = node.names(lobby()).await;
    assert_eq!(here.len(), 11);
    for mut online in all {
        assert_eq!(online.now(), here);
    }
}

#[actix::test]
async fn a_user_with_tabs_on_two_nodes_is_online_until_the_last_of_them_has_left() {
    // The last tab left on the other node, and only that node published the event.
    let [here, there] = nodes(quick).await;
    let (ours, theirs) = (here.member("ann").await, there.member("ann").await);
    pass(secs(3)).await;
    let mut online = Online::of(&here).await;
    ours.leave(lobby()).await.unwrap();
    pass(secs(3)).await;
    assert_eq!(online.now(), ["ann"]);
    theirs.leave(lobby()).await.unwrap();
    pass(secs(3)).await;
    assert_eq!(online.now(), NONE);
    let _bob = there.member("bob").await;
    pass(secs(3)).await;
    assert_eq!(online.now(), ["bob"]);
}

#[actix::test]
async fn a_follower_receives_a_change_that_waits_for_a_change_of_another_node() {
    // Its event was published before the roster contained it, so a follower that began in between received neither.
    let [here, there] = nodes(quick).await;
    let _ann = here.member("ann").await;
    let bob = here.member("bob").await;
    let _cid = there.member("cid").await;
    bob.leave(lobby()).await.unwrap();
    let mut online = Online::of(&here).await;
    pass(secs(3)).await;
    assert_eq!(online.now(), ["ann", "cid"]);
}

#[actix::test]
async fn a_follower_that_reads_late_misses_nothing() {
    // The oldest events were lost, and the examples did not check `missed`.
    let node = node().await;
    let _ann = node.member("ann").await;
    let mut online = Online::of(&node).await;
    let _bob = node.member("bob").await;
    let cid = node.member("cid").await;
    for n in 0..=crate::Subscription::CAPACITY {
        cid.update(lobby(), &format!(r#"{{"n":{n}}}"#)).await.unwrap();
    }
    assert_eq!(online.now(), ["ann", "bob", "cid"]);
}

#[actix::test]
async fn a_presence_that_leaves_has_the_update_that_was_not_received_before() {
    let node = node().await;
    let _ann = node.member("ann").await;
    let bob = node.member("bob").await;
    let mut online = Online::of(&node).await;
    bob.update(lobby(), r#"{"n":1}"#).await.unwrap();
    bob.leave(lobby()).await.unwrap();
    let changed = online.changes.next().await.unwrap();
    let metas: Vec<_> = changed.left.iter().map(|left| left.meta.as_str()).collect();
    assert_eq!((metas, changed.updated.len(), changed.user_offline()), (vec![r#"{"n":1}"#], 0, &[user("bob")][..]));
}

#[actix::test]
async fn a_follower_misses_no_change_of_a_room_that_fails_at_any_moment() {
    tokio::time::pause();
    check_failure(|| ToRoom::Panic).await;
    check_failure(|| ToRoom::PanicInModel).await;
}

/// Bob leaves and cid joins while the room receives this message.
async fn check_failure(fault: fn() -> ToRoom) {
    let node = new_node(config()).await;
    let [_ann, bob] = node.members_named(["ann", "bob"]).await;
    let mut online = Online::of(&node).await;
    node.store.commits_take(ms(20));
    let fails = async {
        pass(ms(10)).await;
        node.table().send_running(lobby(), fault());
    };
    let cid = node.client("cid");
    let (left, joined, ()) = futures_util::join!(bob.leave(lobby()), cid.join(lobby()), fails);
    left.unwrap();
    joined.unwrap();
    pass(secs(5)).await;
    assert_eq!(online.now(), ["ann", "cid"]);
}

#[actix::test]
async fn a_follower_continues_when_a_room_that_gave_up_starts_again() {
    let node = node().await;
    let _ann = node.member("ann").await;
    let mut online = Online::of(&node).await;
    for _ in 0..9 {
        panic_room(&node.rooms, lobby());
        settle().await;
    }
    assert_eq!(online.now(), ["ann"]);
    let _bob = node.member("bob").await;
    pass(secs(1)).await;
    assert_eq!(online.now(), node.names(lobby()).await);
}

#[actix::test]
async fn changes_and_events_are_streams_that_wake_and_that_end() {
    let node = node().await;
    let (_, changes) = node.members_and_changes(lobby()).await.unwrap();
    let events = node.changes_of(lobby());
    let online = changes.map(|changed| changed.user_online().to_vec()).collect::<Vec<_>>();
    let online = actix::spawn(online);
    let came = actix::spawn(events.filter_map(async |changed| changed.added()?.user.clone()).collect::<Vec<_>>());
    settle().await;
    let ann = node.member("ann").await;
    pass(secs(1)).await;
    let bob = node.member("bob").await;
    pass(secs(1)).await;
    drop((ann, bob));
    node.shutdown().await;
    drop(node);
    assert_eq!(online.await.unwrap()[..2], [[user("ann")], [user("bob")]]);
    assert_eq!(came.await.unwrap(), [user("ann"), user("bob")]);
}

#[actix::test]
async fn a_room_stays_in_memory_while_it_is_followed_and_no_shutdown_waits_for_its_followers() {
    let [here, there] = nodes(quick).await;
    let online = Online::of(&here).await;
    pass(secs(10)).await;
    assert_eq!(here.running(), 1);
    drop(online);
    pass(secs(10)).await;
    assert_eq!(here.running(), 0);
    let mut online = Online::of(&here).await;
    let _bob = there.member("bob").await;
    pass(secs(3)).await;
    let begun = here.this_node().now();
    here.shutdown().await;
    assert!(here.this_node().now().since(begun) < secs(1));
    assert_eq!((online.now(), online.changes.next().await), (vec!["bob".to_owned()], None));
    assert!(matches!(here.members_and_changes(lobby()).await, Err(Error::ShuttingDown)));
}

#[cfg(feature = "sqlite")]
#[actix::test]
async fn a_follower_of_a_room_on_a_database_receives_the_changes_of_this_room_only() {
    let store = crate::store::SqlStore::connect("sqlite::memory:").unwrap();
    let rooms = crate::Rooms::start(config().build().unwrap(), store, crate::NodeName::new("here").unwrap());
    rooms.ready().await;
    let (_, mut changes) = rooms.members_and_changes(lobby()).await.unwrap();
    let job = channel("job");
    rooms.add(&room("attic"), &job, Some(&user("other"))).await.unwrap();
    rooms.add(lobby(), &job, Some(&user("job"))).await.unwrap();
    assert_eq!(changes.next().await.unwrap().user_online(), [user("job")]);
    rooms.shutdown().await;
}
