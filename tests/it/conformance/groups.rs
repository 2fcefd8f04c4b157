//! Groups, and messages by name: what a channel layer is for.

use super::bed::{Heard, bed, room};
use presence::{Consumer, Event, EventName, Frame, GroupName, Result, Socket, testing::TestChannel};

fn team() -> GroupName {
    GroupName::new("team").unwrap()
}

// behaviour: 7 groups
#[actix_web::test]
async fn a_group_reaches_its_members_the_sender_included_and_nobody_is_told_of_it() {
    let mut bed = bed().await;
    let (mut ann, mut bob) = (bed.member("ann").await, bed.member("bob").await);
    bed.told().await;
    bed.told().await;
    ann.socket.send_text("group");
    ann.socket.send_text("group");
    bed.settle().await;
    bed.rooms.send_to_group(&team(), "hello team").await.unwrap();
    assert_eq!(ann.socket.receive_text().await, "hello team");
    assert!(ann.socket.receive_nothing().await && bob.socket.receive_nothing().await);
    ann.socket.send_text("ungroup");
    bed.settle().await;
    bed.rooms.send_to_group(&team(), "too late").await.unwrap();
    assert!(ann.socket.receive_nothing().await);
    bed.quiet().await;
}

// behaviour: 7 send-to-channel
#[actix_web::test]
async fn one_channel_is_sent_to_by_name_and_an_unknown_one_is_silent() {
    let bed = bed().await;
    let mut ann = bed.member("ann").await;
    bed.rooms.send_to(&ann.channel, "you").await.unwrap();
    bed.rooms.send_to(&super::bed::channel("nobody"), "you").await.unwrap();
    assert_eq!(ann.socket.receive_text().await, "you");
}

// behaviour: 7 unknown-event
#[actix_web::test]
async fn an_event_that_a_consumer_does_not_know_is_dropped() {
    // Differs on purpose (W12, W13): there it kills every member's consumer, or runs any method of that name.
    let bed = bed().await;
    let mut ann = bed.member("ann").await;
    for name in ["send", "close", "websocket.receive", "_hidden"] {
        bed.rooms.send_event(&room("lobby"), Event::new(EventName::new(name).unwrap(), &()).unwrap()).unwrap();
    }
    ann.socket.send_text("echo alive");
    assert_eq!(ann.socket.receive_text().await, "alive");
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

// behaviour: 7 order-of-messages
#[actix_web::test]
async fn frames_and_events_reach_each_member_in_the_order_in_which_they_were_sent() {
    let bed = bed().await;
    let mut ear = TestChannel::open(&bed.rooms).await;
    ear.join(&room("lobby")).await.unwrap();
    for n in 0..100 {
        bed.rooms.send(&room("lobby"), n.to_string()).await.unwrap();
        bed.rooms.send_event(&room("lobby"), Event::new(EventName::new("count").unwrap(), &n).unwrap()).unwrap();
    }
    for n in 0..100 {
        assert_eq!(ear.receive_text().await, n.to_string());
        assert_eq!(ear.receive_event().await.decode::<i32>().unwrap(), n);
    }
}

// behaviour: 2.1 order-of-effects
// behaviour: 9 channels-1244
#[actix_web::test]
async fn a_joiner_misses_no_message_sent_after_its_join_was_announced() {
    // There a group message can be lost around a connect. Here it could, too: a busy room tells of joins only every now and
    // then, and its joiner got nothing that was said before that.
    let mut bed = bed().await;
    let rooms = bed.rooms.clone();
    let mut changes = bed.rooms.changes();
    let greeter = actix_web::rt::spawn(async move {
        while let Some(changed) = changes.next().await {
            if changed.added().is_some() {
                rooms.send(&changed.room, "welcome").await.unwrap();
                rooms.send_event(&changed.room, Event::new(EventName::new("greeted").unwrap(), &()).unwrap()).unwrap();
            }
        }
    });
    for name in ["ann", "bob", "cat"] {
        let mut member = bed.member(name).await;
        assert_eq!(member.socket.receive_text().await, "welcome", "{name}");
        assert_eq!(bed.hears().await, Heard::Event("greeted".into()), "{name}");
        member.socket.disconnect(presence::CloseCode::NORMAL).await;
        assert_eq!([bed.told().await, bed.told().await], [format!("+{name}"), format!("-{name}")]);
        assert!(matches!(bed.hears().await, Heard::Disconnected(..)));
    }
    greeter.abort();
}

// behaviour: 7 groups-attribute
#[actix_web::test]
async fn a_group_that_is_joined_in_connect_is_left_with_the_socket() {
    // Differs on purpose (W17): there an attribute names the groups, and a membership may end before its socket.
    struct Follower;
    impl Consumer for Follower {
        async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
            socket.join_group(&team())
        }
        async fn receive(&mut self, _: &mut Socket, _: Frame) -> Result<()> {
            Ok(())
        }
    }
    let bed = bed().await;
    let upgrade = presence::testing::TestSocket::upgrade(&bed.rooms);
    let mut follower = presence::testing::TestSocket::connect(upgrade, Follower).await.unwrap();
    bed.rooms.send_to_group(&team(), "news").await.unwrap();
    assert_eq!(follower.receive_text().await, "news");
    follower.disconnect(presence::CloseCode::NORMAL).await;
    bed.settle().await;
    assert_eq!(bed.rooms.sockets(), 0);
    bed.rooms.send_to_group(&team(), "to nobody").await.unwrap();
}

// behaviour: 7 no-global-layer
#[actix_web::test]
async fn two_sets_of_rooms_in_one_process_do_not_hear_one_another() {
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
