//! A simulated disk that fails and loses power on command: `faulty_disk.c` intercepts the server's system calls, and this
//! module applies the power cut.
//!
//! A power cut has the effects that ext4 and XFS allow:
//!
//! - Each sector that was not synced has its old content, its new content, or that of a write in between.
//! - A length that was not synced is one that the file had since its last sync. Truncated data returns only together with
//!   the earlier length. Space that was never written reads as zeros.
//! - Changes of names are undone in reverse order, from some point on. A sync of the directory makes them durable. For a new
//!   file, a sync of the file suffices, and includes new parent directories (as on ext4, XFS and btrfs). A rename requires a
//!   sync of the directory.
//! - After a failed sync, unsynced data may be lost even if the next sync succeeds, unless it is written again (as on
//!   Linux).

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const SOURCE: &str = include_str!("faulty_disk.c");
const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: usize = 4096;

/// A simulated disk that contains one directory.
#[derive(Debug, Clone)]
pub(crate) struct FaultyDisk {
    root: PathBuf,
    journal: PathBuf,
}

impl FaultyDisk {
    /// A disk that contains `root`. Creates `journal`, a directory outside of `root` on the same file system.
    pub(crate) fn under(root: &Path, journal: &Path) -> Self {
        fs::create_dir_all(journal).unwrap();
        let parent = root.parent().unwrap().canonicalize().unwrap();
        Self { root: parent.join(root.file_name().unwrap()), journal: journal.canonicalize().unwrap() }
    }

    /// Environment variables that load the simulation into a program.
    pub(crate) fn environment(&self) -> [(&'static str, PathBuf); 3] {
        [
            ("LD_PRELOAD", library()),
            ("PINFOLD_TEST_DISK_ROOT", self.root.clone()),
            ("PINFOLD_TEST_DISK_JOURNAL", self.journal.clone()),
        ]
    }

    /// Sets the faults, in the format described in `faulty_disk.c`.
    pub(crate) fn fail(&self, rules: &[&str]) {
        let faults = self.journal.join("faults");
        let draft = self.journal.join("faults.new");
        fs::write(&draft, rules.join("\n")).unwrap();
        fs::rename(draft, faults).unwrap();
    }

    /// Removes all faults.
    pub(crate) fn heal(&self) {
        let _ = fs::remove_file(self.journal.join("faults"));
    }

    /// Simulates a power cut after the program was killed: all unsynced changes are lost, or with `random` some of them.
    /// What remains is durable.
    pub(crate) fn cut_power(&self, mut random: Option<&mut Random>) {
        for inode in self.journaled(".undo") {
            let entries = Entry::read(&fs::read(self.journal.join(format!("{inode}.undo"))).unwrap());
            // A file that was unlinked before its first change has no link in the journal.
            if let Ok(file) = File::options().read(true).write(true).open(self.journal.join(&inode)) {
                lose_data(&file, &entries, random.as_deref_mut());
            }
        }
        self.lose_names(random);
        remove_shared_memory(&self.root);
        self.forget();
    }

    /// Makes all changes so far durable.
    pub(crate) fn forget(&self) {
        for entry in fs::read_dir(&self.journal).unwrap() {
            let path = entry.unwrap().path();
            if !path.ends_with("faults") {
                fs::remove_file(path).unwrap();
            }
        }
    }

    /// Inode numbers of the files that have a journal file with this suffix, sorted.
    fn journaled(&self, suffix: &str) -> Vec<String> {
        let names = fs::read_dir(&self.journal).unwrap().map(|entry| entry.unwrap().file_name());
        let names = names.filter_map(|name| name.to_str().unwrap().strip_suffix(suffix).map(str::to_owned));
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    fn lose_names(&self, random: Option<&mut Random>) {
        let lines = fs::read_to_string(self.journal.join("names")).unwrap_or_default();
        let mut pending: Vec<Change> = Vec::new();
        for line in lines.lines() {
            let words: Vec<&str> = line.split('\t').collect();
            match words[..] {
                ["S", folder] => remove_durable(&mut pending, |change| change.is_synced_with_folder(folder)),
                ["F", inode, path] => {
                    remove_durable(&mut pending, |change| change.is_synced_with_file(inode, path))
                }
                _ => pending.push(Change(words.iter().map(|word| (*word).to_owned()).collect())),
            }
        }
        let left = random.map_or(0, |random| random.below(pending.len() as u64 + 1));
        for change in pending[left as usize..].iter().rev() {
            change.undo(&self.journal);
        }
    }
}

/// The library, compiled once for each version of its source.
fn library() -> PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY
        .get_or_init(|| {
            let mut hasher = DefaultHasher::new();
            SOURCE.hash(&mut hasher);
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
            let library = folder.join(format!("disk-{:016x}.so", hasher.finish()));
            if !library.exists() {
                let work = tempfile::tempdir_in(folder).unwrap();
                let (source, made) = (work.path().join("faulty_disk.c"), work.path().join("disk.so"));
                fs::write(&source, SOURCE).unwrap();
                let args = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread", "-o"];
                let made_it = Command::new("cc").args(args).arg(&made).arg(&source).status();
                assert!(
                    made_it.expect("this test requires a C compiler").success(),
                    "faulty_disk.c does not compile"
                );
                fs::rename(made, &library).unwrap();
            }
            library
        })
        .clone()
}

/// Removes SQLite shared-memory files, which a power cut loses.
fn remove_shared_memory(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            remove_shared_memory(&path);
        } else if path.to_str().unwrap().ends_with("-shm") {
            fs::remove_file(path).unwrap();
        }
    }
}

