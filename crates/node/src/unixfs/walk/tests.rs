//! Listings of valid and of hostile directories.

use super::*;
use crate::HoldId;
use crate::blocks::{HoldName, MemoryBlocks};
use crate::dag::pb::PbLink;
use crate::unixfs::{DirectoryBuilder, Profile, import_file};

/// Long enough for any machine.
const TIME: Duration = Duration::from_secs(60);

struct World {
    blocks: MemoryBlocks,
    hold: HoldId,
}

impl World {
    fn new() -> Self {
        let blocks = MemoryBlocks::new();
        let hold = blocks.open(&HoldName::parse("test").unwrap()).unwrap();
        Self { blocks, hold }
    }

    async fn put(&self, links: Vec<PbLink<'_>>, data: &Data) -> Cid {
        let bytes = PbNode { links, data: Some(&data.bytes()) }.encode();
        let block = Profile::default().node(bytes.into()).unwrap();
        let cid = *block.cid();
        self.blocks.put(self.hold, block).await.unwrap();
        cid
    }

    async fn directory(&self, entries: &[(&str, Cid)]) -> Cid {
        let link = |(name, cid): &(_, Cid)| PbLink { cid: *cid, name: Some(*name), tsize: Some(1) };
        self.put(entries.iter().map(link).collect(), &Data::directory()).await
    }

    /// A directory of these paths, each a file of five bytes.
    async fn tree(&self, paths: impl IntoIterator<Item = String>) -> Cid {
        let hello = import_file(&b"hello"[..], Profile::default(), &self.blocks, self.hold).await.unwrap();
        let mut builder = DirectoryBuilder::new();
        for path in paths {
            builder.insert(&path, hello).unwrap();
        }
        builder.import(Profile::default(), &self.blocks, self.hold).await.unwrap().root
    }

    fn walk(&self, root: &Cid, request: &WalkRequest) -> WalkPage {
        walk_directory(&self.blocks, root, request).unwrap()
    }

    /// All paths, in pages of `limit` entries.
    fn paths(&self, root: &Cid, limit: usize) -> Vec<String> {
        let (mut paths, mut request) = (Vec::new(), WalkRequest { limit, ..all() });
        loop {
            let page = self.walk(root, &request);
            paths.extend(page.entries.into_iter().map(|entry| entry.path));
            let Some(next) = page.next else { return paths };
            request.from = Some(next.to_string().parse().unwrap());
        }
    }
}

fn all() -> WalkRequest {
    WalkRequest { from: None, skip: 0, limit: usize::MAX, depth: 128, time: TIME }
}

fn raw(seed: &str) -> Cid {
    *Profile::default().raw(seed.as_bytes().to_vec().into()).unwrap().cid()
}

