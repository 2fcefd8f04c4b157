//! A consumer that takes its time, or blocks its thread, delays nothing but itself.

use super::host::{Host, room, told};
use super::puppet::Did;
use crate::support::frame::{PING, Raw, ReceivedFrame};
use crate::support::{BOUND, eventually, millis, secs, within};
use presence::{ConfigBuilder, OnStale};
use tokio::time::Instant;

#[tokio::test]
async fn a_slow_receive_delays_neither_pongs_nor_broadcasts_nor_the_servers_own_pings() {
    let mut host = Host::plan().config(|config| config.ping_interval(millis(200))).start().await;
    let mut ann = host.open("ann", "join lobby").await;
    ann.text("wait gate").await;
    host.saw("ann", Did::Began("wait gate".into())).await;
    ann.send(Raw::new(PING, "are you there")).await;
    assert_eq!(ann.next().await, ReceivedFrame::Pong("are you there".into()));
    host.rooms.send(&room("lobby"), "news").await.unwrap();
    assert_eq!(ann.next().await, ReceivedFrame::Text("news".into()));
    assert_eq!(ann.frame_within(BOUND).await, Some(ReceivedFrame::Ping("".into())));
    host.strings.open("gate");
    host.saw("ann", Did::Done("wait gate".into())).await;
}

#[tokio::test]
async fn a_slow_receive_does_not_delay_the_deadline_of_another_socket_on_its_thread() {
    let mut host = Host::plan().config(|config| config.max_age(millis(400))).start().await;
    let mut changes = host.rooms.changes();
    let mut ann = host.open("ann", "join lobby").await;
    assert_eq!(told(&mut changes).await, "+ann");
    ann.text("stall").await;
    host.saw("ann", Did::Began("stall".into())).await;
    let mut bob = host.open("bob", "join lobby").await;
    assert_eq!(told(&mut changes).await, "+bob");
    assert_eq!(bob.closing().await, Some(4408));
    // Ann's frame has arrived, and what it will make of it is not known yet: she is not stale.
    assert_eq!(told(&mut changes).await, "!bob");
    let users = host.rooms.users(&room("lobby")).await.unwrap();
    assert_eq!(users.iter().map(|user| user.as_str()).collect::<Vec<_>>(), ["ann"]);
}

// behaviour: 7 one-at-a-time
#[tokio::test]
async fn frames_are_handled_one_at_a_time_and_in_order() {
    let mut host = Host::start().await;
    let mut ann = host.open("ann", "").await;
    for n in 0..50 {
        ann.text(&format!("wait {n}; reply {n}")).await;
    }
    // Opened in the wrong order, the gates are passed in the right one.
    for n in (0..50).rev() {
        host.strings.open(&n.to_string());
    }
    for n in 0..50 {
        assert_eq!(ann.next().await, ReceivedFrame::Text(n.to_string()));
    }
    ann.leave().await;
    host.saw("ann", Did::Disconnected(1000)).await;
    let steps = host.did("ann").into_iter().filter(|did| matches!(did, Did::Began(_) | Did::Done(_)));
    let expected = (0..50).flat_map(|n| {
        [Did::Began(format!("wait {n}")), Did::Done(format!("wait {n}")), Did::Done(format!("reply {n}"))]
    });
    assert!(steps.eq(expected), "each was begun when the one before was done");
}