/// A change of a name that is not yet durable: a line of the journal.
#[derive(Debug)]
struct Change(Vec<String>);

impl Change {
    /// The affected paths.
    fn paths(&self) -> Vec<&str> {
        match self.words()[..] {
            ["C" | "U", _, path] | ["M" | "D", path] => vec![path],
            ["R", _, from, to] => vec![from, to],
            _ => panic!("invalid line in the journal: {self:?}"),
        }
    }

    fn words(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).collect()
    }

    fn is_synced_with_folder(&self, folder: &str) -> bool {
        let is_in = |path: &&str| Path::new(path).parent() == Some(Path::new(folder));
        self.is_folder_above(folder) || self.paths().iter().any(is_in)
    }

    fn is_synced_with_file(&self, synced: &str, path: &str) -> bool {
        self.is_folder_above(path) || matches!(self.words()[..], ["C", inode, _] if inode == synced)
    }

    /// Whether it created a directory that is `path` or contains it.
    fn is_folder_above(&self, path: &str) -> bool {
        matches!(self.words()[..], ["M", folder] if Path::new(path).starts_with(folder))
    }

    /// Restores the previous names. Missing files are ignored.
    fn undo(&self, journal: &Path) {
        let _ = match self.words()[..] {
            ["C", _, path] => fs::remove_file(path),
            ["U", inode, path] => fs::hard_link(journal.join(inode), path),
            ["M", path] => fs::remove_dir_all(path),
            ["D", path] => fs::create_dir(path),
            ["R", replaced, from, to] => {
                fs::rename(to, from).and_then(|()| fs::hard_link(journal.join(replaced), to))
            }
            _ => panic!("invalid line in the journal: {self:?}"),
        };
    }
}

/// Removes changes that became durable, with all earlier changes of the same names.
fn remove_durable(pending: &mut Vec<Change>, is_durable: impl Fn(&Change) -> bool) {
    let mut paths: HashSet<String> = HashSet::new();
    let mut kept = Vec::new();
    for change in std::mem::take(pending).into_iter().rev() {
        if is_durable(&change) || change.paths().iter().any(|path| paths.contains(*path)) {
            paths.extend(change.paths().into_iter().map(str::to_owned));
        } else {
            kept.push(change);
        }
    }
    kept.reverse();
    *pending = kept;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Write,
    Size,
    Zero,
    Sync,
    SyncFailed,
}

/// A journal entry of `faulty_disk.c` for one change of a file.
#[derive(Debug)]
struct Entry {
    kind: Kind,
    offset: u64,
    length: u64,
    old: Vec<u8>,
    old_size: u64,
}

impl Entry {
    /// All entries of a file. The last one may be incomplete; its change was then not made.
    fn read(mut bytes: &[u8]) -> Vec<Self> {
        let mut entries = Vec::new();
        while let Some((head, rest)) = bytes.split_first_chunk::<40>() {
            let field = |i: usize| u64::from_ne_bytes(head[i * 8..i * 8 + 8].try_into().unwrap());
            let Some((old, rest)) = rest.split_at_checked(field(3) as usize) else { break };
            let kind = match field(0) {
                1 => Kind::Write,
                2 => Kind::Size,
                3 => Kind::Zero,
                4 => Kind::Sync,
                5 => Kind::SyncFailed,
                other => panic!("unknown entry: {other}"),
            };
            let (offset, length, old_size) = (field(1), field(2), field(4));
            entries.push(Self { kind, offset, length, old: old.to_vec(), old_size });
            bytes = rest;
        }
        entries
    }

