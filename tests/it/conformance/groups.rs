//! Groups, and messages by name: what a channel layer is for.

use super::bed::{bed, room};
use presence::{GroupName, testing::TestChannel};

fn team() -> GroupName {
    GroupName::new("team").unwrap()
}

// behaviour: 7 group-rules
#[actix_web::test]
async fn joining_twice_is_joining_once_and_leaving_or_sending_to_nothing_is_fine() {
    let bed = bed().await;
    let mut one = TestChannel::open(&bed.rooms).await;
    one.leave_group(&team());
    bed.rooms.send_to_group(&team(), "to nobody").await.unwrap();
    one.join_group(&team()).unwrap();
    one.join_group(&team()).unwrap();
    bed.rooms.send_to_group(&team(), "once").await.unwrap();
    assert_eq!(one.receive_text().await, "once");
    assert!(one.receive_nothing().await);
    one.leave_group(&team());
    bed.rooms.send_to_group(&team(), "left").await.unwrap();
    assert!(one.receive_nothing().await);
}

// behaviour: 7 at-most-once
#[actix_web::test]
async fn a_message_is_neither_kept_for_who_comes_later_nor_sent_again() {
    let bed = bed().await;
    let mut early = TestChannel::open(&bed.rooms).await;
    early.join_group(&team()).unwrap();
    bed.rooms.send_to_group(&team(), "first").await.unwrap();
    let mut late = TestChannel::open(&bed.rooms).await;
    late.join_group(&team()).unwrap();
    bed.rooms.send_to_group(&team(), "second").await.unwrap();
    assert_eq!([early.receive_text().await, early.receive_text().await], ["first", "second"]);
    assert_eq!(late.receive_text().await, "second");
    assert!(early.receive_nothing().await && late.receive_nothing().await);
}

// behaviour: 7 no-global-layer
#[actix_web::test]
async fn two_sets_of_rooms_in_one_process_share_nothing() {
    // Differs on purpose (W6): there the layer is one for the process, taken at import.
    let bed = bed().await;
    let config = presence::Config::builder().room_threads(0).build().unwrap();
    let name = presence::NodeName::new("other").unwrap();
    let other = presence::Rooms::start(config, presence::MemoryStore::default(), name);
    presence::PruningSupervisor::spawn(&other);
    other.ready().await;
    let mut here = TestChannel::open(&bed.rooms).await;
    let mut there = TestChannel::open(&other).await;
    for ear in [&here, &there] {
        ear.join_group(&team()).unwrap();
        ear.join(&room("lobby")).await.unwrap();
    }
    assert!(here.receive_nothing().await);
    bed.rooms.send_to_group(&team(), "here").await.unwrap();
    bed.rooms.send(&room("lobby"), "here too").await.unwrap();
    assert_eq!([here.receive_text().await, here.receive_text().await], ["here", "here too"]);
    assert!(there.receive_text().await.contains("presence.state"), "its own first frame");
    assert!(there.receive_nothing().await);
}
