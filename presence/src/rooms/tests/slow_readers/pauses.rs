//! Clients that read nothing for a moment: senders go on, as long as there is memory for what waits.

use super::*;

/// A text of 1,000 bytes takes less than this in a queue, with its header and its place.
const TEXT: usize = 1_500;

/// When a client does not read.
type Times = &'static [(Duration, Duration)];
const TWICE: Times = &[(secs(1), ms(1_900)), (secs(3), ms(3_800))];
const AT_FIRST: Times = &[(secs(0), ms(900))];

fn lending() -> ConfigBuilder {
    config().outbox_frames(32).max_age(secs(3600))
}

fn left(node: &TestNode) -> usize {
    node.rooms.hubs().reserve.left()
}

/// A member that reads all at once, except during these times.
async fn pauses(node: &TestNode, name: &str, pauses: Times) -> (Rc<FakeClient>, Rc<Cell<usize>>) {
    let client = Rc::new(node.member(name).await);
    while take(&client) > 0 {}
    let read = Rc::<Cell<usize>>::default();
    let counted = read.clone();
    let _ = reads_as(client.clone(), move |client, time| {
        if !pauses.iter().any(|(from, to)| (*from..*to).contains(&time)) {
            loop {
                let bytes = take(client);
                counted.set(counted.get() + bytes);
                if bytes == 0 {
                    break;
                }
            }
        }
    });
    (client, read)
}

/// The longest and the whole time for which calls waited.
fn of(waits: &[(Instant, Duration)]) -> (Duration, Duration) {
    let times = waits.iter().map(|(_, waited)| *waited);
    (times.clone().max().unwrap(), times.sum())
}

#[actix::test]
async fn senders_do_not_wait_for_a_client_that_pauses_and_it_receives_everything() {
    let node = node_with(lending()).await;
    let whole = left(&node);
    let (_ann, read) = pauses(&node, "ann", TWICE).await;
    let waits = waits(&node, &text(), ms(1), secs(5)).await;
    let (longest, all) = of(&waits);
    // Her outbox is over its bound after 32 ms, which is less than she must read nothing for.
    assert!(longest <= ms(40) && all > Duration::ZERO && all <= ms(100), "{longest:?} of {all:?}");
    pass(ms(10)).await;
    assert_eq!(read.get(), waits.len() * text().frames().bytes.len(), "nothing is lost, and she is not cut off");
    assert_eq!(left(&node), whole, "nothing is borrowed any more");
}

#[actix::test]
async fn a_client_that_reads_nothing_is_cut_off_after_a_second_and_its_memory_is_free_again() {
    let node = node_with(lending()).await;
    let whole = left(&node);
    let ann = Rc::new(node.member("ann").await);
    while take(&ann) > 0 {}
    let cut = reads_as(ann, |_, _| {});
    let begun = Instant::now();
    let (longest, all) = of(&waits(&node, &text(), ms(1), secs(3)).await);
    let cut = cut.get().expect("she is cut off") - begun;
    assert!((secs(1)..ms(1_200)).contains(&cut), "{cut:?}");
    assert!(longest <= ms(40) && all <= ms(50), "{longest:?} of {all:?}");
    assert_eq!(left(&node), whole);
}

#[actix::test]
async fn when_it_reads_again_senders_wait_until_its_outbox_is_below_its_bound() {
    let node = node_with(lending().send_patience(secs(5))).await;
    let ann = Rc::new(node.member("ann").await);
    while take(&ann) > 0 {}
    let (begun, sent) = (Instant::now(), text());
    // After half a second she reads a piece of eight texts now and then, with gaps that are longer than a pause need be.
    let reads = reads_as(ann.clone(), |client, time| {
        if time >= ms(500) && time.as_millis() % 100 < 5 {
            take(client);
        }
    });
    let (before, _) = of(&waits(&node, &sent, ms(5), ms(490)).await);
    assert!(before <= ms(40), "{before:?}");
    tokio::time::sleep_until(begun + ms(510)).await;
    let lent = left(&node);
    node.send(lobby(), sent.clone()).await.unwrap();
    // Some 98 texts, of which at most 32 may be left.
    let waited = begun.elapsed() - ms(510);
    assert!((ms(700)..=ms(1_100)).contains(&waited), "{waited:?}");
    assert!(left(&node) >= lent, "nothing more is lent meanwhile");
    assert_eq!(reads.get(), None);
}

