//! Every scenario for a moment, with few clients, so that the program works when somebody needs it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The program that is tested. The servers are in the same folder, unless `CHAT_BIN` names another chat.
const LOAD: &str = env!("CARGO_BIN_EXE_presence-load");

/// A server in the folder of the program, which is built if it is missing.
fn server(package: &str) -> PathBuf {
    let folder = Path::new(LOAD).parent().expect("a folder");
    let path = folder.join(package);
    if !path.exists() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        // What is set for this test would make cargo build crates with a build script, such as `ring`, a second time.
        let is_of_this_test = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        let names = std::env::vars_os().map(|(name, _)| name);
        names.filter(|name| name.to_str().is_some_and(is_of_this_test)).for_each(|name| _ = build.env_remove(name));
        build.current_dir(env!("CARGO_MANIFEST_DIR")).args([
            "build",
            "--quiet",
            "--all-features",
            "--package",
            package,
        ]);
        build.arg("--target-dir").arg(folder.parent().expect("a target folder"));
        if folder.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().is_ok_and(|status| status.success()), "{package} can be built");
    }
    path
}

/// Runs the program to its end and returns the table.
fn table(load: &mut Command) -> String {
    let output = load.output().expect("the program was built for this test");
    let (table, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{table}\n{log}");
    table.into_owned()
}

/// Runs all scenarios and returns the table.
fn compare(name: &str, server: &Path) -> String {
    let mut load = Command::new(LOAD);
    load.args(["compare", "--tiny", "--no-pin", "--rounds", "1", "--seconds", "0.2", "--server"]);
    load.arg(format!("{name}={}", server.display()));
    table(&mut load)
}

const SCENARIOS: [&str; 11] =
    ["join", "churn", "light", "latency", "heartbeat", "paced", "fanout", "fanout-large", "idle", "slow", "storm"];

fn check(table: &str) {
    for scenario in SCENARIOS {
        assert!(table.contains(&format!("\n| {scenario} | ")), "{scenario} is missing:\n{table}");
    }
    assert!(!table.contains("NaN") && !table.contains("inf"), "a figure has no value:\n{table}");
}

#[test]
fn every_scenario_works_with_the_example_chat() {
    let chat = std::env::var_os("CHAT_BIN").map_or_else(|| server("chat"), PathBuf::from);
    check(&compare("chat", &chat));
}

#[test]
fn every_scenario_works_with_the_server_without_presence() {
    check(&compare("floor", &server("presence-floor")));
}

#[test]
fn every_scenario_works_with_socketioxide() {
    check(&compare("socketioxide", &server("presence-socketioxide")));
}

#[test]
fn the_cost_of_touch_presence_is_measured() {
    let touch = server("presence-touch");
    let mut load = Command::new(LOAD);
    load.args(["compare", "--tiny", "--no-pin", "--rounds", "1", "--seconds", "0.2"]);
    load.args(["--scenario", "heartbeat", "--scenario", "paced"]);
    for name in ["no-touch", "touch"] {
        load.args(["--server", &format!("{name}={}", touch.display())]);
    }
    let table = table(&mut load);
    assert!(table.contains("| no-touch | touch | touch / no-touch |"), "{table}");
    assert!(table.contains("\n| heartbeat | heartbeats/s") && table.contains("\n| paced | server CPU"), "{table}");
}

#[test]
fn two_nodes_with_one_room_over_both_are_measured_with_their_restart() {
    let chat = std::env::var_os("CHAT_BIN").map_or_else(|| server("chat"), PathBuf::from);
    let mut load = Command::new(LOAD);
    load.args(["scale", "--sockets", "60", "--large-room", "20", "--nodes", "2", "--seconds", "0.2", "--server"]);
    load.arg(format!("chat={}", chat.display()));
    let table = table(&mut load);
    for row in [
        "| sockets | 0 | 20 | 40 | 60 |",
        "| sockets of a node that stops | | | | 30 |",
        "| how its sockets were closed | | | | 30 with 1012 |",
        "| how all sockets were closed | | | | 60 with 1012 |",
    ] {
        assert!(table.contains(row), "{row} is missing:\n{table}");
    }
    assert!(!table.contains("NaN") && !table.contains("inf"), "a figure has no value:\n{table}");
}

#[test]
fn a_signal_ends_the_program_and_its_server() {
    use std::io::{BufRead as _, BufReader};
    let mut load = Command::new(LOAD);
    load.args([
        "compare",
        "--tiny",
        "--no-pin",
        "--rounds",
        "1000",
        "--scenario",
        "join",
        "--seconds",
        "0.1",
        "--server",
    ]);
    load.arg(format!("floor={}", server("presence-floor").display()));
    let mut load =
        load.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().expect("built");
    let mut log = BufReader::new(load.stderr.take().expect("piped")).lines();
    let first = log.next().expect("a line for each run").expect("text");
    assert!(first.starts_with("join, round 1, floor: "), "{first}");
    let pid = load.id().to_string();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("a Linux with /proc");
    assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().is_ok_and(|status| status.success()));
    assert!(!load.wait().expect("a child").success());
    let last = log.last().expect("a reason").expect("text");
    assert_eq!(last, "stopped by a signal");
    for child in children.split_whitespace() {
        let program = std::fs::read_link(format!("/proc/{child}/exe"));
        assert!(program.is_err(), "the server still runs: {program:?}");
    }
}
