//! Reading rooms: by handle, and by message from an actor.

use std::time::SystemTime;

use super::prelude::*;
use crate::{
    actor::{Count, IsHere, LastSeen, ListRooms, Members, MembersAndChanges, PresencesOf, RoomsOf, Users},
    room::LARGE,
};

/// Two tabs of ann, one of bob, and an anonymous socket.
async fn full_lobby() -> (TestNode, Vec<FakeClient>) {
    let node = node().await;
    let mut clients = vec![node.member("bob").await, node.member("ann").await, node.member("ann").await];
    clients.push(node.anonymous());
    clients[3].join(lobby()).await.unwrap();
    (node, clients)
}

fn counts(users: usize, anonymous: usize, presences: usize) -> Counts {
    Counts { users, anonymous, presences }
}

// behaviour: 1 case-sensitive-names; 1 one-presence-per-socket; 2.7 distinct-users; 7 who-is-there
#[actix::test]
async fn a_handle_returns_counts_users_members_and_rooms() {
    let (node, clients) = full_lobby().await;
    assert_eq!(node.count(lobby()).await.unwrap(), counts(2, 1, 4));
    assert_eq!(node.users(lobby()).await.unwrap(), [user("ann"), user("bob")]);
    assert_eq!(node.anonymous_count(lobby()).await.unwrap(), 1);
    assert!(node.is_here(lobby(), &user("ann")).await.unwrap());
    assert!(!node.is_here(lobby(), &user("cid")).await.unwrap());
    let members = node.members(lobby()).await.unwrap();
    let ids: Vec<Vec<_>> = members.iter().map(|member| member.presences().iter().map(|one| one.id).collect()).collect();
    let id = |n: usize| clients[n].id(lobby());
    assert_eq!(ids, [vec![id(1), id(2)], vec![id(0)], vec![id(3)]], "users by name, tabs by age, then anonymous ones");
    clients[0].join(&room("attic")).await.unwrap();
    assert_eq!(node.rooms_of(&user("bob")).await.unwrap(), [room("attic"), lobby().clone()]);
    assert_eq!(node.rooms_of(&user("cid")).await.unwrap(), []);
    assert_eq!(node.count(&room("Lobby")).await.unwrap(), Counts::default(), "another letter, another room");
}

#[actix::test]
async fn an_empty_room_answers_and_does_not_stay_in_memory() {
    let node = node().await;
    assert_eq!(node.count(lobby()).await.unwrap(), Counts::default());
    assert_eq!(node.members(lobby()).await.unwrap(), []);
    pass(ms(10)).await;
    assert_eq!((node.running(), node.children()), (0, 0));
}

#[actix::test]
async fn callers_that_read_a_room_at_once_share_one_load() {
    let node = node().await;
    let reads = (0..100).map(|_| node.count(lobby()));
    let counts = futures_util::future::join_all(reads).await;
    assert!(counts.into_iter().all(|count| count.unwrap() == Counts::default()));
    assert_eq!(node.store.loads(), 1);
}

#[actix::test]
async fn a_room_that_is_in_memory_answers_while_the_database_is_away() {
    let (node, _clients) = full_lobby().await;
    node.store.faults.hang();
    assert_eq!(node.count(lobby()).await.unwrap(), counts(2, 1, 4));
    assert!(matches!(node.rooms_of(&user("ann")).await, Err(Error::StoreUnavailable(_))));
}

#[actix::test]
async fn a_room_that_cannot_be_loaded_fails_after_the_time_out_and_answers_when_the_database_is_back() {
    let node = node().await;
    node.store.faults.fail_next(usize::MAX);
    let asked = node.rooms.this_node().now();
    assert!(matches!(node.count(lobby()).await, Err(Error::StoreUnavailable(_))));
    let waited = node.rooms.this_node().now().since(asked);
    assert!(waited >= secs(5) && waited < secs(5) + ms(5), "{waited:?}");
    node.store.faults.fail_next(0);
    assert_eq!(node.count(lobby()).await.unwrap(), Counts::default());
    pass(secs(1)).await;
    assert_eq!(node.running(), 0);
}

#[actix::test]
async fn counting_does_not_see_a_join_before_its_commit() {
    let (node, _clients) = full_lobby().await;
    node.store.commits_take(ms(100));
    let cid = node.client("cid");
    let (joined, ()) = tokio::join!(cid.join(lobby()), async {
        pass(ms(50)).await;
        assert_eq!(node.count(lobby()).await.unwrap(), counts(2, 1, 4));
    });
    joined.unwrap();
    assert_eq!(node.count(lobby()).await.unwrap(), counts(3, 1, 5));
}

