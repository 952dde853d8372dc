//! The admin routes.

use serde_json::{Value, json};

use crate::harness::{Answer, Api, HELLO, WORLD, unlimited_rates};

async fn start() -> (Api, String) {
    let api = Api::start_with(unlimited_rates()).await;
    let admin = api.admin_key("admin,cluster:read").await;
    (api, admin)
}

impl Api {
    async fn as_admin(&self, admin: &str, method: &str, path: &str, body: Value) -> Answer {
        self.request(method, &format!("/api/v3/admin{path}")).key(admin).json(&body).await
    }

    async fn actions(&self, admin: &str, query: &str) -> Vec<String> {
        let answer = self.get(&format!("/api/v3/admin/audit{query}")).key(admin).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let json = answer.json();
        let entries = json["entries"].as_array().expect("a list");
        entries.iter().map(|entry| entry["action"].as_str().expect("a word").to_owned()).collect()
    }
}

#[tokio::test]
async fn account_is_created_found_changed_and_removed() {
    let (api, admin) = start().await;
    let body = json!({"email": "Ada@example.org", "name": "Ada", "password": "correct horse battery"});
    let made = api.as_admin(&admin, "POST", "/accounts", body.clone()).await;
    assert_eq!(made.status(), 201, "{}", made.text());
    assert!(!made.text().contains("horse"), "the password is not shown");
    let id = made.json()["id"].as_str().expect("an id").to_owned();
    let again = api.as_admin(&admin, "POST", "/accounts", body).await;
    assert_eq!(again.status(), 409);

    let found = api.get("/api/v3/admin/accounts?search=ada&plan=free&role=user&disabled=false").key(&admin);
    let found = found.await.json();
    assert_eq!(
        (&found["accounts"][0]["id"], found["accounts"].as_array().map(Vec::len)),
        (&json!(id), Some(1))
    );
    let path = format!("/accounts/{id}");
    let changes = json!({"plan": "premium", "disabled": true, "storageOverride": 7, "name": "A. L."});
    let changed = api.as_admin(&admin, "PATCH", &path, changes).await.json();
    assert_eq!((&changed["plan"], &changed["disabled"]), (&json!("premium"), &json!(true)));
    assert_eq!((&changed["storageLimit"], &changed["storageOverride"]), (&json!(7), &json!(7)));
    let back = api.as_admin(&admin, "PATCH", &path, json!({"storageOverride": null})).await.json();
    assert_eq!((&back["storageLimit"], &back["storageOverride"]), (&json!(1_u64 << 40), &json!(null)));

    let removed = api.as_admin(&admin, "DELETE", &path, json!({})).await;
    assert_eq!((removed.status(), &removed.json()["removed"]), (200, &json!(true)));
    assert_eq!(api.as_admin(&admin, "GET", &path, json!({})).await.status(), 404);
    let actions = api.actions(&admin, &format!("?account={id}")).await;
    assert_eq!(actions.first().map(String::as_str), Some("account.remove"), "its log stays");
    assert_eq!(actions.len(), 7, "{actions:?}");
    let actor = api.owner(&admin);
    let by_admin = api.actions(&admin, &format!("?actor={actor}&limit=100")).await;
    assert_eq!(by_admin.len(), 7, "every act says who it was: {by_admin:?}");
}

#[tokio::test]
async fn disabled_account_is_refused_at_once() {
    let (api, admin) = start().await;
    let key = api.key("free", "files:read").await;
    let path = format!("/accounts/{}", api.owner(&key));
    let list = || api.get("/api/v3/users/me/uploads").key(&key);
    assert_eq!(list().await.status(), 200);
    api.as_admin(&admin, "PATCH", &path, json!({"disabled": true})).await;
    assert_eq!(list().await.code(), "account_disabled");
    api.as_admin(&admin, "PATCH", &path, json!({"disabled": false})).await;
    assert_eq!(list().await.status(), 200);
}

