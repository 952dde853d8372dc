#!/usr/bin/env bash
# A tour of the API with curl and its forms (-F).
#
# The environment has the server and the credentials: PINFOLD_SERVER, PINFOLD_API_KEY, EMAIL,
# PASSWORD. The working directory contains the files to upload. Each line of the output is an
# operation and its result; tours.rs reads them.
set -eu
root=$PINFOLD_SERVER
base=$root/api/v3

# The credential of a request: none, a key or a session.
anonymous=()
user=(-H "X-API-Key: $PINFOLD_API_KEY")

# call OPERATION METHOD URL ARGUMENT…: sends one request and stores the response in $answer.
call() {
  local operation=$1 method=$2 url=$3 end status ok=false shown
  shift 3
  case $url in http*) ;; *) url=$base$url ;; esac
  answer=$(curl --silent --show-error --write-out '\n%{http_code} %{content_type}' -X "$method" "$url" "$@")
  end=${answer##*$'\n'} answer=${answer%$'\n'*}
  status=${end%% *}
  [ "$status" -lt 400 ] && ok=true
  case $end in *application/json*) shown=$answer ;; *) shown=null ;; esac
  printf '{"operation":"%s","status":%s,"ok":%s,"answer":%s}\n' "$operation" "$status" "$ok" "$shown"
}

# json TEXT: stores the arguments for a JSON body in $json.
json() { json=(-H 'Content-Type: application/json' -d "$1"); }

# field NAME: prints the first text field of that name in $answer.
field() { printf '%s' "$answer" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }

printf '{"client":"curl %s"}\n' "$(curl --version | sed -n '1s/^curl \([^ ]*\).*/\1/p')"

call 'service' GET ''
call 'bare base URL' GET "$root/"
call 'bare gateway URL' GET "$root/ipfs/"
call 'health' GET /health/
call 'peers' GET /peers/
call 'plans' GET /plans/
call 'languages' GET /locales/languages
call 'countries' GET /locales/countries
call 'old version' GET "$root/api/v1/files/"
call 'no credential' GET /users/me
call 'wrong key' GET /users/me -H 'X-API-Key: pnf_nonsense'

json "{\"email\":\"$EMAIL\",\"password\":\"a wrong password\"}"
call 'wrong password' POST /auth/login "${json[@]}"
json "{\"email\":\"$EMAIL\",\"password\":\"$PASSWORD\"}"
call 'login' POST /auth/login "${json[@]}"
session=(-H "Authorization: Bearer $(field token)" -H 'X-Request-Source: web')
call 'me' GET /users/me "${session[@]}"
json '{"name":"Ada Lovelace"}'
call 'change me' PUT /users/me "${session[@]}" "${json[@]}"
json '{"theme":"dark","pageSize":50}'
call 'change preferences' PUT /users/me/preferences "${session[@]}" "${json[@]}"
call 'preferences' GET /users/me/preferences "${session[@]}"
call 'second factor' GET /auth/2fa/status "${session[@]}"
call 'clusters' GET /users/me/clusters "${user[@]}"
call 'my plan' GET /plans/my-plan "${user[@]}"
call 'plans for me' GET /users/me/plans "${user[@]}"
json '{"planId":"premium"}'
call 'payments' POST /payments/checkout "${session[@]}" "${json[@]}"
call 'referrals' GET /users/me/referrals "${user[@]}"

call 'upload' POST /files/ "${user[@]}" -F cl=cl0-global -F timelock=2040-01-01T00:00:00Z -F 'file=@naïve "quoted" name.txt'
call 'upload, fields last' POST /files "${user[@]}" -F file=@late.txt -F cl=cl0-global -F 'customName=straße & 🐟'
late=$(field cid)

# directory OPERATION ARGUMENT…
directory() {
  local operation=$1
  shift
  call "upload directory, $operation" POST /files/directory-dag "${user[@]}" "$@"
}
directory 'files[]' -F 'files[]=@site/index.html;filename=index.html' -F 'files[]=@site/img/logo.svg;filename=img/logo.svg' \
  -F 'files[]=@site/docs/ü/index.html;filename=docs/ü/index.html' -F dirName=site
directory 'files[i]' -F 'files[0]=@site/index.html;filename=index.html' -F 'files[1]=@site/img/logo.svg;filename=img/logo.svg' \
  -F 'files[2]=@site/docs/ü/index.html;filename=docs/ü/index.html' -F dirName=site
# `<` sends the content of a file as a field, without a filename.
directory 'pairs' -F dirName=site -F 'files[0][path]=index.html' -F 'files[0][content]=<site/index.html' \
  -F 'files[1][path]=img/logo.svg' -F 'files[1][content]=@site/img/logo.svg' \
  -F 'files[2][path]=docs/ü/index.html' -F 'files[2][content]=@site/docs/ü/index.html'
# Without an explicit filename, curl sends the last segment of the path.
directory 'folders dropped' -F files=@site/index.html -F files=@site/img/logo.svg -F files=@site/docs/ü/index.html
directory 'files' -F dirName=site -F 'files=@site/index.html;filename=index.html' \
  -F 'files=@site/img/logo.svg;filename=img/logo.svg' -F 'files=@site/docs/ü/index.html;filename=docs/ü/index.html'
site=$(printf '%s' "$answer" | sed -n 's/.*"cid":"\([^"]*\)","filename":"site".*/\1/p')
cid() { printf '%s' "$answer" | sed -n "s|.*\"cid\":\"\([^\"]*\)\",\"filename\":\"[^\"]*\",\"size\":[0-9]*,\"path\":\"$1\".*|\1|p"; }
logo=$(cid img/logo.svg) index=$(cid docs/ü/index.html)

