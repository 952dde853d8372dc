//! Tests of directory listings, names, and server folders.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use cid::Cid;
use pinfold_cluster::{Fate, Gate};
use pinfold_model::{PinId, PinName, PinOptions, PinState};
use pinfold_service::{
    Caller, EntriesPage, EntriesQuery, Error, PinRequest, Settings, UploadReceipt, UploadRequest, Wait,
};

use crate::world::{MIB, World};

async fn directory(world: &World, caller: &Caller, paths: &[&str]) -> Cid {
    let background = world.service.run();
    let uploads = &world.service.uploads;
    let mut draft = uploads.directory(caller, &UploadRequest::default()).await.unwrap();
    for path in paths {
        draft.add(path, path.as_bytes()).await.unwrap();
    }
    let uploaded = uploads.keep_directory(caller, draft, UploadRequest::default()).await.unwrap();
    background.stop().await;
    uploaded.receipt.view.cid
}

async fn list(world: &World, caller: &Caller, cid: &Cid, query: EntriesQuery) -> Result<EntriesPage, Error> {
    world.service.content.entries(caller, cid, None, query).await
}

fn paths(page: &EntriesPage) -> Vec<&str> {
    page.entries.iter().map(|entry| entry.path.as_str()).collect()
}

#[tokio::test]
async fn directory_is_listed_by_page_and_by_cursor() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let cid = directory(&world, &alice, &["a.txt", "docs/b.txt", "docs/sub/c.txt", "z.txt"]).await;
    let whole = list(&world, &alice, &cid, EntriesQuery::default()).await.unwrap();
    assert_eq!(paths(&whole), ["a.txt", "docs", "docs/b.txt", "docs/sub", "docs/sub/c.txt", "z.txt"]);
    assert_eq!((whole.total, whole.next_cursor.clone(), whole.pin.cid), (Some(6), None, cid));

    let page = |page, cursor| EntriesQuery { page, limit: 4, cursor, ..EntriesQuery::default() };
    let first = list(&world, &alice, &cid, page(1, None)).await.unwrap();
    assert_eq!((first.entries.len(), first.total), (4, Some(6)));
    let cursor = first.next_cursor.clone();
    assert!(cursor.is_some());
    for query in [page(2, None), page(9, cursor)] {
        let second = list(&world, &alice, &cid, query).await.unwrap();
        assert_eq!(second.entries, whole.entries[4..]);
        assert_eq!((second.total, second.next_cursor), (Some(6), None));
    }
    let past = list(&world, &alice, &cid, page(u32::MAX, None)).await.unwrap();
    assert_eq!((past.entries.len(), past.total), (0, Some(6)));
    let flat = EntriesQuery { depth: 1, ..EntriesQuery::default() };
    let flat = list(&world, &alice, &cid, flat).await.unwrap();
    assert_eq!((paths(&flat), flat.total), (vec!["a.txt", "docs", "z.txt"], Some(3)));
}

#[tokio::test]
async fn only_directories_that_the_account_pins_are_listed() {
    let world = World::start().await;
    let (alice, bob) = (world.account("alice", "free").await, world.account("bob", "free").await);
    let cid = directory(&world, &alice, &["a.txt"]).await;
    let file = world.cluster.publish("file", MIB);
    world.pin(&alice, PinRequest::new(file)).await.unwrap();
    let all = EntriesQuery::default;
    assert_eq!(list(&world, &bob, &cid, all()).await, Err(Error::PinNotFound));
    assert!(matches!(list(&world, &alice, &file, all()).await, Err(Error::InvalidRequest(_))));
    let lost = EntriesQuery { cursor: Some("99".parse().unwrap()), ..all() };
    assert!(matches!(list(&world, &alice, &cid, lost).await, Err(Error::InvalidRequest(_))));

    let (late, gate) = (world.cluster.publish("late", MIB), Gate::default());
    world.cluster.script_hold(&late, [Fate::Waits(gate.clone())]);
    world.create_pin(&alice, late).await.unwrap();
    assert_eq!(list(&world, &alice, &late, all()).await, Err(Error::NotPinned(PinState::Queued)));
    world.cluster.unpublish(&late);
    gate.open();
    world.run_until_idle().await;
    assert_eq!(list(&world, &alice, &late, all()).await, Err(Error::NotPinned(PinState::Failed)));
}

#[tokio::test]
async fn pin_is_renamed_only_by_its_owner() {
    let world = World::start().await;
    let (alice, bob) = (world.account("alice", "free").await, world.account("bob", "free").await);
    let cid = world.cluster.publish("hello", MIB);
    let id = world.create_pin(&alice, cid).await.unwrap().view.upload_id;
    let (pins, name) = (&world.service.pins, || PinName::parse("mine").unwrap());
    assert_eq!(pins.rename(&bob, id, name()).await, Err(Error::UploadNotFound));
    assert_eq!(pins.rename(&alice, PinId(id.0 + 1), name()).await, Err(Error::UploadNotFound));
    assert_eq!(pins.rename(&alice, id, name()).await.unwrap().custom_name, Some(name()));
    // A request without a name keeps the name.
    let again = pins.pin(&alice, PinRequest::new(cid), Wait::No).await.unwrap();
    assert_eq!(again.view.custom_name, Some(name()));
}

