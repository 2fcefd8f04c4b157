//! Clients that do not read, or read slowly: the others go on, and nothing is left of them.

use super::host::{Host, room, told};
use super::puppet::Did;
use crate::support::frame::{PING, PONG, Raw, ReceivedFrame};
use crate::support::socket::ClientSocket;
use crate::support::{BOUND, SLACK, alone, millis, secs, within};
use presence::ConfigBuilder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// As small as the kernel lets it be.
const TINY: u32 = 4096;

fn quick(config: ConfigBuilder) -> ConfigBuilder {
    config.write_timeout(millis(800)).close_timeout(millis(300)).outbox_bytes(256 * 1024)
}

async fn unread(host: &Host, name: &str) -> ClientSocket {
    host.upgrade(name, "join lobby").receive_buffer(TINY).open(host.address).await.unwrap()
}

/// Bob and Cat talk while Ann reads nothing, until she is gone. Gives the longest that a frame took.
async fn talk_until_gone(host: &mut Host) -> std::time::Duration {
    let mut changes = host.rooms.changes();
    let mut bob = host.open("bob", "join lobby").await;
    let mut cat = host.open("cat", "join lobby").await;
    assert_eq!([told(&mut changes).await, told(&mut changes).await], ["+bob", "+cat"]);
    let text = "x".repeat(30_000);
    let mut slowest = millis(0);
    within(secs(30), "the leave of who does not read", async {
        while host.rooms.count(&room("lobby")).await.unwrap().users == 3 {
            let begun = Instant::now();
            bob.text(&format!("say lobby {text}")).await;
            assert_eq!(cat.next().await, ReceivedFrame::Text(text.clone()));
            assert_eq!(bob.next().await, ReceivedFrame::Text(text.clone()));
            slowest = slowest.max(begun.elapsed());
        }
    })
    .await;
    assert_eq!(told(&mut changes).await, "-ann");
    bob.leave().await;
    cat.leave().await;
    slowest
}

// behaviour: W17 slow-client; 7 capacity
#[tokio::test]
async fn who_does_not_read_is_cut_off_while_the_others_go_on() {
    let mut host = Host::plan().config(quick).start().await;
    let ann = unread(&host, "ann").await;
    let slowest = talk_until_gone(&mut host).await;
    assert!(slowest < secs(5), "a frame took {slowest:?}");
    host.saw("ann", Did::Disconnected(1013)).await;
    // The client holds its end open, and still the server's is gone.
    host.connection_gone(ann.local()).await;
    host.empty().await;
}

#[tokio::test]
async fn without_on_connect_who_does_not_read_leaves_all_the_same() {
    let mut host = Host::plan().config(quick).unprepared().start().await;
    let ann = unread(&host, "ann").await;
    talk_until_gone(&mut host).await;
    host.saw("ann", Did::Disconnected(1013)).await;
    // Its TCP connection stays as long as it holds it open; that is what `on_connect` is for.
    drop(ann);
    host.empty().await;
}

#[tokio::test]
async fn without_on_connect_sockets_open_and_close_as_with_it() {
    let mut host = Host::plan().config(quick).unprepared().start().await;
    host.open("ann", "join lobby").await.leave().await;
    host.saw("ann", Did::Disconnected(1000)).await;
    host.open("bob", "join lobby").await.reset();
    host.saw("bob", Did::Disconnected(1006)).await;
    let mut cat = host.open("cat", "join lobby").await;
    cat.text("panic").await;
    assert_eq!(cat.closing().await, Some(1011));
    // It never answers the Close.
    cat.drained().await;
    host.saw("cat", Did::Disconnected(1011)).await;
    drop(cat);
    host.empty().await;
}

#[tokio::test]
async fn a_close_that_is_not_read_ends_in_a_reset() {
    let mut host = Host::plan().config(|config| config.close_timeout(millis(300)).outbox_bytes(8 << 20)).start().await;
    let mut ann = unread(&host, "ann").await;
    ann.text("burst 80 60000; close 4000").await;
    host.saw("ann", Did::Disconnected(4000)).await;
    host.connection_gone(ann.local()).await;
    host.empty().await;
}

#[tokio::test]
async fn a_client_that_closes_and_does_not_read_the_answer_is_reset() {
    let mut host = Host::plan().config(|config| config.close_timeout(millis(300)).outbox_bytes(8 << 20)).start().await;
    let mut ann = unread(&host, "ann").await;
    ann.text("burst 80 60000").await;
    host.saw("ann", Did::Done("burst 80 60000".into())).await;
    ann.close(1000).await;
    host.saw("ann", Did::Disconnected(1000)).await;
    host.connection_gone(ann.local()).await;
    host.empty().await;
}