#[tokio::test]
async fn a_full_inbox_pauses_reading_and_the_socket_is_neither_stale_nor_lost_meanwhile() {
    let config = |config: ConfigBuilder| {
        config.max_age(millis(400)).ping_interval(millis(200)).pong_timeout(millis(200)).inbox_frames(4)
    };
    let mut host = Host::plan().config(config).start().await;
    let mut changes = host.rooms.changes();
    let mut ann = host.open("ann", "join lobby").await;
    assert_eq!(told(&mut changes).await, "+ann");
    ann.text("wait gate").await;
    host.saw("ann", Did::Began("wait gate".into())).await;
    // Sent until nothing more fits on the way: the server does not read.
    let frame = Raw::binary(vec![0; 60_000]).encode();
    let mut sent = 0;
    let flood = async {
        loop {
            ann.try_raw(&frame).await.unwrap();
            sent += 1;
        }
    };
    // As long as three deadlines: of staleness, and of a pong that cannot come through.
    assert!(tokio::time::timeout(millis(1300), flood).await.is_err());
    assert!((5..1000).contains(&sent), "{sent} frames of 60 kB are on the way");
    assert_eq!(host.rows("lobby").await, 1);
    host.strings.open("gate");
    host.saw("ann", Did::Bytes(60_000)).await;
    // The rest of the frame that was cut short above does not come, so this connection is of no more use.
    ann.reset();
    assert_eq!(told(&mut changes).await, "-ann");
    host.saw("ann", Did::Disconnected(1006)).await;
    host.empty().await;
}

#[tokio::test]
async fn after_a_pause_all_that_was_sent_is_handled_and_the_socket_goes_on() {
    let config = |config: ConfigBuilder| {
        config.max_age(millis(600)).ping_interval(millis(200)).pong_timeout(millis(200)).inbox_frames(2)
    };
    let mut host = Host::plan().config(config).start().await;
    let mut ann = host.open("ann", "join lobby").await;
    ann.text("wait gate").await;
    host.saw("ann", Did::Began("wait gate".into())).await;
    for _ in 0..100 {
        ann.binary(&[0; 1000]).await;
    }
    ann.text("reply all of it").await;
    // A deadline of another socket says that this one's has passed as well.
    let mut bob = host.open("bob", "join other").await;
    assert_eq!(bob.closing().await, Some(4408));
    host.strings.open("gate");
    assert_eq!(ann.next().await, ReceivedFrame::Text("all of it".into()));
    assert_eq!(host.count("ann", |did| *did == Did::Bytes(1000)), 100);
    ann.leave().await;
    host.saw("ann", Did::Disconnected(1000)).await;
}

#[tokio::test]
async fn a_blocked_thread_costs_the_node_no_lease() {
    let mut host = Host::plan().config(|config| config.lease(secs(2))).start().await;
    let node = host.rooms.node();
    let mut ann = host.open("ann", "join lobby").await;
    ann.text("block 5000; reply done").await;
    host.saw("ann", Did::Began("block 5000".into())).await;
    // What does not need the thread goes on.
    assert_eq!(within(secs(4), "the roster", host.rooms.count(&room("lobby"))).await.unwrap().users, 1);
    let done = ann.next();
    let (done, ()) = tokio::join!(done, async {
        let end = Instant::now() + millis(4900);
        let mut tick = tokio::time::interval(millis(50));
        while Instant::now() < end {
            tick.tick().await;
            assert!(host.rooms.is_ready(), "the lease is renewed");
        }
    });
    assert_eq!(done, ReceivedFrame::Text("done".into()));
    assert_eq!(host.rooms.node(), node, "the node is the one that it was");
}

#[tokio::test]
async fn a_pong_that_came_while_the_thread_was_blocked_is_no_missing_one() {
    // The deadline was looked at before what had come in.
    let config = |config: ConfigBuilder| config.ping_interval(millis(150)).pong_timeout(millis(150));
    let mut host = Host::plan().config(config).start().await;
    let mut ann = host.open("ann", "join other").await;
    // Answers pings.
    let reader = tokio::spawn(async move { ann.next().await });
    let mut bob = host.open("bob", "join lobby").await;
    for n in 0..3 {
        within(BOUND, "a ping", async { while bob.frame().await != ReceivedFrame::Ping("".into()) {} }).await;
        let block = presence::Event::new(presence::EventName::new("do").unwrap(), &"block 600").unwrap();
        host.rooms.send_event(&room("other"), block).unwrap();
        host.saw("ann", Did::Began("block 600".into())).await;
        bob.pong(b"").await;
        bob.text(&format!("reply {n}")).await;
        // Reads over pings.
        assert_eq!(bob.next().await, ReceivedFrame::Text(n.to_string()));
    }
    assert!(!reader.is_finished());
    assert_eq!(host.count("bob", |did| matches!(did, Did::Disconnecting(_))), 0);
}

