//! How long senders wait for a slow reader, and when it is cut off.

mod pauses;

use super::first_frames::take;
use super::prelude::*;
use crate::rooms::sending::as_consumer_of;

/// Without memory for clients that pause, so that senders wait for each reader that is over its bound.
fn waiting() -> ConfigBuilder {
    config().paused_bytes(1)
}

fn small() -> ConfigBuilder {
    waiting().outbox_frames(32).max_age(secs(3600)).write_timeout(secs(10))
}

/// Reads in its own way, every 5 ms, which is given the time since the beginning. Says when it was cut off, and waits for nothing more
/// then.
fn reads_as(client: Rc<FakeClient>, mut way: impl FnMut(&FakeClient, Duration) + 'static) -> Rc<Cell<Option<Instant>>> {
    let cut = Rc::<Cell<_>>::default();
    let cut_at = cut.clone();
    actix::spawn(async move {
        let begun = Instant::now();
        loop {
            if client.connection_messages().iter().any(|message| matches!(message, ToConnection::TooSlow)) {
                cut_at.set(Some(Instant::now()));
                client.vanish();
                client.outbox.abort();
                return;
            }
            way(&client, begun.elapsed());
            tokio::time::sleep(ms(5)).await;
        }
    });
    cut
}

/// Reads this number of bytes a second, in whole pieces, from now on.
fn reads(client: Rc<FakeClient>, rate: usize) -> Rc<Cell<Option<Instant>>> {
    let (mut taken, mut begun) = (0, Instant::now());
    reads_as(client, move |client, _| {
        if taken <= rate * usize::try_from(begun.elapsed().as_millis()).unwrap() / 1000 {
            match take(client) {
                0 => (taken, begun) = (0, Instant::now()),
                bytes => taken += bytes,
            }
        }
    })
}

/// A member that reads so many bytes a second, and when it was cut off.
async fn room_with(node: &TestNode, rate: usize) -> (Rc<FakeClient>, Rc<Cell<Option<Instant>>>) {
    let ann = Rc::new(node.member("ann").await);
    while take(&ann) > 0 {}
    let cut = reads(ann.clone(), rate);
    (ann, cut)
}

fn text() -> Outgoing {
    text_of(1000)
}

fn text_of(bytes: usize) -> Outgoing {
    Outgoing::text("x".repeat(bytes))
}

/// No reader here receives so many texts during a test. If no sender waits, no time passes, and this ends the loop.
const MANY: usize = 100_000;

/// Sends a text every `every`, or later if the calls take longer, during `time`. Returns how long the calls took in all.
async fn says(node: &TestNode, every: Duration, time: Duration) -> Duration {
    waits(node, &text(), every, time).await.into_iter().map(|(_, waited)| waited).sum()
}

/// As `says`. Returns when each text was sent, and how long the call waited.
async fn waits(node: &TestNode, text: &Outgoing, every: Duration, time: Duration) -> Vec<(Instant, Duration)> {
    let (begun, mut waits) = (Instant::now(), Vec::new());
    while begun.elapsed() < time {
        assert!(waits.len() < MANY, "nobody waits for anybody any more");
        tokio::time::sleep_until(begun + every * u32::try_from(waits.len()).unwrap()).await;
        let asked = Instant::now();
        node.send(lobby(), text.clone()).await.unwrap();
        waits.push((asked, asked.elapsed()));
    }
    waits
}

#[actix::test]
async fn a_reader_at_a_third_of_the_rate_of_its_room_costs_each_sender_its_patience_and_is_cut_off() {
    let node = node_with(small()).await;
    let (_ann, cut) = room_with(&node, 53_000).await;
    let begun = Instant::now();
    let four = futures_util::future::join_all((0..4).map(|_| says(&node, ms(25), secs(30))));
    let waited = four.await;
    let cut = cut.get().expect("she is cut off");
    assert!(cut - begun < secs(3), "{:?}", cut - begun);
    assert!(waited.iter().all(|waited| (ms(900)..ms(1500)).contains(waited)), "{waited:?}");
}

#[actix::test]
async fn with_default_bounds_senders_wait_for_a_slow_reader_no_longer_than_its_patience() {
    let node = node_with(waiting().max_age(secs(3600))).await;
    let (_ann, cut) = room_with(&node, 45_000).await;
    let begun = Instant::now();
    let text = text();
    let four = futures_util::future::join_all((0..4).map(|_| waits(&node, &text, ms(25), secs(30)))).await;
    let cut = cut.get().expect("she is cut off");
    // Her outbox is full after 2.3 s.
    assert!(cut - begun < secs(5), "{:?}", cut - begun);
    for waits in four {
        let (during, after): (Vec<_>, Vec<_>) = waits.into_iter().partition(|(asked, _)| *asked < cut);
        let waited: Duration = during.iter().map(|(_, waited)| *waited).sum();
        assert!((ms(900)..ms(1500)).contains(&waited), "{waited:?}");
        assert!(after.len() > 900 && after.iter().all(|(_, waited)| waited.is_zero()), "{after:?}");
    }
}

