//! Heartbeats and texts to rooms.

use std::time::{Duration, Instant};

use super::{Bed, Figure, less, more, neither, percentile};
use crate::{
    load::{Event, Index},
    pace::Pace,
};

/// Handshakes under way while rooms are filled.
const AT_ONCE: usize = 64;
/// Texts under way in `fanout`, each of another client.
const UNDER_WAY: usize = 8;
/// Heartbeats in one write.
const BURST: usize = 32;
/// Writes of a client until it waits for the server. So many are fewer bytes than the kernel keeps of a socket.
const WRITES: usize = 32;
/// The bytes of a text whose return shows that all before it was read.
const MARK: usize = 16;

/// Waits for messages that return to their senders, at least for one.
fn returned(bed: &mut Bed<'_>) -> Result<Vec<usize>, String> {
    let mut senders = Vec::new();
    while senders.is_empty() {
        bed.load.turn(Instant::now() + Duration::from_secs(1))?;
        while let Some(event) = bed.load.next_event() {
            if let Event::Returned { sender } = event {
                senders.push(sender);
            }
        }
    }
    Ok(senders)
}

/// Each client is alone in its room, so that it is the only one to receive its text. All are senders.
fn alone(bed: &mut Bed<'_>, clients: usize) -> Result<Vec<Index>, String> {
    let (rooms, _) = bed.fill(clients, clients, AT_ONCE)?;
    let clients: Vec<_> = rooms.into_iter().flatten().collect();
    clients.iter().try_for_each(|&client| bed.load.add_sender(client).map(drop))?;
    Ok(clients)
}

pub(super) fn heartbeat(bed: &mut Bed<'_>) -> Result<Vec<Figure>, String> {
    let clients = alone(bed, bed.size.of(32, 2))?;
    let burst = bed.load.heartbeats(BURST);
    let window = bed.begin()?;
    let end = window.began + bed.size.seconds;
    let mut sent = 0;
    // The clients write in turns, as many would, and not one of them all that it may.
    let mut due: Vec<_> = (0..clients.len()).collect();
    let mut busy = clients.len();
    while busy > 0 {
        for _ in 1..WRITES {
            for &sender in &due {
                bed.load.send_bytes(clients[sender], &burst)?;
            }
        }
        for &sender in &due {
            bed.load.say(sender, MARK, &burst)?;
        }
        sent += due.len() * WRITES * BURST;
        due = returned(bed)?;
        if Instant::now() >= end {
            busy -= due.len();
            due.clear();
        }
    }
    let measured = bed.end(&window)?;
    bed.load.settle()?;
    let mut figures = vec![
        more("heartbeats/s, 32 to a write", sent as f64 / measured.seconds),
        less("server CPU per heartbeat, 32 to a write, µs", measured.server * 1e6 / sent as f64),
    ];
    figures.extend(measured.shares());
    Ok(figures)
}

pub(super) fn paced(bed: &mut Bed<'_>) -> Result<Vec<Figure>, String> {
    let clients = alone(bed, bed.size.of(100, 5))?;
    let rate = bed.size.of(5000, 200);
    let mut pace = Pace::per_second(rate as f64);
    let mut sent = 0;
    let window = bed.begin()?;
    let end = window.began + bed.size.seconds;
    while Instant::now() < end {
        while pace.is_due() {
            let heartbeat = bed.load.heartbeats(1);
            bed.load.send_bytes(clients[sent % clients.len()], &heartbeat)?;
            sent += 1;
        }
        bed.load.turn(pace.due.min(end))?;
    }
    (0..clients.len()).try_for_each(|sender| bed.load.say(sender, MARK, &[]))?;
    let mut missing = clients.len();
    while missing > 0 {
        missing -= returned(bed)?.len();
    }
    let measured = bed.end(&window)?;
    bed.load.settle()?;
    let mut figures = vec![
        less("server CPU per heartbeat, one to a write, µs", measured.server * 1e6 / sent as f64),
        neither("heartbeats/s", sent as f64 / measured.seconds),
    ];
    figures.extend(measured.shares());
    Ok(figures)
}

/// Sends texts to a room for the time of a measurement, until all members have received all. Returns how long each took until its
/// sender had it back.
fn send(bed: &mut Bed<'_>, senders: usize, members: usize, size: usize) -> Result<Vec<Duration>, String> {
    let end = Instant::now() + bed.size.seconds;
    let mut expected = bed.load.deliveries();
    let mut began = vec![Instant::now(); senders];
    let mut times = Vec::new();
    let (mut due, mut busy): (Vec<_>, _) = ((0..senders).collect(), senders);
    while busy > 0 {
        for &sender in &due {
            began[sender] = Instant::now();
            bed.load.say(sender, size, &[])?;
            expected += members as u64;
        }
        due = returned(bed)?;
        let now = Instant::now();
        times.extend(due.iter().map(|&sender| now - began[sender]));
        if now >= end {
            busy -= due.len();
            due.clear();
        }
    }
    while bed.load.deliveries() < expected {
        bed.load.turn(Instant::now() + Duration::from_secs(1))?;
    }
    Ok(times)
}

/// A room, and how many of its members are senders.
fn room(bed: &mut Bed<'_>, members: usize) -> Result<usize, String> {
    let (rooms, _) = bed.fill(members, 1, AT_ONCE)?;
    bed.load.settle()?;
    let senders = UNDER_WAY.min(members);
    rooms[0][..senders].iter().try_for_each(|&client| bed.load.add_sender(client).map(drop))?;
    Ok(senders)
}

pub(super) fn fanout(bed: &mut Bed<'_>, members: usize, size: usize) -> Result<Vec<Figure>, String> {
    let senders = room(bed, members)?;
    let window = bed.begin()?;
    let mut times = send(bed, senders, members, size)?;
    let measured = bed.end(&window)?;
    bed.load.settle()?;
    let deliveries = bed.load.deliveries() as f64;
    let mut figures = vec![
        more("deliveries/s", deliveries / measured.seconds),
        less("until a sender has its text back, p50, ms", percentile(&mut times, 0.5)),
        less("until a sender has its text back, p99, ms", percentile(&mut times, 0.99)),
        less("server CPU per delivery, µs", measured.server * 1e6 / deliveries),
    ];
    figures.extend(measured.shares());
    Ok(figures)
}

pub(super) fn slow(bed: &mut Bed<'_>) -> Result<Vec<Figure>, String> {
    const TEXT: usize = 1024;
    let members = bed.size.of(50, 5);
    let senders = room(bed, members)?;
    let (mut rates, mut slowest) = (Vec::new(), 0.0);
    for frozen in [false, true] {
        if frozen {
            bed.load.open_frozen(0)?;
        }
        let before = bed.load.deliveries();
        let window = bed.begin()?;
        let mut times = send(bed, senders, members, TEXT)?;
        let measured = bed.end(&window)?;
        rates.push((bed.load.deliveries() - before) as f64 / measured.seconds);
        slowest = percentile(&mut times, 1.0);
    }
    Ok(vec![
        more("deliveries/s to others with one who reads nothing", rates[1]),
        more("the same / without", rates[1] / rates[0]),
        less("the slowest text, ms", slowest),
    ])
}