/// A root with folders, and a folder outside of it.
struct Roots {
    home: tempfile::TempDir,
    world: World,
    alice: Caller,
}

impl Roots {
    async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("shared");
        fs::create_dir_all(root.join("site/img")).unwrap();
        fs::create_dir_all(root.join("site/empty")).unwrap();
        fs::write(root.join("site/index.html"), "<p>").unwrap();
        fs::write(root.join("site/img/logo.svg"), "<svg>").unwrap();
        fs::create_dir(home.path().join("secret")).unwrap();
        fs::write(home.path().join("secret/key"), "key").unwrap();
        // The operator may configure a symbolic link to a root.
        symlink(&root, home.path().join("link")).unwrap();
        let settings = Settings { server_roots: vec![home.path().join("link")], ..Settings::default() };
        let world = World::start_with(settings).await;
        let alice = world.account("alice", "free").await;
        Self { home, world, alice }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.home.path().join(path)
    }

    async fn upload(&self, path: &str) -> Result<UploadReceipt, Error> {
        let uploads = &self.world.service.uploads;
        let path = if path.starts_with('/') { PathBuf::from(path) } else { self.path(path) };
        let (draft, name) =
            uploads.folder(&self.alice, &UploadRequest::default(), path.to_str().unwrap()).await?;
        uploads
            .keep_directory(
                &self.alice,
                draft,
                UploadRequest {
                    options: PinOptions { original_name: name, ..PinOptions::default() },
                    cluster: None,
                },
            )
            .await
    }

    async fn refusal(&self, path: &str) -> String {
        match self.upload(path).await {
            Err(Error::InvalidRequest(text)) => text,
            other => panic!("{path}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn folder_below_a_root_is_uploaded_completely() {
    let roots = Roots::start().await;
    let background = roots.world.service.run();
    for spelling in ["shared/site", "link/site", "link/./site/"] {
        let uploaded = roots.upload(spelling).await.unwrap();
        let paths: Vec<_> = uploaded.entries.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths, ["img/logo.svg", "index.html", "empty"], "{spelling}");
        assert_eq!(uploaded.receipt.view.original_name, Some(PinName::parse("site").unwrap()));
    }
    background.stop().await;
    roots.world.run_until_idle().await;
    roots.world.check_idle(&[&roots.alice]).await;
}

#[tokio::test]
async fn nothing_outside_of_the_roots_is_read() {
    let roots = Roots::start().await;
    symlink(roots.path("secret"), roots.path("shared/way-out")).unwrap();
    for path in ["secret", "nowhere", "link/../secret", "shared/site/../../secret", "linked", "/", "/etc"] {
        assert_eq!(roots.upload(path).await.err(), Some(Error::FolderNotAllowed), "{path}");
    }
    for path in ["shared/way-out", "shared/way-out/", "shared/nowhere", "shared/site/index.html"] {
        assert!(roots.refusal(path).await.contains("does not exist or can't be read"), "{path}");
    }
    let closed = World::start().await;
    let bob = closed.account("bob", "free").await;
    let refused = closed.service.uploads.folder(&bob, &UploadRequest::default(), "/tmp").await;
    assert_eq!(refused.err(), Some(Error::FolderNotAllowed), "no root, nothing");
    roots.world.run_until_idle().await;
    roots.world.check_idle(&[&roots.alice]).await;
}

#[tokio::test]
async fn entries_that_are_neither_files_nor_folders_are_reported() {
    let roots = Roots::start().await;
    symlink("index.html", roots.path("shared/site/alias")).unwrap();
    let _listener = UnixListener::bind(roots.path("shared/site/img/s")).unwrap();
    fs::write(roots.path("shared/site/a\nb"), "x").unwrap();
    let text = roots.refusal("shared/site").await;
    for part in ["\"alias\" is a symbolic link", "\"img/s\" is a socket", r#""a\nb" is not a valid path"#] {
        assert!(text.contains(part), "{text}");
    }
    fs::create_dir_all(roots.path("shared/deep").join("d/".repeat(130))).unwrap();
    assert!(roots.refusal("shared/deep").await.contains("more than 128 levels"));
    fs::create_dir(roots.path("shared/nothing")).unwrap();
    assert!(roots.refusal("shared/nothing").await.contains("no files"));
    roots.world.run_until_idle().await;
    roots.world.check_idle(&[&roots.alice]).await;
}
