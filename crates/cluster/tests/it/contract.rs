//! The contract of [`Cluster`]: each function tests one guarantee; each driver runs all of them, each in a [`World`] of its
//! own.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use cid::{Cid, Version};
use pinfold_cluster::{
    Cluster, ClusterError, EntryKind, Held, HoldName, HoldOptions, Imported, ImportedCar, ImportedKind,
    Progress, Reach, Survey, SurveyOptions, WalkPage, WalkRequest,
};
use pinfold_node::Block;
use pinfold_node::car::{header, section_head};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// A cluster, and a network that it can fetch from.
pub(crate) trait World {
    fn cluster(&self) -> &dyn Cluster;

    /// Multiaddrs of the peers that have the published content.
    async fn origins(&self) -> Vec<String>;

    /// Publishes a file of one block on the network.
    async fn publish(&self, text: &str) -> Cid;

    /// Removes it from the network. Holds stay.
    async fn unpublish(&self, root: &Cid);

    /// Begins to hold a DAG of which a part is unavailable, drops the hold, and then publishes at least the missing part.
    async fn interrupt(&self, name: &HoldName) -> Cid;

    async fn stop(self);
}

pub(crate) fn name(text: impl Into<String>) -> HoldName {
    HoldName::parse(text).unwrap()
}

/// Options with long time limits, which only end a test that hangs.
pub(crate) async fn terms(world: &impl World) -> HoldOptions {
    HoldOptions {
        bytes_max: u64::MAX,
        blocks_max: u64::MAX,
        find_time: Duration::from_secs(60),
        stall_time: Duration::from_secs(60),
        origins: world.origins().await,
    }
}

pub(crate) async fn hold(world: &impl World, text: &str, root: &Cid) -> Result<Held, ClusterError> {
    world.cluster().hold(&name(text), root, &terms(world).await, &Arc::default()).await
}

/// Holds a DAG that must be local.
pub(crate) async fn hold_at_once(world: &impl World, text: &str, root: &Cid) -> Result<Held, ClusterError> {
    let terms = HoldOptions { find_time: Duration::from_millis(50), ..terms(world).await };
    world.cluster().hold(&name(text), root, &terms, &Arc::default()).await
}

async fn survey(world: &impl World, root: &Cid, time: Duration) -> Survey {
    let terms = SurveyOptions { blocks_max: 1_000, time, origins: world.origins().await };
    world.cluster().survey(root, &terms).await.unwrap()
}

async fn release(world: &impl World, text: &str) {
    world.cluster().release(&name(text)).await.unwrap();
}

async fn import(world: &impl World, text: &str, content: &str) -> Imported {
    world.cluster().import_file(&name(text), u64::MAX, &mut content.as_bytes()).await.unwrap()
}

async fn read(world: &impl World, cid: &Cid) -> Option<String> {
    let block = world.cluster().block(cid).await.unwrap();
    block.map(|block| String::from_utf8_lossy(&block).into_owned())
}

/// Looks, with a durable operation between two looks, until the block is gone: space may be given back in the
/// background.
async fn freed(world: &impl World, cid: &Cid) {
    for _ in 0..10_000 {
        if read(world, cid).await.is_none() {
            return;
        }
        import(world, "tick", "tick").await;
        release(world, "tick").await;
    }
    panic!("{cid} is never freed");
}

async fn names(world: &impl World, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let after = after.map(name);
    let names = world.cluster().names(prefix, after.as_ref(), limit).await.unwrap();
    names.iter().map(|name| name.as_str().to_owned()).collect()
}

async fn all_names(world: &impl World) -> Vec<String> {
    names(world, "", None, 100).await
}

pub(crate) async fn hold_is_idempotent(world: impl World) {
    let root = world.publish("hello").await;
    let progress = Arc::new(Progress::default());
    let held = world.cluster().hold(&name("pin/a"), &root, &terms(&world).await, &progress).await.unwrap();
    assert_eq!(held, Held { bytes: 5, blocks: 1, kind: ImportedKind::File });
    assert_eq!((progress.read().bytes, progress.read().blocks), (5, 1));
    world.unpublish(&root).await;
    for _ in 0..2 {
        assert_eq!(hold_at_once(&world, "pin/a", &root).await, Ok(held));
    }
    assert_eq!(read(&world, &root).await.as_deref(), Some("hello"));
    assert_eq!(all_names(&world).await, ["pin/a"]);
    world.stop().await;
}

