//! Prepares every statement of the store on a real PostgreSQL server, and compares the types of parameters and columns
//! with those that the code binds and reads.
//!
//! The statements are recorded: this test runs the other tests of this binary in a separate process, which records the
//! text and the source location of each statement. A location that no test reaches fails this test, so that every
//! statement has a test.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Path of the PostgreSQL 15 programs of Debian's package `postgresql`.
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

/// Types that the code binds and reads: integers as `i64`, everything else as text.
const TYPES: [&str; 2] = ["bigint", "text"];

/// A server on a Unix socket in a temporary folder. It is stopped when dropped.
struct Server {
    dir: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("pinfold-pg").tempdir_in("/tmp").unwrap();
        let server = Self { dir };
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(server.dir.path()));
        }
        let settings = format!("-c listen_addresses= -c unix_socket_directories={}", server.path().display());
        run(server
            .program("initdb")
            .args(["--auth=trust", "--encoding=UTF8", "--username=postgres", "-D"])
            .arg(server.data()));
        run(server
            .program("pg_ctl")
            .args(["start", "-w", "-s", "-o", &settings, "-D"])
            .arg(server.data())
            .arg("-l")
            .arg(server.path().join("log")));
        server
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// Command for one of the server's programs. PostgreSQL refuses to run as root.
    fn program(&self, name: &str) -> Command {
        let program = Path::new(PROGRAMS).join(name);
        assert!(program.exists(), "{} is missing: run ci/postgres", program.display());
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.path());
        command
    }

    /// Runs a script and returns its output, one row per line.
    fn psql(&self, script: &str) -> String {
        let file = self.path().join("script.sql");
        std::fs::write(&file, script).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let options =
            ["-X", "-A", "-t", "-q", "-U", "postgres", "-v", "ON_ERROR_STOP=0", "-d", "postgres", "-h"];
        let output = run(self.program("psql").args(options).arg(self.path()).arg("-f").arg(&file));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        format!("{}{}", text(&output.stderr), text(&output.stdout))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stopped =
            self.program("pg_ctl").args(["stop", "-s", "-m", "immediate", "-D"]).arg(self.data()).status();
        assert!(std::thread::panicking() || stopped.unwrap().success());
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

fn run(command: &mut Command) -> Output {
    // A started server would keep an inherited pipe open.
    let is_start = command.get_args().any(|arg| arg == "start");
    if is_start {
        command.stdout(Stdio::null()).stderr(Stdio::null());
    }
    let output = if is_start {
        Output { status: command.status().unwrap(), stdout: Vec::new(), stderr: Vec::new() }
    } else {
        command.output().unwrap()
    };
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The statements that the other tests run, and their source locations.
fn recorded() -> (BTreeSet<String>, BTreeSet<String>) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("statements");
    let tests = Command::new(std::env::current_exe().unwrap())
        .args(["--skip", "postgres::"])
        .env("PINFOLD_RECORD_STATEMENTS", &file)
        .output()
        .unwrap();
    assert!(tests.status.success(), "{}", String::from_utf8_lossy(&tests.stdout));
    let text = std::fs::read_to_string(&file).unwrap();
    let records = text.split('\u{1e}').filter_map(|record| record.split_once('\u{1f}'));
    let (places, statements): (BTreeSet<_>, BTreeSet<_>) = records
        .map(|(place, sql)| {
            // Locations are relative to the workspace.
            let (_, place) = place.split_once("src/").unwrap();
            (place.to_owned(), sql.to_owned())
        })
        .unzip();
    (places, statements)
}

/// Source locations that run a statement, as `file:line:column`. Panics at a statement that bypasses `db/statement.rs`.
fn places() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut places, mut folders) = (BTreeSet::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            if name == "query_plan_tests.rs" || name == "db/statement.rs" {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for (number, line) in text.lines().enumerate() {
                if line.starts_with("mod tests {") {
                    break;
                }
                if line.trim_start().starts_with("//") || line.contains("use crate::db::statement") {
                    continue;
                }
                let is_database = name.starts_with("db/");
                for bypass in ["sqlx::query", ".build()", ".build_query"] {
                    assert!(
                        is_database || !line.contains(bypass),
                        "{name}:{}: use db::statement",
                        number + 1
                    );
                }
                for (column, _) in line.match_indices("statement::") {
                    places.insert(format!("{name}:{}:{}", number + 1, column + 1));
                }
            }
        }
    }
    assert!(places.len() > 100, "too few statements found: {places:?}");
    places
}

#[test]
fn every_statement_prepares_on_postgresql() {
    let (recorded, statements) = recorded();
    let missing: Vec<_> = places().into_iter().filter(|place| !recorded.contains(place)).collect();
    let server = Server::start();
    let schema = include_str!("../../migrations/0001_initial.sql");
    let applied = server.psql(&format!("\\set ON_ERROR_STOP 1\n{schema}"));
    assert_eq!(applied, "", "the migration applies unchanged");

    // For each statement: a line that names it, the types of its columns, and the types of its parameters.
    let statements: Vec<_> = statements.into_iter().collect();
    let mut script = String::new();
    for (number, sql) in statements.iter().enumerate() {
        writeln!(script, "\\echo @{number}\n{sql}\n\\gdesc").unwrap();
        writeln!(script, "PREPARE s{number} AS {sql};").unwrap();
        writeln!(script, "SELECT 'parameters|' || array_to_string(parameter_types, ',') FROM pg_prepared_statements WHERE name = 's{number}';").unwrap();
        writeln!(script, "DEALLOCATE ALL;").unwrap();
    }
    let output = server.psql(&script);
    let mut faults: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let (mut current, mut described) = (0, 0);
    for line in output.lines() {
        if let Some(number) = line.strip_prefix('@').and_then(|number| number.parse::<usize>().ok()) {
            current = number;
            continue;
        }
        let types: Vec<&str> = match line.strip_prefix("parameters|") {
            Some(types) => {
                described += 1;
                types.split(',').filter(|name| !name.is_empty()).collect()
            }
            None => line.rsplit('|').take(1).collect(),
        };
        let is_silent = line.starts_with("The command has no result");
        if !is_silent && types.iter().any(|name| !TYPES.contains(name)) {
            faults.entry(&statements[current]).or_default().push(line.to_owned());
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert_eq!(described, statements.len(), "a statement was not prepared");
    assert!(missing.is_empty(), "no test runs these statements: {missing:#?}");
}
