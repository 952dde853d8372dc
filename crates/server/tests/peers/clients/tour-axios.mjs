// A tour of the API with axios: plain objects as forms, and the package form-data that it brings
// for Node.
//
// The environment has the server and the credentials: PINFOLD_SERVER, PINFOLD_API_KEY, EMAIL,
// PASSWORD. The working directory contains the files to upload. Each line of the output is an
// operation and its result; tours.rs reads them.
import { createReadStream, openAsBlob, readFileSync } from "node:fs";
import axios from "axios";
import FormData from "form-data";

const root = process.env.PINFOLD_SERVER;
const client = axios.create({ baseURL: `${root}/api/v3` });
const print = (line) => console.log(JSON.stringify(line));

// The credential of a request: none, a key or a session.
const anonymous = {};
const user = { "X-API-Key": process.env.PINFOLD_API_KEY };

async function call(operation, method, url, headers, data, more) {
  let response;
  try {
    response = await client.request({ method, url, headers, data, ...more });
    print({ operation, status: response.status, ok: true, answer: response.data });
  } catch (error) {
    if (!error.response) throw error;
    response = error.response;
    print({ operation, status: response.status, ok: false, answer: response.data });
  }
  return response.data;
}

async function events(operation, url, headers) {
  headers = { ...headers, Accept: "text/event-stream" };
  const response = await client.get(url, { headers, responseType: "stream" });
  const blocks = (await response.data.toArray()).join("").split("\n\n").map((event) => event.split("\n"));
  const field = (lines, name) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
  const answers = blocks.filter((lines) => field(lines, "data"));
  const last = JSON.parse(field(answers.at(-1), "data"));
  print({ operation, status: response.status, ok: true, answer: { events: answers.map((lines) => field(lines, "event")), last } });
}

// A form of the package form-data: each part with its options.
function form(...parts) {
  const form = new FormData();
  for (const part of parts) form.append(...part);
  return form;
}

print({ client: `axios ${axios.VERSION}` });

await call("service", "get", "", anonymous);
await call("bare base URL", "get", `${root}/`, anonymous);
await call("bare gateway URL", "get", `${root}/ipfs/`, anonymous);
await call("health", "get", "/health/", anonymous);
await call("peers", "get", "/peers/", anonymous);
await call("plans", "get", "/plans/", anonymous);
await call("languages", "get", "/locales/languages", anonymous);
await call("countries", "get", "/locales/countries", anonymous);
await call("old version", "get", `${root}/api/v1/files/`, anonymous);
await call("no credential", "get", "/users/me", anonymous);
await call("wrong key", "get", "/users/me", { "X-API-Key": "pnf_nonsense" });

const { EMAIL: email, PASSWORD: password } = process.env;
await call("wrong password", "post", "/auth/login", anonymous, { email, password: "a wrong password" });
const { token } = await call("login", "post", "/auth/login", anonymous, { email, password });
const session = { Authorization: `Bearer ${token}`, "X-Request-Source": "web" };
await call("me", "get", "/users/me", session);
await call("change me", "put", "/users/me", session, { name: "Ada Lovelace" });
await call("change preferences", "put", "/users/me/preferences", session, { theme: "dark", pageSize: 50 });
await call("preferences", "get", "/users/me/preferences", session);
await call("second factor", "get", "/auth/2fa/status", session);
await call("clusters", "get", "/users/me/clusters", user);
await call("my plan", "get", "/plans/my-plan", user);
await call("plans for me", "get", "/users/me/plans", user);
await call("payments", "post", "/payments/checkout", session, { planId: "premium" });
await call("referrals", "get", "/users/me/referrals", user);

const name = 'naïve "quoted" name.txt';
await call("upload", "post", "/files/", user, form(["cl", "cl0-global"], ["timelock", "2040-01-01T00:00:00Z"], ["file", createReadStream(name)]));
// A plain object, which axios converts to a form; the stream has the name of the file.
const multipart = { ...user, "Content-Type": "multipart/form-data" };
const late = await call("upload, fields last", "post", "/files", multipart, { file: createReadStream("late.txt"), cl: "cl0-global", customName: "straße & 🐟" });

