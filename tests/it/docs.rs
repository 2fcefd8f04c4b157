//! What is written: links lead somewhere, the book has all its pages, tables leave nothing out, each snippet of Rust is a
//! doctest, and each command runs.

mod commands;
mod readme;
mod testing;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The pages of the book, but for its table of contents.
fn pages() -> BTreeSet<String> {
    let names =
        fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".md") && name != "SUMMARY.md").collect()
}

/// The lines that are not code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !in_code && !fence
    })
}

/// What the links of a text lead to.
fn links(text: &str) -> Vec<String> {
    let ends = prose(text).flat_map(|line| line.split("](").skip(1));
    ends.map(|rest| rest.split(')').next().unwrap().to_owned()).collect()
}

/// The name by which a link finds a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn every_link_in_the_documents_leads_somewhere() {
    let documents = pages().into_iter().map(|page| format!("docs/{page}"));
    for document in documents.chain(["README.md", "CHANGELOG.md", "docs/SUMMARY.md"].map(Into::into)) {
        let text = read(&document);
        for link in links(&text).into_iter().filter(|link| !link.contains("://")) {
            let (path, heading) = link.split_once('#').unwrap_or((&link, ""));
            let file = if path.is_empty() {
                root().join(&document)
            } else {
                root().join(&document).parent().unwrap().join(path)
            };
            assert!(file.is_file(), "{document} links to {path}, which is not there");
            if !heading.is_empty() {
                let there = fs::read_to_string(&file).unwrap();
                let found =
                    prose(&there).any(|line| line.starts_with('#') && anchor(line.trim_start_matches('#')) == heading);
                assert!(found, "{document} links to {link}, a heading that is not there");
            }
        }
        // A reader of the built book has the book only.
        let inside = !document.starts_with("docs/") || !links(&text).iter().any(|link| link.starts_with("../"));
        assert!(inside, "{document} links out of the book");
    }
}

#[test]
fn the_table_of_contents_lists_each_page_once() {
    let mut listed = links(&read("docs/SUMMARY.md"));
    listed.sort();
    assert_eq!(listed, pages().into_iter().collect::<Vec<_>>());
}

// behaviour: W19 compiled-examples
#[test]
fn each_page_that_shows_rust_is_a_doctest() {
    let doctests = read("presence/src/book.rs");
    let documents = pages().into_iter().map(|page| format!("docs/{page}")).chain(["README.md".into()]);
    for document in documents.filter(|document| read(document).contains("```rust")) {
        assert!(doctests.contains(&format!("/{document}\")")), "{document} is not in presence/src/book.rs");
    }
    for document in pages() {
        let text = read(format!("docs/{document}"));
        let opened = text.lines().filter(|line| line.starts_with("```")).step_by(2);
        assert!(opened.into_iter().all(|fence| fence.len() > 3), "{document} has code of no language");
    }
}

/// The lines of the Rust of a page that the built book shows.
fn visible_rust(page: &str) -> Vec<String> {
    let blocks = page.split("```rust").skip(1).filter_map(|block| block.split("```").next());
    let lines = blocks.map(|block| block.lines().skip(1).filter(|line| !line.starts_with("# ")));
    lines.map(|lines| lines.collect::<Vec<_>>().join("\n")).collect()
}

/// Fails if the Rust of a page is not the program in this file, which begins with a comment.
fn assert_is_compiled(page: &str, file: &str) {
    let without_space = |text: &str| text.split_whitespace().collect::<String>();
    let file = read(file);
    let program = file.split_once("\n\n").unwrap().1;
    assert_eq!(without_space(&visible_rust(page).join("\n")), without_space(program));
}

#[test]
fn the_program_of_the_quick_start_is_the_example_that_is_compiled() {
    let page = read("docs/quick-start.md");
    let steps = page.split_once("## 2. ").unwrap().1.split_once("A server that has an `on_connect`").unwrap().0;
    assert_is_compiled(steps, "tests/examples/quick_start.rs");
}