#[actix::test]
async fn senders_wait_if_no_memory_is_left_for_clients_that_pause() {
    let node = node_with(lending().paused_bytes(10 * TEXT)).await;
    for name in ["ann", "bob"] {
        pauses(&node, name, AT_FIRST).await;
    }
    let waits = waits(&node, &text(), ms(1), secs(2)).await;
    let (longest, all) = of(&waits);
    assert!((ms(700)..ms(900)).contains(&longest), "{longest:?} of {all:?}");
    // Both share the memory, and leave a third of it.
    let during = waits.iter().take_while(|(_, waited)| *waited < ms(100)).count();
    assert!((32 + 2..=32 + 10).contains(&during), "{during}");
    assert_eq!(left(&node), 10 * TEXT);
}

#[actix::test]
async fn a_client_that_does_not_read_what_it_sends_itself_takes_nothing_of_the_memory_for_pauses() {
    let node = node_with(lending()).await;
    let whole = left(&node);
    let ann = Rc::new(node.member("ann").await);
    while take(&ann) > 0 {}
    let says = as_consumer_of(ann.channel.clone(), waits(&node, &text_of(1000), ms(1), ms(900))).await;
    let (longest, _) = of(&says);
    assert!(longest > ms(800), "{longest:?}");
    assert_eq!(left(&node), whole);
}

#[actix::test]
async fn what_was_lent_to_a_socket_that_ends_is_free_again() {
    let node = node_with(lending()).await;
    let whole = left(&node);
    let ann = node.member("ann").await;
    while take(&ann) > 0 {}
    waits(&node, &text(), ms(1), ms(500)).await;
    assert!(left(&node) < whole - 400_000, "{} of {whole}", left(&node));
    ann.leave(lobby()).await.unwrap();
    ann.vanish();
    ann.drop_response();
    drop(ann);
    pass(ms(200)).await;
    assert_eq!(left(&node), whole);
}

#[actix::test]
async fn a_first_frame_behind_what_was_lent_cuts_nobody_off() {
    let node = node_with(lending()).await;
    let ann = Rc::new(node.member("ann").await);
    while take(&ann) > 0 {}
    let cut = reads_as(ann.clone(), |_, _| {});
    // More than eight times her bound, which is the most that may be queued with a first frame and without a loan.
    let sent = waits(&node, &text(), ms(1), ms(600)).await.len();
    assert!(sent > 8 * 32, "{sent}");
    let joins = ann.clone();
    actix::spawn(async move { joins.join(&room("other")).await.unwrap() });
    pass(ms(300)).await;
    assert_eq!(cut.get(), None, "she has read nothing for less than a second");
    let mut read = 0;
    loop {
        let bytes = take(&ann);
        if bytes == 0 {
            break;
        }
        read += bytes;
    }
    assert!(read > sent * text().frames().bytes.len(), "{read}");
}

/// All of these pause, and senders wait because too little of this much memory is left. Returns how much.
async fn left_by(names: &[&str], memory: usize) -> usize {
    let node = node_with(lending().paused_bytes(memory)).await;
    for name in names {
        pauses(&node, name, AT_FIRST).await;
    }
    let sending = tokio::time::timeout(ms(600), waits(&node, &text(), ms(1), ms(500))).await;
    assert!(sending.is_err(), "senders wait");
    left(&node)
}

#[actix::test]
async fn a_client_that_pauses_takes_at_most_half_of_the_memory() {
    let left = left_by(&["ann"], 300_000).await;
    assert!((150_000..150_000 + 2 * TEXT).contains(&left), "{left}");
}

#[actix::test]
async fn two_clients_that_pause_take_at_most_a_third_of_the_memory_each() {
    let left = left_by(&["ann", "bob"], 300_000).await;
    assert!((100_000..100_000 + 2 * TEXT).contains(&left), "{left}");
}

#[actix::test]
async fn senders_never_wait_again_for_a_client_that_reads_nothing_while_there_is_memory() {
    // Its queue becomes some thirty times as long as its bound.
    let node = node_with(lending().outbox_bytes(32 * 1024)).await;
    let ann = Rc::new(node.member("ann").await);
    while take(&ann) > 0 {}
    let (longest, all) = of(&waits(&node, &text(), ms(1), ms(950)).await);
    assert!(longest <= ms(40) && all <= ms(50), "{longest:?} of {all:?}");
}

#[actix::test]
async fn what_a_client_has_read_of_a_loan_is_free_again_before_all_of_it_is() {
    let node = node_with(lending()).await;
    let ann = Rc::new(node.member("ann").await);
    while take(&ann) > 0 {}
    waits(&node, &text(), ms(1), ms(500)).await;
    let mut lent = left(&node);
    // The first bytes that she reads are those within her bound.
    for _ in 0..5 {
        assert!(take(&ann) > 0);
    }
    for _ in 0..5 {
        assert!(take(&ann) > 0);
        assert!(left(&node) > lent, "{} after {lent}", left(&node));
        lent = left(&node);
    }
}
