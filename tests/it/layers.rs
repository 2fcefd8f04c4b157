//! The architecture as it is written: who imports whom in the library, and which files the page names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::{
    Attribute, Item, Meta, UseTree,
    punctuated::Punctuated,
    visit::{self, Visit},
};

type Names = Vec<String>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn page() -> String {
    fs::read_to_string(root().join("docs/architecture.md")).unwrap()
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The cells of the table below a heading of the page, without its head.
fn table(heading: &str) -> Vec<Vec<String>> {
    let page = page();
    let section = page.split(&format!("\n## {heading}\n")).nth(1).unwrap_or_else(|| panic!("no heading {heading}"));
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// Whether this is compiled into the library with all its features.
fn is_built(attributes: &[Attribute]) -> bool {
    fn holds(condition: &Meta) -> bool {
        let all = |list: &syn::MetaList| {
            list.parse_args_with(Punctuated::<Meta, syn::Token![,]>::parse_terminated).unwrap().into_iter()
        };
        match condition {
            Meta::List(list) if list.path.is_ident("all") => all(list).all(|one| holds(&one)),
            Meta::List(list) if list.path.is_ident("any") => all(list).any(|one| holds(&one)),
            Meta::List(list) if list.path.is_ident("not") => !all(list).any(|one| holds(&one)),
            Meta::Path(path) => !path.is_ident("test") && !path.is_ident("doctest"),
            _ => true,
        }
    }
    let conditions = attributes.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    conditions.map(|attribute| attribute.parse_args::<Meta>().unwrap()).all(|condition| holds(&condition))
}

/// A file of the library.
#[derive(Default)]
struct Source {
    path: String,
    /// What its imports bind to which name.
    bound: BTreeMap<String, Names>,
    /// What it imports, or names by its path.
    named: BTreeSet<Names>,
}

/// Reads a file: what it names, in which module.
struct Reader {
    module: Names,
    source: Source,
    children: Vec<String>,
}

impl Reader {
    /// The path from the root of the crate; `None` if it leads elsewhere.
    fn absolute(&self, path: &[String]) -> Option<Names> {
        let mut module = self.module.clone();
        let rest = match path[0].as_str() {
            "crate" => {
                module.clear();
                &path[1..]
            }
            "self" => &path[1..],
            "super" => {
                let ups = path.iter().take_while(|name| *name == "super").count();
                module.truncate(module.len().checked_sub(ups)?);
                &path[ups..]
            }
            name if self.children.iter().any(|child| child == name) => path,
            _ => return None,
        };
        Some([&module, rest].concat())
    }

    fn note(&mut self, path: &[String]) {
        self.source.named.extend(self.absolute(path));
    }

    fn bind(&mut self, prefix: &Names, tree: &UseTree, passes_on: bool) {
        let with = |name: &syn::Ident| [prefix.as_slice(), &[name.to_string()]].concat();
        let (path, name) = match tree {
            UseTree::Path(path) => return self.bind(&with(&path.ident), &path.tree, passes_on),
            UseTree::Group(group) => return group.items.iter().for_each(|tree| self.bind(prefix, tree, passes_on)),
            UseTree::Glob(_) => (prefix.clone(), None),
            UseTree::Name(name) if name.ident == "self" => (prefix.clone(), prefix.last().cloned()),
            UseTree::Name(name) => (with(&name.ident), Some(name.ident.to_string())),
            UseTree::Rename(rename) => (with(&rename.ident), Some(rename.rename.to_string())),
        };
        if let Some(path) = self.absolute(&path) {
            self.source.bound.extend(name.map(|name| (name, path.clone())));
            self.source.named.extend((!passes_on).then_some(path));
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Use(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if is_built(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        // What it only passes on it need not know.
        self.bind(&Names::new(), &item.tree, !matches!(item.vis, syn::Visibility::Inherited));
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.content.is_some() {
            self.module.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.module.pop();
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if names.len() > 1 {
            self.note(&names);
        }
        visit::visit_path(self, path);
    }

    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    /// Within a macro paths are only words.
    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let text = call.tokens.to_string().split('"').step_by(2).collect::<String>().replace(' ', "");
        for (at, _) in text.match_indices("crate::").filter(|(at, _)| !text[..*at].ends_with('$')) {
            let word = text[at..].split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | ':'))).next().unwrap();
            self.note(&word.split("::").filter(|name| !name.is_empty()).map(Into::into).collect::<Names>());
        }
    }
}

/// The files of the library, by their modules.
struct Sources(BTreeMap<Names, Source>);

impl Sources {
    fn read() -> Self {
        let mut sources = Self(BTreeMap::new());
        sources.add(Names::new(), "lib.rs");
        sources
    }

    fn add(&mut self, module: Names, path: &str) {
        let text = fs::read_to_string(root().join("presence/src").join(path)).unwrap_or_else(|_| panic!("{path}"));
        let file = syn::parse_file(&text).unwrap();
        let declared = file.items.iter().filter_map(|item| match item {
            Item::Mod(item) if item.content.is_none() && is_built(&item.attrs) => Some(item.ident.to_string()),
            _ => None,
        });
        let children: Vec<_> = declared.collect();
        let source = Source { path: path.to_owned(), ..Source::default() };
        let mut reader = Reader { module: module.clone(), source, children };
        reader.visit_file(&file);
        let folder = if module.is_empty() { String::new() } else { format!("{}/", path.trim_end_matches(".rs")) };
        for child in &reader.children {
            self.add([module.as_slice(), std::slice::from_ref(child)].concat(), &format!("{folder}{child}.rs"));
        }
        self.0.insert(module, reader.source);
    }

    /// The file that defines what a path leads to.
    fn defines(&self, path: &[String]) -> &Source {
        let mut module = Names::new();
        for (at, name) in path.iter().enumerate() {
            module.push(name.clone());
            if self.0.contains_key(&module) {
                continue;
            }
            module.pop();
            let source = &self.0[&module];
            return match source.bound.get(name) {
                Some(bound) if bound != path => self.defines(&[bound.as_slice(), &path[at + 1..]].concat()),
                _ => source,
            };
        }
        &self.0[&module]
    }

    /// Which file imports from which others. The crate's root, which only passes names on, imports nothing.
    fn imports(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let all = self.0.iter().filter(|(module, _)| !module.is_empty()).map(|(_, source)| {
            let others = source.named.iter().map(|path| self.defines(path).path.as_str());
            (source.path.as_str(), others.filter(|other| *other != source.path && *other != "lib.rs").collect())
        });
        all.collect()
    }
}

/// The module at the crate's root that a file is of.
fn top(path: &str) -> &str {
    path.split(['/', '.']).next().unwrap()
}

#[test]
fn each_module_imports_only_from_the_rows_above_its_own() {
    let rows = table("Modules");
    let row_of: BTreeMap<_, _> =
        rows.iter().enumerate().flat_map(|(row, cells)| quoted(&cells[0]).map(move |module| (module, row))).collect();
    let sources = Sources::read();
    let mut upward = Vec::new();
    for (file, others) in sources.imports() {
        let row = row_of.get(top(file)).unwrap_or_else(|| panic!("{file} is of a module that the table does not have"));
        for other in others {
            if top(other) != top(file) && row_of[top(other)] >= *row {
                upward.push(format!("{file} imports from {other}"));
            }
        }
    }
    assert!(upward.is_empty(), "against the table of docs/architecture.md:\n{}", upward.join("\n"));
}

/// What can be reached from a file.
fn reached<'a>(imports: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open: Vec<_> = imports[from].iter().copied().collect();
    while let Some(file) = open.pop() {
        if found.insert(file) {
            open.extend(&imports[file]);
        }
    }
    found
}

#[test]
fn no_files_import_in_a_circle_but_those_that_the_page_names() {
    let sources = Sources::read();
    let imports = sources.imports();
    let all: BTreeMap<_, _> = imports.keys().map(|file| (*file, reached(&imports, file))).collect();
    let circle = |file: &&str| {
        let circle: BTreeSet<_> = all[file].iter().copied().filter(|other| all[other].contains(file)).collect();
        (!circle.is_empty()).then_some(circle)
    };
    // Within a part, a file and those of its folder are one thing.
    let is_one = |circle: &BTreeSet<&str>| {
        let file = circle.first().unwrap();
        let folder = file.replace(".rs", "/");
        file.contains('/') && circle.iter().all(|other| other == file || other.starts_with(&folder))
    };
    let found: BTreeSet<_> = imports.keys().filter_map(circle).filter(|circle| !is_one(circle)).collect();
    let rows = table("Circles");
    let named: BTreeSet<BTreeSet<_>> = rows.iter().map(|cells| quoted(&cells[0]).collect()).collect();
    assert_eq!(found, named, "found, and named in docs/architecture.md");
}

#[test]
fn each_file_that_the_page_of_the_architecture_names_is_there() {
    let page = page();
    let named: BTreeSet<_> = quoted(&page).filter(|name| name.ends_with(".rs")).collect();
    assert!(named.len() > 30, "{named:?}");
    for file in named {
        let places = ["presence/src", "presence", "."].map(|folder| root().join(folder).join(file));
        assert!(places.iter().any(|place| place.is_file()), "docs/architecture.md names {file}, which is not there");
    }
}