#[tokio::test]
async fn invalid_account_fields_are_named() {
    let (api, admin) = start().await;
    for (body, part) in [
        (json!({}), "`email`"),
        (json!({"email": "nobody"}), "`email`"),
        (json!({"email": "a@b.c", "role": "root"}), "`role`"),
        (json!({"email": "a@b.c", "plan": "gold"}), "Unknown plan"),
        (json!({"email": "a@b.c", "password": "short"}), "`password`"),
        (json!({"email": "a@b.c", "name": "a\u{0}b"}), "name"),
    ] {
        let answer = api.as_admin(&admin, "POST", "/accounts", body).await;
        assert_eq!(answer.status(), 400, "{}", answer.text());
        assert!(answer.message().contains(part), "{}", answer.message());
    }
    let path = format!("/accounts/{}", api.owner(&admin));
    for (body, part) in [
        (json!({"storageOverride": "much"}), "`storageOverride`"),
        (json!({"storageOverride": -1}), "`storageOverride`"),
        (json!({"storageOverride": 1_u64 << 53}), "at most 9007199254740991 bytes"),
        (json!({"role": "root"}), "`role`"),
        (json!({"plan": "gold"}), "Unknown plan"),
    ] {
        let answer = api.as_admin(&admin, "PATCH", &path, body).await;
        assert_eq!(answer.status(), 400, "{}", answer.text());
        assert!(answer.message().contains(part), "{}", answer.message());
    }
    for query in ["role=root", "disabled=maybe", "limit=0", "cursor=x"] {
        let answer = api.get(&format!("/api/v3/admin/accounts?{query}")).key(&admin).await;
        assert_eq!(answer.status(), 400, "{query}");
    }
    let nobody = api.as_admin(&admin, "GET", "/accounts/00000000000000ff", json!({})).await;
    assert_eq!((nobody.status(), nobody.message().as_str()), (404, "Account not found"));
}

#[tokio::test]
async fn last_admin_is_not_removed() {
    let (api, admin) = start().await;
    let path = format!("/accounts/{}", api.owner(&admin));
    for (method, body) in
        [("PATCH", json!({"role": "user"})), ("PATCH", json!({"disabled": true})), ("DELETE", json!({}))]
    {
        let answer = api.as_admin(&admin, method, &path, body).await;
        assert_eq!((answer.status(), answer.code().as_str()), (409, "last_admin"), "{}", answer.text());
    }
    api.admin_key("admin").await;
    let demoted = api.as_admin(&admin, "PATCH", &path, json!({"role": "user"})).await;
    assert_eq!(demoted.status(), 200);
    let answer = api.get("/api/v3/admin/accounts").key(&admin).await;
    assert_eq!(answer.code(), "admin_only", "a key keeps its scope, and it opens nothing");
}

#[tokio::test]
async fn account_with_pins_is_removed_only_when_forced() {
    let (api, admin) = start().await;
    let key = api.key("free", "files:write").await;
    assert_eq!(api.post(&format!("/api/v3/files/pin/{HELLO}")).key(&key).await.status(), 201);
    let path = format!("/accounts/{}", api.owner(&key));
    let kept = api.as_admin(&admin, "DELETE", &path, json!({})).await;
    assert_eq!((kept.status(), kept.code().as_str()), (409, "account_has_pins"));
    let begun = api.as_admin(&admin, "DELETE", &format!("{path}?force=true"), json!({})).await;
    assert_eq!((begun.status(), &begun.json()["pins"]), (202, &json!(1)));
    api.until_nothing_is_held().await;
    let gone = async {
        while api.as_admin(&admin, "GET", &path, json!({})).await.status() != 404 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), gone).await.expect("it goes");
    assert_eq!(api.get("/api/v3/users/me/uploads").key(&key).await.code(), "INVALID_API_KEY");
}

#[tokio::test]
async fn keys_of_an_account_are_listed_and_revoked() {
    let (api, admin) = start().await;
    let key = api.key("free", "files:read").await;
    let path = format!("/accounts/{}/tokens", api.owner(&key));
    let tokens = api.as_admin(&admin, "GET", &path, json!({})).await;
    assert!(!tokens.text().contains(&key), "never the secret");
    let id = tokens.json()["tokens"][0]["id"].as_str().expect("an id").to_owned();
    let revoke = || api.as_admin(&admin, "DELETE", "", json!({}));
    assert_eq!(revoke().await.status(), 404, "there is nothing at the root");
    let one = format!("{path}/{id}");
    assert_eq!(api.as_admin(&admin, "DELETE", &one, json!({})).await.status(), 200);
    assert_eq!(api.as_admin(&admin, "DELETE", &one, json!({})).await.status(), 404);
    assert_eq!(api.get("/api/v3/users/me/uploads").key(&key).await.code(), "INVALID_API_KEY");
    let others = format!("/accounts/{}/tokens/{id}", api.owner(&admin));
    assert_eq!(api.as_admin(&admin, "DELETE", &others, json!({})).await.status(), 404);
}

