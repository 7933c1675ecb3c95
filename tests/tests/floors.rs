//! The house's one rule: nobody looks up, and no two files need each other.
//!
//! It reads what each file names of its own crate, in `use` and elsewhere, but for what only tests need.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::visit::Visit;
use syn::{Attribute, Item, UseTree};

/// The rooms of each crate, from the top down. Those on one floor don't know each other. What is in no room is not held
/// to an order, only to having no circles.
const HOUSE: [(&str, &[&[&str]]); 3] = [
    (
        "coordinator",
        &[
            &["main"],
            &["cli"],
            &["lib"],
            &["serve"],
            &["pool"],
            &["agents"],
            &["engine"],
            &["workers"],
            &["payload"],
            &["scheduler", "os"],
            &["error"],
        ],
    ),
    ("protocol", &[&["lib"], &["wire"], &["memory"], &["value"]]),
    (
        "worker",
        &[&["main"], &["lib"], &["builtin"], &["command"], &["os"]],
    ),
];

/// A module's path within its crate: `["engine", "seat"]`.
type Module = Vec<String>;

/// A crate's modules, and what each names of the others.
struct Crate {
    files: BTreeMap<Module, syn::File>,
    /// What a module hands on under a name of its own: a re-export is no arrow, but whoever takes it reaches through.
    handed_on: BTreeMap<(Module, String), Vec<String>>,
}

impl Crate {
    fn read(source: &Path) -> Self {
        let mut files = BTreeMap::new();
        read_folder(source, &mut Vec::new(), &mut files);
        let mut house = Crate {
            files,
            handed_on: BTreeMap::new(),
        };
        for (module, file) in &house.files {
            for item in &file.items {
                if let (Item::Use(item), true) = (item, is_hub(module, &house.files)) {
                    for path in paths(&item.tree) {
                        let name = path.last().unwrap().clone();
                        house.handed_on.insert((module.clone(), name), path);
                    }
                }
            }
        }
        house
    }

    /// The module that a path leads to from a module, if it is one of this crate.
    fn resolve(&self, from: &Module, path: &[String], depth: usize) -> Option<Module> {
        let (mut at, rest) = match path.first()?.as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (from.clone(), &path[1..]),
            "super" => {
                let ups = path.iter().take_while(|word| *word == "super").count();
                let parent = from.get(..from.len().checked_sub(ups)?)?;
                (parent.to_vec(), &path[ups..])
            }
            first => {
                // A module beside, as seen from a folder's own file.
                let child = [from.clone(), vec![first.to_owned()]].concat();
                self.files.get(&child)?;
                (from.clone(), path)
            }
        };
        for (nth, word) in rest.iter().enumerate() {
            let child = [at.clone(), vec![word.clone()]].concat();
            if self.files.contains_key(&child) {
                at = child;
                continue;
            }
            let handed_on = self.handed_on.get(&(at.clone(), word.clone()));
            if let (Some(further), true) = (handed_on, depth < 8) {
                let further = [&further[..], &rest[nth + 1..]].concat();
                return self.resolve(&at, &further, depth + 1).or(Some(at));
            }
            break;
        }
        Some(at)
    }

    /// Which modules each module needs.
    fn arrows(&self) -> BTreeMap<Module, BTreeSet<Module>> {
        let mut arrows = BTreeMap::new();
        for (module, file) in &self.files {
            let mut named = Named(Vec::new());
            named.visit_file(file);
            let mut needs: BTreeSet<Module> = named
                .0
                .iter()
                .filter_map(|path| self.resolve(module, path, 0))
                .collect();
            needs.remove(module);
            // What a folder's own file hands on is told of there, and no more.
            needs.remove(&Vec::new());
            arrows.insert(module.clone(), needs);
        }
        arrows
    }
}

/// Whether a module is a folder's own file, or the crate's.
fn is_hub(module: &Module, files: &BTreeMap<Module, syn::File>) -> bool {
    let below = |other: &&Module| other.len() == module.len() + 1 && other.starts_with(module);
    files.keys().any(|other| below(&other))
}

fn read_folder(folder: &Path, at: &mut Module, files: &mut BTreeMap<Module, syn::File>) {
    let mut entries: Vec<PathBuf> = folder
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        // Tests may look anywhere.
        if name == "tests" || name == "model" {
            continue;
        }
        if path.is_dir() {
            at.push(name);
            read_folder(&path, at, files);
            at.pop();
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let file = syn::parse_file(&std::fs::read_to_string(&path).unwrap()).unwrap();
            let module = match name.as_str() {
                "mod" => at.clone(),
                "main" | "lib" if at.is_empty() => vec![name],
                _ => [at.clone(), vec![name]].concat(),
            };
            files.insert(module, file);
        }
    }
}

