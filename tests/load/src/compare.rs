//! `compare`: scenarios, servers and rounds in turns.

use std::time::{Duration, Instant};

use clap::ValueEnum as _;

use crate::{
    build,
    process::{Cores, Program, Server, Setup},
    raise_open_files,
    scenarios::{Figure, LOAD_SHARE, OTHERS_SHARE, Scenario, Size},
    setting, stop,
    table::Table,
};

/// The share of their core, in percent, above which the clients may be slower than the server.
const BUSY: f64 = 90.0;
/// The share of the server's core, in percent, above which other programs make a run worth little.
const DISTURBED: f64 = 10.0;

#[derive(Debug, clap::Args)]
pub(crate) struct Compare {
    /// `floor`, `chat`, `socketioxide`, or NAME=PATH of another build of the example chat; `no-touch` and `touch` are a consumer that
    /// does nothing, without and with `#[touch_presence]`. The ratios are to the first [default: floor, chat].
    /// The example chat has one worker; a colon and a number after its name give it more, as in `chat:2` and NAME:2=PATH.
    /// Several workers need several cores, and so `--no-pin`.
    #[arg(long = "server", value_name = "SERVER")]
    servers: Vec<Program>,
    /// What is measured [default: all].
    #[arg(long = "scenario", value_enum, value_name = "SCENARIO")]
    scenarios: Vec<Scenario>,
    /// How often each server is measured. The servers take turns; the table has the medians.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long each part of a scenario measures.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// A setting of the example chat, such as PRESENCE_NOTIFY_INTERVAL=0.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
    /// The mode of the example chat in all scenarios, instead of the one of the scenario.
    #[arg(long)]
    notify: Option<String>,
    /// The core of the server and the core of the clients.
    #[arg(long, value_name = "SERVER,CLIENTS", default_value = "0,1", value_parser = cores)]
    cores: (usize, usize),
    /// Do not choose cores.
    #[arg(long)]
    no_pin: bool,
    /// Few clients, to see that all works. The figures mean nothing.
    #[arg(long)]
    tiny: bool,
}

fn cores(text: &str) -> Result<(usize, usize), String> {
    let cores = text.split_once(',').and_then(|(server, load)| Some((server.parse().ok()?, load.parse().ok()?)));
    cores.ok_or_else(|| "not two numbers with a comma between".to_owned())
}

pub(crate) fn compare(args: &Compare) -> Result<(), String> {
    let mut programs = args.servers.clone();
    if programs.is_empty() {
        programs = vec!["floor".parse()?, "chat".parse()?];
    }
    if programs.iter().any(|program| program.package().is_some()) {
        build(&programs)?;
    }
    raise_open_files()?;
    stop::watch().map_err(|error| format!("signals cannot be watched: {error}"))?;

    let mut table = Table::new(programs.iter().map(|program| program.name.clone()).collect());
    let measured = args.measure(&programs, &mut table);
    // Also after a failure or a signal.
    println!("{table}");
    measured
}

impl Compare {
    /// Fails at the end if a run fails, and at once after a signal.
    fn measure(&self, programs: &[Program], table: &mut Table) -> Result<(), String> {
        let seconds = Duration::try_from_secs_f64(self.seconds).map_err(|error| format!("--seconds: {error}"))?;
        let size = Size { seconds, tiny: self.tiny };
        let chosen = if self.scenarios.is_empty() { Scenario::value_variants() } else { &self.scenarios };
        let mut failures = Vec::new();
        for &scenario in chosen {
            let name = scenario.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
            for round in 1..=self.rounds {
                for (column, program) in programs.iter().enumerate() {
                    let began = Instant::now();
                    let figures = self.run(scenario, program, size);
                    stop::check()?;
                    let run = format!("{name}, round {round}, {}", program.name);
                    match figures {
                        Ok(figures) => {
                            eprintln!("{run}: {:.1} s", began.elapsed().as_secs_f64());
                            figures.into_iter().for_each(|figure| table.add(&name, column, figure));
                        }
                        Err(failure) => {
                            eprintln!("{run}: FAILED: {failure}");
                            failures.push(run);
                        }
                    }
                }
            }
        }
        let shares = table.values(LOAD_SHARE).filter(|share| *share > BUSY && !self.tiny);
        if let Some(most) = shares.max_by(f64::total_cmp) {
            eprintln!("warning: the clients took {most:.0} % of their core in a run, and may have been the limit");
        }
        let shares = table.values(OTHERS_SHARE).filter(|share| *share > DISTURBED && !self.tiny);
        if let Some(most) = shares.max_by(f64::total_cmp) {
            eprintln!("warning: other programs took {most:.0} % of the server's core in a run: see the spread");
        }
        if failures.is_empty() { Ok(()) } else { Err(format!("failed: {}", failures.join("; "))) }
    }

    fn run(&self, scenario: Scenario, program: &Program, size: Size) -> Result<Vec<Figure>, String> {
        let notify = self.notify.as_deref().unwrap_or(scenario.notify());
        let cores: Cores = (!self.no_pin).then_some(self.cores);
        // A client of this program stands for many.
        let mut variables = vec![("PRESENCE_MESSAGES_PER_SECOND".to_owned(), "0".to_owned())];
        variables.extend(self.settings.iter().cloned());
        let arguments =
            vec!["--workers".to_owned(), program.workers.to_string(), "--notify".to_owned(), notify.to_owned()];
        let server = Server::start(program, &Setup { arguments, variables, cores, ..Setup::default() })?;
        scenario.run(&server, size).map_err(|failure| server.explain(failure))
    }
}
