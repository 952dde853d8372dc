//! The operations of every tour, and their expected results.

use serde_json::Value;

/// One operation of a client.
pub(crate) struct Operation {
    /// Name of the operation in the tours and the table.
    pub(crate) name: &'static str,
    /// Its request as in the table; relative to `/api/v3` unless it is a whole path in parentheses.
    pub(crate) request: &'static str,
    /// The expected status.
    pub(crate) status: u16,
    /// Expected content of the response, which may have more. See [`lacks`].
    pub(crate) answer: &'static str,
}

const fn of(name: &'static str, request: &'static str, status: u16, answer: &'static str) -> Operation {
    Operation { name, request, status, answer }
}

/// The published CIDs of the uploaded files.
const CIDS: [(&str, &str); 7] = [
    ("$FILE", "bafkreiep5x34p3qpvkn2evleh7hnd5gnqbe6njtutrzumm2zjzehk6tnbq"),
    ("$LATE", "bafkreigazrnsoihmimvayitqoyfxlcjd4w33flmwpvaafrajaorlqfol6u"),
    ("$FIRST", "bafkreiayn2ra3i4ei7hqywp2mku57lvdxxgkimkrpob5hkoab26carhjli"),
    ("$LOGO", "bafkreignd6x6htd7a32v5lj7bxhdsmakzj5iselzhz3pzxjso6m4a4e2yi"),
    ("$INDEX", "bafkreig2chw6vfyostw5cg32jv45ldo2r2ttajktxokkiv2syeyjdg73fy"),
    ("$FOLDER", "bafybeieyywnqx7uohluagmri2qy6pprcelmal4jsaaho2qnthgyjggnbhq"),
    ("$SITE", "bafybeiabqp23x5fx2x34k327jpbvvlp54cmc4553kkzwjhvaxg2qvigp24"),
];

/// The files that the tours upload.
pub(crate) const FILES: [(&str, &str); 5] = [
    ("naïve \"quoted\" name.txt", "every client can say 🐟\n"),
    ("late.txt", "fields come after it\n"),
    ("site/index.html", "<h1>hello</h1>\n"),
    ("site/img/logo.svg", "<svg/>\n"),
    ("site/docs/ü/index.html", "<h1>hällo</h1>\n"),
];

const SITE: &str = r#"{"cid":"$SITE","type":"directory","filename":"site","total_files":3,"total_size":38,"clusterId":"cl0-global","uploadId":"$any","expiresAt":null,"files":[
    {"path":"index.html","filename":"index.html","cid":"$FIRST","size":15},
    {"path":"img/logo.svg","filename":"logo.svg","cid":"$LOGO","size":7},
    {"path":"docs/ü/index.html","filename":"index.html","cid":"$INDEX","size":16}]}"#;

const LOGO: &str = r#"{"cid":"$LOGO","status":"pinned","pinned":true,"clusterId":"cl0-global","expiresAt":null,"originalName":"logo.svg","customName":"Логотип","size":7}"#;

const ONCE: &str = r#"{"cid":"$INDEX","status":"pinned","customName":"once"}"#;

const PREFERENCES: &str = r#"{"theme":"dark","pageSize":50}"#;

const MY_PLAN: &str = r#"{"plan":{"code":"premium","timelockAllowed":true,"storageLimit":1099511627776},"usage":{"usedStorage":0,"storageLimit":1099511627776}}"#;