#[tokio::test]
async fn what_could_not_be_written_while_the_thread_was_blocked_does_not_make_a_client_slow() {
    // The time in which nobody wrote was counted as time in which the client did not read.
    let mut host = Host::plan().config(|config| config.write_timeout(millis(300))).start().await;
    let mut ann = host.open("ann", "").await;
    let upgrade = host.upgrade("bob", "join lobby").receive_buffer(4096);
    let mut bob = upgrade.open(host.address).await.unwrap();
    ann.text("flood lobby 20 30000; block 900; reply done").await;
    host.saw("ann", Did::Began("block 900".into())).await;
    for n in 0..20 {
        let frame = bob.next().await;
        assert!(
            matches!(&frame, ReceivedFrame::Text(text) if text.starts_with(&format!("{n:05}"))),
            "{n}: {frame:.40?}"
        );
    }
}

#[tokio::test]
async fn an_event_waits_for_a_slow_consumer_and_comes_in_its_turn() {
    let mut host = Host::plan().config(|config| config.on_stale(OnStale::Keep)).start().await;
    let mut ann = host.open("ann", "join lobby").await;
    ann.text("wait gate; reply one").await;
    host.saw("ann", Did::Began("wait gate".into())).await;
    let event = presence::Event::new(presence::EventName::new("do").unwrap(), &"reply two").unwrap();
    host.rooms.send_event(&room("lobby"), event).unwrap();
    host.rooms.send(&room("lobby"), "the event was sent").await.unwrap();
    assert_eq!(ann.next().await, ReceivedFrame::Text("the event was sent".into()));
    ann.text("reply three").await;
    host.strings.open("gate");
    for expected in ["one", "two", "three"] {
        assert_eq!(ann.next().await, ReceivedFrame::Text(expected.into()));
    }
}

#[tokio::test]
async fn a_connect_for_which_far_too_much_waits_is_given_up() {
    let mut host = Host::plan().config(|config| config.outbox_frames(4)).start().await;
    let mut changes = host.rooms.changes();
    let ann = host.upgrade("ann", "join lobby; stall").send(host.address).await.unwrap();
    host.saw("ann", Did::Began("stall".into())).await;
    for _ in 0..1000 {
        host.rooms.send(&room("lobby"), "x").await.unwrap();
    }
    assert_eq!(ann.answered().await.expect_err("a refusal").status, 503);
    host.saw("ann", Did::ConnectDropped).await;
    assert_eq!([told(&mut changes).await, told(&mut changes).await], ["+ann", "-ann"]);
    host.empty().await;
}

#[tokio::test]
async fn a_slow_connect_holds_up_nobody() {
    // Whoever spoke to the room waited for it, a second with each frame.
    let mut host = Host::plan().config(|config| config.outbox_frames(8)).start().await;
    let mut bob = host.open("bob", "join lobby").await;
    let ann = host.upgrade("ann", "join lobby; wait gate").send(host.address).await.unwrap();
    host.saw("ann", Did::Began("wait gate".into())).await;
    let begun = Instant::now();
    bob.text("flood lobby 12 10").await;
    for n in 0..12 {
        assert_eq!(bob.next().await, ReceivedFrame::Text(format!("{n:05}{}", "x".repeat(10))));
    }
    assert!(begun.elapsed() < secs(8), "{:?}", begun.elapsed());
    host.strings.open("gate");
    let mut ann = ann.answered().await.unwrap();
    for n in 0..12 {
        assert_eq!(ann.next().await, ReceivedFrame::Text(format!("{n:05}{}", "x".repeat(10))));
    }
    eventually(BOUND, "both to be here", async || match host.rooms.sockets() {
        2 => Ok(()),
        n => Err(format!("{n} sockets")),
    })
    .await;
}