/// Reads what there is, some 250 kB a second, until that ends in `end` or the connection is at its end. Gives how much there was.
async fn read_slowly(stream: &mut TcpStream, end: &[u8]) -> (usize, bool) {
    read_in_steps(stream, 16 * 1024, end).await
}

/// As `read_slowly`, but so much at a time, 16 times a second.
async fn read_in_steps(stream: &mut TcpStream, step: usize, end: &[u8]) -> (usize, bool) {
    let (mut all, mut some) = (0, vec![0; step]);
    let mut pace = tokio::time::interval(millis(64));
    loop {
        pace.tick().await;
        let read = within(BOUND, "more bytes", stream.read(&mut some)).await.unwrap();
        all += read;
        if read == 0 || some[..read].ends_with(end) {
            return (all, read > 0);
        }
    }
}

/// Every limit of the outgoing side is much shorter than it takes to read a megabyte.
fn hasty(config: ConfigBuilder) -> ConfigBuilder {
    let config = config.write_timeout(millis(800)).close_timeout(millis(800));
    config.ping_interval(millis(300)).pong_timeout(millis(800)).max_age(secs(60))
}

#[tokio::test]
async fn who_reads_a_large_frame_slowly_but_steadily_gets_all_of_it() {
    // It was cut off by the time since the frame was queued, or by the ping behind it, which it could not have seen.
    let _alone = alone().await;
    let host = Host::plan().config(hasty).start().await;
    let mut ann = host.raw("/puppet?name=ann&connect=burst%201%20900000", TINY).await;
    let begun = Instant::now();
    let (read, is_ping) = read_slowly(&mut ann, b"\x89\0").await;
    assert!(is_ping && read > 900_000, "the ping came behind all {read} bytes");
    assert!(begun.elapsed() > secs(2), "{:?}", begun.elapsed());
    ann.write_all(&Raw::new(PONG, "").encode()).await.unwrap();
    assert_eq!(host.rooms.sockets(), 1);
}

#[tokio::test]
async fn who_reads_through_a_small_window_is_not_given_up_by_the_kernel() {
    // It was, after `write_timeout`: the kernel counts from when the window was last large enough for the next packet.
    let _alone = alone().await;
    let config = |config: ConfigBuilder| config.write_timeout(secs(2)).ping_interval(secs(60)).max_age(secs(60));
    let host = Host::plan().config(config).start().await;
    let mut ann = host.raw("/puppet?name=ann&connect=burst%201%20250000;%20reply%20done", 8192).await;
    let (read, is_done) = read_in_steps(&mut ann, 1300, b"done").await;
    assert!(is_done && read > 250_000, "the end came after {read} bytes");
}

#[tokio::test]
async fn one_steady_slow_reader_costs_the_others_a_second_and_is_told_1013() {
    let _alone = alone().await;
    let mut host = Host::plan().config(|config| config.outbox_frames(32)).start().await;
    let mut changes = host.rooms.changes();
    let mut bob = host.open("bob", "join lobby").await;
    assert_eq!(told(&mut changes).await, "+bob");
    let mut ann = host.raw("/puppet?name=ann&connect=join%20lobby", TINY).await;
    assert_eq!(told(&mut changes).await, "+ann");
    let reader = tokio::spawn(async move {
        let (mut some, mut last, mut pace) = (vec![0; 3000], Vec::new(), tokio::time::interval(millis(50)));
        loop {
            pace.tick().await;
            match ann.read(&mut some).await {
                Ok(0) | Err(_) => return last,
                Ok(read) => last.extend_from_slice(&some[..read]),
            }
            last.drain(..last.len().saturating_sub(100));
        }
    });
    // 160 texts of 1000 bytes a second, of which she reads 60.
    let (mut pace, begun, mut slowest) = (tokio::time::interval(millis(6)), Instant::now(), millis(0));
    let mut waited = millis(0);
    while begun.elapsed() < secs(15) {
        pace.tick().await;
        let said = Instant::now();
        host.rooms.send(&room("lobby"), "x".repeat(1000)).await.unwrap();
        waited += said.elapsed();
        assert_eq!(bob.next().await, ReceivedFrame::Text("x".repeat(1000)));
        slowest = slowest.max(said.elapsed());
    }
    assert!(slowest < secs(2) + SLACK && waited < secs(4) + SLACK, "the slowest took {slowest:?}, all {waited:?}");
    let end = within(secs(30), "her end", reader).await.unwrap();
    let close = [0x88, 2 + 8, 0x03, 0xf5];
    assert!(end.windows(4).any(|bytes| bytes == close) && end.ends_with(b"too slow"), "she read 1013: {end:02x?}");
    host.saw("ann", Did::Disconnected(1013)).await;
    assert_eq!(told(&mut changes).await, "-ann");
}