/// So many presences that a load of them is prepared on a thread of its own.
const MANY: usize = LARGE + 500;

#[actix::test]
async fn a_reload_of_a_large_room_sends_its_members_what_they_missed_and_nothing_else() {
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let elsewhere = NodeId::random();
    database.register(elsewhere, NodeName::new("elsewhere").unwrap(), secs(3600)).await.unwrap();
    let write = async |writes: Vec<Write>| {
        let writes = [RoomWrites { room: lobby().clone(), writes }];
        database.commit(elsewhere, Attempt::next(), writes.clone().into()).await.unwrap();
    };
    let presence = |n: usize| {
        let (name, channel) = (format!("u{n}"), channel(format!("c{n}")));
        Arc::new(Presence::new(PresenceId::random(), channel, Some(user(&name)), elsewhere))
    };
    let crowd: Vec<_> = (0..MANY).map(presence).collect();
    write(crowd.iter().cloned().map(Write::Join).collect()).await;

    // Her first frame is not split.
    let config = config().reconcile_interval(secs(2)).max_frame_sent(1_000_000);
    let node = node_on(&database, "here", config).await;
    assert_eq!(node.count(lobby()).await.unwrap(), counts(MANY, 0, MANY));
    let ann = node.member("ann").await;
    assert_eq!((ann.sees().len(), ann.count()), (MANY + 1, 1), "her first frame is all that she is events");

    // So long after the last one, the next reading is of the whole room.
    alive(&[&ann], secs(31)).await;
    let leave = |one: &Arc<Presence>| Write::Leave { id: one.id, channel: one.channel.clone() };
    let mut writes: Vec<_> = [&crowd[7], &crowd[1_400]].map(leave).into();
    let meta = Some(Meta::from_json(r#"{"n":1}"#).unwrap());
    let (id, channel) = (crowd[700].id, crowd[700].channel.clone());
    writes.push(Write::Update { id, channel, user: None, meta });
    writes.push(Write::Join(presence(MANY)));
    write(writes).await;
    pass(secs(3)).await;
    assert_eq!((ann.view().changes, ann.count()), (["-u7", "-u1400", "+u1500", "~u700"].map(String::from).into(), 2));
    assert_eq!((ann.sees().len(), node.count(lobby()).await.unwrap().presences), (MANY, MANY));
    assert_eq!(node.store.loads(), 2);
}

#[actix::test]
async fn a_room_that_cannot_be_loaded_is_dropped_with_its_readers_after_the_time_out() {
    // Each name that was read kept a room in memory that queried the database for ever, with all its readers.
    let node = node().await;
    for fails_at_once in [false, true] {
        if fails_at_once {
            node.store.faults.fail_next(usize::MAX);
        } else {
            node.store.faults.hang();
        }
        let names: Vec<_> = (0..20).map(|n| room(&format!("room {n}"))).collect();
        let reads = (0..1_000).map(|n| node.count(&names[n % names.len()]));
        let counts = futures_util::future::join_all(reads).await;
        assert!(counts.iter().all(|count| matches!(count, Err(Error::StoreUnavailable(_)))));
        assert!(node.members_and_changes(lobby()).await.is_err());
        pass(secs(6)).await;
        let loads = node.store.loads();
        pass(secs(20)).await;
        assert_eq!((node.running(), node.store.loads()), (0, loads));
        node.store.faults.fail_next(0);
        node.store.faults.release();
        assert_eq!(node.count(&names[0]).await.unwrap(), Counts::default());
        pass(secs(1)).await;
    }
}

#[actix::test]
async fn the_presences_of_one_user_are_read_with_their_metas_by_handle() {
    let (node, clients) = full_lobby().await;
    clients[1].update(lobby(), r#"{"n":1}"#).await.unwrap();
    let there = node.presences_of(lobby(), &user("ann")).await.unwrap();
    let ids: Vec<_> = there.iter().map(|one| (one.id, one.meta.as_str())).collect();
    assert_eq!(ids, [(clients[1].id(lobby()), r#"{"n":1}"#), (clients[2].id(lobby()), "{}")]);
    assert_eq!(node.presences_of(lobby(), &user("cid")).await.unwrap(), []);
    assert_eq!(node.room(lobby()).presences_of(&user("ann")).await.unwrap(), there);
}

#[actix::test]
async fn what_actors_read_by_message_is_what_the_handles_return() {
    let (node, _clients) = full_lobby().await;
    let (handle, rooms) = (node.room(lobby()), node.addr());
    let (room, ann) = (lobby().clone(), user("ann"));
    assert_eq!(rooms.send(Count { room: room.clone() }).await.unwrap().unwrap(), handle.count().await.unwrap());
    assert_eq!(rooms.send(Users { room: room.clone() }).await.unwrap().unwrap(), handle.users().await.unwrap());
    assert_eq!(rooms.send(Members { room: room.clone() }).await.unwrap().unwrap(), handle.members().await.unwrap());
    assert!(rooms.send(IsHere { room: room.clone(), user: ann.clone() }).await.unwrap().unwrap());
    let presences = rooms.send(PresencesOf { room: room.clone(), user: ann.clone() }).await.unwrap().unwrap();
    assert_eq!(presences, handle.presences_of(&ann).await.unwrap());
    assert_eq!(rooms.send(RoomsOf { user: ann }).await.unwrap().unwrap(), std::slice::from_ref(&room));
    let page = rooms.send(ListRooms { after: None, limit: 10 }).await.unwrap().unwrap();
    assert_eq!(page, node.rooms(None, 10).await.unwrap());
    let seen = rooms.send(LastSeen { room: room.clone() }).await.unwrap().unwrap();
    assert_eq!((seen.len(), seen), (4, handle.last_seen().await.unwrap()));
    let (members, mut changes) = rooms.send(MembersAndChanges { room }).await.unwrap().unwrap();
    assert_eq!(members, node.members(lobby()).await.unwrap());
    let _cid = node.member("cid").await;
    assert_eq!(changes.next().await.unwrap().user_online(), [user("cid")]);
    assert!(handle.is_here(&user("cid")).await.unwrap());
    let (mut own, mut events) = (handle.members_and_changes().await.unwrap().1, handle.changes());
    assert_eq!(handle.remove_room(None).await.unwrap(), 5);
    assert_eq!(own.next().await.unwrap().left.len(), 5);
    assert!(events.next().await.unwrap().bulk_change());
}

#[actix::test]
async fn all_rooms_are_listed_page_by_page() {
    let node = node().await;
    let [ann, _tab] = node.members_named(["ann", "ann"]).await;
    for name in ["attic", "cellar"] {
        ann.join(&room(name)).await.unwrap();
    }
    let page = async |after: Option<&RoomName>, limit| -> Vec<String> {
        let page = node.rooms.rooms(after, limit).await.unwrap();
        page.iter().map(|listed| format!("{} {} {}", listed.room, listed.users, listed.presences)).collect()
    };
    assert_eq!(page(None, 2).await, ["attic 1 1", "cellar 1 1"]);
    assert_eq!(page(Some(&room("cellar")), 2).await, ["lobby 1 2"]);
    assert_eq!(page(Some(lobby()), 2).await, NONE);
}

#[actix::test]
async fn each_presence_has_the_time_of_its_join_and_of_its_last_touch_on_whichever_node() {
    // Ids contain the time in milliseconds.
    let begun = SystemTime::now() - Duration::from_millis(1);
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let here = node_on(&database, "here", config()).await;
    let there = node_on(&database, "there", config().touch_flush_interval(secs(5))).await;
    let (ann, bob) = (here.member("ann").await, there.member("bob").await);
    pass(secs(20)).await;
    ann.touch();
    bob.touch();
    pass(secs(12)).await;
    let seen = here.last_seen(lobby()).await.unwrap();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[&ann.id(lobby())].as_secs(), 12);
    assert_eq!(seen[&bob.id(lobby())].as_secs(), 12, "its node has written that");
    ann.touch();
    assert_eq!(here.last_seen(lobby()).await.unwrap()[&ann.id(lobby())], Duration::ZERO);
    for member in here.members(lobby()).await.unwrap() {
        let joined_at = member.presences()[0].joined_at().unwrap();
        assert!(joined_at >= begun && joined_at <= SystemTime::now(), "{joined_at:?}");
    }
    assert!(here.last_seen(&room("nowhere")).await.unwrap().is_empty());
    // It also returned presences that this node did not list yet, or no longer.
    let _cid = there.member("cid").await;
    assert_eq!(here.last_seen(lobby()).await.unwrap().len(), here.count(lobby()).await.unwrap().presences);
}