#[tokio::test]
async fn saved_plan_applies_at_once_and_is_deleted() {
    let (api, admin) = start().await;
    let key = api.key("free", "files:write").await;
    let body = json!({"storageLimit": 4, "maxFileSizeBytes": 2, "pricePerMonth": 1.25});
    let saved = api.as_admin(&admin, "PUT", "/plans/free", body).await;
    assert_eq!(saved.status(), 200, "{}", saved.text());
    let json = saved.json();
    assert_eq!((&json["source"], &json["accounts"]), (&json!("overridden"), &json!(1)));
    assert_eq!((&json["pricePerMonth"], &json["maxFileSizeBytes"]), (&json!(1.25), &json!(2)));
    assert_eq!((&json["name"], &json["requestsPerMinute"]), (&json!("Free"), &json!(300)), "the rest stays");
    let pin = || api.post(&format!("/api/v3/files/pin/{HELLO}")).key(&key);
    assert_eq!(pin().await.code(), "quota_exceeded");
    let offered = api.get("/api/v3/plans").await.json();
    assert_eq!(offered["plans"][0]["storageLimit"], 4);

    assert_eq!(api.as_admin(&admin, "DELETE", "/plans/free", json!({})).await.status(), 200);
    assert_eq!(pin().await.status(), 201);
    assert_eq!(api.as_admin(&admin, "DELETE", "/plans/free", json!({})).await.status(), 404);

    let new = api.as_admin(&admin, "PUT", "/plans/team", json!({"name": "Team"})).await;
    assert!(new.status() == 400 && new.message().contains("storageLimit"), "{}", new.text());
    let new = api.as_admin(&admin, "PUT", "/plans/team", json!({"storageLimit": 9})).await;
    assert_eq!(new.json()["source"], "saved");
    api.key("team", "files:read").await;
    let used = api.as_admin(&admin, "DELETE", "/plans/team", json!({})).await;
    assert_eq!((used.status(), used.code().as_str()), (409, "plan_in_use"));
    let bad = api.as_admin(&admin, "PUT", "/plans/Team%20A", json!({"storageLimit": 9})).await;
    assert_eq!(bad.status(), 400);
    let bad = api.as_admin(&admin, "PUT", "/plans/team", json!({"allowedClusterIds": ["cl9"]})).await;
    assert!(bad.status() == 400 && bad.message().contains("cl9"), "{}", bad.text());
    let actions = api.actions(&admin, &format!("?account={}", api.owner(&admin))).await;
    assert_eq!(actions.iter().filter(|action| action.starts_with("plan.")).count(), 3);
}

#[tokio::test]
async fn shown_plan_can_be_sent_back() {
    let (api, admin) = start().await;
    let gateways = json!([{"url": "https://gw.example.org/ipfs/"}, {"publicUrl": "https://b.example.org/ipfs/", "label": "B"}]);
    let changed = json!({"label": "Europe", "gateways": gateways});
    assert_eq!(api.as_admin(&admin, "PATCH", "/clusters/cl1-eu", changed).await.status(), 200);
    let shown = api.get("/api/v3/admin/clusters").key(&admin).await.json()["clusters"][1].clone();
    assert_eq!(shown["gateways"][0]["label"], "Europe", "without a label it has the cluster's");
    let back = api.as_admin(&admin, "PATCH", "/clusters/cl1-eu", shown.clone()).await;
    assert_eq!((back.status(), &back.json()["gateways"]), (200, &shown["gateways"]), "{}", back.text());
    for (gateway, word) in [
        (
            json!({"url": "https://a.example.org/ipfs/", "publicUrl": "https://b.example.org/ipfs/"}),
            "publicUrl",
        ),
        (json!({"label": "A"}), "url"),
    ] {
        let refused = api.as_admin(&admin, "PATCH", "/clusters/cl1-eu", json!({"gateways": [gateway]})).await;
        assert!(refused.status() == 400 && refused.message().contains(word), "{}", refused.text());
    }

    let plan = api.get("/api/v3/admin/plans").key(&admin).await.json()["plans"][0].clone();
    let back = api.as_admin(&admin, "PUT", "/plans/free", plan.clone()).await;
    assert_eq!(
        (back.status(), &back.json()["storageLimit"]),
        (200, &plan["storageLimit"]),
        "{}",
        back.text()
    );
    let path = format!("/accounts/{}", api.owner(&admin));
    let account = api.as_admin(&admin, "GET", &path, json!({})).await.json();
    let back = api.as_admin(&admin, "PATCH", &path, account.clone()).await;
    assert_eq!((back.status(), &back.json()["plan"]), (200, &account["plan"]), "{}", back.text());
}