const paths = ["index.html", "img/logo.svg", "docs/ü/index.html"];
const directory = (operation, data, headers = user) => call(operation, "post", "/files/directory-dag", headers, data);
const streams = (option) => paths.map((path) => ["files", createReadStream(`site/${path}`), { [option]: path }]);
const site = await directory("upload directory, files", form(["dirName", "site"], ...streams("filepath")));
// For a list, axios names files `files[]` by default, and `files[0]` with the option `indexes`.
const files = await Promise.all(paths.map(async (path) => new File([await openAsBlob(`site/${path}`)], path)));
const list = (options) => axios.toFormData({ files, dirName: "site" }, new globalThis.FormData(), options);
await directory("upload directory, files[]", list());
await directory("upload directory, files[i]", list({ indexes: true }));
// A Buffer has no filename.
const pairs = paths.map((path) => ({ path, content: readFileSync(`site/${path}`) }));
await directory("upload directory, pairs", { dirName: "site", files: pairs }, multipart);
// The option `filename` keeps only the last segment of a path.
await directory("upload directory, folders dropped", form(...streams("filename")));

const cid = (path) => site.files.find((file) => file.path === path).cid;
const logo = cid("img/logo.svg");
const index = cid("docs/ü/index.html");
await call("pin", "post", `/files/pin/${logo}`, user, { cl: "cl0-global", originalName: "logo.svg", customName: "Логотип" });
const again = await call("pin again, no body", "post", `/files/pin/${logo}`, user);
await call("pin again, empty body", "post", `/files/pin/${logo}`, user, {});
await call("pin, no CID", "post", "/files/pin/not-a-cid", user, {});
await call("pin, dry run", "post", `/files/pin/${index}`, user, {}, { params: { dryRun: true } });
const idempotent = { ...user, "Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324" };
await call("pin, idempotency key", "post", `/files/pin/${index}`, idempotent, { customName: "once" });
await call("pin, idempotency key again", "post", `/files/pin/${index}`, idempotent, { customName: "once" });
await call("upload folder of the server", "post", "/files/directory", user, { dirPath: `${process.cwd()}/site/img`, cl: "cl0-global" });

const uploads = (operation, params) => call(operation, "get", "/users/me/uploads", user, undefined, { params });
const page = await uploads("list", { page: 1, limit: 2 });
await uploads("list, next page", { limit: 2, cursor: page.nextCursor });
await uploads("list, filters", { search: "naïve", status: "pinned", hasExpiration: true, cl: "cl0-global", cid: "" });
await uploads("list, in a directory", { parentCid: site.cid });
await call("directory", "get", `/users/me/uploads/dag/${site.cid}`, user);
await call("rename", "put", `/files/rename/${again.uploadId}`, user, { newName: 'the "logo" of ours' });
await call("status", "get", `/status/${logo}`, user, undefined, { params: { cl: "cl0-global" } });
await events("status, as events", `/status/${logo}/events`, user);
await call("allocations", "get", `/allocations/${logo}`, user, undefined, { params: { cl: "cl0-global" } });
await call("allocations, by status", "get", `/status/allocations/${logo}`, user);

const batch = [{ cid: late.cid, customName: "first" }, { cid: index, customName: "second" }];
await call("pin batch", "post", "/files/pin-batch", user, { items: batch, cl: "cl0-global" });
await call("remove batch", "delete", "/files/pin-batch", user, { cids: batch.map((item) => item.cid) });

const keyName = "a name/with ü%";
const made = await call("generate key", "post", "/tokens/generate", session, { name: keyName, label: "laptop", scopes: ["files:read"], expiresInDays: 30 });
const key = { Authorization: `Bearer ${made.token}` };
await call("generate key, name taken", "post", "/tokens/generate", session, { name: keyName });
await call("list keys", "get", "/tokens/list", user);
await call("key as Bearer", "get", "/users/me/uploads", key, undefined, { params: { limit: 1 } });
await call("key without the scope", "post", `/files/pin/${logo}`, key);
await call("revoke key", "delete", `/tokens/revoke/${encodeURIComponent(keyName)}`, user);
await call("revoked key", "get", "/users/me/uploads", key);
await call("generate key, defaults", "post", "/tokens/generate", user, { name: "second" });
await call("revoke key, by body", "post", "/tokens/revoke", user, { name: "second" });

const hook = { url: "https://hooks.example.org/pins?from=pinfold", events: ["pin.pinned", "pin.failed"], active: false };
const { id } = await call("create webhook", "post", "/webhooks", session, hook);
await call("list webhooks", "get", "/webhooks", session);
await call("delete webhook", "delete", `/webhooks/${id}`, session);
await call("logs", "get", "/users/me/logs", user, undefined, { params: { limit: 100 } });

await call("remove", "delete", `/files/remove/${logo}`, user);
await call("remove again", "delete", `/files/remove/${logo}`, user);
await call("remove upload", "delete", `/users/me/uploads/${site.cid}`, user);
await call("change plan", "put", "/plans/change", session, { planId: "free" });
await call("change plan back", "put", "/plans/change", session, { planId: "premium" });
await call("logout", "post", "/auth/logout", session);
await call("session after logout", "get", "/users/me", session);
