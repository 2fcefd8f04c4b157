//! Callers on threads of their own, rooms on others: each change happens once, whoever asks, and whatever fails.

use std::{
    collections::BTreeSet,
    sync::{Arc, Barrier},
    time::Duration,
};

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::runtime::Builder;

use super::bench::{Watched, heard, lobby, room, turns, user};
use crate::{
    Config, Error, Meta, PruningSupervisor, Rooms,
    clock::Clock,
    name::{ChannelName, NodeName, RoomName},
    room::ToRoom,
    rooms::channel::Channel,
    store::{MemoryStore, RoomStore},
    testing::store::FaultyStore,
};

const CALLERS: usize = 8;

fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap()
}

/// A node whose rooms and store have threads of their own, in real time.
async fn threaded() -> (Rooms, Watched) {
    let store = Watched::new(FaultyStore::new(MemoryStore::new(Clock::system())));
    let rooms =
        Rooms::start(Config::builder().room_threads(2).build().unwrap(), store.clone(), NodeName::new("here").unwrap());
    PruningSupervisor::spawn(&rooms);
    rooms.ready().await;
    (rooms, store)
}

/// Calls at the same moment from as many threads, and waits for all.
async fn race<F>(rooms: &Rooms, call: impl Fn(Rooms, usize) -> F + Clone + Send + 'static)
where
    F: Future<Output = ()>,
{
    let barrier = Arc::new(Barrier::new(CALLERS));
    let callers = (0..CALLERS).map(|caller| {
        let (rooms, call, barrier) = (rooms.clone(), call.clone(), barrier.clone());
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
async fn a_thread_without_a_runtime_may_ask_whatever_another_may() {
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
            // The threads of the node end meanwhile, and with them those who could answer: no more than an error.
            drop(rooms.users(lobby()).await);
            drop(rooms.rooms_of(&ann).await);
        });
    })
    .join()
    .unwrap();
}

// behaviour: W7 exactly-once
#[actix::test]
async fn eight_callers_who_add_the_same_channel_add_it_once() {
    let (rooms, store) = threaded().await;
    let mut changes = rooms.changes();
    for round in 0..20 {
        let name = format!("c{round}");
        race(&rooms, move |rooms, _| {
            let name = channel(&name);
            async move { drop(rooms.add(lobby(), &name, Some(&user("ann"))).await.unwrap()) }
        })
        .await;
        assert_eq!(heard(&mut changes), ["+ann"]);
    }
    assert_eq!(store.database().load(lobby().clone()).await.unwrap().unwrap().presences.len(), 20);
}

// behaviour: 2.2 concurrent-removal; W7 threads
#[actix::test]
async fn eight_callers_who_remove_a_channel_or_have_it_leave_all_fire_one_event_a_room() {
    let (rooms, store) = threaded().await;
    let one = channel("1");
    for round in 0..20 {
        for at in [lobby(), &room("attic")] {
            rooms.add(at, &one, Some(&user("ann"))).await.unwrap();
        }
        let mut changes = rooms.changes();
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
        assert_eq!(heard(&mut changes), ["-ann", "-ann"]);
    }
    assert_eq!(store.database().load(lobby().clone()).await.unwrap().unwrap().presences, []);
}

#[actix::test]
async fn a_channel_that_is_added_and_removed_at_once_is_never_in_a_room_unknown_to_its_node() {
    // One caller forgot the channel while another was adding it: then nobody could remove it.
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
    let heard = heard(&mut changes);
    assert!(!heard.is_empty() && heard.chunks(2).all(|pair| pair == ["+ann", "-ann"]), "{heard:?}");
    assert!(rooms.channels().get(&channel("1")).is_none());
}

#[actix::test]
async fn eight_callers_who_rebind_a_channel_to_one_user_fire_one_event() {
    let (rooms, _) = threaded().await;
    let one = channel("1");
    rooms.add(lobby(), &one, None).await.unwrap();
    let mut changes = rooms.changes();
    for round in 0..20 {
        race(&rooms, move |rooms, _| async move {
            drop(rooms.add(lobby(), &channel("1"), Some(&user(&format!("u{round}")))).await.unwrap());
        })
        .await;
        assert_eq!(heard(&mut changes), [format!("~u{round}")]);
        assert_eq!(rooms.users(lobby()).await.unwrap(), [user(&format!("u{round}"))]);
    }
}