    fn pages(&self) -> std::ops::Range<u64> {
        let page = PAGE_BYTES as u64;
        self.offset / page..(self.offset + self.length).div_ceil(page)
    }

    /// Restores the old bytes; bytes beyond the old end of the file become zeros.
    fn undo(&self, pages: &mut BTreeMap<u64, Page>) {
        for at in 0..self.length {
            let place = self.offset + at;
            let page = pages.get_mut(&(place / PAGE_BYTES as u64)).unwrap();
            let byte = self.old.get(at as usize).copied().unwrap_or(0);
            page.bytes[(place % PAGE_BYTES as u64) as usize] = byte;
        }
    }
}

/// A changed page.
struct Page {
    bytes: Vec<u8>,
    /// The version that is certainly on disk.
    durable: usize,
    dirty: bool,
}

/// Reverts unsynced changes of a file. Version `v` is the state before entry `v`; the last version is the current state.
fn lose_data(file: &File, entries: &[Entry], mut random: Option<&mut Random>) {
    let (mut pages, durable_size) = pages(file, entries);
    let now = entries.len();
    let mode = random.as_deref_mut().map_or(0, |random| random.below(4));
    let mut choose = |durable: usize| match (mode, random.as_deref_mut()) {
        (1, _) => now,
        (2 | 3, Some(random)) => durable + random.below((now - durable) as u64 + 1) as usize,
        (_, _) => durable,
    };
    let size_version = choose(durable_size);
    let cuts = Cut::all(entries);
    // The sectors to restore from each version.
    let mut wanted: Vec<Vec<(u64, usize)>> = vec![Vec::new(); now + 1];
    for (number, page) in &pages {
        let mut version = choose(page.durable);
        for sector in 0..PAGE_BYTES / SECTOR_BYTES {
            if mode == 3 {
                version = choose(page.durable);
            }
            let end = number * PAGE_BYTES as u64 + ((sector + 1) * SECTOR_BYTES) as u64;
            let fitting = cuts.iter().filter(|cut| cut.offset < end);
            let version = fitting.fold(version, |version, cut| cut.fit(version, size_version));
            wanted[version].push((*number, sector));
        }
    }
    let mut size = file.metadata().unwrap().len();
    let mut final_size = size;
    let mut result: BTreeMap<u64, Vec<u8>> =
        pages.iter().map(|(number, page)| (*number, page.bytes.clone())).collect();
    for version in (0..=now).rev() {
        if version == size_version {
            final_size = size;
        }
        for (number, sector) in &wanted[version] {
            let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
            result.get_mut(number).unwrap()[range.clone()].copy_from_slice(&pages[number].bytes[range]);
        }
        if let Some(entry) = version.checked_sub(1).map(|before| &entries[before]) {
            entry.undo(&mut pages);
            size = entry.old_size;
        }
    }
    file.set_len(final_size).unwrap();
    for (number, bytes) in result {
        let start = number * PAGE_BYTES as u64;
        let length = final_size.saturating_sub(start).min(PAGE_BYTES as u64);
        file.write_all_at(&bytes[..length as usize], start).unwrap();
    }
}

/// The changed pages with their current content and the version that is certainly on disk, and the version whose length is
/// certainly on disk.
fn pages(file: &File, entries: &[Entry]) -> (BTreeMap<u64, Page>, usize) {
    let mut pages: BTreeMap<u64, Page> = BTreeMap::new();
    let mut durable_size = 0;
    for (at, entry) in entries.iter().enumerate() {
        match entry.kind {
            Kind::Write | Kind::Zero => {
                for number in entry.pages() {
                    let page = pages.entry(number).or_insert_with(|| Page {
                        bytes: read_page(file, number),
                        durable: 0,
                        dirty: true,
                    });
                    page.dirty = true;
                }
            }
            Kind::Size => {}
            Kind::Sync | Kind::SyncFailed => {
                for page in pages.values_mut().filter(|page| page.dirty) {
                    page.dirty = false;
                    if entry.kind == Kind::Sync {
                        page.durable = at;
                    }
                }
                if entry.kind == Kind::Sync {
                    durable_size = at;
                }
            }
        }
    }
    (pages, durable_size)
}

