// A tour of the API with Go's net/http and mime/multipart.
//
// The environment has the server and the credentials: PINFOLD_SERVER, PINFOLD_API_KEY, EMAIL,
// PASSWORD. The working directory contains the files to upload. Each line of the output is an
// operation and its result; tours.rs reads them.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"path"
	"runtime"
	"strings"
)

var (
	root = os.Getenv("PINFOLD_SERVER")
	base = root + "/api/v3"
	out  = json.NewEncoder(os.Stdout)

	// The credential of a request: none, a key or a session.
	anonymous = map[string]string{}
	user      = map[string]string{"X-API-Key": os.Getenv("PINFOLD_API_KEY")}
)

type object = map[string]any

// A body and its content type.
type body struct {
	content io.Reader
	kind    string
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func asJSON(value any) body {
	return body{bytes.NewReader(must(json.Marshal(value))), "application/json"}
}

func send(method, target string, headers map[string]string, sent body) (*http.Response, []byte) {
	if !strings.HasPrefix(target, "http") {
		target = base + target
	}
	request := must(http.NewRequest(method, target, sent.content))
	if sent.kind != "" {
		request.Header.Set("Content-Type", sent.kind)
	}
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	response := must(http.DefaultClient.Do(request))
	defer response.Body.Close()
	return response, must(io.ReadAll(response.Body))
}

func call(operation, method, target string, headers map[string]string, sent body) object {
	response, content := send(method, target, headers, sent)
	var answer any
	if strings.HasPrefix(response.Header.Get("Content-Type"), "application/json") {
		if err := json.Unmarshal(content, &answer); err != nil {
			log.Fatalf("%s: %v in %s", operation, err, content)
		}
	}
	out.Encode(object{"operation": operation, "status": response.StatusCode, "ok": response.StatusCode < 400, "answer": answer})
	found, _ := answer.(object)
	return found
}

func events(operation, target string, headers map[string]string) {
	response, content := send("GET", target, headers, body{})
	names, last := []string{}, json.RawMessage("null")
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSuffix(line, "\n")
		if name, found := strings.CutPrefix(line, "event: "); found {
			names = append(names, name)
		}
		if data, found := strings.CutPrefix(line, "data: "); found {
			last = json.RawMessage(data)
		}
	}
	out.Encode(object{"operation": operation, "status": response.StatusCode, "ok": response.StatusCode < 400, "answer": object{"events": names, "last": last}})
}

// A part of a form: a field, or a file if it has a filename.
type part struct{ name, filename, content string }

func form(parts ...part) body {
	var content bytes.Buffer
	writer := multipart.NewWriter(&content)
	for _, part := range parts {
		if part.filename == "" {
			must(0, writer.WriteField(part.name, part.content))
			continue
		}
		file := must(writer.CreateFormFile(part.name, part.filename))
		must(io.WriteString(file, part.content))
	}
	must(0, writer.Close())
	return body{&content, writer.FormDataContentType()}
}

func read(name string) string { return string(must(os.ReadFile(name))) }

func text(value any) string { return fmt.Sprint(value) }

func main() {
	out.SetEscapeHTML(false)
	out.Encode(object{"client": "Go " + strings.TrimPrefix(runtime.Version(), "go")})
	public()
	session := account()
	site := upload()
	pins(site)
	keys(session, site["img/logo.svg"])
	rest(session, site)
}

func public() {
	call("service", "GET", "", anonymous, body{})
	call("bare base URL", "GET", root+"/", anonymous, body{})
	call("bare gateway URL", "GET", root+"/ipfs/", anonymous, body{})
	call("health", "GET", "/health/", anonymous, body{})
	call("peers", "GET", "/peers/", anonymous, body{})
	call("plans", "GET", "/plans/", anonymous, body{})
	call("languages", "GET", "/locales/languages", anonymous, body{})
	call("countries", "GET", "/locales/countries", anonymous, body{})
	call("old version", "GET", root+"/api/v1/files/", anonymous, body{})
	call("no credential", "GET", "/users/me", anonymous, body{})
	call("wrong key", "GET", "/users/me", map[string]string{"X-API-Key": "pnf_nonsense"}, body{})
}

