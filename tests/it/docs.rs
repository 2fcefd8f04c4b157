//! What is written: links lead somewhere, the book has all its pages, tables leave nothing out, and each snippet of Rust
//! is a doctest.

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
    let (source, page) = (read("presence/src/room/close_code.rs"), read("docs/wire.md"));
    for code in source.split("u16 = ").skip(1).map(|rest| rest.split(';').next().unwrap()) {
        let row = page.contains(&format!("\n| {code} |")) || ["1005", "1006"].contains(&code) && page.contains(code);
        assert!(row, "{code} has no row");
    }
    let ranges: Vec<_> = source.split("> = ").skip(1).map(|rest| rest.split(';').next().unwrap()).collect();
    assert_eq!(ranges.len(), 3, "{ranges:?}");
    for range in ranges {
        assert!(page.contains(&format!("\n| {} |", range.replace("..=", "–"))), "{range} has no row");
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