#[tokio::test]
async fn directory_precedes_its_contents() {
    let world = World::new();
    let root = world.tree(["b", "a/y", "a/x/deep"].map(str::to_owned)).await;
    let page = world.walk(&root, &all());
    let listed: Vec<_> =
        page.entries.iter().map(|entry| (entry.path.as_str(), entry.kind, entry.size_bytes)).collect();
    let (file, directory) = (EntryKind::File, EntryKind::Directory);
    assert_eq!(
        listed,
        [
            ("a", directory, None),
            ("a/x", directory, None),
            ("a/x/deep", file, Some(5)),
            ("a/y", file, Some(5)),
            ("b", file, Some(5)),
        ]
    );
    assert_eq!(page.next, None);
    let flat = world.walk(&root, &WalkRequest { depth: 1, ..all() });
    assert_eq!(flat.entries.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test]
async fn pages_of_any_size_add_up() {
    let world = World::new();
    // Enough for shards below shards, with a directory in the middle.
    let paths = (0..7_000).map(|n| format!("name {n}")).chain((0..40).map(|n| format!("sub/{}/{n}", n % 7)));
    let root = world.tree(paths).await;
    let whole = world.paths(&root, usize::MAX);
    assert_eq!(whole.len(), 7_000 + 1 + 7 + 40);
    for limit in [1, 13, 1_000] {
        assert_eq!(world.paths(&root, limit), whole, "{limit} on a page");
    }
    let middle = world.walk(&root, &WalkRequest { skip: 5_000, limit: 3, ..all() });
    assert_eq!(middle.passed, 5_000);
    let paths: Vec<_> = middle.entries.into_iter().map(|entry| entry.path).collect();
    assert_eq!(paths, whole[5_000..5_003]);
    let counted = world.walk(&root, &WalkRequest { skip: u64::MAX, limit: 0, ..all() });
    assert_eq!((counted.passed, counted.next), (whole.len() as u64, None));
}

#[tokio::test]
async fn exponentially_shared_directories_are_listed_in_bounded_pages() {
    let world = World::new();
    let mut root = world.directory(&[]).await;
    for _ in 0..100 {
        root = world.directory(&[("a", root), ("b", root)]).await;
    }
    let mut request = WalkRequest { limit: 100_000, ..all() };
    for _ in 0..3 {
        let page = world.walk(&root, &request);
        assert!((1_000..100_000).contains(&page.entries.len()), "{}", page.entries.len());
        request.from = page.next;
        assert!(request.from.is_some(), "2^100 entries have no end");
    }
    let count = world.walk(&root, &WalkRequest { skip: u64::MAX, limit: 0, ..all() });
    assert!(count.next.is_some(), "they are not all counted");
}

#[tokio::test]
async fn page_without_time_advances_by_one_link() {
    let world = World::new();
    let root = world.tree(["a", "b", "c"].map(str::to_owned)).await;
    let mut request = WalkRequest { time: Duration::ZERO, ..all() };
    let mut paths = Vec::new();
    for _ in 0..4 {
        let page = world.walk(&root, &request);
        paths.extend(page.entries.into_iter().map(|entry| entry.path));
        match page.next {
            Some(next) => request.from = Some(next),
            None => break,
        }
    }
    assert_eq!(paths, ["a", "b", "c"]);
}

#[tokio::test]
async fn long_names_limit_pages_and_are_not_entered() {
    let world = World::new();
    let name = "n".repeat(PAGE_BYTES_MAX);
    let inner = world.directory(&[("x", raw("x"))]).await;
    let long = world.directory(&[(&name, inner)]).await;
    let root = world.directory(&[("a", long), ("b", long), ("c", long)]).await;
    let page = world.walk(&root, &all());
    assert_eq!(page.entries.len(), 2, "a, and the long name in it");
    assert_eq!(page.entries[1].kind, EntryKind::Directory);
    assert_eq!(world.paths(&root, usize::MAX).len(), 6, "no x");
}

#[tokio::test]
async fn depth_and_memory_are_bounded() {
    let world = World::new();
    let fillers: Vec<String> = (0..4_000).map(|n| format!("z{n}")).collect();
    let (mut root, file) = (world.directory(&[("end", raw("x"))]).await, raw("y"));
    for n in 0..300 {
        let mut entries = vec![("a", root)];
        if n % 4 == 0 {
            entries.extend(fillers.iter().map(|name| (name.as_str(), file)));
        }
        root = world.directory(&entries).await;
    }
    let request = WalkRequest { depth: usize::MAX, ..all() };
    let mut walk = Walk::begin(&world.blocks, &root, &request).unwrap();
    let mut entries = 0;
    while walk.find().unwrap() {
        walk.take(true).unwrap();
        entries += 1;
        assert!(walk.levels.len() <= LEVELS_MAX);
        let top = walk.levels.last().and_then(|level| level.links.as_deref()).map_or(0, bytes_of);
        assert!(walk.loaded_bytes <= LOADED_BYTES_MAX + top);
    }
    assert!(!walk.is_stopped);
    assert_eq!(walk.loaded_bytes, 0, "what is loaded is counted right");
    assert_eq!(entries, LEVELS_MAX + 4_000 * LEVELS_MAX / 4, "dropped links were read again");
}

#[tokio::test]
async fn contradictory_sizes_are_omitted() {
    let world = World::new();
    let leaf = |cid| vec![PbLink { cid, name: Some(""), tsize: Some(1) }];
    let x = raw("x");
    let honest = world.put(leaf(x), &Data::file(None, 1, vec![1])).await;
    let huge = world.put(leaf(x), &Data::file(None, u64::MAX, vec![1])).await;
    let overflow = world.put(leaf(x), &Data::file(Some("abc".into()), 2, vec![u64::MAX])).await;
    let missing = world.put(leaf(x), &Data::file(None, 0, Vec::new())).await;
    let link = world.put(Vec::new(), &Data { kind: 4, ..Data::default() }).await;
    let entries =
        [("honest", honest), ("huge", huge), ("missing", missing), ("overflow", overflow), ("symlink", link)];
    let root = world.directory(&entries).await;
    let sizes: Vec<_> = world.walk(&root, &all()).entries.iter().map(|entry| entry.size_bytes).collect();
    assert_eq!(sizes, [Some(1), None, None, None, None]);
}

#[tokio::test]
async fn invalid_position_is_refused() {
    let world = World::new();
    let root = world.tree(["a/b", "c"].map(str::to_owned)).await;
    for text in ["3", "1.9", "0.0", "2.0", "1.1.1.1"] {
        let request = WalkRequest { from: Some(text.parse().unwrap()), ..all() };
        let refused = walk_directory(&world.blocks, &root, &request);
        assert!(matches!(refused, Err(ReadError::Position(_))), "{text}: {refused:?}");
    }
    let long = vec!["1"; LEVELS_MAX + 1].join(".");
    for text in ["", ".", "1.", "-1", "+1", "65537", "99999999999999999999", "a", &long] {
        assert!(text.parse::<Position>().is_err(), "{text:?}");
    }
    assert_eq!("1.0.22".parse::<Position>().unwrap().to_string(), "1.0.22");
}

#[tokio::test]
async fn non_directory_and_missing_block_are_different_errors() {
    let world = World::new();
    let hello = import_file(&b"hello"[..], Profile::default(), &world.blocks, world.hold).await.unwrap();
    let file = walk_directory(&world.blocks, &hello.root, &all());
    assert!(matches!(file, Err(ReadError::Kind { .. })), "{file:?}");
    let absent = world.directory(&[("gone", World::new().directory(&[]).await)]).await;
    let missing = walk_directory(&world.blocks, &absent, &all());
    assert!(matches!(missing, Err(ReadError::Missing(_))), "{missing:?}");
}