fn read_page(file: &File, number: u64) -> Vec<u8> {
    let mut bytes = vec![0; PAGE_BYTES];
    let mut filled = 0;
    while filled < PAGE_BYTES {
        let place = number * PAGE_BYTES as u64 + filled as u64;
        match file.read_at(&mut bytes[filled..], place).unwrap() {
            0 => break,
            more => filled += more,
        }
    }
    bytes
}

/// A truncation: the entries of the removed bytes and the entry of the length.
struct Cut {
    offset: u64,
    before: usize,
    after: usize,
}

impl Cut {
    fn all(entries: &[Entry]) -> Vec<Self> {
        let mut begins = None;
        let mut cuts = Vec::new();
        for (at, entry) in entries.iter().enumerate() {
            match entry.kind {
                Kind::Zero => begins = begins.or(Some(at)),
                Kind::Size if entry.offset < entry.old_size => {
                    let before = begins.take().unwrap_or(at);
                    cuts.push(Self { offset: entry.offset, before, after: at + 1 });
                }
                Kind::Write | Kind::Size | Kind::Sync | Kind::SyncFailed => begins = None,
            }
        }
        cuts
    }

    /// The version of the removed bytes that is consistent with the version of the length.
    fn fit(&self, version: usize, size_version: usize) -> usize {
        if size_version >= self.after { version.max(self.after) } else { version.min(self.before) }
    }
}