func account() map[string]string {
	login := object{"email": os.Getenv("EMAIL"), "password": "a wrong password"}
	call("wrong password", "POST", "/auth/login", anonymous, asJSON(login))
	login["password"] = os.Getenv("PASSWORD")
	entered := call("login", "POST", "/auth/login", anonymous, asJSON(login))
	session := map[string]string{"Authorization": "Bearer " + text(entered["token"]), "X-Request-Source": "web"}
	call("me", "GET", "/users/me", session, body{})
	call("change me", "PUT", "/users/me", session, asJSON(object{"name": "Ada Lovelace"}))
	call("change preferences", "PUT", "/users/me/preferences", session, asJSON(object{"theme": "dark", "pageSize": 50}))
	call("preferences", "GET", "/users/me/preferences", session, body{})
	call("second factor", "GET", "/auth/2fa/status", session, body{})
	call("clusters", "GET", "/users/me/clusters", user, body{})
	call("my plan", "GET", "/plans/my-plan", user, body{})
	call("plans for me", "GET", "/users/me/plans", user, body{})
	call("payments", "POST", "/payments/checkout", session, asJSON(object{"planId": "premium"}))
	call("referrals", "GET", "/users/me/referrals", user, body{})
	return session
}

// Uploads; returns the CIDs of the entries of the directory, its own under "", and that of a
// separate file.
func upload() map[string]string {
	name := `naïve "quoted" name.txt`
	call("upload", "POST", "/files/", user, form(part{"cl", "", "cl0-global"}, part{"timelock", "", "2040-01-01T00:00:00Z"}, part{"file", name, read(name)}))
	late := call("upload, fields last", "POST", "/files", user, form(part{"file", "late.txt", read("late.txt")}, part{"cl", "", "cl0-global"}, part{"customName", "", "straße & 🐟"}))

	paths := []string{"index.html", "img/logo.svg", "docs/ü/index.html"}
	dirName := part{"dirName", "", "site"}
	repeated, listed, numbered, pairs, dropped := []part{dirName}, []part{}, []part{}, []part{dirName}, []part{}
	for i, name := range paths {
		content := read("site/" + name)
		repeated = append(repeated, part{"files", name, content})
		listed = append(listed, part{"files[]", name, content})
		numbered = append(numbered, part{fmt.Sprintf("files[%d]", i), name, content})
		pairs = append(pairs, part{fmt.Sprintf("files[%d][path]", i), "", name}, part{fmt.Sprintf("files[%d][content]", i), path.Base(name), content})
		// As in most examples of CreateFormFile.
		dropped = append(dropped, part{"files", path.Base(name), content})
	}
	directory := func(operation string, parts []part) object {
		return call("upload directory, "+operation, "POST", "/files/directory-dag", user, form(parts...))
	}
	answer := directory("files", repeated)
	directory("files[]", append(listed, dirName))
	directory("files[i]", append(numbered, dirName))
	directory("pairs", pairs)
	directory("folders dropped", dropped)

	site := map[string]string{"": text(answer["cid"]), "late.txt": text(late["cid"])}
	files, _ := answer["files"].([]any)
	for _, file := range files {
		file, _ := file.(object)
		site[text(file["path"])] = text(file["cid"])
	}
	return site
}

