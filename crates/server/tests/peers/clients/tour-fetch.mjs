// A tour of the API with fetch, FormData, File and Blob, as browsers and Node have them.
//
// The environment has the server and the credentials: PINFOLD_SERVER, PINFOLD_API_KEY, EMAIL,
// PASSWORD. The working directory contains the files to upload. Each line of the output is an
// operation and its result; tours.rs reads them.
import { openAsBlob } from "node:fs";

const root = process.env.PINFOLD_SERVER;
const base = `${root}/api/v3`;
const print = (line) => console.log(JSON.stringify(line));
const json = (body) => ({ headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

// The credential of a request: none, a key or a session.
const anonymous = {};
let user = { "X-API-Key": process.env.PINFOLD_API_KEY };

async function call(operation, method, path, headers, { headers: more, body } = {}) {
  const url = path.startsWith("http") ? path : base + path;
  const response = await fetch(url, { method, headers: { ...headers, ...more }, body });
  const isJson = response.headers.get("content-type")?.includes("application/json");
  const answer = isJson ? await response.json() : await response.text();
  print({ operation, status: response.status, ok: response.ok, answer });
  return answer;
}

async function events(operation, path, headers) {
  const response = await fetch(base + path, { headers: { ...headers, Accept: "text/event-stream" } });
  const names = [];
  let text = "";
  let last = null;
  for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const lines of blocks.map((event) => event.split("\n"))) {
      const field = (name) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      if (!field("data")) continue;
      names.push(field("event"));
      last = JSON.parse(field("data"));
    }
  }
  print({ operation, status: response.status, ok: response.ok, answer: { events: names, last } });
}

function form(...parts) {
  const form = new FormData();
  for (const part of parts) form.append(...part);
  return { body: form };
}

print({ client: `Node ${process.versions.node}` });

await call("service", "GET", "", anonymous);
await call("bare base URL", "GET", `${root}/`, anonymous);
await call("bare gateway URL", "GET", `${root}/ipfs/`, anonymous);
await call("health", "GET", "/health/", anonymous);
await call("peers", "GET", "/peers/", anonymous);
await call("plans", "GET", "/plans/", anonymous);
await call("languages", "GET", "/locales/languages", anonymous);
await call("countries", "GET", "/locales/countries", anonymous);
await call("old version", "GET", `${root}/api/v1/files/`, anonymous);
await call("no credential", "GET", "/users/me", anonymous);
await call("wrong key", "GET", "/users/me", { "X-API-Key": "pnf_nonsense" });

const { EMAIL: email, PASSWORD: password } = process.env;
await call("wrong password", "POST", "/auth/login", anonymous, json({ email, password: "a wrong password" }));
const { token } = await call("login", "POST", "/auth/login", anonymous, json({ email, password }));
const session = { Authorization: `Bearer ${token}`, "X-Request-Source": "web" };
await call("me", "GET", "/users/me", session);
await call("change me", "PUT", "/users/me", session, json({ name: "Ada Lovelace" }));
await call("change preferences", "PUT", "/users/me/preferences", session, json({ theme: "dark", pageSize: 50 }));
await call("preferences", "GET", "/users/me/preferences", session);
await call("second factor", "GET", "/auth/2fa/status", session);
await call("clusters", "GET", "/users/me/clusters", user);
await call("my plan", "GET", "/plans/my-plan", user);
await call("plans for me", "GET", "/users/me/plans", user);
await call("payments", "POST", "/payments/checkout", session, json({ planId: "premium" }));
await call("referrals", "GET", "/users/me/referrals", user);

const name = 'naïve "quoted" name.txt';
const file = await openAsBlob(name);
await call("upload", "POST", "/files/", user, form(["cl", "cl0-global"], ["timelock", "2040-01-01T00:00:00Z"], ["file", file, name]));
const lateFile = new File([await openAsBlob("late.txt")], "late.txt");
const late = await call("upload, fields last", "POST", "/files", user, form(["file", lateFile], ["cl", "cl0-global"], ["customName", "straße & 🐟"]));

const paths = ["index.html", "img/logo.svg", "docs/ü/index.html"];
const files = await Promise.all(paths.map((path) => openAsBlob(`site/${path}`)));
const directory = (operation, ...parts) => call(operation, "POST", "/files/directory-dag", user, form(...parts));
const site = await directory("upload directory, files", ["dirName", "site"], ...files.map((file, i) => ["files", file, paths[i]]));
await directory("upload directory, files[]", ...files.map((file, i) => ["files[]", file, paths[i]]), ["dirName", "site"]);
await directory("upload directory, files[i]", ...files.map((file, i) => [`files[${i}]`, file, paths[i]]), ["dirName", "site"]);
// A Blob always has the filename "blob", also if the part is a path.
const pairs = files.flatMap((file, i) => [[`files[${i}][path]`, new Blob([paths[i]])], [`files[${i}][content]`, file]]);
await directory("upload directory, pairs", ["dirName", "site"], ...pairs);
// As from <input webkitdirectory>: the name of a File has no folder.
await directory("upload directory, folders dropped", ...files.map((file, i) => ["files", file, paths[i].split("/").pop()]));

