//! The commands of the pages: each is run, or what it names exists.

use super::{pages, read, root};
use crate::support::server::{ChatServer, binary};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output};

/// One command: its words, and the comment after it.
#[derive(Debug)]
struct CommandLine {
    words: Vec<String>,
    comment: String,
}

/// The words of a shell command up to a comment, without its quotes.
fn line(text: &str) -> CommandLine {
    let (mut words, mut word, mut is_quoted) = (Vec::new(), String::new(), false);
    for (at, c) in text.char_indices() {
        match c {
            '\'' => is_quoted = !is_quoted,
            '#' if !is_quoted && word.is_empty() => {
                return CommandLine { words, comment: text[at + 1..].trim().to_owned() };
            }
            ' ' if !is_quoted => words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty())),
            c => word.push(c),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    CommandLine { words, comment: String::new() }
}

/// The blocks of shell commands of a page, each with the first line of the output that the page shows after it.
fn blocks(text: &str) -> Vec<(Vec<CommandLine>, Option<String>)> {
    let parts: Vec<_> = text.split("\n```").collect();
    let of = |at: usize, language: &str| Some(parts.get(at)?.strip_prefix(language)?.trim().to_owned());
    let shells = (1..parts.len()).step_by(2).filter_map(|at| Some((at, of(at, "sh\n")?)));
    let lines = |block: String| block.replace("\\\n", " ").lines().filter(|line| !line.is_empty()).map(line).collect();
    shells
        .map(|(at, block)| (lines(block), of(at + 2, "text\n").map(|text| text.lines().next().unwrap().into())))
        .collect()
}

fn names(values: &Value) -> impl Iterator<Item = &str> {
    values
        .as_array()
        .into_iter()
        .flatten()
        .map(|value| value.as_str().unwrap_or_else(|| value["name"].as_str().unwrap()))
}

/// The packages of the workspace by their names, as cargo describes them.
fn packages() -> BTreeMap<String, Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["metadata", "--format-version", "1", "--no-deps", "--offline"];
    let metadata = Command::new(cargo).args(arguments).current_dir(root()).output().unwrap();
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages.map(|package| (package["name"].as_str().unwrap().to_owned(), package.clone())).collect()
}

/// The program of a package has the command, and the flags, with which a page starts it.
fn check_arguments(package: &Value, words: &[&str]) {
    let program = binary().with_file_name(package["name"].as_str().unwrap());
    let output = Command::new(&program).args([words[0], "--help"]).output();
    let output = output.unwrap_or_else(|error| {
        panic!("{}: {error}; `cargo build --workspace --all-features --bins`", program.display())
    });
    assert!(output.status.success(), "{words:?}: {output:?}");
    let help = String::from_utf8_lossy(&output.stdout);
    let known: BTreeSet<_> = help.split_whitespace().map(|word| word.trim_end_matches(',')).collect();
    let mut flags = words.iter().filter(|word| word.starts_with("--"));
    assert!(flags.all(|flag| known.contains(flag)), "a flag of {words:?} is not in the help:\n{help}");
}

/// The package, the features and the target that a command of cargo names exist, and it has only flags that are known.
fn check_cargo(CommandLine { words, comment }: &CommandLine, packages: &BTreeMap<String, Value>) {
    let is_known = |command: &str| ["build", "run", "bench", "doc", "test", "nextest"].contains(&command);
    assert!(is_known(&words[1]), "{words:?}");
    let (mut package, mut features, mut target) = (None, BTreeSet::new(), None);
    let mut rest = words[2..].iter().map(String::as_str);
    while let Some(word) = rest.next() {
        let mut value = || rest.next().unwrap_or_else(|| panic!("{word} of {words:?} has no value"));
        match word {
            "-p" | "--package" => package = Some(packages.get(value()).unwrap_or_else(|| panic!("{words:?}"))),
            "--features" => features.extend(value().split(',')),
            "--bench" => target = Some(("bench", value())),
            "--release" | "--workspace" | "--all-features" | "--bins" | "--open" => {}
            "run" if words[1] == "nextest" => {}
            "--" => {
                check_arguments(package.expect("a package"), &rest.by_ref().collect::<Vec<_>>());
            }
            word => panic!("no test knows {word} of {words:?}"),
        }
    }
    if let Some(file) = comment.strip_prefix("target/release/") {
        target = Some(("bin", file));
    }
    let Some(package) = package else { return assert!(words.contains(&"--workspace".into()), "{words:?}") };
    for feature in &features {
        assert!(!package["features"][feature].is_null(), "{feature} of {words:?}");
    }
    features.extend(names(&package["features"]["default"]));
    if let Some((kind, name)) = target {
        let mut targets = package["targets"].as_array().unwrap().iter();
        let target = targets.find(|target| target["name"] == name && names(&target["kind"]).any(|one| one == kind));
        let target = target.unwrap_or_else(|| panic!("there is no {kind} {name}: {words:?}"));
        let has = |feature| words.contains(&"--all-features".into()) || features.contains(feature);
        assert!(names(&target["required-features"]).all(has), "{words:?} lacks a feature of {name}");
    }
}

