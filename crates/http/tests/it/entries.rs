//! Entries of pinned directories, allocations, and names.

use insta::assert_snapshot;
use pinfold_http::Settings;

use crate::harness::{Api, HELLO, WORLD, form};

const SCOPES: &str = "files:read,files:write,files:rename,cluster:read";

/// Uploads a small site and returns its root.
async fn site(api: &Api, key: &str) -> String {
    let parts = [
        ("files\"; filename=\"index.html", "<p>"),
        ("files\"; filename=\"img/logo.svg", "<svg>"),
        ("files\"; filename=\"img/more/a.png", "png"),
        ("dirName", "site"),
    ];
    let answer = api.post("/api/v3/files/directory-dag").key(key).form(form(&parts)).await;
    assert_eq!(answer.status(), 201, "{}", answer.text());
    answer.json()["cid"].as_str().expect("a CID").to_owned()
}

#[tokio::test]
async fn directory_entries_are_listed() {
    let api = Api::start().await;
    let key = api.key("free", SCOPES).await;
    let cid = site(&api, &key).await;
    let answer = api.get(&format!("/api/v3/users/me/uploads/dag/{cid}/")).key(&key).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_snapshot!(answer.masked(), @r#"{"cid":"bafkreigt3nzkwgshcmz32ub4qdo7vbxn25jj7xgdkdrongrzvsh6bubldq","uploadId":"[id]","clusterId":"cl0-global","type":"directory","entries":[{"path":"img","name":"img","cid":"bafkreifsv5n7nqjar35gq34gvtkboasdy23nhwfuddygezcuvcnye5pvmq","size":null,"type":"directory"},{"path":"img/logo.svg","name":"logo.svg","cid":"bafkreieiasc2awsrtmt5llo2h3nki54inuln3imdzeuh3ev6bh7j4yoe3a","size":5,"type":"file"},{"path":"img/more","name":"more","cid":"bafkreidgira6ebji36gfibkzvkwo2ymcxco34i7p73agjeshy6vuvskamy","size":null,"type":"directory"},{"path":"img/more/a.png","name":"a.png","cid":"bafkreieprs5x3t2g4c6h2uzgk5e2nql5cfqjhjv2sxsee5samddw7vfinq","size":3,"type":"file"},{"path":"index.html","name":"index.html","cid":"bafkreibt6j4zizyxokd2fetapafba6wjr2td3vqwl5t7zqgxi5t5bkbasa","size":3,"type":"file"}],"total":5,"pagination":{"page":1,"limit":100,"total":5,"totalPages":1},"nextCursor":null}"#);
}

#[tokio::test]
async fn entries_are_paged_by_page_cursor_and_depth() {
    let api = Api::start().await;
    let key = api.key("free", SCOPES).await;
    let dag = format!("/api/v3/users/me/uploads/dag/{}", site(&api, &key).await);
    let first = api.get(&format!("{dag}?limit=3")).key(&key).await.json();
    assert_eq!(first["pagination"], serde_json::json!({"page": 1, "limit": 3, "total": 5, "totalPages": 2}));
    let cursor = first["nextCursor"].as_str().expect("there is more");
    let next = api.get(&format!("{dag}?limit=3&cursor={cursor}")).key(&key).await.json();
    let by_page = api.get(&format!("{dag}?limit=3&page=2")).key(&key).await.json();
    assert_eq!(next["entries"], by_page["entries"]);
    assert_eq!(
        (next["entries"].as_array().map(Vec::len), &next["nextCursor"]),
        (Some(2), &None::<()>.into())
    );
    let flat = api.get(&format!("{dag}?depth=1")).key(&key).await.json();
    assert_eq!((&flat["total"], &flat["entries"][0]["type"]), (&2.into(), &"directory".into()));
    for query in ["limit=0", "page=x", "depth=-1", "cursor=a.b", "cursor=99.99", "cl=no such!"] {
        let answer = api.get(&format!("{dag}?{}", query.replace(' ', "%20"))).key(&key).await;
        assert_eq!(answer.status(), 400, "{query}: {}", answer.text());
    }
}

#[tokio::test]
async fn upload_list_shows_entries_of_a_directory() {
    let api = Api::start().await;
    let key = api.key("free", SCOPES).await;
    let cid = site(&api, &key).await;
    let list = format!("/api/v3/users/me/uploads?parentCid={cid}");
    let answer = api.get(&format!("{list}&limit=2")).key(&key).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let reply = answer.json();
    assert_eq!(reply["pagination"], serde_json::json!({"page": 1, "limit": 2, "total": 5, "totalPages": 3}));
    assert_eq!((&reply["total"], reply["nextCursor"].is_string()), (&5.into(), true));
    let item = serde_json::json!({
        "uploadId": null, "_id": null, "parentCid": cid, "path": "img/logo.svg", "name": "logo.svg",
        "cid": "bafkreieiasc2awsrtmt5llo2h3nki54inuln3imdzeuh3ev6bh7j4yoe3a", "originalName": "logo.svg",
        "customName": null, "size": 5, "type": "file", "clusterId": "cl0-global", "status": "pinned",
        "createdAt": "2026-01-01T00:00:00.000Z", "uploadedAt": "2026-01-01T00:00:00.000Z", "expiresAt": null,
        "retainUntil": null,
    });
    assert_eq!(reply["uploads"][1], item);
    let second = api.get(&format!("{list}&limit=2&page=3")).key(&key).await.json();
    assert_eq!(second["uploads"].as_array().map(Vec::len), Some(1));
    let filtered = api.get(&format!("{list}&search=logo")).key(&key).await;
    assert_eq!(
        (filtered.status(), filtered.message()),
        (400, "`search` can't be combined with `parentCid`".into())
    );
}

#[tokio::test]
async fn only_own_pinned_directories_are_listed() {
    let api = Api::start().await;
    let (key, other) = (api.key("free", SCOPES).await, api.key("free", SCOPES).await);
    let cid = site(&api, &key).await;
    for path in ["/api/v3/users/me/uploads/dag/", "/api/v3/users/me/uploads?parentCid="] {
        let refused = api.get(&format!("{path}{cid}")).key(&other).await;
        assert_eq!((refused.status(), refused.message()), (404, "Pin not found for this CID".into()));
    }
    let gate = api.block_fetch(WORLD);
    let pin = |cid: &str| api.post(&format!("/api/v3/files/pin/{cid}")).key(&key);
    pin(HELLO).await;
    let file = api.get(&format!("/api/v3/users/me/uploads/dag/{HELLO}")).key(&key).await;
    assert_eq!((file.status(), file.message()), (400, "This CID is a file, not a directory".into()));
    pin(WORLD).header("prefer", "respond-async").await;
    gate.reached().await;
    let early = api.get(&format!("/api/v3/users/me/uploads/dag/{WORLD}")).key(&key).await;
    assert_eq!((early.status(), early.code()), (409, "not_pinned".into()));
    gate.open();
}

#[tokio::test]
async fn allocations_are_served_under_both_paths() {
    let api = Api::start().await;
    let key = api.key("free", SCOPES).await;
    let gate = api.block_fetch(HELLO);
    let pin = format!("/api/v3/files/pin/{HELLO}");
    api.post(&pin).key(&key).header("prefer", "respond-async").await;
    gate.reached().await;
    let early = api.get(&format!("/api/v3/allocations/{HELLO}")).key(&key).await.json();
    assert_eq!((&early["status"], &early["allocations"]), (&"pinning".into(), &serde_json::json!([])));
    gate.open();
    api.post(&pin).key(&key).await;
    let answer = api.get(&format!("/api/v3/allocations/{HELLO}?cl=cl0-global")).key(&key).await;
    assert_snapshot!(answer.text(), @r#"{"cid":"bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq","clusterId":"cl0-global","status":"pinned","allocations":["scripted"],"peer_map":{"scripted":{"status":"pinned","timestamp":"2026-01-01T00:00:00.000Z"}},"replication_factor_min":1,"replication_factor_max":1}"#);
    let other = api.get(&format!("/api/v3/status/allocations/{HELLO}")).key(&key).await;
    assert_eq!(other.text(), answer.text());
    let unknown = api.get(&format!("/api/v3/status/allocations/{WORLD}")).key(&key).await;
    assert_eq!(unknown.status(), 404);
}

#[tokio::test]
async fn pin_is_renamed() {
    let api = Api::start().await;
    let (key, other) = (api.key("free", SCOPES).await, api.key("free", SCOPES).await);
    let pin = api.post(&format!("/api/v3/files/pin/{HELLO}")).key(&key).body(r#"{"originalName":"a.txt"}"#);
    let id = pin.await.json()["uploadId"].as_str().expect("an id").to_owned();
    let rename = |id: &str, key: &str, body: &str| {
        api.request("PUT", &format!("/api/v3/files/rename/{id}/")).key(key).body(body)
    };
    let answer = rename(&id, &key, r#"{"newName":" Ostern 🐟 "}"#).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_snapshot!(answer.masked(), @r#"{"updated":true,"newName":"Ostern 🐟","uploadId":"[id]","cid":"bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq","clusterId":"cl0-global","name":"Ostern 🐟","originalName":"a.txt","customName":"Ostern 🐟"}"#);
    let listed = api.get("/api/v3/users/me/uploads").key(&key).await.json();
    assert_eq!(listed["uploads"][0]["name"], "Ostern 🐟");

    let good = r#"{"newName":"b"}"#;
    for (id, key) in [(id.as_str(), &other), ("0000000000000001", &key), ("nonsense", &key), ("%00", &key)] {
        let refused = rename(id, key, good).await;
        assert_eq!((refused.status(), refused.message()), (404, "No upload with this id".into()));
    }
    let long = format!(r#"{{"newName":"{}"}}"#, "a".repeat(256));
    for body in ["", "{}", r#"{"newName":" "}"#, r#"{"newName":"a\u0000b"}"#, r#"{"newName":7}"#, &long] {
        let refused = rename(&id, &key, body).await;
        assert_eq!(refused.status(), 400, "{body}");
        assert!(refused.message().contains("newName"), "{}", refused.text());
    }
}

#[tokio::test]
async fn server_folder_is_uploaded_if_configured() {
    let home = tempfile::tempdir().expect("a temporary folder");
    std::fs::create_dir_all(home.path().join("site/img")).expect("folders");
    std::fs::write(home.path().join("site/img/logo.svg"), "<svg>").expect("a file");
    let roots = pinfold_service::Settings {
        server_roots: vec![home.path().to_owned()],
        ..pinfold_service::Settings::default()
    };
    let (api, closed) = (Api::start_on(Settings::default(), roots).await, Api::start().await);
    let body = |path: &str| serde_json::json!({"dirPath": path, "cl": "cl0-global"}).to_string();
    let site = home.path().join("site").display().to_string();
    let key = api.key("free", SCOPES).await;
    let answer = api.post("/api/v3/files/directory").key(&key).body(&body(&site)).await;
    assert_eq!(answer.status(), 201, "{}", answer.text());
    let reply = answer.json();
    assert_eq!((&reply["filename"], &reply["files"][0]["path"]), (&"site".into(), &"img/logo.svg".into()));
    assert_eq!((&reply["type"], &reply["total_files"]), (&"directory".into(), &1.into()));

    let stranger = closed.key("free", SCOPES).await;
    for (api, key, path) in [(&closed, &stranger, site.as_str()), (&api, &key, "/etc"), (&api, &key, "../x")]
    {
        let refused = api.post("/api/v3/files/directory").key(key).body(&body(path)).await;
        assert_eq!((refused.status(), refused.code()), (403, "server_folder_not_allowed".into()), "{path}");
    }
    let missing = api.post("/api/v3/files/directory").key(&key).body("{}").await;
    assert_eq!((missing.status(), missing.message()), (400, "`dirPath` is missing".into()));
    let lock = serde_json::json!({"dirPath": site, "timelock": "2026-12-31T23:59:59Z"}).to_string();
    let locked = api.post("/api/v3/files/directory").key(&key).body(&lock).await;
    assert_eq!(locked.code(), "timelock_not_allowed");
}