pub(crate) async fn unavailable_content_is_not_found(world: impl World) {
    let root = world.publish("gone").await;
    world.unpublish(&root).await;
    for _ in 0..2 {
        assert_eq!(hold_at_once(&world, "pin/a", &root).await, Err(ClusterError::NotFound));
        release(&world, "pin/a").await;
        assert_eq!(all_names(&world).await, [""; 0]);
        freed(&world, &root).await;
    }
    world.stop().await;
}

pub(crate) async fn dag_over_the_limit_is_refused(world: impl World) {
    let root = world.publish("0123456789").await;
    let fits = HoldOptions { bytes_max: 10, blocks_max: 1, ..terms(&world).await };
    let bytes = HoldOptions { bytes_max: 9, ..fits.clone() };
    let blocks = HoldOptions { blocks_max: 0, ..fits.clone() };
    for (text, terms) in [("pin/bytes", bytes), ("pin/blocks", blocks)] {
        let refused = world.cluster().hold(&name(text), &root, &terms, &Arc::default()).await;
        assert_eq!(refused, Err(ClusterError::OverLimit), "{text}");
        let held = world.cluster().hold(&name(text), &root, &fits, &Arc::default()).await;
        assert_eq!(held.unwrap().bytes, 10, "{text}");
        release(&world, text).await;
    }
    assert_eq!(all_names(&world).await, [""; 0]);
    freed(&world, &root).await;
    world.stop().await;
}

pub(crate) async fn release_is_idempotent(world: impl World) {
    release(&world, "pin/never").await;
    let root = world.publish("x").await;
    hold(&world, "pin/a", &root).await.unwrap();
    release(&world, "pin/a").await;
    release(&world, "pin/a").await;
    freed(&world, &root).await;
    assert_eq!(hold(&world, "pin/a", &root).await.unwrap().bytes, 1, "a name can be used again");
    world.stop().await;
}

pub(crate) async fn dag_is_held_until_every_name_is_released(world: impl World) {
    let root = world.publish("shared").await;
    let first = hold(&world, "pin/a", &root).await.unwrap();
    world.unpublish(&root).await;
    assert_eq!(hold_at_once(&world, "pin/b", &root).await, Ok(first), "it is here already");
    release(&world, "pin/a").await;
    assert_eq!(read(&world, &root).await.as_deref(), Some("shared"));
    assert_eq!(hold_at_once(&world, "pin/b", &root).await, Ok(first));
    release(&world, "pin/b").await;
    freed(&world, &root).await;
    assert_eq!(hold_at_once(&world, "pin/b", &root).await, Err(ClusterError::NotFound));
    world.stop().await;
}

pub(crate) async fn upload_is_held_by_its_pin_without_the_network(world: impl World) {
    let imported = import(&world, "upload/1", "content").await;
    assert_eq!((imported.content_bytes, imported.dag_bytes), (7, 7));
    assert_eq!(import(&world, "upload/1", "content").await, imported, "the same bytes are the same root");
    let held = hold_at_once(&world, "pin/a", &imported.root).await.unwrap();
    assert_eq!(held, Held { bytes: 7, blocks: 1, kind: ImportedKind::File });
    release(&world, "upload/1").await;
    assert_eq!(read(&world, &imported.root).await.as_deref(), Some("content"));
    assert_eq!(hold_at_once(&world, "pin/a", &imported.root).await, Ok(held));
    assert_eq!(all_names(&world).await, ["pin/a"]);
    world.stop().await;
}

pub(crate) async fn directory_does_not_depend_on_the_order_of_files(world: impl World) {
    let one = import(&world, "upload/1", "one").await;
    let three = import(&world, "upload/1", "three").await;
    let mut files = vec![("b.txt".to_owned(), one), ("docs/a.txt".to_owned(), three)];
    let directory = world.cluster().import_directory(&name("upload/1"), &files).await.unwrap();
    assert_eq!(directory.content_bytes, 8);
    assert!(directory.dag_bytes > 8);
    files.reverse();
    let again = world.cluster().import_directory(&name("upload/1"), &files).await.unwrap();
    assert_eq!(again, directory);
    files.push(files[0].clone());
    let twice = world.cluster().import_directory(&name("upload/1"), &files).await;
    assert!(matches!(twice, Err(ClusterError::Unfit(_))), "{twice:?}");
    let held = hold_at_once(&world, "pin/a", &directory.root).await.unwrap();
    assert_eq!(held.kind, ImportedKind::Directory);
    release(&world, "upload/1").await;
    assert_eq!(hold_at_once(&world, "pin/b", &directory.root).await, Ok(held));
    world.stop().await;
}