const cid = (path) => site.files.find((file) => file.path === path).cid;
const logo = cid("img/logo.svg");
const index = cid("docs/ü/index.html");
await call("pin", "POST", `/files/pin/${logo}`, user, json({ cl: "cl0-global", originalName: "logo.svg", customName: "Логотип" }));
const again = await call("pin again, no body", "POST", `/files/pin/${logo}`, user);
await call("pin again, empty body", "POST", `/files/pin/${logo}`, user, json({}));
await call("pin, no CID", "POST", "/files/pin/not-a-cid", user, json({}));
await call("pin, dry run", "POST", `/files/pin/${index}?dryRun=true`, user, json({}));
const once = json({ customName: "once" });
once.headers["Idempotency-Key"] = "8e03978e-40d5-43dd-bc93-6894a57f9324";
await call("pin, idempotency key", "POST", `/files/pin/${index}`, user, once);
await call("pin, idempotency key again", "POST", `/files/pin/${index}`, user, once);
await call("upload folder of the server", "POST", "/files/directory", user, json({ dirPath: `${process.cwd()}/site/img`, cl: "cl0-global" }));

const uploads = (operation, query) => call(operation, "GET", `/users/me/uploads?${new URLSearchParams(query)}`, user);
const page = await uploads("list", { page: 1, limit: 2 });
await uploads("list, next page", { limit: 2, cursor: page.nextCursor });
await uploads("list, filters", { search: "naïve", status: "pinned", hasExpiration: true, cl: "cl0-global", cid: "" });
await uploads("list, in a directory", { parentCid: site.cid });
await call("directory", "GET", `/users/me/uploads/dag/${site.cid}`, user);
await call("rename", "PUT", `/files/rename/${again.uploadId}`, user, json({ newName: 'the "logo" of ours' }));
await call("status", "GET", `/status/${logo}?cl=cl0-global`, user);
await events("status, as events", `/status/${logo}/events`, user);
await call("allocations", "GET", `/allocations/${logo}?cl=cl0-global`, user);
await call("allocations, by status", "GET", `/status/allocations/${logo}`, user);

const batch = [{ cid: late.cid, customName: "first" }, { cid: index, customName: "second" }];
await call("pin batch", "POST", "/files/pin-batch", user, json({ items: batch, cl: "cl0-global" }));
await call("remove batch", "DELETE", "/files/pin-batch", user, json({ cids: batch.map((item) => item.cid) }));

const keyName = "a name/with ü%";
const made = await call("generate key", "POST", "/tokens/generate", session, json({ name: keyName, label: "laptop", scopes: ["files:read"], expiresInDays: 30 }));
const key = { Authorization: `Bearer ${made.token}` };
await call("generate key, name taken", "POST", "/tokens/generate", session, json({ name: keyName }));
await call("list keys", "GET", "/tokens/list", user);
await call("key as Bearer", "GET", "/users/me/uploads?limit=1", key);
await call("key without the scope", "POST", `/files/pin/${logo}`, key);
await call("revoke key", "DELETE", `/tokens/revoke/${encodeURIComponent(keyName)}`, user);
await call("revoked key", "GET", "/users/me/uploads", key);
await call("generate key, defaults", "POST", "/tokens/generate", user, json({ name: "second" }));
await call("revoke key, by body", "POST", "/tokens/revoke", user, json({ name: "second" }));

const hook = { url: "https://hooks.example.org/pins?from=pinfold", events: ["pin.pinned", "pin.failed"], active: false };
const { id } = await call("create webhook", "POST", "/webhooks", session, json(hook));
await call("list webhooks", "GET", "/webhooks", session);
await call("delete webhook", "DELETE", `/webhooks/${id}`, session);
await call("logs", "GET", "/users/me/logs?limit=100", user);

await call("remove", "DELETE", `/files/remove/${logo}`, user);
await call("remove again", "DELETE", `/files/remove/${logo}`, user);
await call("remove upload", "DELETE", `/users/me/uploads/${site.cid}`, user);
await call("change plan", "PUT", "/plans/change", session, json({ planId: "free" }));
await call("change plan back", "PUT", "/plans/change", session, json({ planId: "premium" }));
await call("logout", "POST", "/auth/logout", session);
await call("session after logout", "GET", "/users/me", session);