#[actix::test]
async fn of_eight_tabs_that_come_or_go_at_once_one_is_the_first_and_one_the_last() {
    // On two nodes, which know of each other by their database alone.
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
                    (if caller % 2 == 0 { here } else { there.clone() }, channel(&format!("{round}/{caller}")));
                async move {
                    if came {
                        drop(rooms.add(lobby(), &tab, Some(&user("ann"))).await.unwrap());
                    } else {
                        rooms.remove(lobby(), &tab).await.unwrap();
                    }
                }
            })
            .await;
            let all: Vec<_> = changes.iter_mut().flat_map(turns).collect();
            assert_eq!(all.len(), CALLERS);
            assert_eq!(all.iter().filter(|turn| turn.ends_with(once)).count(), 1, "{all:?}");
            assert_eq!(all.iter().filter(|turn| turn.ends_with(':')).count(), CALLERS - 1, "{all:?}");
        }
    }
}

#[actix::test]
async fn one_who_is_added_again_while_it_is_removed_never_stands_in_its_own_way() {
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
        let heard = heard(&mut changes);
        let moves: Vec<_> = heard.iter().filter(|event| !event.starts_with('~')).collect();
        for pair in moves.chunks(2) {
            assert!(pair.len() == 2 && pair[0].starts_with('+') && !pair[1].starts_with('+'), "{heard:?}");
        }
        assert_eq!(store.database().load(lobby().clone()).await.unwrap().unwrap().presences, []);
    }
}

// behaviour: 2.6 race-with-add; W7 threads
#[actix::test]
async fn adding_never_fails_against_pruning_and_each_event_is_one_of_a_pair() {
    let (rooms, _) = threaded().await;
    let mut changes = rooms.changes();
    race(&rooms, |rooms, caller| async move {
        for _ in 0..30 {
            if caller < 2 {
                rooms.prune_rooms().await.unwrap();
                rooms.prune_presences(Some(Duration::ZERO)).await.unwrap();
            } else {
                let (one, who) = (channel(&format!("c{caller}")), user(&format!("u{caller}")));
                match rooms.add(lobby(), &one, Some(&who)).await {
                    // It was pruned before it had its answer.
                    Ok(_) | Err(Error::LeftWhileJoining { .. }) => {}
                    Err(error) => panic!("{error:?}"),
                }
                rooms.remove(lobby(), &one).await.unwrap();
            }
        }
    })
    .await;
    let heard = heard(&mut changes);
    for caller in 2..CALLERS {
        let name = format!("u{caller}");
        let mut here = false;
        for event in heard.iter().filter(|event| event.contains(&name)) {
            assert_eq!(event.starts_with('+'), !here, "{heard:?}");
            here = !here;
        }
        assert!(!here, "{heard:?}");
    }
    assert_eq!(rooms.users(lobby()).await.unwrap(), []);
}

/// Comes, changes hands, and goes, again and again.
async fn lives(rooms: &Rooms, at: &RoomName, name: &str, count: usize) {
    let one = channel(&format!("{name} in {at}"));
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
async fn rooms_that_fail_under_callers_on_other_threads_lose_and_repeat_nothing() {
    let (rooms, store) = threaded().await;
    store.commits_take(Duration::from_millis(1));
    let at = [room("a"), room("b"), room("c")];
    let mut changes: Vec<_> = at.iter().map(|room| rooms.changes_of(room)).collect();
    race(&rooms, |rooms, caller| async move {
        let at = [room("a"), room("b"), room("c")];
        if caller == 0 {
            // A room that fails more often in so short a time is given up.
            for turn in 0..7 {
                for (n, room) in at.iter().enumerate() {
                    let fault = if (turn + n) % 2 == 0 { ToRoom::Panic } else { ToRoom::PanicInModel };
                    rooms.table().send_running(room, fault);
                }
                // Real threads race, so time is real: this is the pace of the faults, and nothing waits for it.
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
        let events = heard(changes);
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

/// Polls this once on a thread of its own, while no room can be asked. The updates of the channel must be locked meanwhile.
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
    for _ in 0..10_000 {
        assert!(channel.is_updating(), "another update may come first now");
        std::thread::yield_now();
    }
    drop(tables);
    thread.join().unwrap();
}

#[actix::test]
async fn updates_of_a_socket_and_of_others_reach_its_room_in_the_order_in_which_they_were_made() {
    // One that waited was taken to be written, and before the room was asked, a later one of somebody else was written first.
    let (node, _store) = threaded().await;
    let bot = ChannelName::new("job 7").unwrap();
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
