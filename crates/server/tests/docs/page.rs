//! Reads a Markdown page into the blocks that a test acts on. Fences are the only Markdown that it knows.

use std::path::{Path, PathBuf};

pub(crate) struct Page {
    pub(crate) path: String,
    pub(crate) blocks: Vec<Block>,
}

pub(crate) struct Block {
    pub(crate) kind: Kind,
    /// The line of its fence in the page, from 1.
    pub(crate) line: usize,
    pub(crate) text: String,
}

pub(crate) enum Kind {
    Run,
    Background,
    /// Run behind each reverse proxy that the page configures.
    Proxy,
    NotRun {
        reason: String,
    },
    /// What the block before it prints.
    Output {
        json: bool,
    },
    /// Written to this path.
    File {
        path: String,
    },
    /// The comment that stops the program in the background.
    Stop,
    /// An illustration in another language.
    Other,
}

const STOP: &str = "<!-- docs test: stop -->";

impl Page {
    pub(crate) fn read(path: &str) -> Self {
        let text = std::fs::read_to_string(repository().join(path));
        Self::parse(path, &text.unwrap_or_else(|error| panic!("{path}: {error}")))
    }

    pub(crate) fn parse(path: &str, text: &str) -> Self {
        let mut blocks = Vec::new();
        let mut open: Option<Block> = None;
        for (line, number) in text.lines().zip(1..) {
            match (&mut open, line.trim_start().strip_prefix("```")) {
                (Some(_), Some("")) => blocks.extend(open.take()),
                (Some(block), _) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (None, Some(info)) => {
                    let kind = Kind::of(info, &format!("{path}:{number}"));
                    open = Some(Block { kind, line: number, text: String::new() });
                }
                (None, None) if line.trim() == STOP => {
                    blocks.push(Block { kind: Kind::Stop, line: number, text: String::new() });
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{path}: the last block has no end");
        Self { path: path.to_owned(), blocks }
    }
}

impl Kind {
    fn of(info: &str, place: &str) -> Self {
        let (language, mark) = info.split_once(' ').unwrap_or((info, ""));
        if let Some(path) = mark.strip_prefix("file=") {
            return Self::File { path: path.to_owned() };
        }
        match (language, mark.split_once(' ').unwrap_or((mark, ""))) {
            ("sh", ("", _)) => Self::Run,
            ("sh", ("background", "")) => Self::Background,
            ("sh", ("proxy", "")) => Self::Proxy,
            ("sh", ("not-run", reason)) => Self::NotRun { reason: reason.to_owned() },
            ("text" | "json", ("", _)) => Self::Output { json: language == "json" },
            ("bash" | "shell" | "console" | "", _) | ("sh", _) => {
                panic!("{place}: ```{info} is not one of the marks in tests/docs/main.rs")
            }
            _ => Self::Other,
        }
    }
}

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}
