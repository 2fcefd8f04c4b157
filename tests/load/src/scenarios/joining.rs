//! Clients that come and go.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU8, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{Bed, Figure, less, more, neither, percentile};
use crate::{
    load::{Event, Index, Load},
    pace::Pace,
};

/// How many handshakes are under way while rooms are filled.
const AT_ONCE: usize = 32;
/// How many changes are under way in `churn`.
const CHURN: usize = 16;
/// Changes a second of `light`: half of them leaves, half of them joins.
const LIGHT: usize = 160;
/// The room of a storm.
const STORM: u32 = 10_000;
/// How many clients are in the room before the storm.
const EARLY: usize = 10;
/// Pairs of changes a second in other rooms during a storm.
const OTHERS: f64 = 100.0;

pub(super) fn join(bed: &mut Bed<'_>) -> Result<Vec<Figure>, String> {
    let (clients, rooms) = (bed.size.of(2000, 40), bed.size.of(100, 4));
    let window = bed.begin()?;
    let (_, mut times) = bed.fill(clients, rooms, AT_ONCE)?;
    let measured = bed.end(&window)?;
    bed.load.settle()?;
    let mut figures = vec![
        more("joins/s", clients as f64 / measured.seconds),
        less("request to own first frame, p50, ms", percentile(&mut times, 0.5)),
        less("request to own first frame, p99, ms", percentile(&mut times, 0.99)),
        less("server CPU per join, µs", measured.server * 1e6 / clients as f64),
    ];
    figures.extend(measured.shares());
    Ok(figures)
}

/// Rooms in which the oldest member leaves and a new one joins.
#[derive(Debug)]
struct Cycle {
    /// The members of each room, the oldest first.
    rooms: Vec<VecDeque<Index>>,
    next: usize,
    under_way: usize,
    /// How long each join took.
    joins: Vec<Duration>,
}

impl Cycle {
    fn new(rooms: Vec<Vec<Index>>) -> Self {
        Self { rooms: rooms.into_iter().map(VecDeque::from).collect(), next: 0, under_way: 0, joins: Vec::new() }
    }

    /// Lets one client leave. When it has left, another joins.
    fn start(&mut self, load: &mut Load) -> Result<(), String> {
        self.next = (self.next + 1) % self.rooms.len();
        let Some(oldest) = self.rooms[self.next].pop_front() else { return Ok(()) };
        self.under_way += 1;
        load.leave(oldest)
    }

    fn handle(&mut self, event: &Event, load: &mut Load) -> Result<(), String> {
        match *event {
            Event::Left { room } => drop(load.open(room)?),
            Event::Joined { client, room, took } => {
                self.rooms[room as usize].push_back(client);
                self.joins.push(took);
                self.under_way -= 1;
            }
            Event::Returned { .. } => {}
        }
        Ok(())
    }

    /// Each pair of changes is a leave and a join.
    fn changes(&self) -> f64 {
        2.0 * self.joins.len() as f64
    }

    fn finish(&mut self, load: &mut Load) -> Result<(), String> {
        while self.under_way > 0 {
            load.turn(Instant::now() + Duration::from_secs(1))?;
            while let Some(event) = load.next_event() {
                self.handle(&event, load)?;
            }
        }
        Ok(())
    }

    /// Changes as fast as the server can.
    fn run(&mut self, load: &mut Load, at_once: usize, time: Duration) -> Result<(), String> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            while self.under_way < at_once {
                self.start(load)?;
            }
            load.turn(end)?;
            while let Some(event) = load.next_event() {
                self.handle(&event, load)?;
            }
        }
        self.finish(load)
    }

    /// A pair of changes at each tick of a pace.
    fn run_paced(&mut self, load: &mut Load, pace: &mut Pace, time: Duration) -> Result<(), String> {
        let end = Instant::now() + time;
        self.run_while(load, pace, || Instant::now() < end)
    }

    /// A pair of changes at each tick of a pace, as long as `goes_on`.
    fn run_while(&mut self, load: &mut Load, pace: &mut Pace, goes_on: impl Fn() -> bool) -> Result<(), String> {
        while goes_on() {
            while pace.is_due() {
                self.start(load)?;
            }
            load.turn(pace.due)?;
            while let Some(event) = load.next_event() {
                self.handle(&event, load)?;
            }
        }
        self.finish(load)
    }
}

