//! Callers on threads of their own, with rooms on other threads: each change happens once, however many callers request it.

use std::sync::Barrier;

use parking_lot::Mutex;
use tokio::runtime::Builder;

use super::prelude::*;
use crate::rooms::channel::Channel;

const CALLERS: usize = 8;

/// A node whose rooms and store have threads of their own, in real time.
async fn threaded() -> (Rooms, RecordingStore) {
    let store = RecordingStore::new(FaultyStore::new(MemoryStore::new(Clock::system())));
    // On a busy machine a test may last longer than the default, and nobody touches these presences.
    let config = Config::builder().room_threads(2).max_age(secs(3600)).build().unwrap();
    let rooms = Rooms::start(config, store.clone(), NodeName::new("here").unwrap());
    PruningSupervisor::spawn(&rooms);
    rooms.ready().await;
    (rooms, store)
}

/// Makes the call at the same moment on each of `CALLERS` threads, and waits for all.
async fn race<F>(rooms: &Rooms, call: impl Fn(Rooms, usize) -> F + Clone + Send + 'static)
where
    F: Future<Output = ()>,
{
    let barrier = Arc::new(Barrier::new(CALLERS));
    let callers = (0..CALLERS).map(|caller| {
        let rooms = rooms.clone();
        let call = call.clone();
        let barrier = barrier.clone();
        tokio::task::spawn_blocking(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            barrier.wait();
            runtime.block_on(call(rooms, caller));
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
}

#[actix::test]
async fn a_thread_without_a_runtime_can_make_every_call() {
    let (rooms, _) = threaded().await;
    std::thread::spawn(move || {
        futures_executor::block_on(async {
            let (one, ann) = (channel("1"), user("ann"));
            rooms.add(lobby(), &one, Some(&ann)).await.unwrap();
            assert_eq!(rooms.users(lobby()).await.unwrap(), std::slice::from_ref(&ann));
            assert_eq!(rooms.rooms_of(&ann).await.unwrap(), [lobby().clone()]);
            rooms.touch(&one);
            assert_eq!(rooms.room(lobby()).prune_presences(Some(Duration::from_secs(60))).await.unwrap(), 0);
            assert_eq!(rooms.prune_presences(None).await.unwrap(), 0);
            rooms.send(lobby(), "hello").await.unwrap();
            rooms.leave_all(&one).await.unwrap();
            assert_eq!(rooms.remove_user(&ann, None).await.unwrap(), 0);
            assert_eq!(rooms.prune_rooms().await.unwrap(), 1);
            rooms.shutdown().await;
            assert!(rooms.add(lobby(), &one, None).await.is_err());
            // The threads of the node end meanwhile, so these calls may fail, but must not hang or panic.
            drop(rooms.users(lobby()).await);
            drop(rooms.rooms_of(&ann).await);
        });
    })
    .join()
    .unwrap();
}

// behaviour: 2.2 concurrent-removal; W7 exactly-once; W7 threads
#[actix::test]
async fn eight_callers_who_add_rebind_or_remove_a_channel_at_once_fire_one_event_in_each_room() {
    let (rooms, store) = threaded().await;
    let mut changes = rooms.changes();
    for round in 0..20 {
        for name in ["ann", "bob"] {
            race(&rooms, move |rooms, _| async move {
                drop(rooms.add(lobby(), &channel("1"), Some(&user(name))).await.unwrap());
            })
            .await;
            assert_eq!(published(&mut changes), [if name == "ann" { "+ann" } else { "~bob" }]);
            assert_eq!(rooms.users(lobby()).await.unwrap(), [user(name)]);
        }
        rooms.add(&room("attic"), &channel("1"), Some(&user("bob"))).await.unwrap();
        assert_eq!(published(&mut changes), ["+bob"]);
        race(&rooms, move |rooms, caller| async move {
            let one = channel("1");
            if round % 2 == 0 || caller % 2 == 0 {
                rooms.leave_all(&one).await.unwrap();
            } else {
                rooms.remove(lobby(), &one).await.unwrap();
                rooms.remove(&room("attic"), &one).await.unwrap();
            }
        })
        .await;
        assert_eq!(published(&mut changes), ["-bob", "-bob"]);
    }
    assert_eq!(store.database().load(lobby().clone()).await.unwrap().unwrap().presences, []);
}

#[actix::test]
async fn a_channel_that_is_added_and_removed_at_once_is_never_in_a_room_unknown_to_its_node() {
    // One caller dropped the channel while another was adding it. Then nobody could remove it.
    let (rooms, store) = threaded().await;
    let mut changes = rooms.changes();
    race(&rooms, |rooms, caller| async move {
        let one = channel("1");
        for turn in 0..60 {
            if (turn + caller) % 2 == 0 {
                match rooms.add(lobby(), &one, Some(&user("ann"))).await {
                    Ok(_) | Err(Error::LeftWhileJoining { .. }) => {}
                    Err(error) => panic!("{error:?}"),
                }
            } else {
                rooms.remove(lobby(), &one).await.unwrap();
            }
        }
    })
    .await;
    rooms.remove(lobby(), &channel("1")).await.unwrap();
    assert_eq!(store.database().load(lobby().clone()).await.unwrap().unwrap().presences, []);
    let published = published(&mut changes);
    assert!(!published.is_empty() && published.chunks(2).all(|pair| pair == ["+ann", "-ann"]), "{published:?}");
    assert!(rooms.channels().get(&channel("1")).is_none());
}

#[actix::test]
async fn of_eight_tabs_that_join_or_leave_at_once_one_is_the_first_and_one_the_last() {
    // The tabs are on two nodes, which share only their database.
    let (here, store) = threaded().await;
    let there = Rooms::start(
        Config::builder().room_threads(2).build().unwrap(),
        store.database().clone(),
        NodeName::new("there").unwrap(),
    );
    PruningSupervisor::spawn(&there);
    there.ready().await;
    let mut changes = [here.changes(), there.changes()];
    for round in 0..20 {
        for (came, once) in [(true, "ann: +ann"), (false, "ann: -ann")] {
            let there = there.clone();
            race(&here, move |here, caller| {
                let (rooms, tab) =
                    (if caller % 2 == 0 { here } else { there.clone() }, channel(format!("{round}/{caller}")));
                async move {
                    if came {
                        drop(rooms.add(lobby(), &tab, Some(&user("ann"))).await.unwrap());
                    } else {
                        rooms.remove(lobby(), &tab).await.unwrap();
                    }
                }
            })
            .await;
            let all: Vec<_> = changes.iter_mut().flat_map(online_events).collect();
            assert_eq!(all.len(), CALLERS);
            assert_eq!(all.iter().filter(|turn| turn.ends_with(once)).count(), 1, "{all:?}");
            assert_eq!(all.iter().filter(|turn| turn.ends_with(':')).count(), CALLERS - 1, "{all:?}");
        }
    }
}

#[actix::test]
async fn a_channel_that_is_added_again_while_it_is_removed_does_not_block_its_next_join() {
    // The second add of a presence that was just pruned brought it back behind the back of its channel, whose next join the
    // database then refused.
    let (rooms, store) = threaded().await;
    let mut changes = rooms.changes();
    for round in 0..10 {
        race(&rooms, move |rooms, caller| async move {
            for turn in 0..20 {
                if caller % 4 == 3 {
                    match round % 2 {
                        0 => rooms.prune_presences(Some(Duration::ZERO)).await.unwrap(),
                        _ => rooms.remove_user(&user("ann"), None).await.unwrap(),
                    };
                    continue;
                }
                let who = if turn % 4 == 0 { "bob" } else { "ann" };
                let added = rooms.add(lobby(), &channel("1"), Some(&user(who))).await;
                assert!(matches!(added, Ok(_) | Err(Error::LeftWhileJoining { .. })), "{added:?}");
            }
        })
        .await;
        rooms.leave_all(&channel("1")).await.unwrap();
        rooms.users(lobby()).await.unwrap();
        let published = published(&mut changes);
        let moves: Vec<_> = published.iter().filter(|event| !event.starts_with('~')).collect();
        for pair in moves.chunks(2) {
            assert!(pair.len() == 2 && pair[0].starts_with('+') && !pair[1].starts_with('+'), "{published:?}");
        }
        assert_eq!(store.database().load(lobby().clone()).await.unwrap().unwrap().presences, []);
    }
}

// behaviour: 2.6 race-with-add; W7 threads
#[actix::test]
async fn adding_during_prunes_never_fails_and_each_join_event_has_a_leave_event() {
    let (rooms, _) = threaded().await;
    let mut changes = rooms.changes();
    race(&rooms, |rooms, caller| async move {
        for _ in 0..30 {
            if caller < 2 {
                rooms.prune_rooms().await.unwrap();
                rooms.prune_presences(Some(Duration::ZERO)).await.unwrap();
            } else {
                let (one, who) = (channel(format!("c{caller}")), user(&format!("u{caller}")));
                match rooms.add(lobby(), &one, Some(&who)).await {
                    // It was pruned before the answer arrived.
                    Ok(_) | Err(Error::LeftWhileJoining { .. }) => {}
                    Err(error) => panic!("{error:?}"),
                }
                rooms.remove(lobby(), &one).await.unwrap();
            }
        }
    })
    .await;
    let published = published(&mut changes);
    for caller in 2..CALLERS {
        let name = format!("u{caller}");
        let mut here = false;
        for event in published.iter().filter(|event| event.contains(&name)) {
            assert_eq!(event.starts_with('+'), !here, "{published:?}");
            here = !here;
        }
        assert!(!here, "{published:?}");
    }
    assert_eq!(rooms.users(lobby()).await.unwrap(), []);
}

/// Adds a channel, gives it a user and removes it, again and again.
async fn lives(rooms: &Rooms, at: &RoomName, name: &str, count: usize) {
    let one = channel(format!("{name} in {at}"));
    for _ in 0..count {
        drop(rooms.add(at, &one, None).await.unwrap());
        drop(rooms.add(at, &one, Some(&user(name))).await.unwrap());
        rooms.touch(&one);
        assert!(rooms.is_here(at, &user(name)).await.unwrap());
        rooms.remove(at, &one).await.unwrap();
    }
    drop(rooms.add(at, &one, Some(&user(name))).await.unwrap());
}

#[actix::test]
async fn the_members_with_the_changes_after_them_miss_and_repeat_no_change_of_callers_on_other_threads() {
    let (rooms, _) = threaded().await;
    let readings = Arc::<Mutex<Vec<_>>>::default();
    let all = readings.clone();
    race(&rooms, move |rooms, caller| {
        let all = all.clone();
        async move {
            if caller > 0 {
                return lives(&rooms, lobby(), &format!("u{caller}"), 30).await;
            }
            for _ in 0..300 {
                let (members, changes) = rooms.members_and_changes(lobby()).await.unwrap();
                let online: BTreeSet<_> = members.iter().filter_map(|member| member.user().cloned()).collect();
                all.lock().push((online, changes));
            }
        }
    })
    .await;
    let here: BTreeSet<_> = rooms.users(lobby()).await.unwrap().into_iter().collect();
    for (mut online, mut changes) in std::mem::take(&mut *readings.lock()) {
        while let Some(Some(changed)) = tokio::task::unconstrained(changes.next()).now_or_never() {
            for user in changed.user_offline() {
                assert!(online.remove(user), "{changed:?} of {online:?}");
            }
            for user in changed.user_online() {
                assert!(online.insert(user.clone()), "{changed:?} of {online:?}");
            }
        }
        assert_eq!(online, here);
    }
}

#[actix::test]
async fn rooms_that_fail_during_calls_of_other_threads_lose_and_repeat_nothing() {
    let (rooms, store) = threaded().await;
    store.commits_take(Duration::from_millis(1));
    let at = [room("a"), room("b"), room("c")];
    let mut changes: Vec<_> = at.iter().map(|room| rooms.changes_of(room)).collect();
    race(&rooms, |rooms, caller| async move {
        let at = [room("a"), room("b"), room("c")];
        if caller == 0 {
            // A room that fails more often in such a short time gives up.
            for turn in 0..7 {
                for (n, room) in at.iter().enumerate() {
                    let fault = if (turn + n) % 2 == 0 { ToRoom::Panic } else { ToRoom::PanicInModel };
                    rooms.table().send_running(room, fault);
                }
                // Real threads race, so time is real. This is the pace of the failures, and no assertion depends on it.
                tokio::time::sleep(Duration::from_millis(15)).await;
            }
        } else {
            let name = format!("u{caller}");
            let all = at.iter().map(|room| lives(&rooms, room, &name, 15));
            futures_util::future::join_all(all).await;
        }
    })
    .await;
    for (room, changes) in at.iter().zip(&mut changes) {
        let events = published(changes);
        let users: Vec<_> = (1..CALLERS).map(|caller| user(&format!("u{caller}"))).collect();
        assert_eq!(rooms.users(room).await.unwrap(), users);
        let rows = store.database().load(room.clone()).await.unwrap().unwrap().presences;
        assert_eq!(rows.len(), users.len());
        for caller in 1..CALLERS {
            let name = format!("u{caller}");
            let count = |what: &str| events.iter().filter(|event| **event == format!("{what}{name}")).count();
            assert_eq!((count("+"), count("~"), count("-")), (1, 15, 15), "{name} in {room}: {events:?}");
        }
        let anonymous = events.iter().filter(|event| *event == "+-").count();
        assert_eq!(anonymous, 15 * (CALLERS - 1), "{room}: {events:?}");
    }
}

/// Polls the update once on a thread of its own, while no message can be sent to a room. The updates of the channel must be locked meanwhile.
fn check_locked<F: Future<Output = ()>>(
    rooms: &Rooms,
    channel: &Arc<Channel>,
    update: impl FnOnce() -> F + Send + 'static,
) {
    let tables = rooms.table().lock();
    let runtime = tokio::runtime::Handle::current();
    let (begins, has_begun) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let _context = runtime.enter();
        begins.send(()).unwrap();
        let _ = std::pin::pin!(update()).poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    });
    has_begun.recv().unwrap();
    while !channel.is_updating() {
        assert!(!thread.is_finished());
        std::thread::yield_now();
    }
    // A call to yield can last as long as the time slices of all other threads of the machine.
    for _ in 0..1_000 {
        assert!(channel.is_updating(), "another update may come first now");
        std::thread::yield_now();
    }
    drop(tables);
    thread.join().unwrap();
}

#[actix::test]
async fn updates_of_a_socket_and_of_others_reach_its_room_in_the_order_in_which_they_were_made() {
    // A pending update was taken from the queue, and a later update of another caller reached the room before it.
    let (node, _store) = threaded().await;
    let bot = channel("job 7");
    node.add(lobby(), &bot, None).await.unwrap();
    let channel = node.channels().get(&bot).unwrap();
    let meta = || Meta::from_json(r#"{"n":1}"#).unwrap();
    let (rooms, own) = (node.clone(), channel.clone());
    channel.put_update(lobby(), meta());
    check_locked(&node, &channel, move || own.write_updates(rooms));
    let (rooms, own) = (node.clone(), channel.clone());
    check_locked(&node, &channel, move || async move { drop(own.update_for_another(&rooms, lobby(), meta()).await) });
    let (rooms, own) = (node.clone(), channel.clone());
    check_locked(&node, &channel, move || async move { drop(own.update(&rooms, lobby(), meta()).await) });
}
