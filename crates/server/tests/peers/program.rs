//! A child process that a test communicates with by lines, and that never outlives the test.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

/// Longest wait for a line or a response. On an idle machine all of them take less than a tenth of it.
const WAIT_MAX: Duration = Duration::from_secs(180);

/// A running program. It is killed when dropped.
pub(crate) struct Program {
    name: &'static str,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<Lines<BufReader<ChildStdout>>>,
    log: PathBuf,
}

impl Program {
    /// Starts `command`; its standard error is written to `folder/NAME.log`.
    pub(crate) fn start(name: &'static str, mut command: Command, folder: &Path) -> Self {
        let log = folder.join(format!("{name}.log"));
        let stderr = std::fs::File::create(&log).expect("the log file can be created");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} failed to start: {error}"));
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        Self { name, child, stdin, stdout, log }
    }

    /// Reads lines of its output until `wanted` accepts one.
    pub(crate) async fn line<T>(&mut self, wanted: impl Fn(&str) -> Option<T>) -> T {
        let name = self.name;
        let Some(stdout) = self.stdout.as_mut() else { panic!("{name}: its output is no longer read") };
        let read = async {
            while let Some(line) = stdout.next_line().await.expect("its output is UTF-8") {
                if let Some(found) = wanted(&line) {
                    return Some(found);
                }
            }
            None
        };
        match timeout(WAIT_MAX, read).await {
            Ok(Some(found)) => found,
            Ok(None) => panic!("{name} ended early:\n{}", self.log_tail()),
            Err(_) => panic!("{name} did not answer in {WAIT_MAX:?}:\n{}", self.log_tail()),
        }
    }

    /// Discards all further output, so that the program never blocks on it.
    pub(crate) fn let_run(&mut self) {
        if let Some(mut stdout) = self.stdout.take() {
            tokio::spawn(async move { while let Ok(Some(_)) = stdout.next_line().await {} });
        }
    }

    /// Writes one line to its input.
    pub(crate) async fn write_line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("its input is open");
        stdin.write_all(format!("{line}\n").as_bytes()).await.expect("the program reads its input");
        stdin.flush().await.expect("the program reads its input");
    }

    /// Kills the program and waits for its end.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("the child process can be killed");
    }

    /// The end of its standard error.
    pub(crate) fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

/// Runs a program to its end, with `input` on its standard input.
pub(crate) async fn finish(name: &str, mut command: Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| {
            panic!("{name} failed to start ({error}); ci/peers installs what the suite needs")
        });
    let mut stdin = child.stdin.take().expect("its input is a pipe");
    let write = async move {
        // A failed program no longer reads; its status is checked below.
        let _ = stdin.write_all(input).await;
    };
    let run = async { tokio::join!(write, child.wait_with_output()).1 };
    let output =
        timeout(WAIT_MAX, run).await.unwrap_or_else(|_| panic!("{name} did not end in {WAIT_MAX:?}"));
    output.unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Like [`finish`], for a program that must succeed. Returns its output without the last line break.
pub(crate) async fn output(name: &str, command: Command, input: &[u8]) -> String {
    let output = finish(name, command, input).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} failed with {}: {error}", output.status);
    String::from_utf8(output.stdout).expect("its output is UTF-8").trim_end().to_owned()
}
