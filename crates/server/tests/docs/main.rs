//! Runs the commands of README.md, docs/getting-started.md and docs/guides/ as a reader would, page by page and in order.
//!
//! Each page is one shell session in a temporary folder: `page` reads its fenced blocks, `session` runs them and compares
//! what they print with what the page shows. What a block is, its info string says; GitHub shows the first word alone:
//!
//! | info string | what the test does |
//! | --- | --- |
//! | `sh` | runs it; every command must succeed |
//! | `sh background` | starts it, and waits until it has printed the text block that follows |
//! | `sh proxy` | runs it behind nginx and again behind Caddy, in the suite with foreign peers (`proxies`) |
//! | `sh not-run REASON` | only checks that REASON is there; `blocks_that_are_not_run` lists them |
//! | `text`, `json` | what the `sh` block before it prints; `…` stands for any text |
//! | `LANGUAGE file=PATH` | writes the block to PATH |
//!
//! The comment `<!-- docs test: stop -->` stops what runs in the background, where the page says to press Ctrl-C.
//! `paths` checks that the files and pages that the documentation names exist.
//!
//! A guide begins with a running server, a key in `PINFOLD_API_KEY` and a pin in `CID`, as its first paragraph says.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod page;
mod paths;
#[cfg(feature = "foreign-peers")]
mod proxies;
mod session;

use page::{Kind, Page};
use session::Session;

/// What has to be true before the first line of a guide: the end of docs/getting-started.md, in short.
const BEFORE_A_GUIDE: &str = "\
```sh background
pinfold serve
```
```text
…Pinfold is ready at http://127.0.0.1:3000…
```
```sh
export PINFOLD_API_KEY=$(pinfold token create --email admin@localhost --name guide)
echo 'Hello, IPFS' > hello.txt
CID=$(pinfold add --quiet hello.txt)
```
";

fn start_of_a_guide() -> Page {
    Page::parse("the start of every guide", BEFORE_A_GUIDE)
}

fn run(path: &str) {
    let mut session = Session::start();
    if path.starts_with("docs/guides/") {
        session.run(&start_of_a_guide());
    }
    session.run(&Page::read(path));
    session.finish();
}

macro_rules! pages {
    ($($name:ident = $path:literal,)*) => {
        /// Every page whose commands are run.
        const PAGES: &[&str] = &[$($path),*];

        $(#[test]
        fn $name() {
            run($path);
        })*
    };
}

pages! {
    readme = "README.md",
    getting_started = "docs/getting-started.md",
    accounts_and_keys = "docs/guides/accounts-and-keys.md",
    backup_and_move = "docs/guides/backup-and-move.md",
    closing_sign_up = "docs/guides/closing-sign-up.md",
    monitoring = "docs/guides/monitoring.md",
    reverse_proxy = "docs/guides/reverse-proxy.md",
    sharing = "docs/guides/sharing.md",
    systemd = "docs/guides/systemd.md",
    troubleshooting = "docs/guides/troubleshooting.md",
    upgrade = "docs/guides/upgrade.md",
    webhooks = "docs/guides/webhooks.md",
}

#[test]
fn every_guide_is_run() {
    let guides = std::fs::read_dir(page::repository().join("docs/guides")).into_iter().flatten();
    for guide in guides {
        let path = format!("docs/guides/{}", guide.unwrap().file_name().into_string().unwrap());
        assert!(PAGES.contains(&path.as_str()), "{path} is missing in tests/docs/main.rs");
    }
}

/// The whole list of what no test runs: a new one has to be added here with its page.
#[test]
fn blocks_that_are_not_run() {
    let mut not_run = Vec::new();
    for path in PAGES {
        for block in Page::read(path).blocks {
            if let Kind::NotRun { reason } = &block.kind {
                assert!(!reason.is_empty(), "{path}:{}: not-run without a reason", block.line);
                not_run.push(format!("{path}: {reason}"));
            }
        }
    }
    let expected = [
        "README.md: is this test",
        "README.md: builds Pinfold",
        "docs/getting-started.md: builds Pinfold",
        "docs/guides/reverse-proxy.md: needs root",
        "docs/guides/reverse-proxy.md: needs root",
        "docs/guides/systemd.md: needs root",
        "docs/guides/systemd.md: needs root",
        "docs/guides/systemd.md: needs root",
        "docs/guides/systemd.md: needs root",
        "docs/guides/upgrade.md: builds Pinfold",
    ];
    assert_eq!(not_run, expected);
}