json '{"cl":"cl0-global","originalName":"logo.svg","customName":"Логотип"}'
call 'pin' POST "/files/pin/$logo" "${user[@]}" "${json[@]}"
call 'pin again, no body' POST "/files/pin/$logo" "${user[@]}"
upload=$(field uploadId)
# The default content type of -d is that of a form.
call 'pin again, empty body' POST "/files/pin/$logo" "${user[@]}" -d '{}'
call 'pin, no CID' POST /files/pin/not-a-cid "${user[@]}" -d ''
call 'pin, dry run' POST "/files/pin/$index?dryRun=true" "${user[@]}"
json '{"customName":"once"}'
call 'pin, idempotency key' POST "/files/pin/$index" "${user[@]}" "${json[@]}" -H 'Idempotency-Key: 8e03978e-40d5-43dd-bc93-6894a57f9324'
call 'pin, idempotency key again' POST "/files/pin/$index" "${user[@]}" "${json[@]}" -H 'Idempotency-Key: 8e03978e-40d5-43dd-bc93-6894a57f9324'
json "{\"dirPath\":\"$PWD/site/img\",\"cl\":\"cl0-global\"}"
call 'upload folder of the server' POST /files/directory "${user[@]}" "${json[@]}"

# uploads OPERATION ARGUMENT…
uploads() {
  local operation=$1
  shift
  call "$operation" GET /users/me/uploads "${user[@]}" --get "$@"
}
uploads 'list' -d page=1 -d limit=2
uploads 'list, next page' -d limit=2 -d "cursor=$(field nextCursor)"
uploads 'list, filters' --data-urlencode search=naïve -d status=pinned -d hasExpiration=true -d cl=cl0-global -d cid=
uploads 'list, in a directory' -d "parentCid=$site"
call 'directory' GET "/users/me/uploads/dag/$site" "${user[@]}"
json '{"newName":"the \"logo\" of ours"}'
call 'rename' PUT "/files/rename/$upload" "${user[@]}" "${json[@]}"
call 'status' GET "/status/$logo?cl=cl0-global" "${user[@]}"

stream=$(curl --silent --show-error --no-buffer --write-out '\n%{http_code}\n' -H 'Accept: text/event-stream' "${user[@]}" "$base/status/$logo/events")
printf '{"operation":"status, as events","status":%s,"ok":true,"answer":{"events":[%s],"last":%s}}\n' \
  "$(printf '%s\n' "$stream" | tail -n 1)" "$(printf '%s\n' "$stream" | sed -n 's/^event: \(.*\)/"\1"/p' | paste -sd,)" \
  "$(printf '%s\n' "$stream" | sed -n 's/^data: //p' | tail -n 1)"

call 'allocations' GET "/allocations/$logo?cl=cl0-global" "${user[@]}"
call 'allocations, by status' GET "/status/allocations/$logo" "${user[@]}"

json "{\"items\":[{\"cid\":\"$late\",\"customName\":\"first\"},{\"cid\":\"$index\",\"customName\":\"second\"}],\"cl\":\"cl0-global\"}"
call 'pin batch' POST /files/pin-batch "${user[@]}" "${json[@]}"
json "{\"cids\":[\"$late\",\"$index\"]}"
call 'remove batch' DELETE /files/pin-batch "${user[@]}" "${json[@]}"

json '{"name":"a name/with ü%","label":"laptop","scopes":["files:read"],"expiresInDays":30}'
call 'generate key' POST /tokens/generate "${session[@]}" "${json[@]}"
key=(-H "Authorization: Bearer $(field token)")
call 'generate key, name taken' POST /tokens/generate "${session[@]}" "${json[@]}"
call 'list keys' GET /tokens/list "${user[@]}"
call 'key as Bearer' GET '/users/me/uploads?limit=1' "${key[@]}"
call 'key without the scope' POST "/files/pin/$logo" "${key[@]}"
# curl sends the path without encoding it.
call 'revoke key' DELETE '/tokens/revoke/a%20name%2Fwith%20%C3%BC%25' "${user[@]}"
call 'revoked key' GET /users/me/uploads "${key[@]}"
json '{"name":"second"}'
call 'generate key, defaults' POST /tokens/generate "${user[@]}" "${json[@]}"
call 'revoke key, by body' POST /tokens/revoke "${user[@]}" "${json[@]}"

json '{"url":"https://hooks.example.org/pins?from=pinfold","events":["pin.pinned","pin.failed"],"active":false}'
call 'create webhook' POST /webhooks "${session[@]}" "${json[@]}"
hook=$(field id)
call 'list webhooks' GET /webhooks "${session[@]}"
call 'delete webhook' DELETE "/webhooks/$hook" "${session[@]}"
call 'logs' GET '/users/me/logs?limit=100' "${user[@]}"

call 'remove' DELETE "/files/remove/$logo" "${user[@]}"
call 'remove again' DELETE "/files/remove/$logo" "${user[@]}"
call 'remove upload' DELETE "/users/me/uploads/$site" "${user[@]}"
json '{"planId":"free"}'
call 'change plan' PUT /plans/change "${session[@]}" "${json[@]}"
json '{"planId":"premium"}'
call 'change plan back' PUT /plans/change "${session[@]}" "${json[@]}"
call 'logout' POST /auth/logout "${session[@]}"
call 'session after logout' GET /users/me "${session[@]}"
