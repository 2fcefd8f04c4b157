//! A process of clients, which obeys the lines that it reads and answers each with a line of numbers.
//!
//! The limit of open files and the ports of one address are not enough for the clients of many sockets, so there are several.

use std::{
    collections::VecDeque,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::mpsc::{self, TryRecvError},
    time::{Duration, Instant},
};

use crate::{
    load::{Event, Load},
    stop,
};

use super::heartbeats::Heartbeats;

/// How long this process may run.
const LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// How often a command is looked for, and the views are checked.
const STEP: Duration = Duration::from_millis(50);
/// How long the views must stay right, so that a notice that comes twice is seen.
const QUIET: Duration = Duration::from_millis(150);
/// Users and rooms of one process; each has numbers of its own.
const NUMBERS: u32 = 100_000;

/// Holds clients for `scale`.
#[derive(Debug, clap::Args)]
pub(crate) struct Crowd {
    /// Tells this process from others of the same measurement.
    number: u8,
    /// The seconds between two heartbeats of a client.
    heartbeat: f64,
}

#[derive(Debug)]
struct State {
    load: Load,
    heartbeats: Heartbeats,
    next_room: u32,
    /// The rooms that have lost a member with its server.
    missing: Vec<u32>,
}

pub(crate) fn crowd(args: &Crowd) -> Result<(), String> {
    stop::watch().map_err(|error| format!("signals cannot be watched: {error}"))?;
    let (sender, commands) = mpsc::channel();
    std::thread::spawn(move || std::io::stdin().lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let first = u32::from(args.number) * NUMBERS;
    let source = IpAddr::V4(Ipv4Addr::new(127, 0, 1, args.number.saturating_add(1)));
    let load = Load::new(SocketAddr::new(source, 0), LIFE)?.apart(source, first);
    let heartbeats = Heartbeats::new(Duration::from_secs_f64(args.heartbeat));
    let mut state = State { load, heartbeats, next_room: first, missing: Vec::new() };
    let done = loop {
        match commands.try_recv() {
            Ok(command) => match state.obey(&command) {
                Ok(numbers) => answer(&format!("ok {}", numbers.join(" ")))?,
                Err(failure) => break Err(failure),
            },
            Err(TryRecvError::Disconnected) => break Ok(()),
            Err(TryRecvError::Empty) => match state.step(Instant::now() + STEP) {
                Ok(_) => {}
                Err(failure) => break Err(failure),
            },
        }
    };
    if let Err(failure) = &done {
        answer(&format!("failed {}", failure.replace('\n', " ")))?;
    }
    done
}

fn answer(line: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| format!("there is no reader: {error}"))
}

fn number<T: std::str::FromStr>(word: Option<&str>) -> Result<T, String> {
    word.and_then(|word| word.parse().ok()).ok_or_else(|| "a command is not complete".to_owned())
}

impl State {
    fn obey(&mut self, command: &str) -> Result<Vec<String>, String> {
        let mut words = command.split_whitespace();
        match words.next() {
            Some("open") => {
                let (count, room, at_once) = (number(words.next())?, number(words.next())?, number(words.next())?);
                let servers = words.map(|word| number(Some(word))).collect::<Result<Vec<_>, _>>()?;
                self.open(count, room, at_once, &servers)
            }
            Some("return") => {
                let (at_once, server) = (number(words.next())?, number(words.next())?);
                let rooms = std::mem::take(&mut self.missing);
                self.join(rooms.into_iter().map(|room| (room, server)).collect(), at_once)
            }
            Some("beat") => {
                self.heartbeats.run(number(words.next())?);
                Ok(Vec::new())
            }
            Some("settle") => self.settle(Duration::from_secs(number(words.next())?)),
            Some("dismiss") => {
                let rooms = self.load.dismiss(number(words.next())?);
                self.heartbeats.retain(|client| self.load.is_member(client));
                let count = rooms.len();
                self.missing.extend(rooms);
                Ok(vec![count.to_string()])
            }
            Some("closes") => self.closes(Duration::from_secs(number(words.next())?)),
            Some("received") => {
                let (clients, frames, bytes) = self.load.received_by_all();
                Ok(vec![clients.to_string(), frames.to_string(), bytes.to_string()])
            }
            _ => Err(format!("there is no command {command:?}")),
        }
    }

    /// Sends the heartbeats that are due and handles what comes. Returns how long joins took.
    fn step(&mut self, until: Instant) -> Result<Vec<Duration>, String> {
        while let Some(client) = self.heartbeats.next() {
            let heartbeat = self.load.heartbeats(1);
            self.load.send_bytes(client, &heartbeat)?;
        }
        self.load.turn(self.heartbeats.wake().map_or(until, |wake| wake.min(until)))?;
        let mut joins = Vec::new();
        while let Some(event) = self.load.next_event() {
            if let Event::Joined { client, took, .. } = event {
                self.heartbeats.add(client);
                joins.push(took);
            }
        }
        Ok(joins)
    }

    /// Opens clients for new rooms. The members of a room are on all servers in turn, as behind a balancer.
    fn open(&mut self, count: u32, room: u32, at_once: usize, servers: &[SocketAddr]) -> Result<Vec<String>, String> {
        let first = self.next_room;
        self.next_room += count.div_ceil(room);
        let rooms = (0..count).map(|client| first + client / room);
        self.join(rooms.zip(servers.iter().copied().cycle()).collect(), at_once)
    }

    /// Returns how long each join took, in microseconds.
    fn join(&mut self, mut clients: VecDeque<(u32, SocketAddr)>, at_once: usize) -> Result<Vec<String>, String> {
        let (mut under_way, mut times) = (0, Vec::new());
        while under_way > 0 || !clients.is_empty() {
            while under_way < at_once
                && let Some((room, server)) = clients.pop_front()
            {
                self.load.server = server;
                self.load.open(room)?;
                under_way += 1;
            }
            let joins = self.step(Instant::now() + STEP)?;
            under_way -= joins.len();
            times.extend(joins.iter().map(|took| took.as_micros().to_string()));
        }
        Ok(times)
    }

    /// Returns after how many seconds all views were right.
    fn settle(&mut self, bound: Duration) -> Result<Vec<String>, String> {
        let began = Instant::now();
        loop {
            match self.load.wrong() {
                None => break,
                Some(wrong) if began.elapsed() > bound => return Err(format!("after {bound:?}: {wrong}")),
                Some(_) => self.turns(STEP)?,
            }
        }
        let took = began.elapsed().as_secs_f64();
        self.turns(QUIET)?;
        self.load.wrong().map_or(Ok(vec![took.to_string()]), Err)
    }

    /// How many dismissed clients were closed with each code, when all have ended; 0 for an end without a Close.
    fn closes(&mut self, bound: Duration) -> Result<Vec<String>, String> {
        let began = Instant::now();
        loop {
            if let Some(closes) = self.load.take_closes() {
                let pair = |(code, count): (Option<u16>, usize)| [code.unwrap_or(0).to_string(), count.to_string()];
                return Ok(closes.into_iter().flat_map(pair).collect());
            }
            if began.elapsed() > bound {
                return Err(format!("after {bound:?}: a socket of a server that has ended is open"));
            }
            self.step(Instant::now() + STEP)?;
        }
    }

    fn turns(&mut self, time: Duration) -> Result<(), String> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.step(end)?;
        }
        Ok(())
    }
}