pub(crate) async fn directory_is_listed_in_pages(world: impl World) {
    let one = import(&world, "upload/1", "one").await;
    let three = import(&world, "upload/1", "three").await;
    let files = ["b.txt", "docs/a.txt", "docs/sub/c.txt"].map(|path| (path.to_owned(), one));
    let files = [&files[..], &[("z".to_owned(), three)]].concat();
    let directory = world.cluster().import_directory(&name("upload/1"), &files).await.unwrap();
    let all =
        WalkRequest { from: None, skip: 0, limit: 100, depth: usize::MAX, time: Duration::from_secs(60) };
    let list = async |request| world.cluster().entries(&directory.root, request).await;
    let paths = |page: &WalkPage| page.entries.iter().map(|entry| entry.path.clone()).collect::<Vec<_>>();

    let whole = list(all.clone()).await.unwrap();
    assert_eq!(paths(&whole), ["b.txt", "docs", "docs/a.txt", "docs/sub", "docs/sub/c.txt", "z"]);
    assert_eq!((whole.next, whole.entries[0].cid), (None, one.root));
    let what: Vec<_> = whole.entries.iter().map(|entry| (entry.kind, entry.size_bytes)).collect();
    let (file, folder) = ((EntryKind::File, Some(3)), (EntryKind::Directory, None));
    assert_eq!(what, [file, folder, file, folder, file, (EntryKind::File, Some(5))]);

    let (mut request, mut pages) = (WalkRequest { limit: 2, ..all.clone() }, Vec::new());
    loop {
        let page = list(request.clone()).await.unwrap();
        pages.push(paths(&page).len());
        let Some(next) = page.next else { break };
        request.from = Some(next.to_string().parse().unwrap());
    }
    assert_eq!(pages, [2, 2, 2]);
    let flat = list(WalkRequest { depth: 1, skip: 1, ..all.clone() }).await.unwrap();
    assert_eq!((flat.passed, paths(&flat)), (1, vec!["docs".to_owned(), "z".to_owned()]));
    let count = list(WalkRequest { skip: u64::MAX, limit: 0, ..all.clone() }).await.unwrap();
    assert_eq!((count.passed, count.next), (6, None));

    let lost = list(WalkRequest { from: Some("4000.7".parse().unwrap()), ..all.clone() }).await;
    assert!(matches!(lost, Err(ClusterError::Unfit(_))), "{lost:?}");
    let no_directory = world.cluster().entries(&one.root, all.clone()).await;
    assert!(matches!(no_directory, Err(ClusterError::Unfit(_))), "{no_directory:?}");
    release(&world, "upload/1").await;
    freed(&world, &directory.root).await;
    let gone = list(all).await;
    assert!(matches!(gone, Err(ClusterError::Unavailable(_))), "{gone:?}");
    world.stop().await;
}

pub(crate) async fn directory_files_are_imported_one_by_one(world: impl World) {
    let upload = name("upload/1");
    let mut files = Vec::new();
    for text in ["one", "two", "three"] {
        let entry = world.cluster().import_entry(&upload, 5, &mut text.as_bytes()).await.unwrap();
        assert_eq!(entry, import(&world, "upload/2", text).await, "it is what any file becomes");
        files.push((text.to_owned(), entry));
    }
    release(&world, "upload/2").await;
    let refused = world.cluster().import_entry(&upload, 2, &mut "three".as_bytes()).await;
    assert_eq!(refused, Err(ClusterError::OverLimit));
    let directory = world.cluster().import_directory(&upload, &files).await.unwrap();
    let held = hold_at_once(&world, "pin/a", &directory.root).await.unwrap();
    assert_eq!((held.kind, held.blocks), (ImportedKind::Directory, 4));
    release(&world, "upload/1").await;
    assert_eq!(hold_at_once(&world, "pin/a", &directory.root).await, Ok(held));
    world.stop().await;
}