fn twenty_of_twenty(bed: &mut Bed<'_>) -> Result<Cycle, String> {
    let (rooms, members) = (bed.size.of(20, 3), bed.size.of(20, 4));
    let (filled, _) = bed.fill(rooms * members, rooms, AT_ONCE)?;
    bed.load.settle()?;
    Ok(Cycle::new(filled))
}

pub(super) fn churn(bed: &mut Bed<'_>) -> Result<Vec<Figure>, String> {
    let mut cycle = twenty_of_twenty(bed)?;
    let window = bed.begin()?;
    cycle.run(&mut bed.load, bed.size.of(CHURN, 4), bed.size.seconds)?;
    let measured = bed.end(&window)?;
    bed.load.settle()?;
    let mut figures = vec![
        more("membership changes/s", cycle.changes() / measured.seconds),
        less("join, p50, ms", percentile(&mut cycle.joins, 0.5)),
        less("join, p99, ms", percentile(&mut cycle.joins, 0.99)),
        less("server CPU per change, µs", measured.server * 1e6 / cycle.changes()),
    ];
    figures.extend(measured.shares());
    Ok(figures)
}

pub(super) fn light(bed: &mut Bed<'_>) -> Result<Vec<Figure>, String> {
    let mut cycle = twenty_of_twenty(bed)?;
    let mut pace = Pace::per_second(bed.size.of(LIGHT, 40) as f64 / 2.0);
    let window = bed.begin()?;
    cycle.run_paced(&mut bed.load, &mut pace, bed.size.seconds)?;
    let measured = bed.end(&window)?;
    bed.load.settle()?;
    Ok(vec![
        less("join, p50, ms", percentile(&mut cycle.joins, 0.5)),
        less("join, p99, ms", percentile(&mut cycle.joins, 0.99)),
        less("server CPU per change, µs", measured.server * 1e6 / cycle.changes()),
        neither("changes/s", cycle.changes() / measured.seconds),
    ])
}

pub(super) fn latency(bed: &mut Bed<'_>) -> Result<Vec<Figure>, String> {
    let mut cycle = twenty_of_twenty(bed)?;
    let began = Instant::now();
    cycle.run(&mut bed.load, bed.size.of(CHURN, 4), bed.size.seconds / 2)?;
    let rate = cycle.changes() / began.elapsed().as_secs_f64();
    bed.load.settle()?;

    let mut cycle = Cycle { joins: Vec::new(), ..cycle };
    bed.load.measure_notices();
    let mut pace = Pace::per_second(rate / 4.0);
    let window = bed.begin()?;
    cycle.run_paced(&mut bed.load, &mut pace, bed.size.seconds)?;
    let measured = bed.end(&window)?;
    bed.load.settle()?;
    let mut notices = bed.load.take_notices();
    let mut figures = vec![
        less("request of a join to its notice at another, p50, ms", percentile(&mut notices, 0.5)),
        less("request of a join to its notice at another, p99, ms", percentile(&mut notices, 0.99)),
        neither("changes/s (half of what this server can do)", cycle.changes() / measured.seconds),
    ];
    figures.extend(measured.shares());
    Ok(figures)
}

/// What the clients of the other rooms see of a storm: the 99th percentile of their joins before and during it, in milliseconds.
#[derive(Debug)]
struct Others {
    calm: f64,
    meanwhile: f64,
}

/// How far the measurement of a storm has come.
#[derive(Debug, Default)]
struct Stage {
    stage: AtomicU8,
}

impl Stage {
    const STORM: u8 = 1;
    const OVER: u8 = 2;

    fn set(&self, stage: u8) {
        self.stage.store(stage, Ordering::Release);
    }

    fn is_before(&self, stage: u8) -> bool {
        self.stage.load(Ordering::Acquire) < stage
    }
}

