//! One shell that runs the blocks of a page, in a temporary folder and with a home folder and ports of its own.
//!
//! The built `pinfold` is on its PATH. What a page names and a test can't have is replaced before a block runs, and back
//! again in what it prints: port 3000 is a free port, `/srv`, `/etc` and `/backups` are in the temporary folder, and
//! `cargo run --release --` is `pinfold`, and requests to example.org go nowhere. The IPFS node listens on a free loopback port and joins no network.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::page::{Block, Kind, Page, repository};

/// How long one block may take. It bounds a test that fails; none that passes waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Session {
    folder: TempDir,
    shell: Child,
    input: ChildStdin,
    /// A line for each block: `ended`, or `failed`.
    ended: Receiver<String>,
    /// Pairs of what a page has and what this session has instead.
    replaced: Vec<(&'static str, String)>,
    blocks: usize,
    in_background: bool,
}

impl Session {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for name in ["bin", "home", "work", "run", "srv", "etc", "backups"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        let port = free_port();
        let program = root.join("bin/pinfold");
        fs::write(&program, wrapper(&root.join("run/pid"))).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new("sh");
        command.current_dir(root.join("work")).env_clear();
        command.env(
            "PATH",
            format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", root.join("bin").display()),
        );
        command.env("HOME", root.join("home")).env("LC_ALL", "C.UTF-8");
        command.env("REPOSITORY", repository());
        command.env("PINFOLD_SERVER", format!("http://127.0.0.1:{port}"));
        command.env("PINFOLD_HTTP__LISTEN", format!("127.0.0.1:{port}"));
        command.env("PINFOLD_NODE__LISTEN", "/ip4/127.0.0.1/tcp/0").env("PINFOLD_NODE__BOOTSTRAP", "");
        // A group of its own, so that its end can take everything with it that a failed page left behind.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = command.spawn().unwrap();
        let mut input = shell.stdin.take().unwrap();
        input.write_all(b"exec 3>&1; trap 'echo failed >&3' EXIT; set -e\n").unwrap();
        let output = BufReader::new(shell.stdout.take().unwrap());
        let (send, ended) = sync_channel(1);
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        let place = |name: &str| root.join(name).display().to_string();
        let replaced = vec![
            ("127.0.0.1:3000", format!("127.0.0.1:{port}")),
            ("cargo run --release --", "pinfold".to_owned()),
            // A name that never resolves: what the page has Pinfold send there stays on this machine.
            ("https://example.org/", "https://example.invalid/".to_owned()),
            ("/srv", place("srv")),
            ("/etc", place("etc")),
            ("/backups", place("backups")),
        ];
        Self { folder, shell, input, ended, replaced, blocks: 0, in_background: false }
    }

    /// Runs all blocks of a page in order.
    pub(crate) fn run(&mut self, page: &Page) {
        let mut blocks = page.blocks.iter().peekable();
        while let Some(block) = blocks.next() {
            let expected = blocks.peek().filter(|next| matches!(next.kind, Kind::Output { .. }));
            let place = format!("{}:{}", page.path, block.line);
            match &block.kind {
                Kind::Run => self.run_block(&place, block, expected.copied()),
                Kind::Background => self.start_block(&place, block, expected.copied()),
                Kind::File { path } => self.write(path, &block.text),
                Kind::Stop => self.stop(&place),
                Kind::Proxy | Kind::NotRun { .. } | Kind::Output { .. } | Kind::Other => {}
            }
        }
    }

    /// Stops what the page left in the background, which must end well.
    pub(crate) fn finish(mut self) {
        self.stop("the end of the page");
    }

    fn run_block(&mut self, place: &str, block: &Block, expected: Option<&Block>) {
        let output = self.feed(place, block, "");
        let printed = fs::read_to_string(&output).unwrap();
        if let Some(expected) = expected {
            let shown = self.restore(&printed);
            assert!(
                is_shown(expected, &shown),
                "{place}: the page shows\n{}\nbut it prints\n{shown}",
                expected.text
            );
        }
    }