pub(crate) async fn survey_counts_local_blocks_and_stores_nothing(world: impl World) {
    let root = world.publish("hello").await;
    let there = survey(&world, &root, Duration::from_secs(60)).await;
    assert_eq!((there.reach, there.blocks, there.missing), (Reach::Delivered, 0, 1));
    assert!(!there.is_whole());
    assert_eq!(all_names(&world).await, [""; 0]);
    assert_eq!(read(&world, &root).await, None, "nothing of it stays");
    world.unpublish(&root).await;
    let nowhere = survey(&world, &root, Duration::from_millis(50)).await;
    assert_eq!((nowhere.reach, nowhere.missing), (Reach::Nowhere, 1));

    let imported = import(&world, "upload/1", "hello").await;
    assert_eq!(imported.root, root);
    let here = survey(&world, &root, Duration::ZERO).await;
    assert_eq!((here.reach, here.blocks, here.bytes, here.missing), (Reach::Here, 1, 5, 0));
    assert!(here.is_whole());
    assert_eq!(all_names(&world).await, ["upload/1"]);
    world.stop().await;
}

pub(crate) async fn upload_over_the_limit_is_refused(world: impl World) {
    let upload = name("upload/1");
    for bytes_max in [0, 9] {
        let refused = world.cluster().import_file(&upload, bytes_max, &mut "0123456789".as_bytes()).await;
        assert_eq!(refused, Err(ClusterError::OverLimit), "{bytes_max}");
    }
    let fits = world.cluster().import_file(&upload, 10, &mut "0123456789".as_bytes()).await.unwrap();
    assert_eq!(fits.content_bytes, 10);
    let empty = world.cluster().import_file(&upload, 0, &mut tokio::io::empty()).await.unwrap();
    assert_eq!(empty.content_bytes, 0);
    release(&world, "upload/1").await;
    freed(&world, &fits.root).await;
    assert_eq!(all_names(&world).await, [""; 0]);
    world.stop().await;
}

/// A client that went away.
struct Broken;

impl AsyncRead for Broken {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::Error::other("the line is dead")))
    }
}

pub(crate) async fn interrupted_upload_is_refused(world: impl World) {
    let mut body = "half of it".as_bytes().chain(Broken);
    let refused = world.cluster().import_file(&name("upload/1"), u64::MAX, &mut body).await;
    assert_eq!(refused, Err(ClusterError::Source("the line is dead".to_owned())));
    let whole = import(&world, "upload/1", "half of it, and the rest").await;
    assert_eq!(whole.content_bytes, 24);
    release(&world, "upload/1").await;
    assert_eq!(all_names(&world).await, [""; 0]);
    world.stop().await;
}

