//! What is measured. Each scenario has a server of its own, with an empty database.

mod broadcast;
mod joining;
mod memory;

use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::{
    load::{Event, Load},
    process::{Server, processor_time},
};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// 2,000 clients join 100 rooms, 32 at a time.
    Join,
    /// 20 rooms of 20, in which 16 clients at a time leave and others join.
    Churn,
    /// 160 changes a second in 20 rooms of 20.
    Light,
    /// How long a notice of a join takes at half of the rate of `churn`.
    Latency,
    /// Heartbeats, 32 to a write.
    Heartbeat,
    /// 5,000 heartbeats a second, one to a write.
    Paced,
    /// A room of 300, and texts of 64 bytes, 8 under way.
    Fanout,
    /// A room of 50, and texts of 4 KiB, 8 under way.
    FanoutLarge,
    /// 2,000 clients in rooms of 10 that do nothing.
    Idle,
    /// A room of 50 with one client that reads nothing.
    Slow,
    /// 2,000 clients join one room in 5 s. The example chat runs with `--notify diff`.
    Storm,
}

/// How large a measurement is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// How long each part measures.
    pub(crate) seconds: Duration,
    /// With few clients, to see that all works.
    pub(crate) tiny: bool,
}

impl Size {
    fn of(self, full: usize, tiny: usize) -> usize {
        if self.tiny { tiny } else { full }
    }
}

/// Which of two values is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    More,
    Less,
    /// A value that only explains others.
    Neither,
}

/// One measured value.
#[derive(Debug)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) better: Better,
    pub(crate) value: f64,
}

const fn more(name: &'static str, value: f64) -> Figure {
    Figure { name, better: Better::More, value }
}

const fn less(name: &'static str, value: f64) -> Figure {
    Figure { name, better: Better::Less, value }
}

const fn neither(name: &'static str, value: f64) -> Figure {
    Figure { name, better: Better::Neither, value }
}

/// The name of the figure by which a limit of the load itself is seen.
pub(crate) const LOAD_SHARE: &str = "the load's share of its core, %";
/// The name of the figure by which a disturbed run is seen.
pub(crate) const OTHERS_SHARE: &str = "other programs' share of the server's core, %";

impl Scenario {
    /// The mode of the example chat.
    pub(crate) fn notify(self) -> &'static str {
        if self == Self::Storm { "diff" } else { "events" }
    }

    /// The most that a run of the scenario may take, so that it never hangs.
    fn bound(size: Size) -> Duration {
        size.seconds * 4 + Duration::from_secs(30)
    }

    pub(crate) fn run(self, server: &Server, size: Size) -> Result<Vec<Figure>, String> {
        let empty = server.resident()?;
        let load = Load::new(server.address, Self::bound(size))?;
        let mut bed = Bed { server, load: load.speaking(server.dialect), size };
        match self {
            Self::Join => joining::join(&mut bed),
            Self::Churn => joining::churn(&mut bed),
            Self::Light => joining::light(&mut bed),
            Self::Latency => joining::latency(&mut bed),
            Self::Storm => joining::storm(&mut bed),
            Self::Heartbeat => broadcast::heartbeat(&mut bed),
            Self::Paced => broadcast::paced(&mut bed),
            Self::Fanout => broadcast::fanout(&mut bed, size.of(300, 10), 64),
            Self::FanoutLarge => broadcast::fanout(&mut bed, size.of(50, 5), 4096),
            Self::Slow => broadcast::slow(&mut bed),
            Self::Idle => memory::idle(&mut bed, empty),
        }
    }
}

/// What a scenario works with.
#[derive(Debug)]
struct Bed<'a> {
    server: &'a Server,
    load: Load,
    size: Size,
}

/// A measured time.
#[derive(Debug)]
struct Window {
    began: Instant,
    server: Duration,
    load: Duration,
    core: Option<Duration>,
}

/// What happened in a measured time.
#[derive(Debug)]
struct Measured {
    seconds: f64,
    /// The processor time of the server in seconds.
    server: f64,
    load: f64,
    /// For how long others used the core of the server, in seconds.
    others: Option<f64>,
}

impl Measured {
    fn shares(&self) -> Vec<Figure> {
        let share = |name, seconds| neither(name, 100.0 * seconds / self.seconds);
        let others = self.others.map(|seconds| share(OTHERS_SHARE, seconds));
        let shares = [share("the server's share of its core, %", self.server), share(LOAD_SHARE, self.load)];
        shares.into_iter().chain(others).collect()
    }
}

impl Bed<'_> {
    /// Other clients of the same server, for another thread.
    fn another(&self) -> Result<Self, String> {
        let load = Load::new(self.server.address, Scenario::bound(self.size))?;
        Ok(Self { load: load.speaking(self.server.dialect), ..*self })
    }

    fn begin(&self) -> Result<Window, String> {
        Ok(Window {
            server: self.server.processor_time()?,
            load: processor_time("self")?,
            core: self.server.core_time(),
            began: Instant::now(),
        })
    }

    fn end(&self, window: &Window) -> Result<Measured, String> {
        let seconds = window.began.elapsed().as_secs_f64();
        let server = self.server.processor_time()?.saturating_sub(window.server).as_secs_f64();
        let load = processor_time("self")?.saturating_sub(window.load).as_secs_f64();
        let core = self.server.core_time().zip(window.core);
        // The time of the core is in ticks, so that it can be a little less than the server's.
        let others = core.map(|(now, before)| (now.saturating_sub(before).as_secs_f64() - server).max(0.0));
        Ok(Measured { seconds, server, load, others })
    }

    /// Lets clients join, evenly over rooms, and returns them by room and how long each took.
    fn fill(
        &mut self,
        clients: usize,
        rooms: usize,
        at_once: usize,
    ) -> Result<(Vec<Vec<usize>>, Vec<Duration>), String> {
        let (mut filled, mut times) = (vec![Vec::new(); rooms], Vec::new());
        let mut opened = 0;
        while times.len() < clients {
            while opened < clients && opened - times.len() < at_once {
                self.load.open((opened % rooms) as u32)?;
                opened += 1;
            }
            self.load.turn(Instant::now() + Duration::from_secs(1))?;
            while let Some(event) = self.load.next_event() {
                if let Event::Joined { client, room, took } = event {
                    filled[room as usize].push(client);
                    times.push(took);
                }
            }
        }
        Ok((filled, times))
    }
}

/// The value below which `share` of the times are, in milliseconds.
pub(crate) fn percentile(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    let rank = (times.len() as f64 * share).ceil() as usize;
    times.get(rank.saturating_sub(1)).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}