fn tool(arguments: &[&str], variables: &BTreeMap<String, String>) -> Output {
    let tool = binary().with_file_name("presence");
    let output = Command::new(&tool).args(arguments).envs(variables).output();
    output
        .unwrap_or_else(|error| panic!("{}: {error}; `cargo build --workspace --all-features --bins`", tool.display()))
}

/// `curl` to this server: it ends well, or after the time that it was given, and its output is what the page says.
fn check_curl(CommandLine { words, comment }: &CommandLine, shown: Option<&String>, server: &ChatServer) {
    let address = server.address().to_string();
    let arguments = words[1..].iter().map(|word| word.replace("127.0.0.1:8080", &address));
    let output = Command::new("curl").args(arguments).output().expect("`curl` is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    let timed_out = output.status.code() == Some(28) && words.iter().any(|word| word == "--max-time");
    assert!(output.status.success() || timed_out, "{words:?}: {output:?}");
    let (status, body) = comment.split_once(": ").unwrap_or((comment, ""));
    assert!(text.contains(&format!("HTTP/1.1 {status}")) || status.is_empty(), "{words:?}: {text}");
    assert!(text.contains(body) && shown.is_none_or(|shown| text.contains(shown)), "{words:?}: {text}");
}

#[tokio::test]
async fn each_command_of_the_pages_runs_or_names_what_exists() {
    let (server, packages) = (ChatServer::start(&[]).await, packages());
    let mut count = 0;
    for page in pages().into_iter().map(|page| format!("docs/{page}")).chain(["README.md".into()]) {
        for (lines, shown) in blocks(&read(&page)) {
            let mut variables = BTreeMap::new();
            for one in lines {
                count += 1;
                match &*one.words[0] {
                    "cargo" => check_cargo(&one, &packages),
                    "curl" => check_curl(&one, shown.as_ref(), &server),
                    "export" => {
                        let (name, value) = one.words[1].split_once('=').unwrap();
                        let folder = server.folder().display().to_string();
                        variables.insert(name.to_owned(), value.replace("/var/lib/chat", &folder));
                    }
                    "presence" => {
                        let arguments: Vec<_> = one.words[1..].iter().map(String::as_str).collect();
                        let output = tool(&arguments, &variables);
                        assert!(output.status.success(), "{page}: {one:?}: {output:?}");
                    }
                    "./tests/run" => assert!(root().join("tests/run").is_file() && one.words.len() == 1, "{one:?}"),
                    program if program.starts_with("target/debug/") => {
                        let name = program.trim_start_matches("target/debug/");
                        let mut targets = packages.values().flat_map(|package| package["targets"].as_array().unwrap());
                        let is_it =
                            |target: &Value| target["name"] == name && names(&target["kind"]).any(|kind| kind == "bin");
                        assert!(targets.any(is_it), "{page}: {program}");
                        let words = one.words[1..].to_vec();
                        check_cargo(&CommandLine { words, comment: String::new() }, &packages);
                    }
                    _ => panic!("{page}: no test runs {one:?}"),
                }
            }
        }
        // In sentences, too.
        for inline in
            read(&page).split('`').filter(|inline| inline.starts_with("cargo ") && inline.contains(" --package "))
        {
            check_cargo(&line(inline), &packages);
        }
    }
    assert!(count > 10, "{count} commands");
}

#[test]
fn each_row_of_the_command_line_is_a_command_with_these_options() {
    let page = read("docs/command-line.md");
    let rows: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("| `presence ")?.split('`').next()).collect();
    assert!(rows.len() > 5, "{rows:?}");
    for row in rows {
        let command = row.split(' ').next().unwrap();
        let output = tool(&[command, "--help"], &BTreeMap::new());
        let help = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{command}: {output:?}");
        let options = row.split(['[', ' ', ']']).filter(|word| word.starts_with("--"));
        options.chain(["--database-url", "--json"]).for_each(|option| assert!(help.contains(option), "{row}: {help}"));
    }
}