/// A CAR with these files, one block each, as its roots.
fn car(contents: &[&'static str]) -> (Vec<Cid>, Vec<u8>) {
    let hash = |text: &&'static str| Block::hash(Version::V1, 0x55, 0x12, text.as_bytes().into()).unwrap();
    let blocks: Vec<Block> = contents.iter().map(hash).collect();
    let roots: Vec<Cid> = blocks.iter().map(|block| *block.cid()).collect();
    let mut car = header(&roots);
    for block in blocks {
        car.extend(section_head(block.cid(), block.data().len()));
        car.extend(block.data());
    }
    (roots, car)
}

pub(crate) async fn a_car_passes_to_its_pins_without_the_network(world: impl World) {
    let (roots, car) = car(&["first", "second"]);
    let upload = name("upload/1");
    for bytes_max in [11, 11, u64::MAX] {
        let imported = world.cluster().import_car(&upload, bytes_max, &mut car.as_slice()).await.unwrap();
        assert_eq!(imported, ImportedCar { roots: roots.clone(), blocks: 2, bytes: 11 });
    }
    for (at, root) in roots.iter().enumerate() {
        hold_at_once(&world, &format!("pin/{at}"), root).await.unwrap();
    }
    release(&world, "upload/1").await;
    assert_eq!(read(&world, &roots[1]).await.as_deref(), Some("second"));
    release(&world, "pin/1").await;
    freed(&world, &roots[1]).await;
    assert_eq!(read(&world, &roots[0]).await.as_deref(), Some("first"));
    world.stop().await;
}

pub(crate) async fn a_car_that_is_not_good_is_refused(world: impl World) {
    let (_, car) = car(&["first", "second"]);
    let upload = name("upload/1");
    let refused = world.cluster().import_car(&upload, 10, &mut car.as_slice()).await;
    assert_eq!(refused, Err(ClusterError::OverLimit));
    let mut flipped = car.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for bad in [&car[..car.len() - 1], &flipped, b"<html>"] {
        let refused = world.cluster().import_car(&upload, u64::MAX, &mut &*bad).await;
        assert!(matches!(refused, Err(ClusterError::Unfit(_))), "{refused:?}");
    }
    let mut broken = car.as_slice().chain(Broken);
    let refused = world.cluster().import_car(&upload, u64::MAX, &mut broken).await;
    assert_eq!(refused, Err(ClusterError::Source("the line is dead".to_owned())));
    release(&world, "upload/1").await;
    assert_eq!(all_names(&world).await, [""; 0]);
    world.stop().await;
}

pub(crate) async fn names_are_listed_in_order_and_in_pages(world: impl World) {
    for text in ["pin/c", "upload/x", "pin/a", "pin/b", "pi"] {
        import(&world, text, text).await;
    }
    assert_eq!(all_names(&world).await, ["pi", "pin/a", "pin/b", "pin/c", "upload/x"]);
    assert_eq!(names(&world, "pin/", None, 2).await, ["pin/a", "pin/b"]);
    assert_eq!(names(&world, "pin/", Some("pin/b"), 2).await, ["pin/c"]);
    assert_eq!(names(&world, "pin/", Some("pin/aa"), 1).await, ["pin/b"]);
    assert_eq!(names(&world, "pin/", Some("upload/"), 9).await, [""; 0]);
    assert_eq!(names(&world, "upload/", Some("pi"), 9).await, ["upload/x"]);
    assert_eq!(names(&world, "", None, 0).await, [""; 0]);
    release(&world, "pin/b").await;
    assert_eq!(names(&world, "pin/", None, 9).await, ["pin/a", "pin/c"]);
    world.stop().await;
}

pub(crate) async fn reading_a_block_never_asks_the_network(world: impl World) {
    let (here, there) = (world.publish("here").await, world.publish("there").await);
    hold(&world, "pin/a", &here).await.unwrap();
    assert_eq!(read(&world, &there).await, None);
    assert_eq!(read(&world, &here).await.as_deref(), Some("here"));
    assert_eq!(all_names(&world).await, ["pin/a"]);
    world.stop().await;
}

pub(crate) async fn a_hold_that_was_dropped_goes_on(world: impl World) {
    let root = world.interrupt(&name("pin/a")).await;
    assert_eq!(all_names(&world).await, ["pin/a"], "what was begun stays under its name");
    let held = hold(&world, "pin/a", &root).await.unwrap();
    assert_eq!(hold_at_once(&world, "pin/a", &root).await, Ok(held));
    release(&world, "pin/a").await;
    freed(&world, &root).await;
    world.stop().await;
}

pub(crate) async fn a_hold_that_was_dropped_is_released_whole(world: impl World) {
    let root = world.interrupt(&name("pin/a")).await;
    release(&world, "pin/a").await;
    assert_eq!(all_names(&world).await, [""; 0]);
    freed(&world, &root).await;
    world.stop().await;
}

pub(crate) async fn a_healthy_cluster_names_itself_first(world: impl World) {
    world.cluster().health().await.unwrap();
    let peers = world.cluster().peers(10).await.unwrap();
    assert!(peers[0].is_self && peers[0].connected && !peers[0].id.is_empty());
    assert!(peers[1..].iter().all(|peer| !peer.is_self));
    assert_eq!(world.cluster().peers(1).await.unwrap(), peers[..1]);
    assert_eq!(world.cluster().peers(0).await.unwrap(), []);
    world.stop().await;
}

/// One test for each promise: `contract!(world())`, where `world()` makes an empty world.
macro_rules! contract {
    ($make:expr; $($promise:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $promise() {
            crate::contract::$promise($make).await;
        }
    )*};
    ($make:expr) => {
        crate::contract::contract!($make;
            hold_is_idempotent
            unavailable_content_is_not_found
            dag_over_the_limit_is_refused
            release_is_idempotent
            dag_is_held_until_every_name_is_released
            upload_is_held_by_its_pin_without_the_network
            directory_does_not_depend_on_the_order_of_files
            directory_is_listed_in_pages
            directory_files_are_imported_one_by_one
            survey_counts_local_blocks_and_stores_nothing
            upload_over_the_limit_is_refused
            interrupted_upload_is_refused
            a_car_passes_to_its_pins_without_the_network
            a_car_that_is_not_good_is_refused
            names_are_listed_in_order_and_in_pages
            reading_a_block_never_asks_the_network
            a_hold_that_was_dropped_goes_on
            a_hold_that_was_dropped_is_released_whole
            a_healthy_cluster_names_itself_first
        );
    };
}
pub(crate) use contract;