#[test]
fn the_tests_of_the_page_on_testing_are_those_that_run() {
    assert_is_compiled(&read("docs/testing.md"), "tests/it/docs/testing.rs");
}

#[test]
fn the_server_of_the_readme_is_the_example_that_is_compiled() {
    let readme = read("README.md");
    let servers = visible_rust(&readme).into_iter().filter(|block| block.contains("HttpServer::new"));
    let example = read("tests/examples/readme.rs");
    let (program, _) = example.split_once("\n\n").unwrap().1.split_once("\n\nfn port()").unwrap();
    assert_eq!(servers.collect::<Vec<_>>(), [program.replace("port()", "8080")]);
}

#[test]
fn no_document_has_the_marks_of_a_merge() {
    for document in
        pages().into_iter().map(|page| format!("docs/{page}")).chain(["README.md", "CHANGELOG.md"].map(Into::into))
    {
        let marks = |line: &str| ["<<<<<<< ", ">>>>>>> "].iter().any(|mark| line.starts_with(mark));
        assert!(!read(&document).lines().any(marks), "{document}");
    }
}

#[test]
fn the_server_of_the_readme_has_at_most_35_lines() {
    let readme = read("README.md");
    let server = readme.split("```").find(|block| block.starts_with("rust") && block.contains("HttpServer::new"));
    let lines = server.expect("there is a server").trim_end().lines().count() - 1;
    assert!(lines <= 35, "{lines}");
}

#[test]
fn each_setting_has_a_row() {
    let (source, page) = (read("presence/src/config.rs"), read("docs/configuration.md"));
    let table = source.split_once("\nconfig! {").unwrap().1.split_once("\n}").unwrap().0;
    let lines = table.lines().filter(|line| !line.trim_start().starts_with("//"));
    let settings: Vec<_> = lines.filter_map(|line| Some(line.split_once(": ")?.0.trim())).collect();
    assert!(settings.len() > 20, "{settings:?}");
    for setting in settings {
        assert!(page.contains(&format!("\n| `{setting}` |")), "`{setting}` has no row");
    }
}

/// The settings that limit nothing that anybody does.
const NO_LIMITS: [&str; 13] = [
    "touch_flush_interval",
    "notify_interval",
    "notify",
    "on_stale",
    "durability",
    "sweep_interval",
    "prune_interval",
    "prune_rooms_interval",
    "reconcile_interval",
    "hold_window",
    "ping_interval",
    "room_threads",
    "store_lanes",
];

/// The rows of the table of all limits, each as its cells.
fn limits(page: &str) -> Vec<Vec<String>> {
    rows(page, "All limits")
}

/// The rows of the table below this heading, each as its cells.
fn rows(page: &str, heading: &str) -> Vec<Vec<String>> {
    let table = page.split_once(&format!("\n## {heading}\n")).unwrap().1.split_once("\n## ").unwrap().0;
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(2);
    rows.map(|row| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// As the page writes a number or a time that `Debug` wrote.
fn as_written(value: &str) -> String {
    let digits = value.trim_end_matches(char::is_alphabetic);
    let mut number = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n) % 3 == 0 {
            number.push(',');
        }
        number.push(digit);
    }
    let unit = &value[digits.len()..];
    if unit.is_empty() { number } else { format!("{number} {unit}") }
}

