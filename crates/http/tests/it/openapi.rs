//! The document of the API says what there is, completely, and the page shows it.

use std::collections::BTreeSet;

use insta::assert_snapshot;
use serde_json::Value;

use crate::document::{Document, Operation};
use crate::harness::{Api, unlimited_rates};

#[tokio::test]
async fn every_route_is_described_with_examples() {
    let api = Api::start().await;
    let document = Document::of(&api).await;
    let mut lacks = Vec::new();
    for operation in document.operations() {
        lacks.extend(
            missing(&document, &operation).into_iter().map(|what| format!("{}: {what}", operation.name())),
        );
    }
    assert!(lacks.is_empty(), "{}", lacks.join("\n"));
}

/// Clients name their methods by these ids: a change here is a change of every generated client.
#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a list of all operations")]
async fn every_operation_has_an_id_of_its_own() {
    let api = Api::start().await;
    let document = Document::of(&api).await;
    let operations = document.operations();
    let ids: Vec<_> = operations
        .iter()
        .map(|operation| operation.says["operationId"].as_str().unwrap_or_default())
        .collect();
    // Generators ignore case in some languages, and turn other signs into something of their own.
    let distinct: BTreeSet<_> = ids.iter().map(|id| id.to_lowercase()).collect();
    assert_eq!(distinct.len(), operations.len(), "an id is there twice: {ids:?}");
    for (operation, id) in operations.iter().zip(&ids) {
        let is_camel_case = id.starts_with(|sign: char| sign.is_ascii_lowercase())
            && id.bytes().all(|sign| sign.is_ascii_alphanumeric());
        assert!(is_camel_case, "{}: {id:?}", operation.name());
        let is_admin = operation.path.starts_with("/api/v3/admin/");
        assert_eq!(id.starts_with("admin"), is_admin, "{}: {id}", operation.name());
    }
    let mut lines: Vec<_> =
        operations.iter().zip(&ids).map(|(operation, id)| format!("{id}: {}", operation.name())).collect();
    lines.sort();
    assert_snapshot!(lines.join("\n"), @r"
    adminCreateAccount: POST /api/v3/admin/accounts
    adminDeletePlan: DELETE /api/v3/admin/plans/{code}
    adminEndAccountSessions: DELETE /api/v3/admin/accounts/{account_id}/sessions
    adminGetAccount: GET /api/v3/admin/accounts/{account_id}
    adminGetPin: GET /api/v3/admin/pins/{upload_id}
    adminGetStatistics: GET /api/v3/admin/statistics
    adminListAccountTokens: GET /api/v3/admin/accounts/{account_id}/tokens
    adminListAccounts: GET /api/v3/admin/accounts
    adminListAuditEvents: GET /api/v3/admin/audit
    adminListClusters: GET /api/v3/admin/clusters
    adminListPins: GET /api/v3/admin/pins
    adminListPlans: GET /api/v3/admin/plans
    adminRemoveAccount: DELETE /api/v3/admin/accounts/{account_id}
    adminRemoveAccountTwoFactor: DELETE /api/v3/admin/accounts/{account_id}/2fa
    adminRemovePin: DELETE /api/v3/admin/pins/{upload_id}
    adminResetCluster: POST /api/v3/admin/clusters/{cluster_id}/reset
    adminRevokeAccountToken: DELETE /api/v3/admin/accounts/{account_id}/tokens/{token_id}
    adminSavePlan: PUT /api/v3/admin/plans/{code}
    adminSetAccountPassword: PUT /api/v3/admin/accounts/{account_id}/password
    adminUpdateAccount: PATCH /api/v3/admin/accounts/{account_id}
    adminUpdateCluster: PATCH /api/v3/admin/clusters/{cluster_id}
    changePassword: PUT /api/v3/users/me/password
    changePlan: PUT /api/v3/plans/change
    createPin: POST /api/v3/files/pin/{cid}
    createPinBatch: POST /api/v3/files/pin-batch
    createToken: POST /api/v3/tokens/generate
    createWebhook: POST /api/v3/webhooks
    deleteWebhook: DELETE /api/v3/webhooks/{id}
    disableTwoFactor: POST /api/v3/auth/2fa/disable
    enableTwoFactor: POST /api/v3/auth/2fa/enable
    getAccount: GET /api/v3/users/me
    getDocsFile: GET /api/v3/docs/{asset}
    getDocsPage: GET /api/v3/docs
    getGateway: GET /ipfs
    getHealth: GET /api/v3/health
    getMetrics: GET /metrics
    getMyPlan: GET /api/v3/plans/my-plan
    getOpenApiJson: GET /api/v3/docs/openapi.json
    getOpenApiYaml: GET /api/v3/docs/openapi.yaml
    getPinAllocations: GET /api/v3/allocations/{cid}
    getPinStatus: GET /api/v3/status/{cid}
    getPinStatusAllocations: GET /api/v3/status/allocations/{cid}
    getPreferences: GET /api/v3/users/me/preferences
    getRoot: GET /
    getRootHealth: GET /health
    getService: GET /api/v3
    getTwoFactorStatus: GET /api/v3/auth/2fa/status
    getUserPlan: GET /api/v3/users/me/plans
    getWebhook: GET /api/v3/webhooks/{id}
    listAuditEvents: GET /api/v3/users/me/logs
    listClusters: GET /api/v3/users/me/clusters
    listCountries: GET /api/v3/locales/countries
    listDirectoryEntries: GET /api/v3/users/me/uploads/dag/{cid}
    listLanguages: GET /api/v3/locales/languages
    listPeers: GET /api/v3/peers
    listPins: GET /api/v3/users/me/uploads
    listPlans: GET /api/v3/plans
    listReferrals: GET /api/v3/users/me/referrals
    listTokens: GET /api/v3/tokens/list
    listWebhookDeliveries: GET /api/v3/webhooks/{id}/deliveries
    listWebhooks: GET /api/v3/webhooks
    logIn: POST /api/v3/auth/login
    logOut: POST /api/v3/auth/logout
    removePin: DELETE /api/v3/files/remove/{cid}
    removePinBatch: DELETE /api/v3/files/pin-batch
    removeUpload: DELETE /api/v3/users/me/uploads/{cid}
    renamePin: PUT /api/v3/files/rename/{upload_id}
    revokeToken: DELETE /api/v3/tokens/revoke/{name}
    revokeTokenByName: POST /api/v3/tokens/revoke
    rotateWebhookSecret: POST /api/v3/webhooks/{id}/rotate-secret
    setUpTwoFactor: POST /api/v3/auth/2fa/setup
    signUp: POST /api/v3/auth/signup
    streamPinStatus: GET /api/v3/status/{cid}/events
    testWebhook: POST /api/v3/webhooks/{id}/test
    updateAccount: PUT /api/v3/users/me
    updatePreferences: PUT /api/v3/users/me/preferences
    updateWebhook: PUT /api/v3/webhooks/{id}
    uploadDirectory: POST /api/v3/files/directory-dag
    uploadFile: POST /api/v3/files
    uploadServerDirectory: POST /api/v3/files/directory
    verifyTwoFactorLogin: POST /api/v3/auth/2fa/verify-login
    ");
}

/// The page fills its forms with `example` and `default`; what it fills in must be what a client would send.
#[tokio::test]
async fn the_page_fills_in_no_optional_parameter() {
    let api = Api::start().await;
    let document = Document::of(&api).await;
    for operation in document.operations() {
        for parameter in operation.says["parameters"].as_array().into_iter().flatten() {
            let fills = ["/example", "/examples", "/schema/example", "/schema/default"];
            let is_filled = fills.iter().any(|pointer| parameter.pointer(pointer).is_some());
            let is_required = parameter["required"] == true;
            assert_eq!(is_filled, is_required, "{}: {}", operation.name(), parameter["name"]);
        }
    }
}

/// What an operation's description lacks.
fn missing(document: &Document, operation: &Operation<'_>) -> Vec<String> {
    let says = operation.says;
    let mut lacks = Vec::new();
    if says["summary"].as_str().is_none_or(str::is_empty) {
        lacks.push("summary".to_owned());
    }
    let tag = &says["tags"][0];
    if !document.says()["tags"].as_array().into_iter().flatten().any(|known| known["name"] == *tag) {
        lacks.push(format!("known tag ({tag})"));
    }
    if !says["security"].is_array() {
        lacks.push("security".to_owned());
    }
    for parameter in says["parameters"].as_array().into_iter().flatten() {
        let is_told = parameter["description"].as_str().is_some_and(|text| !text.is_empty());
        if !is_told {
            lacks.push(format!("description of the parameter {}", parameter["name"]));
        }
        let has_example = !parameter["example"].is_null() || !parameter["schema"]["example"].is_null();
        if parameter["in"] == "path" && !has_example {
            lacks.push(format!("example of the parameter {}", parameter["name"]));
        }
    }
    if says["requestBody"].is_object() && !has_examples(document, &says["requestBody"]["content"]) {
        lacks.push("example of the body".to_owned());
    }
    let responses = says["responses"].as_object().expect("it has responses");
    for (status, response) in responses {
        if response["description"].as_str().is_none_or(str::is_empty) {
            lacks.push(format!("description of {status}"));
        }
        if !response["content"].is_null() && !has_examples(document, &response["content"]) {
            lacks.push(format!("example of {status}"));
        }
    }
    if !responses.keys().any(|status| status.starts_with('2') || status.starts_with('3')) {
        lacks.push("good answer".to_owned());
    }
    for always in ["429", "500"] {
        if !responses.contains_key(always) {
            lacks.push(format!("{always}: name a group of refusals"));
        }
    }
    lacks
}

fn has_examples(document: &Document, content: &Value) -> bool {
    let mut kinds = content.as_object().expect("contents by type").values();
    kinds.all(|kind| {
        let schema = document.resolve(&kind["schema"]);
        !kind["example"].is_null() || !kind["examples"].is_null() || !schema["example"].is_null()
    })
}

#[tokio::test]
async fn every_described_route_is_served_and_takes_no_other_method() {
    let api = Api::start_with(unlimited_rates()).await;
    let document = Document::of(&api).await;
    for operation in document.operations() {
        let answer = api.request(&operation.method, &operation.example_path()).await;
        assert!(answer.status() != 405, "{}", operation.name());
        let is_unknown = answer.status() == 404 && answer.message().contains("No such path");
        assert!(!is_unknown, "{}", operation.name());
        let answer = api.request("TRACE", &operation.example_path()).await;
        assert_eq!(answer.status(), 405, "{}", operation.name());
    }
}

#[tokio::test]
async fn every_reference_leads_somewhere() {
    let api = Api::start().await;
    let document = Document::of(&api).await;
    let text = document.says().to_string();
    let references: Vec<_> =
        text.split("\"$ref\":\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(references.len() > 50, "{}", references.len());
    for reference in references {
        let pointer = reference.trim_start_matches('#');
        assert!(document.says().pointer(pointer).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn the_document_comes_as_json_and_as_yaml() {
    let api = Api::start().await;
    let json = api.get("/api/v3/docs/openapi.json").await;
    assert_eq!((json.status(), json.header("content-type")), (200, "application/json"));
    assert!(json.json()["openapi"].as_str().expect("a version").starts_with("3.1"));
    let yaml = api.get("/api/v3/docs/openapi.yaml").await;
    assert_eq!((yaml.status(), yaml.header("content-type")), (200, "application/yaml"));
    assert!(yaml.text().starts_with("openapi: 3.1"), "{}", &yaml.text()[..60]);
}

#[tokio::test]
async fn the_page_comes_out_of_the_server_alone() {
    let api = Api::start().await;
    let answer = api.get("/api/v3/docs").await;
    assert_eq!((answer.status(), answer.header("location")), (303, "/api/v3/docs/index.html"));
    let page = api.get("/api/v3/docs/index.html").await;
    assert_eq!((page.status(), page.header("content-type")), (200, "text/html"));
    let named: Vec<_> = page
        .text()
        .split(['"', '\''])
        .filter(|text| text.ends_with(".js") || text.ends_with(".css"))
        .collect();
    assert!(named.len() >= 3, "{named:?}");
    for file in named {
        assert!(!file.contains("//"), "the page loads {file} from elsewhere");
        let path = format!("/api/v3/docs/{}", file.trim_start_matches("./"));
        assert_eq!(api.get(&path).await.status(), 200, "{path}");
    }
    let start = api.get("/api/v3/docs/swagger-initializer.js").await;
    assert!(start.text().contains("/api/v3/docs/openapi.json"), "{}", start.text());
    assert_eq!(api.get("/api/v3/docs/nothing.js").await.status(), 404);
}