/// The clients of the other rooms, until the storm is over. They have a thread of their own, so that they do not wait for the clients of
/// the storm: the times are those of the server.
fn others(bed: &mut Bed<'_>, stage: &Stage) -> Result<Others, String> {
    let (rooms, members) = (bed.size.of(10, 2), bed.size.of(10, 3));
    let (filled, _) = bed.fill(rooms * members, rooms, AT_ONCE)?;
    let mut cycle = Cycle::new(filled);
    cycle.run_paced(&mut bed.load, &mut Pace::per_second(OTHERS), bed.size.seconds)?;
    let calm = percentile(&mut cycle.joins, 0.99);
    stage.set(Stage::STORM);
    cycle.joins.clear();
    cycle.run_while(&mut bed.load, &mut Pace::per_second(OTHERS), || stage.is_before(Stage::OVER))?;
    bed.load.settle()?;
    Ok(Others { calm, meanwhile: percentile(&mut cycle.joins, 0.99) })
}

pub(super) fn storm(bed: &mut Bed<'_>) -> Result<Vec<Figure>, String> {
    let stage = Stage::default();
    let mut other_bed = bed.another()?;
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let seen = others(&mut other_bed, &stage);
            // After a failure, too, so that the other thread does not wait.
            stage.set(Stage::STORM);
            seen
        });
        while stage.is_before(Stage::STORM) {
            bed.load.turns(Duration::from_millis(10))?;
        }
        let figures = join_at_once(bed, || stage.set(Stage::OVER));
        // After a failure, too.
        stage.set(Stage::OVER);
        let others = other.join().map_err(|_| "the thread of the other rooms panicked")??;
        let mut figures = figures?;
        figures.extend([
            less("join in other rooms while calm, p99, ms", others.calm),
            less("join in other rooms meanwhile, p99, ms", others.meanwhile),
            less("meanwhile / calm", others.meanwhile / others.calm),
        ]);
        Ok(figures)
    })
}

/// The storm itself. Calls `over` when all have joined.
fn join_at_once(bed: &mut Bed<'_>, over: impl FnOnce()) -> Result<Vec<Figure>, String> {
    let members = bed.size.of(EARLY, 3);
    let mut early = Vec::new();
    for _ in 0..members {
        bed.load.open(STORM)?;
    }
    while early.len() < members {
        bed.load.turn(Instant::now() + Duration::from_secs(1))?;
        while let Some(event) = bed.load.next_event() {
            if let Event::Joined { client, .. } = event {
                early.push(client);
            }
        }
    }
    bed.load.settle()?;
    let before = early.iter().map(|&client| bed.load.received(client)).collect::<Result<Vec<_>, _>>()?;

    let clients = bed.size.of(2000, 40);
    let mut storm = Pace::per_second(clients as f64 / if bed.size.tiny { 0.2 } else { 5.0 });
    let (mut opened, mut times, mut joined) = (0, Vec::new(), early.clone());
    let window = bed.begin()?;
    while times.len() < clients {
        while opened < clients && storm.is_due() {
            bed.load.open(STORM)?;
            opened += 1;
        }
        bed.load.turn(if opened < clients { storm.due } else { Instant::now() + Duration::from_secs(1) })?;
        while let Some(event) = bed.load.next_event() {
            if let Event::Joined { client, took, .. } = event {
                times.push(took);
                joined.push(client);
            }
        }
    }
    let measured = bed.end(&window)?;
    over();
    bed.load.settle()?;
    let after = early.iter().map(|&client| bed.load.received(client)).collect::<Result<Vec<_>, _>>()?;
    let (mut frames, mut bytes, mut most) = (0.0, 0.0, 0.0_f64);
    for (before, after) in before.iter().zip(&after) {
        let received = (after.0 - before.0) as f64;
        frames += received / early.len() as f64;
        bytes += (after.1 - before.1) as f64 / early.len() as f64;
        most = most.max(received);
    }
    let mut all = 0.0;
    for &client in &joined {
        all += bed.load.received(client)?.0 as f64 / joined.len() as f64;
    }
    let mut figures = vec![
        less("frames to a member of the storm, mean of all", all),
        less("frames to an early member, mean", frames),
        less("frames to an early member, most", most),
        less("bytes to an early member, mean", bytes),
        less("join in the storm, p99, ms", percentile(&mut times, 0.99)),
        neither("seconds until all have joined", measured.seconds),
    ];
    figures.extend(measured.shares());
    Ok(figures)
}
