"""Calls every method of the published Python SDK on a server, and prints each method that worked, with the status of its
response.

The SDK is unchanged except for its base URL. The environment has the server and the credentials: PINFOLD_SERVER,
PINFOLD_API_KEY (every scope, a plan with timelocks), EMAIL and PASSWORD of the same account; and ROOT, a folder from
which the server may import directories.
"""

import base64, hashlib, hmac, io, os, struct, tempfile, time, uuid

from pinarkive_client import PinarkiveClient, PinarkiveError

BASE = os.environ["PINFOLD_SERVER"] + "/api/v3"
EMAIL, PASSWORD = os.environ["EMAIL"], os.environ["PASSWORD"]
SOON = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 86_400))
# The known hash of "hello".
HELLO = "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq"

called = {}


class Recorded(PinarkiveClient):
    """The client of the SDK, which records the returned values and the first status."""

    def __init__(self, **how):
        super().__init__(**how)
        self.session.hooks["response"] = lambda response, **_: setattr(self, "_status", response.status_code)

    def __getattribute__(self, name):
        value = super().__getattribute__(name)
        if name.startswith("_") or not callable(value) or name == "session":
            return value

        def call(*args, **kwargs):
            result = value(*args, **kwargs)
            called.setdefault(name, self._status)
            return result

        return call


def refused(status, call, code=None):
    try:
        call()
    except PinarkiveError as error:
        assert error.status_code == status, (status, error.status_code, error.body)
        assert error.error and error.message, error.body
        if code:
            assert error.code == code, error.body
        return error
    raise AssertionError(f"the request was not refused with {status}")