#[test]
fn each_setting_that_is_a_limit_and_each_limit_that_is_none_has_a_row_in_the_table_of_all_limits() {
    let rows = limits(&read("docs/configuration.md"));
    for row in &rows {
        assert!(row.len() == 4 && row.iter().all(|cell| !cell.is_empty()), "{row:?}");
    }
    let has = |name: &str| rows.iter().any(|row| row[0].contains(&format!("`{name}`")));
    let settings = format!("{:?}", presence::Config::default());
    let settings = settings.trim_start_matches("Config { ").trim_end_matches(" }").split(", ");
    let settings: Vec<_> = settings.map(|setting| setting.split_once(": ").unwrap()).collect();
    assert!(settings.len() > 20 && NO_LIMITS.iter().all(|name| settings.iter().any(|setting| setting.0 == *name)));
    for (name, default) in settings.into_iter().filter(|(name, _)| !NO_LIMITS.contains(name)) {
        let own: Vec<_> = rows.iter().filter(|row| row[0].starts_with(&format!("`{name}`"))).collect();
        assert!(!own.is_empty(), "`{name}` is a limit and has no row, or limits nothing");
        // What this depends on is different on each machine.
        for row in own.into_iter().filter(|_| name != "max_sockets") {
            let default = as_written(default);
            let is_so =
                row[1] == default || [',', ' '].iter().any(|end| row[1].starts_with(&format!("{default}{end}")));
            assert!(is_so, "the default of `{name}` is {default}, not {}", row[1]);
        }
    }
    for name in constants() {
        assert!(has(&name), "`{name}` has no row");
    }
}

/// The constants of the crate and the chat that are named as limits.
fn constants() -> BTreeSet<String> {
    let names = sources().into_iter().flat_map(|source| {
        let declared = source.split("const M").skip(1);
        let names = declared.filter_map(|rest| Some(format!("M{}", rest.split_once(": usize")?.0)));
        names.filter(|name| ["MAX_", "MIN_"].iter().any(|start| name.starts_with(start))).collect::<Vec<_>>()
    });
    let names: BTreeSet<_> = names.filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_')).collect();
    assert!(names.len() > 5, "{names:?}");
    // These limit nothing that a user notices: what a log line or an error shows, how many changes of another node wait for one that is
    // missing, the upper bound of three settings, what counts as a heartbeat, the sizes of transactions and of the changes in the change log, how often one is repeated, and
    // when the last update of a socket that is gone counts for `max_pending_writes`.
    let others = [
        "MAX_BYTES",
        "MAX_CHANGES_PER_TRANSACTION",
        "MAX_CHANGE_BYTES",
        "MAX_DELAYED_LEAVES",
        "MAX_EARLY",
        "MAX_FAULTS",
        "MAX_PENDING_OF_PRESENCE",
        "MAX_PER_SECOND",
        "MAX_QUOTED_CHARS",
        "MAX_REMOVALS",
        "MAX_RETRIES",
        "MAX_ROOMS_PER_REMOVAL",
        "MAX_SHOWN",
        "MAX_TOUCHES_PER_TRANSACTION",
        "MIN_LEAVERS_FOR_EMPTY_CHECK",
        "MIN_LIMIT_AFTER_FAILURES",
        "MIN_REMOVALS",
    ];
    names.into_iter().filter(|name| !others.contains(&&**name)).collect()
}

/// The sources of the crate and the chat, without their tests.
fn sources() -> Vec<String> {
    let mut folders = vec![root().join("presence/src"), root().join("examples/chat/src")];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("tests") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(read(path));
            }
        }
    }
    sources
}

#[test]
fn what_the_table_of_all_limits_says_is_logged_is_in_the_sources() {
    let sources = sources();
    let mut texts = 0;
    for row in limits(&read("docs/configuration.md")) {
        for text in row[3].split('"').skip(1).step_by(2) {
            assert!(sources.iter().any(|source| source.contains(text)), "nothing logs {text:?}");
            texts += 1;
        }
    }
    assert!(texts > 20);
}

