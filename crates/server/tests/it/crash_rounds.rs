//! A server is killed in many rounds while clients use it, sometimes with a power cut. After each restart, its state is
//! compared with what it had acknowledged.
//!
//! The clients choose from a small pool of content, so that content is pinned by both accounts, removed while the other
//! account pins it, and shares blocks with other content. A request in flight at a kill may have taken effect or not;
//! everything else must match exactly. `PINFOLD_TEST_CRASH_ROUNDS` sets the number of rounds, `PINFOLD_TEST_CRASH_SEED`
//! the seed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cid::Cid;
use pinfold_model::{Clock, SystemClock, Timestamp};
use pinfold_node::Blocks;
use pinfold_node::blocks::{HoldName, MemoryBlocks, SegmentBlocks, SegmentConfig};
use pinfold_node::dag::links;
use pinfold_node::unixfs::{DirectoryBuilder, Profile, import_file};
use pinfold_store::Store;
use reqwest::multipart::{Form, Part};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::content::Dag;
use crate::faulty_disk::Random;
use crate::provider::Provider;
use crate::server::{TIMEOUT, TestServer};

/// Number of kills in one run.
const ROUNDS: u64 = 150;
/// Number of rounds between two checks of the block store while no server runs.
const CHECK_EVERY: u64 = 6;
/// Number of new servers that are killed during their first start.
const FIRST_STARTS: u64 = 36;
const SEED: u64 = 0xc0ffee;
/// Small, so that segments are often completed and reclaimed.
const SEGMENT_BYTES: u64 = 1 << 20;
/// Clients per account. Each has its own part of the pool, so that it knows the expected state of its pins.
const CLIENTS: usize = 2;
const ACCOUNTS: [&str; 2] = ["admin@localhost", "bob@example.org"];

/// Content that clients pin.
struct Content {
    cid: String,
    kind: Kind,
    /// The CIDs of its blocks.
    blocks: Vec<Cid>,
    bytes: u64,
}

enum Kind {
    File(Vec<u8>),
    Directory(Vec<(String, Vec<u8>)>),
    /// Available only from the provider at first.
    Dag,
}

/// Expected state of the pin of an account on a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Absent,
    Pinned,
    /// Pinned, and expires at this time.
    PinnedUntil(Timestamp),
    /// Recorded, but the request was in flight at a kill, so it may not be pinned yet; with its expiry time.
    Recorded(Option<Timestamp>),
    /// Recorded or absent; with its expiry time.
    Unknown(Option<Timestamp>),
}

impl Expected {
    /// The expiry time.
    fn until(self) -> Option<Timestamp> {
        match self {
            Self::Absent | Self::Pinned => None,
            Self::PinnedUntil(at) => Some(at),
            Self::Recorded(at) | Self::Unknown(at) => at,
        }
    }

    /// The expected state after a list has shown it with the status `found`.
    fn after(self, found: Option<&str>) -> Self {
        let until = self.until();
        match (self, found) {
            (Self::Absent, _) | (Self::Unknown(_), None) => Self::Absent,
            (Self::Pinned | Self::PinnedUntil(_), _) | (Self::Recorded(_), None) => self,
            (Self::Recorded(_) | Self::Unknown(_), Some("pinned")) => {
                until.map_or(Self::Pinned, Self::PinnedUntil)
            }
            (Self::Recorded(_) | Self::Unknown(_), Some(_)) => Self::Recorded(until),
        }
    }
}

/// Expected states by account and content.
type Model = BTreeMap<(usize, usize), Expected>;

/// Prints round and seed if a test fails.
struct Position {
    seed: u64,
    round: u64,
}

impl Drop for Position {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in round {} of seed {}", self.round, self.seed);
        }
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var_os(variable).map_or(default, |text| text.to_str().unwrap().parse().expect("a number"))
}

