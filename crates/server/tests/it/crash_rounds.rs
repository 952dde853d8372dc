//! Many short lives of one server: clients work, it is killed at any moment, the power may go with it, and what
//! is there after the next start is compared with what it had said.
//!
//! The clients choose from a small pool of content, so that much of it is pinned by both accounts, removed
//! while the other pins it, and made of blocks that others have too. What was in flight at the kill may have
//! happened or not; everything else must be exactly so. `PINFOLD_TEST_CRASH_ROUNDS` makes a longer run,
//! `PINFOLD_TEST_CRASH_SEED` another one.

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
use crate::server::{PATIENCE, TestServer};

/// Lives of the server in one test run.
const ROUNDS: u64 = 150;
/// Every so many rounds the server settles and its blocks are looked at without it.
const SETTLE_EVERY: u64 = 6;
/// Lives of new servers that are killed during their first start.
const FIRST_STARTS: u64 = 36;
const SEED: u64 = 0xc0ffee;
/// Small segments: many ends of them, and space that has to come back.
const SEGMENT_BYTES: u64 = 1 << 20;
/// Clients of each account. Each has its own part of the pool, so that it knows what is there.
const CLIENTS: usize = 2;
const ACCOUNTS: [&str; 2] = ["admin@localhost", "bob@example.org"];

/// What clients pin.
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
    /// Only a provider has it at first.
    Dag,
}

/// What is known of an account's pin of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    No,
    Yes,
    /// It ends at this time.
    Until(Timestamp),
    /// It is there, but was in flight at a kill, and nobody was told that it is pinned; it may end.
    CreatePinOutcome(Option<Timestamp>),
    /// It may be there or not; if it is, it may end.
    Open(Option<Timestamp>),
}

impl Known {
    /// When it ends, if it does.
    fn until(self) -> Option<Timestamp> {
        match self {
            Self::No | Self::Yes => None,
            Self::Until(at) => Some(at),
            Self::CreatePinOutcome(at) | Self::Open(at) => at,
        }
    }

    /// What is known after a look at a list, on which it stands as `found`.
    fn after(self, found: Option<&str>) -> Self {
        let until = self.until();
        match (self, found) {
            (Self::No, _) | (Self::Open(_), None) => Self::No,
            (Self::Yes | Self::Until(_), _) | (Self::CreatePinOutcome(_), None) => self,
            (Self::CreatePinOutcome(_) | Self::Open(_), Some("pinned")) => {
                until.map_or(Self::Yes, Self::Until)
            }
            (Self::CreatePinOutcome(_) | Self::Open(_), Some(_)) => Self::CreatePinOutcome(until),
        }
    }
}

/// What is known, by account and content.
type Model = BTreeMap<(usize, usize), Known>;

/// Says where it happened if a test fails.
struct Place {
    seed: u64,
    round: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in round {} of seed {}", self.round, self.seed);
        }
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var_os(variable).map_or(default, |text| text.to_str().unwrap().parse().expect("a number"))
}

/// All of the content, and a store that has it.
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
            Kind::Dag => unreachable!("they come below"),
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

/// Every block of a DAG with its length, each of them read and verified.
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

/// Requests to a server that may be gone at any moment.
#[derive(Clone)]
struct Api {
    http: reqwest::Client,
    url: String,
    keys: Vec<String>,
}

impl Api {
    fn of(server: &TestServer, keys: &[String]) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
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

    /// The account's pins and how each stands.
    async fn list(&self, account: usize) -> HashMap<String, String> {
        let (status, body) =
            answer(self.request(account, Method::GET, "/users/me/uploads?limit=100")).await.expect("it runs");
        assert_eq!(status, 200, "{body}");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let uploads = body["uploads"].as_array().unwrap().iter();
        uploads.map(|upload| (text(&upload["cid"]), text(&upload["status"]))).collect()
    }
}