#[test]
fn the_metrics_to_be_are_named_alike_and_name_no_room_or_user() {
    let page = read("docs/configuration.md");
    let metrics = rows(&page, "Names for metrics");
    let counted: BTreeSet<_> = metrics.iter().flat_map(|row| row[1].split("; ")).collect();
    for limit in limits(&page) {
        assert!(counted.contains(&*limit[0]), "no metric counts {}", limit[0]);
    }
    for row in metrics {
        let metric = row[0].trim_matches('`');
        let (name, labels) = metric.split_once('{').map_or((metric, None), |(name, labels)| (name, Some(labels)));
        let is_name = name.starts_with("presence_") && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        assert!(is_name && name.ends_with("_total"), "{metric}");
        if let Some(label) = labels.map(|labels| labels.trim_end_matches('}')) {
            let (key, value) = label.split_once('=').unwrap();
            assert!(["cause", "reason", "what", "queue"].contains(&key), "{metric}");
            assert!(value.trim_matches('"').chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{metric}");
        }
    }
}

#[test]
fn each_flag_of_the_chat_has_a_row() {
    let (source, page) = (read("examples/chat/src/args.rs"), read("docs/chat.md"));
    let variables: Vec<_> = source.split("env = \"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(variables.len() > 5, "{variables:?}");
    for variable in variables {
        assert!(page.contains(&format!("` | `{variable}` |")), "`{variable}` has no row");
    }
}

#[test]
fn each_close_code_has_a_row() {
    let (source, page) = (read("presence/src/model/close.rs"), read("docs/wire.md"));
    for code in source.split("Self = Self(").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        let row = page.contains(&format!("\n| {code} |")) || ["1005", "1006"].contains(&code) && page.contains(code);
        assert!(row, "{code} has no row");
    }
    let ranges: Vec<_> = source.split("<Self> = ").skip(1).map(|rest| rest.split(';').next().unwrap()).collect();
    assert_eq!(ranges.len(), 3, "{ranges:?}");
    for range in ranges {
        assert!(
            page.contains(&format!("\n| {} |", range.replace("Self(", "").replace(')', "").replace("..=", "–"))),
            "{range} has no row"
        );
    }
}

/// What the coverage script finds fault with in this repository, or in a folder laid out like it.
fn uncovered(folder: Option<&Path>) -> Option<String> {
    let script = root().join("tests/conformance-coverage");
    let listed = std::process::Command::new(script).args(folder).output().unwrap();
    (!listed.status.success()).then(|| String::from_utf8(listed.stdout).unwrap())
}

#[test]
fn each_statement_about_the_ancestor_has_a_test_or_a_row() {
    assert_eq!(uncovered(None), None);
}

#[test]
fn a_statement_is_covered_by_a_real_test_or_by_a_row_that_can_be_read_and_by_nothing_else() {
    let folder = crate::support::folder();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("tests/conformance.txt", "# A comment: no id\n1 a: this is so\u{20}\n2.1 b: that is so too\n");
    let test = "// behaviour: 1 a\n#[tokio::test]\nasync fn a() {}\n";
    let row = "| theirs | ours | differs by much <!-- behaviour: 2.1 b --> |\n";
    let found = |tests: &str, rows: &str| {
        write("tests/it/some.rs", tests);
        write("docs/coming-from-django.md", rows);
        uncovered(Some(folder.path()))
    };
    assert!(found(test, row).is_some_and(|found| found == "says too little: 1 a\n"));
    write("tests/conformance.txt", "# A comment: no id\n1 a: this one is so\n2.1 b: that is so too\n");
    assert_eq!(found(test, row), None);
    assert_eq!(found(test, "").unwrap(), "neither a test nor a row: 2.1 b\n");
    let hidden = found(test, "\n<!-- behaviour: 2.1 b -->\n").unwrap();
    assert!(hidden.contains("with nothing to read beside it: 2.1 b"), "{hidden}");
    assert!(found(test, "| | `x` | <!-- behaviour: 2.1 b --> |\n").unwrap().contains("nothing to read"));
    let no_test = found("// behaviour: 1 a\nfn a() {}\n", row).unwrap();
    assert_eq!(no_test, "neither a test nor a row: 1 a\nabove no test: 1 a\n");
    let unknown = found(&format!("{test}// behaviour: 3 c\n#[test]\nfn c() {{}}\n"), row).unwrap();
    assert_eq!(unknown, "not in tests/conformance.txt: 3 c\n");
}