/// The content, and a block store with all of it.
async fn pool() -> (Vec<Content>, MemoryBlocks) {
    let blocks = MemoryBlocks::new();
    let hold = blocks.open(&HoldName::parse("pool").unwrap()).unwrap();
    let mut random = Random::new(1);
    let mut bytes = |length: usize| (0..length).map(|_| random.below(256) as u8).collect::<Vec<u8>>();
    let files = [0, 10, 3_000, 40_000, 300_000, 1_300_000].map(&mut bytes);
    let mut kinds: Vec<Kind> = files.iter().cloned().map(Kind::File).collect();
    for shared in [[1, 2, 3], [2, 3, 4]] {
        let mut entries: Vec<_> = shared.map(|i| (format!("shared/{i}"), files[i].clone())).into();
        entries.push(("own".to_owned(), bytes(9_000)));
        kinds.push(Kind::Directory(entries));
    }
    let mut pool = Vec::new();
    for kind in kinds {
        let imported = match &kind {
            Kind::File(bytes) => import_file(&bytes[..], Profile::default(), &blocks, hold).await.unwrap(),
            Kind::Directory(entries) => {
                let mut directory = DirectoryBuilder::new();
                for (path, bytes) in entries {
                    let file = import_file(&bytes[..], Profile::default(), &blocks, hold).await.unwrap();
                    directory.insert(path, file).unwrap();
                }
                directory.import(Profile::default(), &blocks, hold).await.unwrap()
            }
            Kind::Dag => unreachable!("added below"),
        };
        pool.push((imported.root, kind));
    }
    let part = Dag::flat(1, 6, 20_000);
    let dags = [
        part.clone(),
        Dag::over(vec![part.clone(), Dag::flat(2, 40, 500)]),
        Dag::over(vec![part, Dag::flat(3, 3, 150_000)]),
        Dag::flat(4, 200, 100),
    ];
    for dag in dags {
        for block in &dag.blocks {
            blocks.put(hold, block.clone()).await.unwrap();
        }
        pool.push((*dag.root(), Kind::Dag));
    }
    blocks.seal(hold).await.unwrap();
    let content = |(root, kind): (Cid, Kind)| {
        let found = walk(&blocks, &root);
        Content {
            cid: root.to_string(),
            kind,
            bytes: found.values().sum(),
            blocks: found.into_keys().collect(),
        }
    };
    (pool.into_iter().map(content).collect(), blocks)
}

/// Reads and verifies every block of a DAG; returns the length of each.
fn walk(blocks: &dyn Blocks, root: &Cid) -> BTreeMap<Cid, u64> {
    let mut found = BTreeMap::new();
    let mut next = vec![*root];
    while let Some(cid) = next.pop() {
        if found.contains_key(&cid) {
            continue;
        }
        let block = blocks.get(&cid).unwrap().unwrap_or_else(|| panic!("{cid} of {root} is lost"));
        found.insert(cid, block.data().len() as u64);
        next.extend(links(&block).unwrap().into_iter().map(|link| link.cid));
    }
    found
}

/// Requests to a server that can be killed at any moment.
#[derive(Clone)]
struct Api {
    http: reqwest::Client,
    url: String,
    keys: Vec<String>,
}

impl Api {
    fn of(server: &TestServer, keys: &[String]) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build().unwrap();
        Self { http, url: format!("{}/api/v3", server.url()), keys: keys.to_vec() }
    }

    fn request(&self, account: usize, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).header("X-API-Key", &self.keys[account])
    }

    fn remove(&self, account: usize, content: &Content) -> RequestBuilder {
        self.request(account, Method::DELETE, &format!("/files/remove/{}", content.cid))
    }

    fn pin(&self, account: usize, content: &Content, until: Option<Timestamp>) -> RequestBuilder {
        let body = match until {
            Some(until) => json!({ "timelock": until.to_string() }),
            None => json!({}),
        };
        self.request(account, Method::POST, &format!("/files/pin/{}", content.cid)).json(&body)
    }

    fn upload(&self, account: usize, content: &Content, until: Option<Timestamp>) -> RequestBuilder {
        let mut form = Form::new();
        if let Some(until) = until {
            form = form.text("timelock", until.to_string());
        }
        match &content.kind {
            Kind::File(bytes) => {
                let form = form.part("file", Part::bytes(bytes.clone()).file_name("file"));
                self.request(account, Method::POST, "/files").multipart(form)
            }
            Kind::Directory(entries) => {
                for (path, bytes) in entries {
                    form = form.part("files", Part::bytes(bytes.clone()).file_name(path.clone()));
                }
                self.request(account, Method::POST, "/files/directory-dag").multipart(form)
            }
            Kind::Dag => self.pin(account, content, until),
        }
    }

    /// CID and status of each pin of an account.
    async fn list(&self, account: usize) -> HashMap<String, String> {
        let (status, body) = answer(self.request(account, Method::GET, "/users/me/uploads?limit=100"))
            .await
            .expect("the server is running");
        assert_eq!(status, 200, "{body}");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let uploads = body["uploads"].as_array().unwrap().iter();
        uploads.map(|upload| (text(&upload["cid"]), text(&upload["status"]))).collect()
    }
}

