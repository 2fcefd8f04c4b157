//! The processes of clients, seen from the process that measures.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use crate::{process::processor_time, stop};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(150);

/// A process of clients, which is ended when this is dropped.
#[derive(Debug)]
struct Process {
    child: Child,
    commands: ChildStdin,
    answers: mpsc::Receiver<String>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // Either fails only if the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn start(number: usize, heartbeat: f64) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("a process of clients cannot be started: {error}");
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command
            .args(["crowd", &number.to_string(), &heartbeat.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().map_err(failed)?;
        let (commands, output) = child.stdin.take().zip(child.stdout.take()).ok_or("a process without pipes")?;
        let (sender, answers) = mpsc::channel();
        std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Ok(Self { child, commands, answers })
    }

    fn ask(&mut self, command: &str) -> Result<(), String> {
        // If it has ended, its last answer has the reason.
        let _ = writeln!(self.commands, "{command}");
        stop::check()
    }

    fn answer(&self) -> Result<Vec<f64>, String> {
        let end = Instant::now() + ANSWER;
        let line = loop {
            match self.answers.recv_timeout(Duration::from_millis(50)) {
                Ok(line) => break line,
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err("a process of clients has ended".to_owned()),
                Err(mpsc::RecvTimeoutError::Timeout) if Instant::now() > end => {
                    return Err(format!("a process of clients does not answer within {ANSWER:?}"));
                }
                Err(mpsc::RecvTimeoutError::Timeout) => stop::check()?,
            }
        };
        match line.strip_prefix("ok") {
            Some(numbers) => Ok(numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect()),
            None => Err(line),
        }
    }
}

/// Several processes of clients.
#[derive(Debug)]
pub(super) struct Crowds(Vec<Process>);

impl Crowds {
    /// The first has this number among all processes.
    pub(super) fn start(first: usize, count: usize, heartbeat: f64) -> Result<Self, String> {
        (first..first + count).map(|number| Process::start(number, heartbeat)).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Gives each process its command.
    pub(super) fn ask(&mut self, command: impl Fn(usize) -> String) -> Result<(), String> {
        self.0.iter_mut().enumerate().try_for_each(|(number, process)| process.ask(&command(number)))
    }

    /// The answers of all processes.
    pub(super) fn answers(&self) -> Result<Vec<Vec<f64>>, String> {
        self.0.iter().map(Process::answer).collect()
    }

    /// The processor time that the processes have used.
    pub(super) fn processor_time(&self) -> Result<Duration, String> {
        self.0.iter().map(|process| processor_time(&process.child.id().to_string())).sum()
    }
}

/// The part of `count` that is the one of a process; the parts differ by one at most.
pub(super) fn part(count: usize, processes: usize, number: usize) -> usize {
    count / processes + usize::from(number < count % processes)
}