/// All paths that a `use` names.
fn paths(tree: &UseTree) -> Vec<Vec<String>> {
    match tree {
        UseTree::Path(path) => {
            let first = path.ident.to_string();
            let rest = paths(&path.tree).into_iter();
            rest.map(|rest| [vec![first.clone()], rest].concat())
                .collect()
        }
        UseTree::Name(name) => vec![vec![name.ident.to_string()]],
        UseTree::Rename(name) => vec![vec![name.ident.to_string()]],
        UseTree::Glob(_) => vec![Vec::new()],
        UseTree::Group(group) => group.items.iter().flat_map(paths).collect(),
    }
}

/// What a file names that begins with its crate, or with a module near it.
struct Named(Vec<Vec<String>>);

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let list = attribute.meta.require_list().ok();
        attribute.path().is_ident("cfg")
            && list.is_some_and(|list| list.tokens.to_string() == "test")
    })
}

impl<'f> Visit<'f> for Named {
    fn visit_item(&mut self, item: &'f Item) {
        match item {
            Item::Mod(module) if is_for_tests(&module.attrs) => {}
            // What a public use hands on, its taker needs.
            Item::Use(item) if !matches!(item.vis, syn::Visibility::Inherited) => {}
            Item::Use(item) => self.0.extend(paths(&item.tree)),
            item => syn::visit::visit_item(self, item),
        }
    }

    fn visit_path(&mut self, path: &'f syn::Path) {
        let words: Vec<String> = path
            .segments
            .iter()
            .map(|word| word.ident.to_string())
            .collect();
        if words.len() > 1 && ["crate", "super"].contains(&words[0].as_str()) {
            self.0.push(words);
        }
        syn::visit::visit_path(self, path);
    }
}

fn show(module: &[String]) -> String {
    module.join("/")
}

#[test]
fn nobody_looks_up_and_no_two_files_need_each_other() {
    let mut wrong = Vec::new();
    for (name, floors) in HOUSE {
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(name)
            .join("src");
        let house = Crate::read(&source);
        let arrows = house.arrows();
        let count: usize = arrows.values().map(BTreeSet::len).sum();
        assert!(count > arrows.len(), "hardly an arrow was found in {name}");
        let floor = |module: &Module| {
            let room = module.first().map_or("lib", String::as_str);
            floors.iter().position(|rooms| rooms.contains(&room))
        };
        for (from, needs) in &arrows {
            for to in needs {
                let in_one_room = from.first() == to.first();
                if let (Some(above), Some(below), false) = (floor(from), floor(to), in_one_room)
                    && above >= below
                {
                    wrong.push(format!("{name}: {} looks up to {}", show(from), show(to)));
                }
            }
        }
        wrong.extend(circles(&arrows).into_iter().map(|circle| {
            let files: Vec<String> = circle.iter().map(|module| show(module)).collect();
            format!("{name}: these need each other: {}", files.join(" → "))
        }));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A way from each module back to itself, where there is one. A folder's own file and those in it are one thing in Rust,
/// so what a file takes from the one that its folder is named for is no way.
fn circles(arrows: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<Vec<Module>> {
    let outwards = |(from, needs): (&Module, &BTreeSet<Module>)| {
        let others = needs.iter().filter(|to| !from.starts_with(to));
        (from.clone(), others.cloned().collect())
    };
    let arrows: BTreeMap<Module, BTreeSet<Module>> = arrows.iter().map(outwards).collect();
    let mut found: Vec<Vec<Module>> = Vec::new();
    for start in arrows.keys() {
        if found.iter().flatten().any(|known| known == start) {
            continue;
        }
        let mut came_from: BTreeMap<&Module, &Module> = BTreeMap::new();
        let mut left = vec![start];
        while let Some(at) = left.pop() {
            for next in arrows.get(at).into_iter().flatten() {
                if next == start {
                    let mut circle = vec![start.clone(), at.clone()];
                    let mut back = at;
                    while back != start {
                        back = came_from[back];
                        circle.push(back.clone());
                    }
                    circle.reverse();
                    found.push(circle);
                    left.clear();
                    break;
                }
                if !came_from.contains_key(next) {
                    came_from.insert(next, at);
                    left.push(next);
                }
            }
        }
    }
    found
}
