"""A tour of the API with requests: the operations for which the published SDK, which uses it, has no method.

The environment has the server and the credentials: PINFOLD_SERVER, PINFOLD_API_KEY, EMAIL, PASSWORD. The working
directory contains the files to upload. Each line of the output is an operation and its result; tours.rs reads them.
"""

import json, os
from urllib.parse import quote

import requests

ROOT = os.environ["PINFOLD_SERVER"]
BASE = f"{ROOT}/api/v3"
EMAIL, PASSWORD = os.environ["EMAIL"], os.environ["PASSWORD"]
USER = {"X-API-Key": os.environ["PINFOLD_API_KEY"]}


def report(**line):
    print(json.dumps(line, ensure_ascii=False))


def call(operation, method, url, headers=None, **sent):
    url = url if url.startswith("http") else BASE + url
    response = requests.request(method, url, headers=headers, **sent)
    is_json = response.headers.get("Content-Type", "").startswith("application/json")
    answer = response.json() if is_json else None
    report(operation=operation, status=response.status_code, ok=response.ok, answer=answer)
    return answer


def read(name):
    with open(name, "rb") as file:
        return file.read()


report(client=f"requests {requests.__version__}")

call("service", "GET", "")
call("bare base URL", "GET", f"{ROOT}/")
call("bare gateway URL", "GET", f"{ROOT}/ipfs/")
call("health", "GET", "/health/")
call("peers", "GET", "/peers/")
call("plans", "GET", "/plans/")
call("languages", "GET", "/locales/languages")
call("countries", "GET", "/locales/countries")
call("old version", "GET", f"{ROOT}/api/v1/files/")
call("no credential", "GET", "/users/me")
call("wrong key", "GET", "/users/me", {"X-API-Key": "pnf_nonsense"})

call("wrong password", "POST", "/auth/login", json={"email": EMAIL, "password": "a wrong password"})
token = call("login", "POST", "/auth/login", json={"email": EMAIL, "password": PASSWORD})["token"]
session = {"Authorization": f"Bearer {token}", "X-Request-Source": "web"}
call("me", "GET", "/users/me", session)
call("change me", "PUT", "/users/me", session, json={"name": "Ada Lovelace"})
call("change preferences", "PUT", "/users/me/preferences", session, json={"theme": "dark", "pageSize": 50})
call("preferences", "GET", "/users/me/preferences", session)
call("second factor", "GET", "/auth/2fa/status", session)
call("clusters", "GET", "/users/me/clusters", USER)
call("my plan", "GET", "/plans/my-plan", USER)
call("plans for me", "GET", "/users/me/plans", USER)
call("payments", "POST", "/payments/checkout", session, json={"planId": "premium"})
call("referrals", "GET", "/users/me/referrals", USER)

# Fields come before files, in whatever order they are given, unless the fields are files without a
# name.
name = 'naïve "quoted" name.txt'
data = {"cl": "cl0-global", "timelock": "2040-01-01T00:00:00Z"}
call("upload", "POST", "/files/", USER, files={"file": open(name, "rb")}, data=data)
data = {"file": open("late.txt", "rb"), "cl": (None, "cl0-global"), "customName": (None, "straße & 🐟")}
late = call("upload, fields last", "POST", "/files", USER, files=data)

paths = ["index.html", "img/logo.svg", "docs/ü/index.html"]


def directory(operation, files, data={"dirName": "site"}):
    return call(f"upload directory, {operation}", "POST", "/files/directory-dag", USER, files=files, data=data)


site = directory("files", [("files", (path, read(f"site/{path}"))) for path in paths])
directory("files[]", [("files[]", (path, read(f"site/{path}"))) for path in paths])
directory("files[i]", {f"files[{i}]": (path, read(f"site/{path}")) for i, path in enumerate(paths)})
# All paths come first. Bytes without a name get that of their field.
contents = {f"files[{i}][content]": read(f"site/{path}") for i, path in enumerate(paths)}
directory("pairs", contents, {"dirName": "site"} | {f"files[{i}][path]": path for i, path in enumerate(paths)})
# An opened file has the last segment of its path as its name.
directory("folders dropped", [("files", open(f"site/{path}", "rb")) for path in paths])

