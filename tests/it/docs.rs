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
}

#[test]
fn each_statement_about_the_ancestor_has_a_test_or_a_row() {
    let listed = std::process::Command::new(root().join("tests/conformance-coverage")).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stdout));
}
