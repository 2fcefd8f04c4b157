//! `user_online` and `user_offline`: the first and the last presence of a user in a room.

mod fold;
mod gathered;
mod history;

use std::{collections::BTreeMap, sync::Arc};

use super::bench::{config, lobby, node, node_on, pass, room, secs, turns, user};
use crate::{
    Presence,
    clock::Clock,
    model::{Delta, OnlineChanges},
    name::{ChannelName, NodeId, PresenceId},
    signal::EventPublisher,
    store::MemoryStore,
};

// behaviour: W24 first-and-last
#[actix::test]
async fn only_the_first_tab_is_online_and_only_the_last_offline() {
    let node = node().await;
    let mut changes = node.changes();
    let (first, second) = (node.member("ann").await, node.member("ann").await);
    let guest = node.anonymous();
    guest.join(lobby()).await.unwrap();
    first.join(&room("attic")).await.unwrap();
    first.leave(lobby()).await.unwrap();
    second.update(lobby(), r#"{"n":1}"#).await.unwrap();
    second.leave(lobby()).await.unwrap();
    guest.leave(lobby()).await.unwrap();
    let expected = ["+ann: +ann", "+ann:", "+-:", "+ann: +ann", "-ann:", "~ann:", "-ann: -ann", "--:"];
    assert_eq!(turns(&mut changes), expected);
}

#[actix::test]
async fn a_channel_that_is_given_to_another_user_may_be_the_last_of_one_and_the_first_of_the_other() {
    let node = node().await;
    let mut changes = node.changes();
    let [one, two] = ["1", "2"].map(|name| ChannelName::new(name).unwrap());
    for (channel, who) in [(&one, "ann"), (&two, "ann"), (&one, "bob"), (&two, "bob"), (&one, "ann")] {
        node.add(lobby(), channel, Some(&user(who))).await.unwrap();
    }
    node.add(lobby(), &two, None).await.unwrap();
    let expected = ["+ann: +ann", "+ann:", "~bob: +bob", "~bob: -ann", "~ann: +ann", "~-: -bob"];
    assert_eq!(turns(&mut changes), expected);
}

#[actix::test]
async fn a_bulk_change_names_all_whose_last_presence_it_took() {
    let node = node().await;
    let _crowd = node.crowd(2).await;
    let (_tab, stays) = (node.member("u0").await, node.member("u1").await);
    let mut changes = node.changes();
    pass(secs(30)).await;
    stays.touch();
    pass(secs(32)).await;
    assert_eq!(turns(&mut changes), ["-[u0 u0 u1]: -u0"]);
    node.remove_room(lobby(), None).await.unwrap();
    assert_eq!(turns(&mut changes), ["-[u1]: -u1"]);
}

#[actix::test]
async fn who_is_held_and_comes_back_was_never_gone_and_is_offline_after_the_grace() {
    let node = node().await;
    let mut changes = node.changes();
    for _ in 0..2 {
        let ann = node.client("ann").with_token("ann", secs(10));
        ann.join(lobby()).await.unwrap();
        ann.lose(lobby());
        pass(secs(1)).await;
    }
    let tab = node.member("ann").await;
    tab.leave(lobby()).await.unwrap();
    pass(secs(15)).await;
    assert_eq!(turns(&mut changes), ["+ann: +ann", "+ann:", "-ann:", "-[ann]: -ann"]);
}

#[actix::test]
async fn of_tabs_on_two_nodes_each_transition_fires_once_on_the_node_that_made_it() {
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let quick = || config().lease(secs(3)).sweep_interval(secs(1)).reconcile_interval(secs(2));
    let (here, there) = (node_on(&database, "here", quick()).await, node_on(&database, "there", quick()).await);
    let (mut changes, mut others) = (here.changes(), there.changes());
    // Neither has heard of the other when it writes: rooms are compared every two seconds.
    let ours = here.member("ann").await;
    let theirs = there.member("ann").await;
    ours.leave(lobby()).await.unwrap();
    theirs.leave(lobby()).await.unwrap();
    assert_eq!(turns(&mut changes), ["+ann: +ann", "-ann:"]);
    assert_eq!(turns(&mut others), ["+ann:", "-ann: -ann"]);
    // A node that dies goes offline for its users where it is found, but for who is on the other node as well.
    let (tab, _bob, _ann) = (here.member("ann").await, there.member("bob").await, there.member("ann").await);
    there.store.faults.hang();
    for _ in 0..10 {
        pass(secs(1)).await;
        tab.touch();
    }
    assert_eq!(turns(&mut changes), ["+ann: +ann", "-[ann bob]: -bob"]);
}

#[actix::test]
async fn who_is_held_over_a_restart_is_online_until_the_grace_is_over_and_then_offline_once() {
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let here = || config().grace(secs(10));
    let old = node_on(&database, "here", here()).await;
    let mut before = old.changes();
    let (_tab, _bob) = (old.member("ann").await, old.member("bob").await);
    let ann = old.client("ann").with_token("ann", secs(10));
    ann.join(lobby()).await.unwrap();
    let cid = old.client("cid").with_token("cid", secs(10));
    cid.join(lobby()).await.unwrap();
    assert_eq!(turns(&mut before), ["+ann: +ann", "+bob: +bob", "+ann:", "+cid: +cid"]);
    old.store.faults.hang(); // The process is gone.
    let new = node_on(&database, "here", here()).await;
    let mut changes = new.changes();
    pass(secs(3)).await;
    let again = new.client("ann").with_token("ann", secs(10));
    again.join(lobby()).await.unwrap();
    let tab = new.member("bob").await;
    assert_eq!(turns(&mut changes), ["+bob:"], "he was there all the time, and a resume says nothing");
    for _ in 0..5 {
        pass(secs(10)).await;
        again.touch();
        tab.touch();
    }
    assert_eq!(turns(&mut changes), ["-[ann bob cid]: -cid"]);
    again.lose(lobby());
    pass(secs(5)).await;
    assert_eq!(turns(&mut changes), Vec::<String>::new());
    pass(secs(10)).await;
    assert_eq!(turns(&mut changes), ["-[ann]: -ann"]);
}

#[actix::test]
async fn of_a_change_whose_answer_was_lost_it_is_told_who_was_the_first_and_who_the_last() {
    // A later try found it done and knew neither, so ann was online by her second tab, or never.
    let node = node().await;
    let mut changes = node.changes();
    node.store.lose_commits(1);
    let ann = node.member("ann").await;
    assert_eq!(turns(&mut changes), ["+ann: +ann"]);
    let tab = node.member("ann").await;
    ann.leave(lobby()).await.unwrap();
    node.store.lose_commits(1);
    tab.leave(lobby()).await.unwrap();
    assert_eq!(turns(&mut changes), ["+ann:", "-ann:", "-ann: -ann"]);
}

#[test]
fn who_goes_by_many_presences_of_one_commit_is_offline_with_the_last_event() {
    let presence = |channel: &str, who: &str| {
        let channel = ChannelName::new(channel).unwrap();
        Arc::new(Presence::new(PresenceId::random(), channel, Some(user(who)), NodeId::random()))
    };
    let (pruned, left, again) = (presence("1", "ann"), presence("2", "ann"), presence("3", "bob"));
    let rebound = presence("4", "cid");
    let offline = |by: &Presence, who: &str| OnlineChanges {
        offline: BTreeMap::from([(by.id, user(who))]),
        ..OnlineChanges::default()
    };
    let delta = Delta {
        left: vec![pruned.clone(), left.clone(), again.clone()],
        updated: vec![rebound.clone()],
        ..Delta::default()
    };
    let signals = EventPublisher::default();
    let mut changes = signals.subscribe(None);
    let mut hear = |turns_of: &OnlineChanges, pruned: &[&Presence]| {
        let bulk = signals.leave_group(lobby());
        signals
            .announce(lobby(), &delta, turns_of, |one| pruned.iter().any(|other| other.id == one.id).then_some(&bulk));
        drop(bulk);
        turns(&mut changes)
    };
    assert_eq!(hear(&offline(&pruned, "ann"), &[&pruned]), ["-ann:", "-bob:", "~cid:", "-[ann]: -ann"]);
    assert_eq!(hear(&offline(&again, "bob"), &[&pruned]), ["-ann:", "-bob: -bob", "~cid:", "-[ann]:"]);
    // What is gathered of her is told later, and she is offline with that.
    assert_eq!(hear(&offline(&left, "ann"), &[&pruned]), ["-ann:", "-bob:", "~cid:", "-[ann]: -ann"]);
    assert_eq!(hear(&offline(&rebound, "ann"), &[&pruned]), ["-ann:", "-bob:", "~cid:", "-[ann]: -ann"]);
    assert_eq!(hear(&offline(&left, "ann"), &[]), ["-ann:", "-ann: -ann", "-bob:", "~cid:"]);
}
