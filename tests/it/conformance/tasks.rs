//! What was scheduled by a task queue or cron.

use super::bed::{Bed, bed, bed_with, channel, room, secs};
use presence::{
    Config, NodeId, NodeName, Presence, PresenceId,
    actor::{PrunePresences, PruneRooms},
    store::{Attempt, NodeStore, RoomStore, RoomWrites, Write},
};
use std::sync::Arc;
use std::time::Duration;

/// A presence of another node, which is believed to live for its lease and does nothing.
pub(super) async fn ghost(bed: &Bed, lease: Duration) {
    let (node, name) = (NodeId::random(), NodeName::new("elsewhere").unwrap());
    bed.store.register(node, name.clone(), lease).await.unwrap();
    let presence = Presence::new(PresenceId::random(), channel("ghost"), None, node);
    let writes = vec![Write::Join(Arc::new(presence))];
    bed.store.commit(node, Attempt::next(), [RoomWrites { room: room("lobby"), writes }].into()).await.unwrap();
}

// behaviour: 5 tasks
#[actix_web::test]
async fn both_rounds_run_by_themselves_at_the_suggested_periods() {
    // Differs on purpose (W19): there a scheduler must be told, and the documented entry names no task.
    let config = Config::default();
    assert_eq!((config.prune_interval(), config.prune_rooms_interval()), (secs(60), secs(600)));

    let bed = bed_with(|config| config.max_age(secs(20)).sweep_interval(secs(86_400))).await;
    ghost(&bed, secs(1)).await;
    let left = async || bed.store.load(room("lobby")).await.unwrap().map(|lobby| lobby.presences.len());
    bed.leap(secs(59)).await;
    assert_eq!(left().await, Some(1));
    bed.leap(secs(2)).await;
    assert_eq!(left().await, Some(0));
    bed.leap(secs(538)).await;
    assert_eq!(left().await, Some(0));
    bed.leap(secs(2)).await;
    assert_eq!(left().await, None);
}

// behaviour: 5 messages
#[actix_web::test]
async fn both_rounds_are_messages_to_the_supervisor_with_a_count() {
    let bed = bed().await;
    let name = NodeName::new("other").unwrap();
    let other = presence::Rooms::start(Config::builder().room_threads(0).build().unwrap(), bed.store.clone(), name);
    let supervisor = presence::PruningSupervisor::spawn(&other);
    other.ready().await;
    for (n, name) in ["lobby", "attic", "attic"].into_iter().enumerate() {
        other.add(&room(name), &channel(&n.to_string()), None).await.unwrap();
    }
    bed.leap(secs(20)).await;
    assert_eq!(supervisor.send(PruneRooms).await.unwrap().unwrap(), 0);
    assert_eq!(supervisor.send(PrunePresences(None)).await.unwrap().unwrap(), 0);
    assert_eq!(supervisor.send(PrunePresences(Some(secs(10)))).await.unwrap().unwrap(), 3);
    assert_eq!(supervisor.send(PruneRooms).await.unwrap().unwrap(), 2);
    assert_eq!(supervisor.send(PruneRooms).await.unwrap().unwrap(), 0);
}