#[tokio::test]
async fn who_closes_behind_much_and_reads_it_slowly_gets_the_answer_and_the_end() {
    let _alone = alone().await;
    let mut host = Host::plan().config(hasty).start().await;
    let mut ann = host.raw("/puppet?name=ann&connect=burst%2015%2060000", TINY).await;
    ann.write_all(&Raw::close(3000, b"").encode()).await.unwrap();
    host.saw("ann", Did::Disconnected(3000)).await;
    let (read, is_answered) = read_slowly(&mut ann, &Raw::close(3000, b"").unmasked().encode()).await;
    assert!(is_answered && read > 900_000, "the answer came behind all {read} bytes");
    assert_eq!(read_slowly(&mut ann, b"none").await, (0, false));
}

#[tokio::test]
async fn a_flood_slows_itself_and_cuts_nobody_who_reads_steadily() {
    let _alone = alone().await;
    let mut host = Host::plan().config(|config| config.outbox_bytes(64 * 1024).outbox_frames(16)).start().await;
    let mut ann = unread(&host, "ann").await;
    let mut bob = host.open("bob", "join lobby").await;
    // 4 MB, of which Ann takes some 16 kB every few milliseconds.
    let begun = Instant::now();
    bob.text("flood lobby 200 20000").await;
    let reader = tokio::spawn(async move {
        for n in 0..200 {
            let frame = bob.next().await;
            assert!(
                matches!(&frame, ReceivedFrame::Text(text) if text.starts_with(&format!("{n:05}"))),
                "{frame:.40?}"
            );
        }
        bob
    });
    let mut pace = tokio::time::interval(millis(10));
    for n in 0..200 {
        pace.tick().await;
        let frame = ann.next().await;
        assert!(matches!(&frame, ReceivedFrame::Text(text) if text.starts_with(&format!("{n:05}"))), "{frame:.40?}");
    }
    let _bob = within(BOUND, "Bob to have it all", reader).await.unwrap();
    host.saw("bob", Did::Done("flood lobby 200 20000".into())).await;
    assert!(begun.elapsed() > millis(1000), "the speaker waited for the slowest: {:?}", begun.elapsed());
    assert_eq!(host.rooms.sockets(), 2, "nobody was cut");
}

#[tokio::test]
async fn a_flood_of_pings_by_a_slow_reader_is_answered_in_part_and_its_last_one_soon() {
    // Each ping was answered into an outbox without end, as long as the client read a little now and then.
    let _alone = alone().await;
    let host = Host::plan().config(|config| config.outbox_bytes(64 * 1024).outbox_frames(64)).start().await;
    let mut ann = host.raw("/puppet?name=ann", TINY).await;
    let pings: Vec<u8> = (0..1000).flat_map(|_| Raw::new(PING, [b'x'; 125]).encode()).collect();
    let (mut sent, mut answered, mut answers) = (0, 0, vec![0; 2000]);
    let end = Instant::now() + secs(3);
    while Instant::now() < end {
        // Sends as fast as it can, and reads a little.
        let pace = tokio::time::sleep(millis(20));
        tokio::pin!(pace);
        loop {
            tokio::select! {
                () = &mut pace => break,
                written = ann.write(&pings[sent % pings.len()..]) => sent += written.unwrap(),
            }
        }
        answered += within(BOUND, "a pong", ann.read(&mut answers)).await.unwrap();
    }
    assert!(answered > 20_000, "it is served: {answered} bytes of pongs");
    let (mut reads, mut writes) = ann.split();
    let writes = async {
        writes.write_all(&pings[sent % pings.len()..]).await.unwrap();
        writes.write_all(&Raw::new(PING, b"the last").encode()).await.unwrap();
    };
    let reads = async {
        let mut waited = Vec::new();
        while !waited.ends_with(b"the last") {
            reads.read_buf(&mut waited).await.unwrap();
        }
        waited.len()
    };
    let ((), waited) = within(BOUND, "the answer to the last ping", async { tokio::join!(writes, reads) }).await;
    assert!(waited < 1 << 20, "{waited} bytes of pongs waited for the client");
}