/// A whole answer; `None` if the server went first.
async fn answer(request: RequestBuilder) -> Option<(u16, Value)> {
    let response = request.send().await.ok()?;
    let status = response.status().as_u16();
    let body = response.bytes().await.ok()?;
    Some((status, serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{status}: {body:?}"))))
}

/// What the clients of one round share.
struct Work {
    api: Api,
    pool: Arc<Vec<Content>>,
    model: Mutex<Model>,
    /// Requests that were answered.
    done: AtomicU64,
}

impl Work {
    fn know(&self, key: (usize, usize), known: Known) {
        self.model.lock().unwrap().insert(key, known);
    }

    /// Sends requests until one is not answered.
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
        let known = self.model.lock().unwrap()[&key];
        let content = &self.pool[key.1];
        let may_end = known.until().is_some();
        if may_end || known != Known::No && random.below(2) == 0 {
            self.know(key, Known::Open(known.until()));
            let (status, body) = answer(self.api.remove(key.0, content)).await?;
            assert!(status == 200 || status == 404 && may_end, "{known:?}: {status} {body}");
            self.know(key, Known::No);
            return Some(());
        }
        let locks = known == Known::No && random.below(4) == 0;
        let until = locks.then(|| SystemClock.now().after(Duration::from_millis(600 + random.below(900))));
        if known == Known::No {
            self.know(key, Known::Open(until));
        }
        let pins = random.below(3) == 0;
        let request = match pins {
            true => self.api.pin(key.0, content, until),
            false => self.api.upload(key.0, content, until),
        };
        let (status, body) = answer(request).await?;
        if until.is_some() && status == 404 {
            self.know(key, Known::No);
            return Some(());
        }
        assert!([200, 201].contains(&status), "{known:?}: {status} {body}");
        assert_eq!((&body["cid"], &body["status"]), (&json!(content.cid), &json!("pinned")), "{body}");
        self.know(key, until.map_or(Known::Yes, Known::Until));
        Some(())
    }
}

/// One server through all of its lives.
struct Story {
    server: TestServer,
    keys: Vec<String>,
    pool: Arc<Vec<Content>>,
    model: Model,
    random: Random,
    answered: u64,
}

impl Story {
    async fn begin(pool: Vec<Content>, provider: &str, seed: u64) -> Self {
        let server = TestServer::on_disk(&settings(provider)).await;
        let [_, bob] = ACCOUNTS;
        server.cli_ok(&["user", "create", "--email", bob, "--plan", "premium", "--no-password"]).await;
        let key = server.cli_ok(&["token", "create", "--email", bob, "--name", "test"]).await;
        let keys = vec![server.key.clone(), key];
        let model = (0..ACCOUNTS.len())
            .flat_map(|account| (0..pool.len()).map(move |content| ((account, content), Known::No)))
            .collect();
        Self { server, keys, pool: Arc::new(pool), model, random: Random::new(seed), answered: 0 }
    }

    /// Clients work until the server is killed.
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
        let mut looks = tokio::time::interval(Duration::from_millis(1));
        while work.done.load(Ordering::SeqCst) < enough && clients.try_join_next().is_none() {
            looks.tick().await;
        }
        // Any moment, also within a request.
        tokio::time::sleep(Duration::from_micros(self.random.below(20_000))).await;
        self.server.kill().await;
        while let Some(done) = clients.join_next().await {
            done.unwrap();
        }
        let work = Arc::into_inner(work).unwrap();
        self.answered += work.done.into_inner();
        self.model = work.model.into_inner().unwrap();
    }

    /// The power goes, in half of the cases; all that was not synced is lost then, or some of it.
    fn maybe_cut_power(&mut self) {
        match self.random.below(6) {
            0 => self.server.disk().cut_power(None),
            1 | 2 => self.server.disk().cut_power(Some(&mut self.random)),
            _ => {}
        }
    }

    /// The next life, sometimes after some that end while they begin.
    async fn restart(&mut self) {
        while self.random.below(5) == 0 {
            let after = Duration::from_micros(self.random.below(150_000));
            assert_eq!(self.server.start_and_kill(after).await, None, "a key is made once");
            self.maybe_cut_power();
        }
        self.server.restart().await;
    }

    /// Compares the lists with what is known, and learns what was open.
    async fn compare(&mut self, settled: bool) {
        let api = Api::of(&self.server, &self.keys);
        for account in 0..ACCOUNTS.len() {
            let mut list = api.list(account).await;
            let after = SystemClock.now();
            for (content, known) in self.model.iter_mut().filter(|((a, _), _)| *a == account) {
                let cid = &self.pool[content.1].cid;
                let found = list.remove(cid);
                let told = format!("{cid} of account {account}, {known:?}: {found:?} at {after}");
                let is_due = known.until().is_some_and(|at| at <= after);
                match *known {
                    Known::No => assert_eq!(found, None, "{told}"),
                    Known::Until(_) | Known::CreatePinOutcome(_) if is_due => {}
                    Known::Yes | Known::Until(_) => assert_eq!(found.as_deref(), Some("pinned"), "{told}"),
                    Known::CreatePinOutcome(_) => assert!(found.is_some(), "{told}"),
                    Known::Open(_) => {}
                }
                if settled {
                    assert!(found.as_deref().is_none_or(|status| status == "pinned"), "{told}");
                    assert!(!(is_due && found.is_some()), "{told}");
                }
                *known = if settled && is_due { Known::No } else { known.after(found.as_deref()) };
            }
            assert!(list.is_empty(), "{list:?} of account {account}: nobody wished for it");
        }
    }

    /// Returns once there is nothing left to do.
    async fn settle(&self) {
        let store = Store::open(&self.server.data_dir().join("pinfold.db")).await.unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut looks = tokio::time::interval(Duration::from_millis(20));
        // What ends makes work, so that is asked for second.
        while let Some(due) = store
            .next_expiry()
            .await
            .unwrap()
            .or(store.next_placement_due(SystemClock.now(), pinfold_store::Capacity::each(1)).await.unwrap())
        {
            assert!(Instant::now() < deadline, "something is still due at {due}");
            looks.tick().await;
        }
        store.close().await;
    }

    fn wanted(&self) -> BTreeSet<usize> {
        self.model
            .iter()
            .filter(|(_, known)| **known == Known::Yes)
            .map(|((_, content), _)| *content)
            .collect()
    }

    /// The books say what the pins say.
    async fn check_books(&self) {
        let text = self.server.cli_ok(&["user", "list", "--json"]).await;
        for (account, email) in ACCOUNTS.iter().enumerate() {
            let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let row = lines.into_iter().find(|row| row["email"] == *email).unwrap();
            let pins = self.model.iter().filter(|((a, _), known)| *a == account && **known == Known::Yes);
            let sizes: Vec<u64> = pins.map(|((_, content), _)| self.pool[*content].bytes).collect();
            assert_eq!(
                (row["pins"].as_u64(), row["usedBytes"].as_u64()),
                (Some(sizes.len() as u64), Some(sizes.iter().sum()))
            );
        }
    }

    /// Settles, and compares everything, the last block included.
    async fn check(&mut self) {
        for turn in 1.. {
            self.settle().await;
            self.compare(true).await;
            self.check_books().await;
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
            // It had no time yet to release what its last life left.
            assert!(turn < 20, "these are never released: {left:?}");
            self.server.restart().await;
        }
    }

    /// Looks at the blocks without a server; gives the holds that are still there and should not be for ever.
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
                assert!(hold.sealed, "{name} is not whole");
            } else {
                left.push(name);
            }
        }
        assert!(kept.is_empty(), "{kept:?} are lost");
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

    /// Returns once all other blocks are gone.
    async fn until_only(&self, blocks: &SegmentBlocks, kept: &BTreeSet<&Cid>) {
        let deadline = Instant::now() + PATIENCE;
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        for cid in self.pool.iter().flat_map(|content| &content.blocks).filter(|cid| !kept.contains(cid)) {
            while blocks.size(cid).unwrap().is_some() {
                assert!(Instant::now() < deadline, "{cid} is still there, and nobody wants it");
                looks.tick().await;
            }
        }
    }

    /// Removes everything: then the space must come back.
    async fn remove_all(&mut self) {
        let api = Api::of(&self.server, &self.keys);
        for ((account, content), known) in &mut self.model {
            if *known == Known::Yes {
                let (status, body) = answer(api.remove(*account, &self.pool[*content])).await.unwrap();
                assert_eq!(status, 200, "{body}");
                *known = Known::No;
            }
        }
        self.settle().await;
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
async fn nothing_acknowledged_is_lost_and_nothing_removed_stays() {
    let rounds = number("PINFOLD_TEST_CRASH_ROUNDS", ROUNDS);
    let mut place = Place { seed: number("PINFOLD_TEST_CRASH_SEED", SEED), round: 0 };
    let (pool, blocks) = pool().await;
    let provider = Provider::over(blocks, &[]).await;
    let mut story = Story::begin(pool, &provider.address().await, place.seed).await;
    for round in 1..=rounds {
        place.round = round;
        story.work().await;
        story.maybe_cut_power();
        story.restart().await;
        story.compare(false).await;
        if round % SETTLE_EVERY == 0 || round == rounds {
            story.check().await;
            story.server.restart().await;
        }
    }
    assert!(story.answered >= rounds * 5, "only {} requests were answered", story.answered);
    story.remove_all().await;
    story.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_lies_about_syncs_is_found_out() {
    let server = TestServer::on_disk(&[]).await;
    server.disk().forget();
    server.disk().fail(&["ignore-fsync"]);
    let (status, file) = server.admin().upload("f", vec![5; 100_000]).await;
    assert_eq!(status, 201, "{file}");
    let mut server = server;
    server.kill().await;
    server.disk().cut_power(None);
    server.restart().await;
    let listed = server.admin().uploads().await;
    assert_eq!(listed["total"], 0, "the disk has lost it; a test that does not see that sees nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_during_the_first_start_leaves_a_folder_that_can_be_started() {
    let mut place = Place { seed: number("PINFOLD_TEST_CRASH_SEED", SEED), round: 0 };
    let mut random = Random::new(place.seed);
    let mut keys = [0; 2];
    for round in 1..=FIRST_STARTS {
        place.round = round;
        let mut server = TestServer::prepare_on_disk(&[]);
        let mut key = None;
        for _ in 0..1 + random.below(2) {
            let said = server.start_and_kill(Duration::from_micros(random.below(150_000))).await;
            key = key.or(said);
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
    assert!(keys[1] > 0, "no start was ever told a key");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_a_kill_left_half_made_is_made_again() {
    let mut server = TestServer::prepare_on_disk(&[]);
    let index = server.data_dir().join("blocks/index");
    std::fs::create_dir_all(&index).unwrap();
    // The first file that is made in it; nothing says yet that there is a store.
    std::fs::write(index.join("0.jnl"), []).unwrap();
    assert!(server.run().await["firstKey"].is_string());
    server.stop().await;
}