#[actix::test]
async fn a_reader_that_takes_more_than_the_steady_rate_may_pause_now_and_then() {
    tokio::time::pause();
    reads_all_but_pauses(1000, 7).await;
    // What waits after a pause is worth less time than the pause took.
    reads_all_but_pauses(300, 23).await;
}

/// Some 700 kB/s are sent in texts of so many bytes, to a reader that takes all at once but for 0.7 s of each 10 s.
async fn reads_all_but_pauses(size: usize, speakers: usize) {
    let node = new_node(waiting().max_age(secs(3600))).await;
    let ann = Rc::new(node.member("ann").await);
    let cut = reads_as(ann.clone(), |client, time| {
        if time.as_millis() % 10_000 >= 700 {
            while take(client) > 0 {}
        }
    });
    let text = text_of(size);
    let all = futures_util::future::join_all((0..speakers).map(|_| waits(&node, &text, ms(10), secs(300)))).await;
    assert_eq!(cut.get(), None);
    let waited: Duration = all.into_iter().flatten().map(|(_, waited)| waited).sum();
    assert!(waited > secs(30), "the pauses make others wait, or this shows nothing: {waited:?}");
}

#[actix::test]
async fn a_reader_in_bursts_that_takes_less_than_the_steady_rate_is_cut_off() {
    // She reads next to nothing until others have waited for 0.6 s, and then all at once, which is worth 1 s. The room says
    // 160 kB/s, so she reads no more than that in the end.
    let node = node_with(waiting().max_age(secs(3600))).await;
    let ann = Rc::new(node.member("ann").await);
    while take(&ann) > 0 {}
    let mut next = Duration::ZERO;
    let cut = reads_as(ann.clone(), move |client, time| {
        if time.as_millis() % 2_500 < 5 {
            while take(client) > 0 {}
            next = time + ms(900);
        } else if time >= next {
            let _ = take(client);
            next = time + ms(900);
        }
    });
    let begun = Instant::now();
    let waited = futures_util::future::join_all((0..4).map(|_| says(&node, ms(25), secs(60)))).await;
    let cut = cut.get().expect("she is cut off");
    assert!(cut - begun < secs(10), "{:?}", cut - begun);
    assert!(waited.iter().all(|waited| (ms(900)..ms(1600)).contains(waited)), "{waited:?}");
}

#[actix::test]
async fn one_sender_waits_no_longer_than_four() {
    let node = node_with(small()).await;
    let (_ann, cut) = room_with(&node, 53_000).await;
    let waited = says(&node, ms(6), secs(30)).await;
    assert!(cut.get().is_some() && (ms(900)..ms(1500)).contains(&waited), "{waited:?}");
}

#[actix::test]
async fn a_flood_is_slowed_to_the_pace_of_a_steady_reader_which_is_not_cut_off() {
    let node = node_with(small()).await;
    let (_ann, cut) = room_with(&node, 300 * 1024).await;
    let waited = says(&node, ms(0), secs(60)).await;
    assert_eq!(cut.get(), None);
    assert!(waited > secs(55), "{waited:?}");
}

/// How long a reader of 300 kB/s needs for one piece.
const STEADY: Duration = ms(26);

#[actix::test]
async fn a_thread_that_stands_still_in_a_flood_cuts_off_no_steady_reader() {
    let node = node_with(small()).await;
    let ann = Rc::new(node.member("ann").await);
    while take(&ann) > 0 {}
    let (mut next, mut blocks) = (Duration::ZERO, secs(5));
    let cut = reads_as(ann.clone(), move |client, time| {
        if time >= blocks {
            // Time passes, and the server asks for frames before any timer runs.
            assert!(tokio::time::advance(secs(2)).now_or_never().is_none());
            (next, blocks) = (time + secs(2), blocks + secs(7));
            take(client);
        } else if time >= next {
            take(client);
            next += STEADY;
        }
    });
    let waited = says(&node, ms(0), secs(60)).await;
    assert_eq!(cut.get(), None);
    assert!(waited > secs(50), "others waited for her, or this shows nothing: {waited:?}");
}