#[tokio::test]
async fn those_who_went_on_beating_while_their_thread_was_blocked_are_not_stale() {
    // The room's own thread took them for silent, before their frames could be read.
    let config = |config: ConfigBuilder| config.max_age(secs(1)).ping_interval(secs(60));
    for prepared in [true, false] {
        let plan = Host::plan().config(config);
        let mut host = if prepared { plan } else { plan.unprepared() }.start().await;
        let mut bob = host.open("bob", "join lobby").await;
        let mut ann = host.open("ann", "join lobby").await;
        for n in 0..3 {
            ann.text("block 1500; reply done").await;
            host.saw("ann", Did::Began("block 1500".into())).await;
            // Her thread, and with it his, is blocked for longer than `max_age`, in which both send something.
            bob.text(&format!("reply {n}")).await;
            ann.text("reply beat").await;
            assert_eq!(ann.next().await, ReceivedFrame::Text("done".into()));
            assert_eq!(ann.next().await, ReceivedFrame::Text("beat".into()));
            assert_eq!(bob.next().await, ReceivedFrame::Text(n.to_string()));
        }
        assert_eq!(host.rooms.count(&room("lobby")).await.unwrap().users, 2);
        assert_eq!(host.count("bob", |did| matches!(did, Did::Disconnecting(_))), 0);
    }
}

#[tokio::test]
async fn one_whose_room_fails_while_its_thread_is_blocked_is_read_before_it_is_taken_for_silent() {
    // The room did not learn who was on that thread, and removed them unasked.
    let config = |config: ConfigBuilder| config.max_age(secs(4)).ping_interval(secs(60));
    let mut host = Host::plan().config(config).start().await;
    let mut bob = host.open("bob", "join lobby").await;
    let mut ann = host.open("ann", "join lobby").await;
    // The room waits 2 s for its threads. Longer than `max_age`, and shorter than twice that.
    ann.text("block 5500; reply done").await;
    host.saw("ann", Did::Began("block 5500".into())).await;
    bob.text("reply here").await;
    ann.text("reply here").await;
    presence::testing::fault::panic_room(&host.rooms, &room("lobby"));
    assert_eq!(ann.next().await, ReceivedFrame::Text("done".into()));
    assert_eq!(
        (ann.next().await, bob.next().await),
        (ReceivedFrame::Text("here".into()), ReceivedFrame::Text("here".into()))
    );
    assert_eq!(host.rooms.count(&room("lobby")).await.unwrap().users, 2);
    assert_eq!(host.count("bob", |did| matches!(did, Did::Disconnecting(_))), 0);
    // Now both fall silent, and are told that they are not in the room any more.
    assert_eq!((ann.closing().await, bob.closing().await), (Some(4408), Some(4408)));
}

#[tokio::test]
async fn a_prune_that_was_asked_for_waits_for_nobody_whose_thread_is_blocked_and_spares_them() {
    let config = |config: ConfigBuilder| config.max_age(secs(60));
    let mut host = Host::plan().config(config).start().await;
    let _bob = host.open("bob", "join lobby").await;
    let mut ann = host.open("ann", "join lobby").await;
    ann.text("block 8000; reply done").await;
    host.saw("ann", Did::Began("block 8000".into())).await;
    let pruned = within(secs(7), "the answer", host.rooms.prune_presences(Some(millis(1)))).await;
    assert_eq!(pruned.unwrap(), 0, "what they sent may not have been read");
    assert_eq!(ann.next().await, ReceivedFrame::Text("done".into()));
    assert!(host.rooms.prune_presences(Some(millis(1))).await.unwrap() >= 1, "now they are read, and he is silent");
}