#[tokio::test]
async fn cluster_description_is_changed_and_reset() {
    let (api, admin) = start().await;
    let body = json!({"label": "Europe", "region": "eu", "country": "DE",
        "gateways": [{"url": "https://gw.example.org/ipfs/", "label": "Main"}]});
    let changed = api.as_admin(&admin, "PATCH", "/clusters/cl1-eu", body).await;
    assert_eq!(changed.status(), 200, "{}", changed.text());
    let shown = || async {
        let list = api.get("/api/v3/users/me/clusters").key(&admin).await.json();
        list[1].clone()
    };
    let one = shown().await;
    assert_eq!((&one["label"], &one["country"]), (&json!("Europe"), &json!("DE")));
    assert_eq!(one["gateways"][0]["publicUrl"], "https://gw.example.org/ipfs/");
    let cleared = api.as_admin(&admin, "PATCH", "/clusters/cl1-eu", json!({"country": null})).await.json();
    assert_eq!((&cleared["country"], &cleared["region"]), (&json!(null), &json!("eu")));
    let list = api.get("/api/v3/admin/clusters").key(&admin).await.json();
    assert_eq!(
        (&list["clusters"][1]["source"], &list["clusters"][1]["health"]),
        (&json!("saved"), &json!("ok"))
    );
    assert!(list["clusters"][1]["usage"]["blocks"].is_u64());

    for body in [
        json!({"label": ""}),
        json!({"country": "Germany"}),
        json!({"region": 5}),
        json!({"gateways": [{"url": "javascript:alert(1)//ipfs/"}]}),
    ] {
        assert_eq!(
            api.as_admin(&admin, "PATCH", "/clusters/cl1-eu", body.clone()).await.status(),
            400,
            "{body}"
        );
    }
    let nowhere = api.as_admin(&admin, "PATCH", "/clusters/cl9", json!({})).await;
    assert_eq!((nowhere.status(), nowhere.message().as_str()), (404, "Cluster not found"));
    assert_eq!(api.as_admin(&admin, "POST", "/clusters/cl1-eu/reset", json!({})).await.status(), 200);
    assert_eq!(shown().await["label"], "The cluster cl1-eu");
}

#[tokio::test]
async fn pins_of_all_accounts_are_listed_and_removed() {
    let (api, admin) = start().await;
    let (ada, ben) = (api.key("free", "files:write").await, api.key("free", "files:write").await);
    for (key, cid) in [(&ada, HELLO), (&ben, HELLO), (&ada, WORLD)] {
        assert_eq!(api.post(&format!("/api/v3/files/pin/{cid}")).key(key).await.status(), 201);
    }
    let list = async |query: &str| {
        let answer = api.get(&format!("/api/v3/admin/pins{query}")).key(&admin).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        answer.json()
    };
    let count = |json: &Value| json["pins"].as_array().expect("a list").len();
    assert_eq!(count(&list("").await), 3);
    assert_eq!(count(&list(&format!("?cid={HELLO}")).await), 2);
    assert_eq!(count(&list(&format!("?account={}", api.owner(&ada))).await), 2);
    assert_eq!(count(&list("?status=failed").await), 0);
    assert_eq!(count(&list("?damaged=true").await), 0);
    assert_eq!(count(&list("?cl=cl1-eu").await), 0);
    let first = list("?limit=2").await;
    assert_eq!(count(&first), 2);
    let cursor = first["nextCursor"].as_str().expect("there is more");
    let second = list(&format!("?limit=2&cursor={cursor}")).await;
    assert_eq!((count(&second), &second["nextCursor"]), (1, &json!(null)));
    for query in ["cid=x", "account=x", "status=x", "damaged=x", "cursor=x", "cl=X!"] {
        let answer = api.get(&format!("/api/v3/admin/pins?{query}")).key(&admin).await;
        assert_eq!(answer.status(), 400, "{query}");
    }

    let of_ben = list(&format!("?account={}", api.owner(&ben))).await;
    let path = format!("/pins/{}", of_ben["pins"][0]["uploadId"].as_str().expect("an id"));
    let seen = api.as_admin(&admin, "GET", &path, json!({})).await.json();
    assert_eq!(seen["owners"].as_array().map(Vec::len), Some(2));
    assert_eq!(seen["pin"]["email"], "user2@example.org");
    assert_eq!(api.as_admin(&admin, "DELETE", &path, json!({})).await.status(), 200);
    assert_eq!(api.as_admin(&admin, "DELETE", &path, json!({})).await.status(), 404);
    assert_eq!(count(&list(&format!("?cid={HELLO}")).await), 1);
    let actions = api.actions(&admin, &format!("?account={}&action=pin.remove", api.owner(&ben))).await;
    assert_eq!(actions, ["pin.remove"]);
}