#[actix::test]
async fn the_patience_is_granted_anew_within_a_minute() {
    let node = node_with(small()).await;
    let (_ann, cut) = room_with(&node, 53_000).await;
    // Each of them costs some 0.6 s, of which she regains 0.3 s by what she reads meanwhile.
    for _ in 0..10 {
        let begun = Instant::now();
        futures_util::future::try_join_all((0..70).map(|_| node.send(lobby(), text()))).await.unwrap();
        assert!((ms(500)..ms(950)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        pass(secs(60)).await;
    }
    assert_eq!(cut.get(), None);
    for _ in 0..4 {
        futures_util::future::try_join_all((0..70).map(|_| node.send(lobby(), text()))).await.unwrap();
        pass(secs(5)).await;
    }
    assert!(cut.get().is_some(), "four of them in one minute are too much");
}

#[actix::test]
async fn the_wait_for_the_own_socket_uses_up_no_patience() {
    // It sends faster than it reads. That slows only itself.
    let node = node_with(small()).await;
    let (ann, cut) = room_with(&node, 20_000).await;
    let waited = as_consumer_of(ann.channel.clone(), says(&node, ms(0), secs(60))).await;
    assert_eq!(cut.get(), None);
    assert!(waited > secs(50), "{waited:?}");
    let begun = Instant::now();
    while begun.elapsed() < secs(60) {
        ann.outbox.send(text().frames()).await;
        assert_eq!(cut.get(), None, "what its own connection or consumer sends to it alone costs nobody else");
    }
}

#[actix::test]
async fn senders_do_not_wait_for_a_client_that_reads_its_first_frame_until_far_too_much_is_queued() {
    let node = node_with(small()).await;
    let ann = Rc::new(node.member("ann").await);
    while take(&ann) > 0 {}
    ann.outbox.push_first(lobby(), (vec![0; 200 * PIECE].into(), None, None));
    let cut = reads(ann.clone(), 30_000);
    // 55 s, in which some 170 texts are queued behind it: more than its 32, and less than eight times as many.
    let waited = says(&node, ms(300), secs(50)).await;
    assert_eq!((waited, cut.get()), (Duration::ZERO, None));
    pass(secs(30)).await;
    let begun = Instant::now();
    ann.outbox.push_first(lobby(), (vec![0; 200 * PIECE].into(), None, None));
    let waited = says(&node, ms(50), secs(50)).await;
    assert_eq!(waited, Duration::ZERO);
    assert!(cut.get().is_some_and(|cut| cut - begun < secs(16)), "{:?}", cut.get().map(|cut| cut - begun));
}

/// Joins the lobby, and records the code of its end.
struct EndRecorder(Rc<RefCell<Vec<CloseCode>>>);

impl Consumer for EndRecorder {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        socket.join(lobby()).await
    }

    async fn receive(&mut self, _: &mut Socket, _: Frame) -> Result<()> {
        Ok(())
    }

    async fn disconnect(&mut self, _: &mut Socket, code: CloseCode) -> Result<()> {
        self.0.borrow_mut().push(code);
        Ok(())
    }
}

#[actix::test]
async fn a_slow_reader_is_closed_with_1013_and_held_if_it_has_a_token() {
    let node = node_with(small()).await;
    for size in [1000, 40_000] {
        let codes = Rc::<RefCell<Vec<_>>>::default();
        let visit = || {
            let token = ResumeToken::new("the-token-of-this-tab").unwrap();
            let upgrade = TestSocket::upgrade(&node.rooms).user(Some(user("ann"))).resume_token(Some(token));
            TestSocket::connect(upgrade, EndRecorder(codes.clone()))
        };
        let mut ann = visit().await.expect("accepted");
        ann.stop_reading();
        assert!(matches!(ann.receive().await, Received::Frame(_)), "the first frame");
        pass(secs(1)).await;
        let mut changes = node.changes();
        let texts = async {
            while codes.borrow().is_empty() {
                node.send(lobby(), Outgoing::text("x".repeat(size))).await.unwrap();
                tokio::time::sleep(ms(6)).await;
            }
        };
        let reading = async {
            while codes.borrow().is_empty() {
                ann.read_once();
                tokio::time::sleep(ms(350)).await;
            }
        };
        futures_util::future::join(texts, reading).await;
        // The frame that is partly sent is completed, so that the Close can follow.
        let closed = loop {
            match ann.receive().await {
                Received::Frame(_) => {}
                closed => break closed,
            }
        };
        assert_eq!(closed, Received::Close(Some(CloseCode(1013))), "frames of {size} bytes");
        assert_eq!(codes.borrow_mut().drain(..).collect::<Vec<_>>(), [CloseCode(1013)]);
        drop(ann);
        pass(secs(5)).await;
        let mut ann = visit().await.expect("accepted");
        ann.stop_reading();
        assert!(matches!(ann.receive().await, Received::Frame(_)));
        pass(secs(1)).await;
        assert!(published(&mut changes).is_empty(), "nobody sees anything of it");
        drop(ann);
    }
}