/// All operations, in the order of the tours.
pub(crate) const OPERATIONS: &[Operation] = &[
    of("service", "GET /", 200, r#"{"name":"Pinfold","version":"$any"}"#),
    of("bare base URL", "(GET /)", 200, r#"{"name":"Pinfold"}"#),
    of("bare gateway URL", "(GET /ipfs/)", 200, r#"{"name":"Pinfold","message":"$any"}"#),
    of("health", "GET /health/", 200, r#"{"status":"ok","dependencies":{"database":{"status":"ok"}}}"#),
    of("peers", "GET /peers/", 200, r#"{"peers":[{"self":true}]}"#),
    of(
        "plans",
        "GET /plans/",
        200,
        r#"{"plans":[{"code":"free","timelockAllowed":false},{"code":"premium","timelockAllowed":true}]}"#,
    ),
    of("languages", "GET /locales/languages", 200, r#"{"languages":[{"code":"en","name":"English"}]}"#),
    of("countries", "GET /locales/countries", 200, r#"{"countries":[{"code":"IS","name":"Iceland"}]}"#),
    of(
        "old version",
        "(GET /api/v1/files/)",
        410,
        r#"{"error":"api_version_deprecated","currentApiBase":"/api/v3"}"#,
    ),
    of("no credential", "GET /users/me", 401, r#"{"error":"Unauthorized","code":"UNAUTHORIZED"}"#),
    of("wrong key", "GET /users/me", 401, r#"{"error":"Unauthorized","code":"INVALID_API_KEY"}"#),
    of("wrong password", "POST /auth/login", 401, r#"{"error":"Unauthorized","message":"$any"}"#),
    of("login", "POST /auth/login", 200, r#"{"token":"$any","user":{"email":"ada@example.org"}}"#),
    of(
        "me",
        "GET /users/me",
        200,
        r#"{"id":"$any","email":"ada@example.org","role":"user","plan":"Premium","planId":"premium","clusters":[],"usedStorage":0,"storageLimit":1099511627776,"twoFactorEnabled":false,"createdAt":"$any"}"#,
    ),
    of("change me", "PUT /users/me", 200, r#"{"name":"Ada Lovelace","email":"ada@example.org"}"#),
    of("change preferences", "PUT /users/me/preferences", 200, PREFERENCES),
    of("preferences", "GET /users/me/preferences", 200, PREFERENCES),
    of("second factor", "GET /auth/2fa/status", 200, r#"{"enabled":false}"#),
    of(
        "clusters",
        "GET /users/me/clusters",
        200,
        r#"[{"id":"cl0-global","clusterId":"cl0-global","gateways":[]}]"#,
    ),
    of("my plan", "GET /plans/my-plan", 200, MY_PLAN),
    of("plans for me", "GET /users/me/plans", 200, MY_PLAN),
    of("payments", "POST /payments/checkout", 503, r#"{"code":"payments_disabled"}"#),
    of("referrals", "GET /users/me/referrals", 200, r#"{"referrals":[],"total":0}"#),
    of(
        "upload",
        "POST /files/",
        201,
        r#"{"cid":"$FILE","status":"pinned","name":"naïve \"quoted\" name.txt","originalName":"naïve \"quoted\" name.txt","size":26,"clusterId":"cl0-global","expiresAt":"2040-01-01T00:00:00.000Z","uploadId":"$any"}"#,
    ),
    of(
        "upload, fields last",
        "POST /files",
        201,
        r#"{"cid":"$LATE","status":"pinned","originalName":"late.txt","customName":"straße & 🐟","name":"straße & 🐟","size":21,"expiresAt":null}"#,
    ),
    of("upload directory, files", "POST /files/directory-dag", 201, SITE),
    of("upload directory, files[]", "POST /files/directory-dag", 201, SITE),
    of("upload directory, files[i]", "POST /files/directory-dag", 201, SITE),
    of("upload directory, pairs", "POST /files/directory-dag", 201, SITE),
    of(
        "upload directory, folders dropped",
        "POST /files/directory-dag",
        400,
        r#"{"error":"Bad Request","message":"$has \"index.html\""}"#,
    ),
    of("pin", "POST /files/pin/:cid", 201, LOGO),
    of("pin again, no body", "POST /files/pin/:cid", 200, LOGO),
    of("pin again, empty body", "POST /files/pin/:cid", 200, LOGO),
    of("pin, no CID", "POST /files/pin/:cid", 400, r#"{"error":"Bad Request","message":"Invalid CID"}"#),
    of(
        "pin, dry run",
        "POST /files/pin/:cid?dryRun=true",
        200,
        r#"{"dryRun":true,"cid":"$INDEX","complete":true,"pinned":false,"size":16,"availability":"here"}"#,
    ),
    of("pin, idempotency key", "POST /files/pin/:cid", 201, ONCE),
    of("pin, idempotency key again", "POST /files/pin/:cid", 201, ONCE),
    of(
        "upload folder of the server",
        "POST /files/directory",
        201,
        r#"{"cid":"$FOLDER","type":"directory","filename":"img","total_files":1,"files":[{"path":"logo.svg","cid":"$LOGO"}]}"#,
    ),
    of(
        "list",
        "GET /users/me/uploads",
        200,
        r#"{"total":6,"pagination":{"page":1,"limit":2,"total":6,"totalPages":3},"nextCursor":"$any","uploads":[{"cid":"$FOLDER","type":"directory"},{"cid":"$INDEX","_id":"$any","uploadId":"$any"}]}"#,
    ),
    of(
        "list, next page",
        "GET /users/me/uploads",
        200,
        r#"{"uploads":[{"cid":"$LOGO","customName":"Логотип"},{"cid":"$SITE","name":"site"}]}"#,
    ),
    of(
        "list, filters",
        "GET /users/me/uploads",
        200,
        r#"{"total":1,"uploads":[{"cid":"$FILE","expiresAt":"2040-01-01T00:00:00.000Z"}],"nextCursor":null}"#,
    ),
    of(
        "list, in a directory",
        "GET /users/me/uploads",
        200,
        r#"{"uploads":[{"path":"docs/ü/index.html","parentCid":"$SITE","cid":"$INDEX"}]}"#,
    ),
    of(
        "directory",
        "GET /users/me/uploads/dag/:cid",
        200,
        r#"{"cid":"$SITE","entries":[{"path":"img","type":"directory","cid":"$FOLDER"},{"path":"img/logo.svg","type":"file","cid":"$LOGO","size":7},{"path":"docs/ü/index.html","cid":"$INDEX"}]}"#,
    ),
    of("rename", "PUT /files/rename/:uploadId", 200, r#"{"updated":true,"newName":"the \"logo\" of ours"}"#),
    of(
        "status",
        "GET /status/:cid",
        200,
        r#"{"cid":"$LOGO","status":"pinned","clusterId":"cl0-global","progress":{"blocks":1,"bytes":7},"replicationFactor":1,"allocations":["$any"],"peer_map":{},"expiresAt":null}"#,
    ),
    of(
        "status, as events",
        "GET /status/:cid/events",
        200,
        r#"{"events":["end"],"last":{"cid":"$LOGO","state":"pinned"}}"#,
    ),
    of(
        "allocations",
        "GET /allocations/:cid",
        200,
        r#"{"cid":"$LOGO","allocations":["$any"],"replication_factor_min":1,"replication_factor_max":1,"peer_map":{}}"#,
    ),
    of(
        "allocations, by status",
        "GET /status/allocations/:cid",
        200,
        r#"{"cid":"$LOGO","allocations":["$any"]}"#,
    ),
    of(
        "pin batch",
        "POST /files/pin-batch",
        200,
        r#"{"total":2,"byStatus":{"pinned":2},"results":[{"index":0,"cid":"$LATE","created":false,"customName":"first"},{"index":1,"cid":"$INDEX","created":false,"customName":"second"}]}"#,
    ),
    of(
        "remove batch",
        "DELETE /files/pin-batch",
        200,
        r#"{"removed":true,"total":2,"results":[{"cid":"$LATE"},{"cid":"$INDEX"}]}"#,
    ),
    of(
        "generate key",
        "POST /tokens/generate",
        201,
        r#"{"token":"$any","name":"a name/with ü%","label":"laptop","scopes":["files:read"],"expiresAt":"$any","createdAt":"$any"}"#,
    ),
    of("generate key, name taken", "POST /tokens/generate", 409, r#"{"error":"Conflict"}"#),
    of(
        "list keys",
        "GET /tokens/list",
        200,
        r#"{"tokens":[{"name":"a name/with ü%","label":"laptop","prefix":"$any","scopes":["files:read"]}]}"#,
    ),
    of("key as Bearer", "GET /users/me/uploads", 200, r#"{"uploads":[{"cid":"$FOLDER"}]}"#),
    of(
        "key without the scope",
        "POST /files/pin/:cid",
        403,
        r#"{"code":"missing_scope","required":"files:write"}"#,
    ),
    of("revoke key", "DELETE /tokens/revoke/:name", 200, r#"{"revoked":true,"name":"a name/with ü%"}"#),
    of("revoked key", "GET /users/me/uploads", 401, r#"{"code":"INVALID_API_KEY"}"#),
    of(
        "generate key, defaults",
        "POST /tokens/generate",
        201,
        r#"{"token":"$any","name":"second","scopes":["user:read","files:read"],"expiresAt":null}"#,
    ),
    of("revoke key, by body", "POST /tokens/revoke", 200, r#"{"revoked":true,"name":"second"}"#),
    of(
        "create webhook",
        "POST /webhooks",
        201,
        r#"{"id":"$any","secret":"$any","url":"https://hooks.example.org/pins?from=pinfold","events":["pin.pinned","pin.failed"],"active":false}"#,
    ),
    of(
        "list webhooks",
        "GET /webhooks",
        200,
        r#"{"webhooks":[{"url":"https://hooks.example.org/pins?from=pinfold"}]}"#,
    ),
    of("delete webhook", "DELETE /webhooks/:id", 200, r#"{"id":"$any","removed":true}"#),
    of(
        "logs",
        "GET /users/me/logs",
        200,
        r#"{"logs":[{"action":"$any","subject":"$LOGO","source":"API"},{"source":"WEB","status":"success"}],"pagination":{"limit":100}}"#,
    ),
    of("remove", "DELETE /files/remove/:cid", 200, r#"{"cid":"$LOGO","removed":true}"#),
    of(
        "remove again",
        "DELETE /files/remove/:cid",
        404,
        r#"{"error":"Not Found","message":"Pin not found for this CID"}"#,
    ),
    of("remove upload", "DELETE /users/me/uploads/:cid", 200, r#"{"cid":"$SITE","removed":true}"#),
    of("change plan", "PUT /plans/change", 200, r#"{"plan":{"code":"free"},"message":"$any"}"#),
    of(
        "change plan back",
        "PUT /plans/change",
        403,
        r#"{"error":"Forbidden","code":"plan_change_not_allowed"}"#,
    ),
    of("logout", "POST /auth/logout", 200, "{}"),
    of("session after logout", "GET /users/me", 401, r#"{"code":"INVALID_API_KEY"}"#),
];

impl Operation {
    /// Returns the expected content that `answer` lacks.
    pub(crate) fn fault(&self, answer: &Value) -> Option<String> {
        let mut wanted = self.answer.to_owned();
        for (name, cid) in CIDS {
            wanted = wanted.replace(&format!("\"{name}\""), &format!("\"{cid}\""));
        }
        let wanted = serde_json::from_str(&wanted).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        lacks(answer, &wanted)
    }
}

/// Returns what `found` lacks of `wanted`: an object has at least its fields, a list has at least its items, in any
/// order; `$any` is anything but null, and `$has x` is a text that contains x.
fn lacks(found: &Value, wanted: &Value) -> Option<String> {
    let is_there = match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => {
            return wanted.iter().find_map(|(key, wanted)| match found.get(key) {
                Some(found) => lacks(found, wanted).map(|fault| format!("{key}: {fault}")),
                None => Some(format!("{key} is missing")),
            });
        }
        (Value::Array(wanted), Value::Array(found)) => {
            wanted.iter().all(|wanted| found.iter().any(|found| lacks(found, wanted).is_none()))
        }
        (Value::String(wanted), found) if wanted == "$any" => !found.is_null() && found != "",
        (Value::String(wanted), Value::String(found)) if wanted.starts_with("$has ") => {
            found.contains(wanted.trim_start_matches("$has "))
        }
        (wanted, found) => wanted == found,
    };
    (!is_there).then(|| format!("{found} is not {wanted}"))
}

#[test]
fn missing_content_of_a_response_is_reported() {
    let lacks = |found: &str, wanted: &str| {
        let [found, wanted] = [found, wanted].map(|text| serde_json::from_str(text).expect("it is JSON"));
        lacks(&found, &wanted)
    };
    for (found, wanted) in [
        (r#"{"a":1,"b":null}"#, r#"{"a":1}"#),
        (r#"[{"a":1},{"b":2}]"#, r#"[{"b":2}]"#),
        (r#""text""#, r#""$any""#),
        ("7", r#""$any""#),
        (r#""some text""#, r#""$has text""#),
    ] {
        assert_eq!(lacks(found, wanted), None, "{found}");
    }
    for (found, wanted) in [
        (r#"{"a":{"b":2}}"#, r#"{"a":{"b":1}}"#),
        (r#"{"b":1}"#, r#"{"a":null}"#),
        (r#"[{"a":1}]"#, r#"[{"a":2}]"#),
        ("null", r#""$any""#),
        (r#""""#, r#""$any""#),
        (r#""some""#, r#""$has text""#),
        ("[]", "{}"),
    ] {
        assert!(lacks(found, wanted).is_some(), "{found}");
    }
}
