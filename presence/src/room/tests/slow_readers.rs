//! What one slow reader may cost those who send to it, and that it pays for that and nobody else.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::Instant;

use super::bench::{Client, Node, config, lobby, ms, node_with, pass, secs, user};
use crate::{
    CloseCode, Consumer, Frame, Outgoing, Result, ResumeToken, Socket, Upgrade,
    config::ConfigBuilder,
    room::{message::ToConnection, outbox::PIECE, sending::as_consumer_of},
    testing::{Received, TestSocket},
};

fn small() -> ConfigBuilder {
    config().outbox_frames(32).max_age(secs(3600)).write_timeout(secs(10))
}

/// The server takes what there is for this client, once. Returns how many bytes, 0 if there are none.
fn take(client: &Client) -> usize {
    match client.outbox.poll(&Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(Ok(bytes))) => bytes.len(),
        _ => 0,
    }
}

/// Reads so many bytes a second, in whole pieces, from now on. Says when it was cut off, and waits for nothing more then.
fn reads(client: Rc<Client>, rate: usize) -> Rc<Cell<Option<Instant>>> {
    let cut = Rc::<Cell<_>>::default();
    let told = cut.clone();
    actix::spawn(async move {
        let (mut taken, mut begun) = (0, Instant::now());
        loop {
            if client.told().iter().any(|told| matches!(told, ToConnection::TooSlow)) {
                told.set(Some(Instant::now()));
                client.vanish();
                client.outbox.abort();
                return;
            }
            if taken <= rate * usize::try_from(begun.elapsed().as_millis()).unwrap() / 1000 {
                match take(&client) {
                    0 => (taken, begun) = (0, Instant::now()),
                    bytes => taken += bytes,
                }
            }
            tokio::time::sleep(ms(5)).await;
        }
    });
    cut
}

/// Members who read all at once, and one who reads slowly.
async fn room_with(node: &Node, rate: usize) -> (Rc<Client>, Rc<Cell<Option<Instant>>>) {
    let ann = Rc::new(node.member("ann").await);
    while take(&ann) > 0 {}
    let cut = reads(ann.clone(), rate);
    (ann, cut)
}

fn text() -> Outgoing {
    Outgoing::text("x".repeat(1000))
}

/// No reader here takes so many texts while a test lasts. Without a wait no time passes, and a sender would never end.
const MANY: u32 = 100_000;

/// Says a text every `every`, or as fast as it is let if that is not soon enough, for so long. Gives how long it waited in all.
async fn says(node: &Node, every: Duration, time: Duration) -> Duration {
    let (begun, mut waited, mut said) = (Instant::now(), Duration::ZERO, 0);
    while begun.elapsed() < time {
        assert!(said < MANY, "nobody waits for anybody any more");
        tokio::time::sleep_until(begun + every * said).await;
        let asked = Instant::now();
        node.send(lobby(), text()).await;
        waited += asked.elapsed();
        said += 1;
    }
    waited
}

#[actix::test]
async fn a_reader_at_a_third_of_its_rooms_rate_costs_each_sender_its_patience_in_all_and_is_cut_off() {
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
async fn one_sender_is_no_less_protected_than_four() {
    let node = node_with(small()).await;
    let (_ann, cut) = room_with(&node, 53_000).await;
    let waited = says(&node, ms(6), secs(30)).await;
    assert!(cut.get().is_some() && (ms(900)..ms(1500)).contains(&waited), "{waited:?}");
}

#[actix::test]
async fn a_flood_is_slowed_to_what_a_steady_reader_takes_and_cuts_it_off_never() {
    let node = node_with(small()).await;
    let (_ann, cut) = room_with(&node, 300 * 1024).await;
    let waited = says(&node, ms(0), secs(60)).await;
    assert_eq!(cut.get(), None);
    assert!(waited > secs(55), "{waited:?}");
}

#[actix::test]
async fn the_patience_is_regained_within_a_minute() {
    let node = node_with(small()).await;
    let (_ann, cut) = room_with(&node, 53_000).await;
    // Each of them costs some 0.6 s, of which a steady reader would have needed 0.2 s.
    for _ in 0..10 {
        let begun = Instant::now();
        futures_util::future::join_all((0..70).map(|_| node.send(lobby(), text()))).await;
        assert!((ms(500)..ms(950)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        pass(secs(60)).await;
    }
    assert_eq!(cut.get(), None);
    for _ in 0..4 {
        futures_util::future::join_all((0..70).map(|_| node.send(lobby(), text()))).await;
        pass(secs(5)).await;
    }
    assert!(cut.get().is_some(), "four of them in one minute are too much");
}

#[actix::test]
async fn whoever_waits_for_its_own_socket_pays_nothing() {
    // It sends faster than it reads, and is slowed by that, and nobody else.
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
async fn nobody_waits_for_one_who_has_not_taken_its_first_frame_yet_and_far_too_much_behind_it_is_too_much() {
    let node = node_with(small()).await;
    let ann = Rc::new(node.member("ann").await);
    while take(&ann) > 0 {}
    ann.outbox.push_first(vec![0; 200 * PIECE].into(), None, None);
    let cut = reads(ann.clone(), 30_000);
    // 55 s, in which some 170 texts wait behind it: more than its 32, less than eight times as many.
    let waited = says(&node, ms(300), secs(50)).await;
    assert_eq!((waited, cut.get()), (Duration::ZERO, None));
    pass(secs(30)).await;
    let begun = Instant::now();
    ann.outbox.push_first(vec![0; 200 * PIECE].into(), None, None);
    let waited = says(&node, ms(50), secs(50)).await;
    assert_eq!(waited, Duration::ZERO);
    assert!(cut.get().is_some_and(|cut| cut - begun < secs(16)), "{:?}", cut.get().map(|cut| cut - begun));
}

/// Joins the lobby, and keeps the code that ended it.
struct Visitor(Rc<RefCell<Vec<CloseCode>>>);

impl Consumer for Visitor {
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
async fn a_slow_reader_is_told_1013_and_is_held_if_it_has_a_token() {
    let node = node_with(small()).await;
    for size in [1000, 40_000] {
        let codes = Rc::<RefCell<Vec<_>>>::default();
        let visit = || {
            let token = ResumeToken::new("the-token-of-this-tab").unwrap();
            let upgrade = Upgrade::new(&node.rooms).user(Some(user("ann"))).resume_token(Some(token));
            TestSocket::connect(upgrade, Visitor(codes.clone()))
        };
        let mut ann = visit().await.expect("accepted");
        assert!(matches!(ann.receive().await, Received::Frame(_)), "the first frame");
        pass(secs(1)).await;
        let mut changes = node.changes();
        let texts = async {
            while codes.borrow().is_empty() {
                node.send(lobby(), Outgoing::text("x".repeat(size))).await;
                tokio::time::sleep(ms(6)).await;
            }
        };
        let reading = async {
            while codes.borrow().is_empty() {
                ann.take_a_piece();
                tokio::time::sleep(ms(350)).await;
            }
        };
        futures_util::future::join(texts, reading).await;
        // What was half sent is sent to its end, so that the Close can follow.
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
        assert!(matches!(ann.receive().await, Received::Frame(_)));
        pass(secs(1)).await;
        assert!(super::bench::heard(&mut changes).is_empty(), "nobody sees anything of it");
        drop(ann);
    }
}