cids = {file["path"]: file["cid"] for file in site["files"]}
logo, index = cids["img/logo.svg"], cids["docs/ü/index.html"]
call("pin", "POST", f"/files/pin/{logo}", USER, json={"cl": "cl0-global", "originalName": "logo.svg", "customName": "Логотип"})
again = call("pin again, no body", "POST", f"/files/pin/{logo}", USER)
call("pin again, empty body", "POST", f"/files/pin/{logo}", USER, json={})
call("pin, no CID", "POST", "/files/pin/not-a-cid", USER, json={})
call("pin, dry run", "POST", f"/files/pin/{index}", USER, json={}, params={"dryRun": "true"})
idempotent = USER | {"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
call("pin, idempotency key", "POST", f"/files/pin/{index}", idempotent, json={"customName": "once"})
call("pin, idempotency key again", "POST", f"/files/pin/{index}", idempotent, json={"customName": "once"})
call("upload folder of the server", "POST", "/files/directory", USER, json={"dirPath": f"{os.getcwd()}/site/img", "cl": "cl0-global"})


def uploads(operation, **query):
    return call(operation, "GET", "/users/me/uploads", USER, params=query)


page = uploads("list", page=1, limit=2)
uploads("list, next page", limit=2, cursor=page["nextCursor"])
# Python writes True as "True" in a query.
uploads("list, filters", search="naïve", status="pinned", hasExpiration=True, cl="cl0-global", cid="")
uploads("list, in a directory", parentCid=site["cid"])
call("directory", "GET", f"/users/me/uploads/dag/{site['cid']}", USER)
call("rename", "PUT", f"/files/rename/{again['uploadId']}", USER, json={"newName": 'the "logo" of ours'})
call("status", "GET", f"/status/{logo}", USER, params={"cl": "cl0-global"})

headers = USER | {"Accept": "text/event-stream"}
with requests.get(f"{BASE}/status/{logo}/events", headers=headers, stream=True) as response:
    response.encoding = "utf-8"
    lines = list(response.iter_lines(decode_unicode=True))
events = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
last = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")][-1]
report(operation="status, as events", status=response.status_code, ok=response.ok, answer={"events": events, "last": json.loads(last)})

call("allocations", "GET", f"/allocations/{logo}", USER, params={"cl": "cl0-global"})
call("allocations, by status", "GET", f"/status/allocations/{logo}", USER)

batch = [{"cid": late["cid"], "customName": "first"}, {"cid": index, "customName": "second"}]
call("pin batch", "POST", "/files/pin-batch", USER, json={"items": batch, "cl": "cl0-global"})
call("remove batch", "DELETE", "/files/pin-batch", USER, json={"cids": [item["cid"] for item in batch]})

name = "a name/with ü%"
made = call("generate key", "POST", "/tokens/generate", session, json={"name": name, "label": "laptop", "scopes": ["files:read"], "expiresInDays": 30})
key = {"Authorization": f"Bearer {made['token']}"}
call("generate key, name taken", "POST", "/tokens/generate", session, json={"name": name})
call("list keys", "GET", "/tokens/list", USER)
call("key as Bearer", "GET", "/users/me/uploads", key, params={"limit": 1})
call("key without the scope", "POST", f"/files/pin/{logo}", key)
call("revoke key", "DELETE", f"/tokens/revoke/{quote(name, safe='')}", USER)
call("revoked key", "GET", "/users/me/uploads", key)
call("generate key, defaults", "POST", "/tokens/generate", USER, json={"name": "second"})
call("revoke key, by body", "POST", "/tokens/revoke", USER, json={"name": "second"})

hook = {"url": "https://hooks.example.org/pins?from=pinfold", "events": ["pin.pinned", "pin.failed"], "active": False}
made = call("create webhook", "POST", "/webhooks", session, json=hook)
call("list webhooks", "GET", "/webhooks", session)
call("delete webhook", "DELETE", f"/webhooks/{made['id']}", session)
call("logs", "GET", "/users/me/logs", USER, params={"limit": 100})

call("remove", "DELETE", f"/files/remove/{logo}", USER)
call("remove again", "DELETE", f"/files/remove/{logo}", USER)
call("remove upload", "DELETE", f"/users/me/uploads/{site['cid']}", USER)
call("change plan", "PUT", "/plans/change", session, json={"planId": "free"})
call("change plan back", "PUT", "/plans/change", session, json={"planId": "premium"})
call("logout", "POST", "/auth/logout", session)
call("session after logout", "GET", "/users/me", session)