/// The complete response; `None` if the connection broke.
async fn answer(request: RequestBuilder) -> Option<(u16, Value)> {
    let response = request.send().await.ok()?;
    let status = response.status().as_u16();
    let body = response.bytes().await.ok()?;
    Some((status, serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{status}: {body:?}"))))
}

/// State that is shared by the clients of one round.
struct Work {
    api: Api,
    pool: Arc<Vec<Content>>,
    model: Mutex<Model>,
    /// Number of requests that were answered.
    done: AtomicU64,
}

impl Work {
    fn expect(&self, key: (usize, usize), expected: Expected) {
        self.model.lock().unwrap().insert(key, expected);
    }

    /// Sends requests until the connection breaks.
    async fn client(self: Arc<Self>, account: usize, part: usize, mut random: Random) {
        loop {
            let own = (self.pool.len() - part).div_ceil(CLIENTS) as u64;
            let key = (account, part + CLIENTS * random.below(own) as usize);
            if self.step(key, &mut random).await.is_none() {
                return;
            }
            self.done.fetch_add(1, Ordering::SeqCst);
        }
    }

    async fn step(&self, key: (usize, usize), random: &mut Random) -> Option<()> {
        let expected = self.model.lock().unwrap()[&key];
        let content = &self.pool[key.1];
        let may_end = expected.until().is_some();
        if may_end || expected != Expected::Absent && random.below(2) == 0 {
            self.expect(key, Expected::Unknown(expected.until()));
            let (status, body) = answer(self.api.remove(key.0, content)).await?;
            assert!(status == 200 || status == 404 && may_end, "{expected:?}: {status} {body}");
            self.expect(key, Expected::Absent);
            return Some(());
        }
        let locks = expected == Expected::Absent && random.below(4) == 0;
        let until = locks.then(|| SystemClock.now().after(Duration::from_millis(600 + random.below(900))));
        if expected == Expected::Absent {
            self.expect(key, Expected::Unknown(until));
        }
        let pins = random.below(3) == 0;
        let request = match pins {
            true => self.api.pin(key.0, content, until),
            false => self.api.upload(key.0, content, until),
        };
        let (status, body) = answer(request).await?;
        if until.is_some() && status == 404 {
            self.expect(key, Expected::Absent);
            return Some(());
        }
        assert!([200, 201].contains(&status), "{expected:?}: {status} {body}");
        assert_eq!((&body["cid"], &body["status"]), (&json!(content.cid), &json!("pinned")), "{body}");
        self.expect(key, until.map_or(Expected::Pinned, Expected::PinnedUntil));
        Some(())
    }
}

/// A server across all rounds.
struct Run {
    server: TestServer,
    keys: Vec<String>,
    pool: Arc<Vec<Content>>,
    model: Model,
    random: Random,
    answered: u64,
}

impl Run {
    async fn start(pool: Vec<Content>, provider: &str, seed: u64) -> Self {
        let server = TestServer::on_faulty_disk(&settings(provider)).await;
        let [_, bob] = ACCOUNTS;
        server.cli_ok(&["user", "create", "--email", bob, "--plan", "premium", "--no-password"]).await;
        let key = server.cli_ok(&["token", "create", "--email", bob, "--name", "test"]).await;
        let keys = vec![server.key.clone(), key];
        let model = (0..ACCOUNTS.len())
            .flat_map(|account| (0..pool.len()).map(move |content| ((account, content), Expected::Absent)))
            .collect();
        Self { server, keys, pool: Arc::new(pool), model, random: Random::new(seed), answered: 0 }
    }

    /// Clients send requests until the server is killed.
    async fn work(&mut self) {
        let work = Arc::new(Work {
            api: Api::of(&self.server, &self.keys),
            pool: Arc::clone(&self.pool),
            model: Mutex::new(std::mem::take(&mut self.model)),
            done: AtomicU64::new(0),
        });
        let mut clients = tokio::task::JoinSet::new();
        for account in 0..ACCOUNTS.len() {
            for part in 0..CLIENTS {
                let random = Random::new(self.random.below(u64::MAX));
                clients.spawn(Arc::clone(&work).client(account, part, random));
            }
        }
        let enough = self.random.below(40);
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        while work.done.load(Ordering::SeqCst) < enough && clients.try_join_next().is_none() {
            ticks.tick().await;
        }
        // A random moment, also within a request.
        tokio::time::sleep(Duration::from_micros(self.random.below(20_000))).await;
        self.server.kill().await;
        while let Some(done) = clients.join_next().await {
            done.unwrap();
        }
        let work = Arc::into_inner(work).unwrap();
        self.answered += work.done.into_inner();
        self.model = work.model.into_inner().unwrap();
    }

    /// Cuts the power in half of the cases. All or some of what was not synced is then lost.
    fn maybe_cut_power(&mut self) {
        match self.random.below(6) {
            0 => self.server.disk().cut_power(None),
            1 | 2 => self.server.disk().cut_power(Some(&mut self.random)),
            _ => {}
        }
    }

    /// Restarts the server, sometimes after further kills during the start.
    async fn restart(&mut self) {
        while self.random.below(5) == 0 {
            let after = Duration::from_micros(self.random.below(150_000));
            assert_eq!(
                self.server.start_and_kill(after).await,
                None,
                "a key is created only at the first start"
            );
            self.maybe_cut_power();
        }
        self.server.restart().await;
    }

    /// Compares the lists with the expected states, and resolves unknown ones.
    async fn compare(&mut self, idle: bool) {
        let api = Api::of(&self.server, &self.keys);
        for account in 0..ACCOUNTS.len() {
            let mut list = api.list(account).await;
            let after = SystemClock.now();
            for (content, expected) in self.model.iter_mut().filter(|((a, _), _)| *a == account) {
                let cid = &self.pool[content.1].cid;
                let found = list.remove(cid);
                let context = format!("{cid} of account {account}, {expected:?}: {found:?} at {after}");
                let is_due = expected.until().is_some_and(|at| at <= after);
                match *expected {
                    Expected::Absent => assert_eq!(found, None, "{context}"),
                    Expected::PinnedUntil(_) | Expected::Recorded(_) if is_due => {}
                    Expected::Pinned | Expected::PinnedUntil(_) => {
                        assert_eq!(found.as_deref(), Some("pinned"), "{context}")
                    }
                    Expected::Recorded(_) => assert!(found.is_some(), "{context}"),
                    Expected::Unknown(_) => {}
                }
                if idle {
                    assert!(found.as_deref().is_none_or(|status| status == "pinned"), "{context}");
                    assert!(!(is_due && found.is_some()), "{context}");
                }
                *expected = if idle && is_due { Expected::Absent } else { expected.after(found.as_deref()) };
            }
            assert!(list.is_empty(), "account {account} has unexpected pins: {list:?}");
        }
    }

    /// Waits until no work is due.
    async fn wait_until_idle(&self) {
        let store = Store::open(&self.server.data_dir().join("pinfold.db")).await.unwrap();
        let deadline = Instant::now() + TIMEOUT;
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        // An expiry creates work, so work is queried second.
        while let Some(due) = store
            .next_expiry()
            .await
            .unwrap()
            .or(store.next_placement_due(SystemClock.now(), pinfold_store::Capacity::each(1)).await.unwrap())
        {
            assert!(Instant::now() < deadline, "work is still due at {due}");
            ticks.tick().await;
        }
        store.close().await;
    }

    fn wanted(&self) -> BTreeSet<usize> {
        self.model
            .iter()
            .filter(|(_, expected)| **expected == Expected::Pinned)
            .map(|((_, content), _)| *content)
            .collect()
    }

    /// Checks that the accounted storage equals the sizes of the pins.
    async fn check_accounting(&self) {
        let text = self.server.cli_ok(&["user", "list", "--json"]).await;
        for (account, email) in ACCOUNTS.iter().enumerate() {
            let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let row = lines.into_iter().find(|row| row["email"] == *email).unwrap();
            let pins = self
                .model
                .iter()
                .filter(|((a, _), expected)| *a == account && **expected == Expected::Pinned);
            let sizes: Vec<u64> = pins.map(|((_, content), _)| self.pool[*content].bytes).collect();
            assert_eq!(
                (row["pins"].as_u64(), row["usedBytes"].as_u64()),
                (Some(sizes.len() as u64), Some(sizes.iter().sum()))
            );
        }
    }

    /// Waits until the server is idle, and compares everything including the stored blocks.
    async fn check(&mut self) {
        for turn in 1.. {
            self.wait_until_idle().await;
            self.compare(true).await;
            self.check_accounting().await;
            if self.random.below(2) == 0 {
                self.server.kill().await;
                self.maybe_cut_power();
            } else {
                self.server.stop().await;
            }
            let left = self.check_blocks().await;
            self.server.disk().forget();
            if left.is_empty() {
                return;
            }
            // The server had no time to release what the previous process left.
            assert!(turn < 20, "holds are never released: {left:?}");
            self.server.restart().await;
        }
    }

    /// Checks the block store while no server runs. Returns the holds that remain to be released.
    async fn check_blocks(&self) -> Vec<String> {
        let config = SegmentConfig { segment_bytes: SEGMENT_BYTES, reserve_bytes: 0 };
        let blocks = SegmentBlocks::open(&self.server.data_dir().join("blocks"), &config).unwrap();
        let wanted = self.wanted();
        let name = |content: &usize| format!("pin/cl0-global/{}", self.pool[*content].cid);
        let mut kept: BTreeSet<String> = wanted.iter().map(name).collect();
        let mut left = Vec::new();
        for hold in blocks.holds("", None, usize::MAX).unwrap() {
            let name = hold.name.as_str().to_owned();
            if kept.remove(&name) {
                assert!(hold.sealed, "{name} is not sealed");
            } else {
                left.push(name);
            }
        }
        assert!(kept.is_empty(), "lost holds: {kept:?}");
        for content in &wanted {
            let content = &self.pool[*content];
            let found = walk(&blocks, &content.cid.parse().unwrap());
            assert_eq!(found.values().sum::<u64>(), content.bytes, "{}", content.cid);
        }
        if left.is_empty() {
            let kept = wanted.iter().flat_map(|content| &self.pool[*content].blocks).collect();
            self.until_only(&blocks, &kept).await;
        }
        blocks.close().await;
        left
    }

    /// Waits until all other blocks are deleted.
    async fn until_only(&self, blocks: &SegmentBlocks, kept: &BTreeSet<&Cid>) {
        let deadline = Instant::now() + TIMEOUT;
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        for cid in self.pool.iter().flat_map(|content| &content.blocks).filter(|cid| !kept.contains(cid)) {
            while blocks.size(cid).unwrap().is_some() {
                assert!(Instant::now() < deadline, "{cid} is stored without a hold");
                ticks.tick().await;
            }
        }
    }

    /// Removes all pins and waits until the space is reclaimed.
    async fn remove_all(&mut self) {
        let api = Api::of(&self.server, &self.keys);
        for ((account, content), expected) in &mut self.model {
            if *expected == Expected::Pinned {
                let (status, body) = answer(api.remove(*account, &self.pool[*content])).await.unwrap();
                assert_eq!(status, 200, "{body}");
                *expected = Expected::Absent;
            }
        }
        self.wait_until_idle().await;
        self.server.until_segments_are_below(SEGMENT_BYTES + 4096).await;
    }
}

fn settings(provider: &str) -> [(&'static str, &str); 5] {
    [
        ("node.peers", provider),
        ("blocks.segment_bytes", "1048576"),
        ("plans.premium.requests_per_second", "100000"),
        ("plans.premium.requests_per_minute", "1000000"),
        ("pins.retry_first_seconds", "1"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_state_survives_kills_and_power_cuts() {
    let rounds = number("PINFOLD_TEST_CRASH_ROUNDS", ROUNDS);
    let mut position = Position { seed: number("PINFOLD_TEST_CRASH_SEED", SEED), round: 0 };
    let (pool, blocks) = pool().await;
    let provider = Provider::over(blocks, &[]).await;
    let mut run = Run::start(pool, &provider.address().await, position.seed).await;
    for round in 1..=rounds {
        position.round = round;
        run.work().await;
        run.maybe_cut_power();
        run.restart().await;
        run.compare(false).await;
        if round % CHECK_EVERY == 0 || round == rounds {
            run.check().await;
            run.server.restart().await;
        }
    }
    assert!(run.answered >= rounds * 5, "only {} requests were answered", run.answered);
    run.remove_all().await;
    run.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_writes_are_detected_on_a_disk_that_ignores_syncs() {
    let server = TestServer::on_faulty_disk(&[]).await;
    server.disk().forget();
    server.disk().fail(&["ignore-fsync"]);
    let (status, file) = server.admin().upload("f", vec![5; 100_000]).await;
    assert_eq!(status, 201, "{file}");
    let mut server = server;
    server.kill().await;
    server.disk().cut_power(None);
    server.restart().await;
    let listed = server.admin().uploads().await;
    assert_eq!(
        listed["total"], 0,
        "the disk has lost the upload; otherwise this suite could not detect losses"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn server_starts_after_kills_during_its_first_start() {
    let mut position = Position { seed: number("PINFOLD_TEST_CRASH_SEED", SEED), round: 0 };
    let mut random = Random::new(position.seed);
    let mut keys = [0; 2];
    for round in 1..=FIRST_STARTS {
        position.round = round;
        let mut server = TestServer::prepare_on_faulty_disk(&[]);
        let mut key = None;
        for _ in 0..1 + random.below(2) {
            let printed = server.start_and_kill(Duration::from_micros(random.below(150_000))).await;
            key = key.or(printed);
            match random.below(3) {
                0 => server.disk().cut_power(None),
                1 => server.disk().cut_power(Some(&mut random)),
                _ => {}
            }
        }
        let ready = server.run().await;
        key = key.or(ready["firstKey"].as_str().map(str::to_owned));
        keys[usize::from(key.is_some())] += 1;
        server.key = match key {
            Some(key) => key,
            None => {
                let args = ["token", "create", "--email", "admin@localhost", "--name", "again"];
                server.cli_ok(&args).await
            }
        };
        let (status, file) = server.admin().upload("f", vec![round as u8; 1000]).await;
        assert_eq!(status, 201, "{file}");
        server.stop().await;
    }
    assert!(keys[1] > 0, "no start ever printed a key");
}

#[tokio::test(flavor = "multi_thread")]
async fn partially_created_index_is_created_again() {
    let mut server = TestServer::prepare_on_faulty_disk(&[]);
    let index = server.data_dir().join("blocks/index");
    std::fs::create_dir_all(&index).unwrap();
    // The first file of an index; its creation is not complete.
    std::fs::write(index.join("0.jnl"), []).unwrap();
    assert!(server.run().await["firstKey"].is_string());
    server.stop().await;
}