#[tokio::test]
async fn locked_pin_is_removed_by_an_admin_only_and_logged_for_both() {
    let (api, admin) = start().await;
    let ben = api.key("premium", "files:write,files:delete,files:read,logs:read").await;
    let until = "2026-02-01T00:00:00.000Z";
    let pin = api.post(&format!("/api/v3/files/pin/{HELLO}")).key(&ben).json(&json!({"retainUntil": until}));
    let id = pin.await.json()["uploadId"].as_str().expect("an id").to_owned();
    let refused = api.request("DELETE", &format!("/api/v3/files/remove/{HELLO}")).key(&ben).await;
    assert_eq!((refused.status(), refused.code().as_str()), (403, "retention_locked"));
    let path = format!("/pins/{id}");
    assert_eq!(api.as_admin(&ben, "DELETE", &path, json!({})).await.code(), "admin_only");
    assert_eq!(api.pins_of(&ben).await, 1);

    let removal = api.request("DELETE", &format!("/api/v3/admin{path}")).key(&admin).from("192.0.2.9");
    assert_eq!(removal.await.status(), 200);
    assert_eq!(api.pins_of(&ben).await, 0);
    let own =
        api.get("/api/v3/users/me/logs?action=pin.remove_locked").key(&ben).await.json()["logs"][0].clone();
    assert_eq!(
        (&own["actor"], &own["ip"]),
        (&json!("admin"), &json!(null)),
        "where from is not the owner's business"
    );
    for account in [api.owner(&ben), api.owner(&admin)] {
        let query = format!("/api/v3/admin/audit?account={account}&action=pin.remove_locked");
        let entries = api.get(&query).key(&admin).await.json()["entries"].clone();
        assert_eq!(entries.as_array().map(Vec::len), Some(1), "{entries}");
        assert_eq!(entries[0]["actorId"], api.owner(&admin).to_string());
        assert_eq!(entries[0]["ip"], "192.0.2.9", "{entries}");
        assert_eq!(
            (&entries[0]["subject"], &entries[0]["details"]["retainUntil"]),
            (&json!(HELLO), &json!(until))
        );
    }
}

#[tokio::test]
async fn statistics_add_up() {
    let (api, admin) = start().await;
    let key = api.key("free", "files:write").await;
    for cid in [HELLO, WORLD] {
        assert_eq!(api.post(&format!("/api/v3/files/pin/{cid}")).key(&key).await.status(), 201);
    }
    let json = api.get("/api/v3/admin/statistics").key(&admin).await.json();
    assert_eq!((&json["accounts"]["total"], &json["accounts"]["disabled"]), (&json!(2), &json!(0)));
    assert_eq!((&json["pins"]["total"], &json["pins"]["pinned"]), (&json!(2), &json!(2)));
    assert_eq!((&json["bytes"]["logical"], &json["queue"]), (&json!(10), &json!(0)));
    assert_eq!(json["clusters"].as_array().map(Vec::len), Some(2));
    assert_eq!(json["clusters"][0]["usage"]["heldBytes"], 10);
}