    fn start_block(&mut self, place: &str, block: &Block, expected: Option<&Block>) {
        self.stop(place);
        let expected =
            expected.unwrap_or_else(|| panic!("{place}: no text block says what it prints when it is ready"));
        let output = self.feed(place, block, " & background=$!");
        self.in_background = true;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shown = self.restore(&fs::read_to_string(&output).unwrap_or_default());
            if is_shown(expected, &shown) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{place}: the page shows\n{}\nbut it prints\n{shown}",
                expected.text
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ctrl-C for what runs in the background.
    fn stop(&mut self, place: &str) {
        if std::mem::take(&mut self.in_background) {
            let text = "kill $(cat ../run/pid) && wait $background".to_owned();
            self.feed(place, &Block { kind: Kind::Stop, line: 0, text }, "");
        }
    }

    /// Has the shell run a block and waits until it has; gives the file with what it prints.
    fn feed(&mut self, place: &str, block: &Block, how: &str) -> PathBuf {
        let number = self.blocks;
        self.blocks += 1;
        let run = self.folder.path().join("run");
        let (script, output) = (run.join(format!("{number}.sh")), run.join(format!("{number}.out")));
        fs::write(&script, format!("cd {}\n{}", self.work("").display(), self.replace(&block.text))).unwrap();
        File::create(&output).unwrap();
        let (script, out) = (script.display(), output.display());
        // `set -e` ends the shell with the first command that fails.
        let line = format!(". {script} </dev/null >{out} 2>&1{how}\necho ended >&3\n");
        self.input.write_all(line.as_bytes()).unwrap();
        let ended = self.ended.recv_timeout(PATIENCE);
        let printed = || fs::read_to_string(&output).unwrap_or_default();
        assert!(
            ended.is_ok_and(|line| line == "ended"),
            "{place}: a command failed or did not end\n{}\nit printed\n{}",
            block.text,
            printed()
        );
        output
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.work(&self.replace(path));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, self.replace(text)).unwrap();
    }

    /// The temporary folder: `work`, `home`, `etc` and so on are in it.
    #[cfg(feature = "foreign-peers")]
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap()
    }

    fn work(&self, path: &str) -> PathBuf {
        self.folder.path().join("work").join(path)
    }

    fn replace(&self, text: &str) -> String {
        self.replaced.iter().fold(text.to_owned(), |text, (page, here)| text.replace(page, here))
    }

    fn restore(&self, text: &str) -> String {
        let text = self.replaced.iter().rev().fold(text.to_owned(), |text, (page, here)| match *page {
            // Every word `pinfold` would become this one.
            "cargo run --release --" => text,
            page => text.replace(here.as_str(), page),
        });
        text.replace(&format!("{}/", self.work("").display()), "").replace(&self.home(), "~")
    }

    fn home(&self) -> String {
        self.folder.path().join("home").display().to_string()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = Command::new("kill")
            .args(["-KILL", "--", &format!("-{}", self.shell.id())])
            .stderr(Stdio::null())
            .status();
        let _ = self.shell.wait();
    }
}

/// A `pinfold` that writes down its process id before it runs until it is stopped.
fn wrapper(pid: &std::path::Path) -> String {
    format!(
        "#!/bin/sh\ncase $1 in serve | try) echo $$ > '{}' ;; esac\nexec '{}' \"$@\"\n",
        pid.display(),
        env!("CARGO_BIN_EXE_pinfold")
    )
}

/// A port below those that systems give to connections, so that nothing takes it before the server does.
pub(crate) fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let start = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    let next = || start + TAKEN.fetch_add(1, Ordering::Relaxed);
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(next).take(1_000).find(is_free).expect("one of 1,000 ports is free")
}

fn is_shown(expected: &Block, printed: &str) -> bool {
    if let Kind::Output { json: true } = expected.kind {
        let packed = |text: &str| text.split_whitespace().collect::<String>();
        return matches(&packed(&expected.text), &packed(printed));
    }
    matches(&expected.text, printed)
}

/// Whether a page shows what was printed. `…` stands for any text, a run of spaces for another.
fn matches(shown: &str, printed: &str) -> bool {
    let lines = |text: &str| {
        text.lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let (shown, printed) = (lines(shown.trim()), lines(printed.trim()));
    let mut parts = shown.split('…').peekable();
    let Some(mut rest) = printed.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut ends_open = parts.peek().is_none() && rest.is_empty();
    while let Some(part) = parts.next() {
        let found = if parts.peek().is_some() {
            rest.find(part)
        } else {
            rest.ends_with(part).then(|| rest.len() - part.len())
        };
        let Some(at) = found else { return false };
        rest = &rest[at + part.len()..];
        ends_open = true;
    }
    ends_open
}

#[test]
fn dots_stand_for_any_text() {
    assert!(matches("a … c\n", "a b c"));
    assert!(matches("a  b", "a b\n"));
    assert!(matches("…b…", "abc\nd"));
    assert!(matches("{\"a\":1,…}", "{\"a\":1,\"b\":2}"));
    for (shown, printed) in [("a", "b"), ("a", "ab"), ("a…", "ba"), ("…a", "ab"), ("a…b…c", "ac")] {
        assert!(!matches(shown, printed), "{shown} is not {printed}");
    }
}