def totp(secret, step=0):
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    digest = hmac.new(key, struct.pack(">Q", int(time.time()) // 30 + step), hashlib.sha1).digest()
    at = digest[-1] & 15
    return f"{(struct.unpack('>I', digest[at:at + 4])[0] & 0x7FFFFFFF) % 1_000_000:06}"


def public():
    client = Recorded(base_url=BASE)
    assert client.health()["status"] == "ok"
    plans = client.get_plans()
    plans = plans["plans"] if isinstance(plans, dict) else plans
    assert {"free", "premium"} <= {plan["code"] for plan in plans}, plans
    assert client.get_peers()["peers"][0]["self"]
    refused(401, client.get_me, "UNAUTHORIZED")
    refused(401, lambda: Recorded(api_key="nonsense", base_url=BASE).get_me(), "INVALID_API_KEY")


def files(client):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "naïve name.txt")
        with open(path, "w") as file:
            file.write("hello")
        answer = client.upload_file(path, cluster_id="cl0-global", timelock=SOON)
    assert answer["cid"] == HELLO and answer["status"] == "pinned" and answer["clusterId"] == "cl0-global", answer
    assert answer["name"] == "naïve name.txt" and answer["size"] == 5 and answer["expiresAt"].endswith("Z"), answer

    tree = {"index.html": "<h1>hello</h1>", "img/logo.svg": b"<svg/>", "a/b/ü.txt": io.BytesIO(b"deep")}
    site = client.upload_directory_dag(tree, dir_name="site")
    assert site["type"] == "directory" and site["filename"] == "site" and site["total_files"] == 3, site
    assert {file["path"] for file in site["files"]} == set(tree), site
    refused(400, lambda: client.upload_directory_dag({"a": "1", "a/b": "2"}))

    folder = os.path.join(os.environ["ROOT"], "folder")
    os.makedirs(os.path.join(folder, "sub"))
    with open(os.path.join(folder, "sub", "file"), "w") as file:
        file.write("hello")
    taken = client.upload_directory(folder, cluster_id="cl0-global", timelock=SOON)
    assert taken["cid"] and taken["expiresAt"], taken
    refused(403, lambda: client.upload_directory("/etc"))

    pinned = client.pin_cid(HELLO, original_name="o", custom_name="mine", cluster_id="cl0-global")
    assert pinned["cid"] == HELLO and pinned["customName"] == "mine" and pinned["expiresAt"], pinned
    assert client.pin_cid(site["cid"])["status"] == "pinned"
    assert refused(400, lambda: client.pin_cid("not-a-cid")).message == "Invalid CID"
    refused(400, lambda: client.pin_cid(HELLO, cluster_id="cl9-nowhere"))
    refused(400, lambda: client.pin_cid(HELLO, timelock="yesterday"))

    status = client.get_status(HELLO, "cl0-global")
    assert status["status"] == "pinned" and status["cid"] == HELLO and status["progress"]["bytes"] == 5, status
    where = client.get_allocations(HELLO, "cl0-global")
    assert where["allocations"] and where["replication_factor_min"] >= 1 and where["peer_map"], where
    assert client.get_status(HELLO) and client.get_allocations(HELLO)

    everything = client.list_uploads(page=1, limit=2)
    assert len(everything["uploads"]) == 2 and everything["pagination"]["total"] == 3, everything
    assert len(client.list_uploads(page=2, limit=2)["uploads"]) == 1

    assert client.remove_file(HELLO) is None
    refused(404, lambda: client.remove_file(HELLO))
    refused(404, lambda: client.get_status(HELLO))


def account(client):
    me = client.get_me()
    assert me["email"] == EMAIL and me["plan"] == "Premium" and me["usedStorage"] > 0, me
    assert isinstance(me["clusters"], list) and me["storageLimit"] and me["twoFactorEnabled"] is False, me


def tokens(client):
    name = "a name/with ü%"
    made = client.generate_token(name, label="laptop", expires_in_days=30, scopes=["files:read"])
    assert made["token"] and made["name"] == name and made["scopes"] == ["files:read"] and made["expiresAt"], made
    refused(409, lambda: client.generate_token(name))
    own = Recorded(api_key=made["token"], base_url=BASE)
    assert own.list_uploads()["uploads"]
    assert refused(403, lambda: own.pin_cid(HELLO), "missing_scope").required == "files:write"
    # An API key sent as a Bearer token.
    assert Recorded(token=made["token"], base_url=BASE, request_source="web").list_uploads()
    listed = client.list_tokens()
    listed = listed["tokens"] if isinstance(listed, dict) else listed
    assert name in [token["name"] for token in listed] and made["token"] not in str(listed), listed
    # The SDK puts the name into the path without encoding it.
    plain = f"plain-{uuid.uuid4()}"
    client.generate_token(plain)
    assert client.revoke_token(plain) is None
    refused(404, lambda: client.revoke_token(plain))
    client.revoke_token("a name/with ü%25")
    refused(401, own.list_uploads, "INVALID_API_KEY")


def login():
    anyone = Recorded(base_url=BASE)
    refused(401, lambda: anyone.login(EMAIL, "wrong password"))
    entered = anyone.login(EMAIL, PASSWORD)
    session = Recorded(token=entered["token"], base_url=BASE, request_source="web")
    assert session.get_me()["email"] == entered["user"]["email"]

    secret = session._request("POST", "/auth/2fa/setup").json()["secret"]
    session._request("POST", "/auth/2fa/enable", json={"code": totp(secret, -1)})
    half = anyone.login(EMAIL, PASSWORD)
    assert half["requires2FA"] is True and "token" not in half, half
    refused(400, lambda: anyone.verify_2fa_login(half["temporaryToken"], "000000"), "2fa_invalid")
    whole = anyone.verify_2fa_login(half["temporaryToken"], totp(secret))
    session = Recorded(token=whole["token"], base_url=BASE)
    refused(400, lambda: session.generate_token("second"), "2fa_required")
    code = totp(secret, 1)
    made = session.generate_token("second", totp_code=code)
    assert made["token"]
    refused(400, lambda: session.revoke_token("second"), "2fa_required")
    refused(400, lambda: session.revoke_token("second", totp_code=code), "2fa_invalid")
    session._request("POST", "/auth/logout")
    refused(401, session.get_me, "INVALID_API_KEY")


public()
with_key = Recorded(api_key=os.environ["PINFOLD_API_KEY"], base_url=BASE)
files(with_key)
account(with_key)
tokens(with_key)
login()

methods = {name for name, value in vars(PinarkiveClient).items() if callable(value) and not name.startswith("_")}
assert methods == set(called), methods ^ set(called)
print("\n".join(f"`{name}` {status}" for name, status in sorted(called.items())))