func pins(site map[string]string) {
	logo, index := site["img/logo.svg"], site["docs/ü/index.html"]
	call("pin", "POST", "/files/pin/"+logo, user, asJSON(object{"cl": "cl0-global", "originalName": "logo.svg", "customName": "Логотип"}))
	again := call("pin again, no body", "POST", "/files/pin/"+logo, user, body{})
	// A nil map.
	call("pin again, empty body", "POST", "/files/pin/"+logo, user, asJSON(object(nil)))
	call("pin, no CID", "POST", "/files/pin/not-a-cid", user, asJSON(object{}))
	call("pin, dry run", "POST", "/files/pin/"+index+"?dryRun=true", user, asJSON(object{}))
	idempotent := map[string]string{"X-API-Key": user["X-API-Key"], "Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
	call("pin, idempotency key", "POST", "/files/pin/"+index, idempotent, asJSON(object{"customName": "once"}))
	call("pin, idempotency key again", "POST", "/files/pin/"+index, idempotent, asJSON(object{"customName": "once"}))
	folder := must(os.Getwd()) + "/site/img"
	call("upload folder of the server", "POST", "/files/directory", user, asJSON(object{"dirPath": folder, "cl": "cl0-global"}))

	uploads := func(operation string, query url.Values) object {
		return call(operation, "GET", "/users/me/uploads?"+query.Encode(), user, body{})
	}
	page := uploads("list", url.Values{"page": {"1"}, "limit": {"2"}})
	uploads("list, next page", url.Values{"limit": {"2"}, "cursor": {text(page["nextCursor"])}})
	uploads("list, filters", url.Values{"search": {"naïve"}, "status": {"pinned"}, "hasExpiration": {"true"}, "cl": {"cl0-global"}, "cid": {""}})
	uploads("list, in a directory", url.Values{"parentCid": {site[""]}})
	call("directory", "GET", "/users/me/uploads/dag/"+site[""], user, body{})
	call("rename", "PUT", "/files/rename/"+text(again["uploadId"]), user, asJSON(object{"newName": `the "logo" of ours`}))
	call("status", "GET", "/status/"+logo+"?cl=cl0-global", user, body{})
	events("status, as events", "/status/"+logo+"/events", user)
	call("allocations", "GET", "/allocations/"+logo+"?cl=cl0-global", user, body{})
	call("allocations, by status", "GET", "/status/allocations/"+logo, user, body{})

	batch := []object{{"cid": site["late.txt"], "customName": "first"}, {"cid": index, "customName": "second"}}
	call("pin batch", "POST", "/files/pin-batch", user, asJSON(object{"items": batch, "cl": "cl0-global"}))
	call("remove batch", "DELETE", "/files/pin-batch", user, asJSON(object{"cids": []string{site["late.txt"], index}}))
}

func keys(session map[string]string, logo string) {
	name := "a name/with ü%"
	made := call("generate key", "POST", "/tokens/generate", session, asJSON(object{"name": name, "label": "laptop", "scopes": []string{"files:read"}, "expiresInDays": 30}))
	key := map[string]string{"Authorization": "Bearer " + text(made["token"])}
	call("generate key, name taken", "POST", "/tokens/generate", session, asJSON(object{"name": name}))
	call("list keys", "GET", "/tokens/list", user, body{})
	call("key as Bearer", "GET", "/users/me/uploads?limit=1", key, body{})
	call("key without the scope", "POST", "/files/pin/"+logo, key, body{})
	call("revoke key", "DELETE", "/tokens/revoke/"+url.PathEscape(name), user, body{})
	call("revoked key", "GET", "/users/me/uploads", key, body{})
	call("generate key, defaults", "POST", "/tokens/generate", user, asJSON(object{"name": "second"}))
	call("revoke key, by body", "POST", "/tokens/revoke", user, asJSON(object{"name": "second"}))
}

func rest(session, site map[string]string) {
	hook := object{"url": "https://hooks.example.org/pins?from=pinfold", "events": []string{"pin.pinned", "pin.failed"}, "active": false}
	made := call("create webhook", "POST", "/webhooks", session, asJSON(hook))
	call("list webhooks", "GET", "/webhooks", session, body{})
	call("delete webhook", "DELETE", "/webhooks/"+text(made["id"]), session, body{})
	call("logs", "GET", "/users/me/logs?limit=100", user, body{})

	call("remove", "DELETE", "/files/remove/"+site["img/logo.svg"], user, body{})
	call("remove again", "DELETE", "/files/remove/"+site["img/logo.svg"], user, body{})
	call("remove upload", "DELETE", "/users/me/uploads/"+site[""], user, body{})
	call("change plan", "PUT", "/plans/change", session, asJSON(object{"planId": "free"}))
	call("change plan back", "PUT", "/plans/change", session, asJSON(object{"planId": "premium"}))
	call("logout", "POST", "/auth/logout", session, body{})
	call("session after logout", "GET", "/users/me", session, body{})
}
