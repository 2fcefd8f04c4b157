//! What has changed in a database since a node last asked.

use sea_orm::ConnectionTrait;

use super::{
    super::*,
    trial::{Kind, Trial, block_on, on_each_kind},
};
use crate::{
    model::Presence,
    name::{ChannelName, NodeName},
    store::{NodeStore, Write},
};

on_each_kind! {
    a_change_whose_transaction_was_open_when_it_was_asked_is_in_the_next_answer,
    the_changes_are_not_complete_while_a_node_of_an_earlier_version_is_alive,
}

async fn joined(trial: &Trial) -> (SqlStore, NodeId) {
    let store = SqlStore::connect(&trial.url).unwrap();
    store.prepare().await.unwrap();
    store.limit_waits(Duration::from_secs(10), Duration::from_secs(5));
    let node = NodeId::random();
    store.register(node, NodeName::new("here").unwrap(), Duration::from_secs(60)).await.unwrap();
    (store, node)
}

fn a_change_whose_transaction_was_open_when_it_was_asked_is_in_the_next_answer(kind: Kind) {
    let trial = Trial::of(kind);
    block_on(async {
        let (store, node) = joined(&trial).await;
        let lobby = RoomName::new("lobby").unwrap();
        let ann = Presence::new(PresenceId::random(), ChannelName::new("ann").unwrap(), None, node);
        let writes = vec![Write::Join(ann.into())];
        let commits = store.commit(node, Attempt::next(), [RoomWrites { room: lobby, writes }].into()).await.unwrap();
        let transaction = store.once.write_as(node).await.unwrap();
        transaction.increment_versions(&[commits[0].epoch]).await.unwrap();
        let asked = store.recent_changes(node, Duration::ZERO, 10).await.unwrap();
        assert_eq!(asked.rooms[0].version, Version(1));
        // As long as a transaction may take.
        let overlap = asked.time - asked.next;
        assert!(overlap > Duration::from_secs(5), "{overlap:?}");
        let later = transaction.now.saturating_add(millis(overlap)).saturating_sub(1000);
        let store = store.with_wall_clock(move || later);
        let in_between = store.recent_changes(node, asked.next, 10).await.unwrap();
        assert_eq!(in_between.rooms[0].version, Version(1));
        transaction.commit().await.unwrap();
        let next = store.recent_changes(node, in_between.next, 10).await.unwrap();
        assert_eq!(next.rooms[0].version, Version(2));
    });
}

fn the_changes_are_not_complete_while_a_node_of_an_earlier_version_is_alive(kind: Kind) {
    let trial = Trial::of(kind);
    block_on(async {
        let (store, node) = joined(&trial).await;
        assert!(store.recent_changes(node, Duration::ZERO, 10).await.unwrap().is_complete);
        let earlier = NodeId::random();
        store.register(earlier, NodeName::new("earlier").unwrap(), Duration::from_secs(60)).await.unwrap();
        let forget = "UPDATE leases SET renewals = NULL WHERE node_id IN (SELECT id FROM nodes WHERE name = 'earlier')";
        let database = trial.connect().await;
        database.execute_unprepared(forget).await.unwrap();
        assert!(!store.recent_changes(node, Duration::ZERO, 10).await.unwrap().is_complete);
        database.execute_unprepared(&forget.replace("renewals = NULL", "lease_until = 0")).await.unwrap();
        assert!(store.recent_changes(node, Duration::ZERO, 10).await.unwrap().is_complete, "its lease is over");
    });
}