/// A seeded pseudorandom number generator (xorshift64).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// Similar seeds give different sequences.
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        (0..8).for_each(|_| _ = random.below(2));
        random
    }

    /// A number in `0..end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const CHILD: &str = "PINFOLD_TEST_DISK_CHILD";

    /// Runs one of the scenarios below in a child process with its own simulated disk.
    fn run_child(scenario: &str, rules: &[&str]) -> (tempfile::TempDir, FaultyDisk) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("data");
        fs::create_dir(&root).unwrap();
        let disk = FaultyDisk::under(&root, &folder.path().join("journal"));
        disk.fail(rules);
        let done = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "faulty_disk::tests::child_process"])
            .env(CHILD, scenario)
            .envs(disk.environment())
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
        (folder, disk)
    }

    /// Not a test by itself: runs the scenario if this is a child process.
    #[test]
    fn child_process() {
        let Some(scenario) = std::env::var_os(CHILD) else { return };
        let root = PathBuf::from(std::env::var_os("PINFOLD_TEST_DISK_ROOT").unwrap());
        let path = |name: &str| root.join(name);
        let sync_folder = || File::open(&root).unwrap().sync_all().unwrap();
        match scenario.to_str().unwrap() {
            "data" => {
                let mut file = File::create(path("file")).unwrap();
                file.write_all(&[1; 10_000]).unwrap();
                file.sync_data().unwrap();
                file.write_all_at(&[2; 5_000], 3_000).unwrap();
                file.write_all(&[3; 10_000]).unwrap();
            }
            "cut" => {
                let file = File::create(path("file")).unwrap();
                file.write_all_at(&[1; 10_000], 0).unwrap();
                file.sync_all().unwrap();
                file.set_len(100).unwrap();
                file.write_all_at(&[2; 300], 100).unwrap();
            }
            "names" => {
                for name in ["removed", "moved", "over", "synced"] {
                    fs::write(path(name), name).unwrap();
                    File::open(path(name)).unwrap().sync_all().unwrap();
                }
                fs::remove_file(path("removed")).unwrap();
                fs::rename(path("moved"), path("over")).unwrap();
                fs::write(path("new"), "new").unwrap();
                fs::create_dir(path("folder")).unwrap();
                fs::write(path("folder/inside"), "inside").unwrap();
            }
            "synced names" => {
                for name in ["removed", "moved", "over"] {
                    fs::write(path(name), name).unwrap();
                    File::open(path(name)).unwrap().sync_all().unwrap();
                }
                fs::remove_file(path("removed")).unwrap();
                fs::rename(path("moved"), path("over")).unwrap();
                fs::create_dir(path("folder")).unwrap();
                sync_folder();
            }
            "failed sync" => {
                let file = File::create(path("file")).unwrap();
                file.write_all_at(&[1; 8192], 0).unwrap();
                file.sync_all().unwrap_err();
                let faults = std::env::var_os("PINFOLD_TEST_DISK_JOURNAL").unwrap();
                fs::remove_file(Path::new(&faults).join("faults")).unwrap();
                file.write_all_at(&[2; 100], 0).unwrap();
                file.sync_all().unwrap();
            }
            "full" => fill(&root),
            other => panic!("unknown scenario: {other}"),
        }
    }

    /// The disk is full for some paths.
    fn fill(root: &Path) {
        let mut file = File::create(root.join("file")).unwrap();
        file.write_all(&[1; 1000]).unwrap();
        let full = file.write_all(&[1; 1000]).unwrap_err();
        assert_eq!(full.raw_os_error(), Some(28));
        assert_eq!(file.metadata().unwrap().len(), 1500, "a write fills the remaining space");
        assert!(fs::create_dir(root.join("folder")).is_err() && File::create(root.join("more")).is_err());
        fs::write(root.join("other"), "fine").unwrap();
        assert_eq!(fs::read(root.join("file")).unwrap_err().raw_os_error(), Some(5));
    }

    fn names(folder: &tempfile::TempDir) -> Vec<String> {
        let entries = fs::read_dir(folder.path().join("data")).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn synced_data_survives_and_unsynced_data_is_lost() {
        let (folder, disk) = run_child("data", &[]);
        let file = folder.path().join("data/file");
        assert_eq!(fs::read(&file).unwrap().len(), 20_000);
        disk.cut_power(None);
        assert!(fs::read(&file).unwrap() == [1; 10_000]);
    }

    #[test]
    fn disk_that_ignores_syncs_loses_everything() {
        let (folder, disk) = run_child("data", &["ignore-fsync"]);
        disk.cut_power(None);
        assert_eq!(names(&folder), [""; 0]);
    }

    #[test]
    fn random_power_cut_leaves_old_or_new_sectors() {
        let mut seen = HashSet::new();
        for seed in 0..40 {
            let (folder, disk) = run_child("data", &[]);
            disk.cut_power(Some(&mut Random::new(seed)));
            let bytes = fs::read(folder.path().join("data/file")).unwrap();
            assert!([10_000, 20_000].contains(&bytes.len()), "{}", bytes.len());
            for (at, byte) in bytes.iter().enumerate() {
                let fine: &[u8] = match at {
                    3_000..8_000 => &[1, 2],
                    10_000.. => &[0, 3],
                    _ => &[1],
                };
                assert!(fine.contains(byte), "{byte} at {at}");
            }
            seen.insert(bytes);
        }
        assert!(seen.len() > 10, "only {} different results", seen.len());
    }

    #[test]
    fn truncation_is_undone_completely_or_not_at_all() {
        let mut ends = HashSet::new();
        for seed in 0..40 {
            let (folder, disk) = run_child("cut", &[]);
            disk.cut_power(Some(&mut Random::new(seed)));
            let bytes = fs::read(folder.path().join("data/file")).unwrap();
            match bytes.len() {
                10_000 => assert!(bytes == [1; 10_000]),
                100 => assert!(bytes == [1; 100]),
                400 => assert!(bytes[..100] == [1; 100] && bytes[100..].iter().all(|b| [0, 2].contains(b))),
                other => panic!("{other} bytes"),
            }
            ends.insert(bytes.len());
        }
        assert_eq!(ends.len(), 3, "{ends:?}");
    }

    #[test]
    fn names_are_lost_unless_their_directory_is_synced() {
        let (folder, disk) = run_child("names", &[]);
        assert_eq!(names(&folder), ["folder", "new", "over", "synced"]);
        disk.cut_power(None);
        assert_eq!(names(&folder), ["moved", "over", "removed", "synced"]);
        for name in names(&folder) {
            assert_eq!(fs::read_to_string(folder.path().join("data").join(&name)).unwrap(), name);
        }
        let (folder, disk) = run_child("synced names", &[]);
        disk.cut_power(None);
        assert_eq!(names(&folder), ["folder", "over"]);
        assert_eq!(fs::read_to_string(folder.path().join("data/over")).unwrap(), "moved");
    }

    #[test]
    fn failed_sync_is_not_repaired_by_the_next() {
        let (folder, disk) = run_child("failed sync", &["sync EIO data/file 0"]);
        disk.cut_power(None);
        let bytes = fs::read(folder.path().join("data/file")).unwrap();
        assert_eq!(bytes[..100], [2; 100]);
        assert_eq!(bytes[100..4096], [1; 3996], "the rewritten page is durable");
        assert_eq!(bytes[4096..], [0; 4096], "the other page is lost");
    }

    #[test]
    fn disk_is_full_for_configured_paths() {
        let rules = ["write ENOSPC data/file 1500", "write ENOSPC data/folder 0", "write ENOSPC data/more 0"];
        run_child("full", &[&rules[..], &["read EIO data/file 0"]].concat());
    }
}
