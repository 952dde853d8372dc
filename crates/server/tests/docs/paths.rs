//! What the documentation points at exists: files that it names, pages that it links, and their headings.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::page::repository;

/// Pages whose words in backquotes that look like paths of the repository are checked.
const NAMES_PATHS: [&str; 2] = ["docs/ARCHITECTURE.md", "CONTRIBUTING.md"];

#[test]
fn paths_that_pages_name_exist() {
    let mut pages: Vec<PathBuf> = NAMES_PATHS.iter().map(|path| repository().join(path)).collect();
    pages.extend(markdown(&repository().join("docs/adr")));
    let mut missing = Vec::new();
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for path in text.split('`').skip(1).step_by(2).filter_map(path_in) {
            if !repository().join(&path).exists() {
                missing.push(format!("{}: {path}", page.display()));
            }
        }
    }
    assert!(missing.is_empty(), "these do not exist:\n{}", missing.join("\n"));
}

/// The path that a word in backquotes stands for: `crates/store/src/pins.rs`, or `store/pins.rs` for short.
fn path_in(word: &str) -> Option<String> {
    const ROOTS: [&str; 5] = ["crates", "docs", "bench", "ci", "examples"];
    const CRATES: [&str; 8] = ["cluster", "http", "model", "node", "outbound", "server", "service", "store"];
    let (first, rest) = word.split_once('/')?;
    // A command or a pattern is not a path.
    if word.contains([' ', '*', '{', '…']) {
        return None;
    }
    if CRATES.contains(&first) && rest.ends_with(".rs") {
        return Some(format!("crates/{first}/src/{rest}"));
    }
    ROOTS.contains(&first).then(|| word.to_owned())
}

#[test]
fn links_lead_to_pages_and_headings_that_exist() {
    let mut pages = markdown(&repository().join("docs"));
    pages.extend(markdown(&repository().join("examples")));
    pages.extend(
        ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"].map(|page| repository().join(page)),
    );
    let mut broken = Vec::new();
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for target in links(&text).filter(|target| !target.contains("://")) {
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            let has_heading =
                || heading.is_empty() || anchors(&std::fs::read_to_string(&file).unwrap()).contains(heading);
            if !file.exists() || !has_heading() {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "these links lead nowhere:\n{}", broken.join("\n"));
}

fn markdown(folder: &Path) -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages.extend(markdown(&path));
        } else if path.extension().is_some_and(|end| end == "md") {
            pages.push(path);
        }
    }
    pages
}

/// The targets of `[text](target)` outside of code.
fn links(text: &str) -> impl Iterator<Item = &str> {
    prose(text)
        .flat_map(|line| line.split("](").skip(1))
        .filter_map(|rest| rest.split_once(')'))
        .map(|(to, _)| to)
}

/// The names by which GitHub links to the headings of a page.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    let name = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(name).collect()
}

/// The lines that are not in a fenced block.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_block = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_block ^= fence;
        !in_block && !fence
    })
}