#[tokio::test]
async fn audit_log_of_all_accounts_has_pages_and_filters() {
    let (api, admin) = start().await;
    let actor = api.owner(&admin);
    for n in 0..4 {
        let body = json!({"email": format!("u{n}@example.org")});
        assert_eq!(api.as_admin(&admin, "POST", "/accounts", body).await.status(), 201);
    }
    assert_eq!(api.actions(&admin, "?action=token.create").await.len(), 1);
    let mut found = 0;
    let mut query = format!("?actor={actor}&limit=3");
    loop {
        let page = api.get(&format!("/api/v3/admin/audit{query}")).key(&admin).await.json();
        let entries = page["entries"].as_array().expect("a list");
        assert!(entries.iter().all(|entry| entry["actorId"] == json!(actor.to_string())));
        found += entries.len();
        match page["nextCursor"].as_str() {
            Some(cursor) => query = format!("?actor={actor}&limit=3&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(found, 4);
    for query in ["account=x", "actor=x", "from=x", "to=x", "cursor=x", "limit=x"] {
        let answer = api.get(&format!("/api/v3/admin/audit?{query}")).key(&admin).await;
        assert_eq!(answer.status(), 400, "{query}");
    }
}

#[tokio::test]
async fn password_reset_ends_all_sessions() {
    let (api, admin) = start().await;
    let login = json!({"email": "ada@example.org", "password": "correct horse battery", "name": "Ada"});
    let signed_up = api.post("/api/v3/auth/signup").json(&login).await;
    assert_eq!(signed_up.status(), 201, "{}", signed_up.text());
    let session = format!("Bearer {}", signed_up.json()["token"].as_str().expect("a token"));
    let me = |session: &str| api.get("/api/v3/users/me").header("authorization", session);
    let id = me(&session).await.json()["id"].as_str().expect("an id").to_owned();
    let path = format!("/accounts/{id}");
    let ended = api.as_admin(&admin, "DELETE", &format!("{path}/sessions"), json!({})).await;
    assert_eq!((ended.status(), &ended.json()["ended"]), (200, &json!(1)));
    assert_eq!(me(&session).await.status(), 401);

    let again = api.post("/api/v3/auth/login").json(&login).await.json();
    let session = format!("Bearer {}", again["token"].as_str().expect("a token"));
    for (body, part) in [(json!({}), "`password`"), (json!({"password": "short"}), "`password`")] {
        let answer = api.as_admin(&admin, "PUT", &format!("{path}/password"), body).await;
        assert!(answer.status() == 400 && answer.message().contains(part), "{}", answer.text());
    }
    let new = json!({"password": "another horse battery"});
    assert_eq!(api.as_admin(&admin, "PUT", &format!("{path}/password"), new).await.status(), 200);
    assert_eq!(me(&session).await.status(), 401);
    assert_eq!(api.post("/api/v3/auth/login").json(&login).await.status(), 401);
    let new = json!({"email": "ada@example.org", "password": "another horse battery"});
    assert_eq!(api.post("/api/v3/auth/login").json(&new).await.status(), 200);

    let none = api.as_admin(&admin, "DELETE", &format!("{path}/2fa"), json!({})).await;
    assert!((400..500).contains(&none.status()), "there is no second factor: {}", none.text());
    for (method, what) in [("DELETE", "sessions"), ("DELETE", "2fa"), ("PUT", "password")] {
        let body = json!({"password": "another horse battery"});
        let nobody = api.as_admin(&admin, method, &format!("/accounts/00000000000000ff/{what}"), body).await;
        assert_eq!(nobody.status(), 404, "{what}");
    }
}

#[tokio::test]
async fn admin_session_needs_no_scope() {
    let (api, admin) = start().await;
    let body = json!({"email": "root@example.org", "password": "correct horse battery", "role": "admin"});
    assert_eq!(api.as_admin(&admin, "POST", "/accounts", body.clone()).await.status(), 201);
    let session = api.post("/api/v3/auth/login").json(&body).await.json();
    let session = format!("Bearer {}", session["token"].as_str().expect("a token"));
    let list = || api.get("/api/v3/admin/accounts").header("authorization", &session);
    let found = list().await;
    assert_eq!(found.status(), 200, "{}", found.text());
    let id = found.json()["accounts"][0]["id"].as_str().expect("an id").to_owned();
    // An admin's session can create a key with the scope `admin`; a user's session can't.
    let key = json!({"name": "admin", "scopes": ["admin"]});
    let made = api.post("/api/v3/tokens/generate").header("authorization", &session).json(&key).await;
    assert_eq!(made.status(), 201, "{}", made.text());
    let demoted = api.as_admin(&admin, "PATCH", &format!("/accounts/{id}"), json!({"role": "user"})).await;
    assert_eq!(demoted.status(), 200);
    assert_eq!(list().await.code(), "admin_only");
    let made = api.post("/api/v3/tokens/generate").header("authorization", &session).json(&key).await;
    assert_eq!((made.status(), made.code().as_str()), (403, "scope_not_held"));
}
