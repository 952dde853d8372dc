<?php
// A tour of the API with PHP's curl: arrays as forms, CURLFile and CURLStringFile.
//
// The environment has the server and the credentials: PINFOLD_SERVER, PINFOLD_API_KEY, EMAIL,
// PASSWORD. The working directory contains the files to upload. Each line of the output is an
// operation and its result; tours.rs reads them.
declare(strict_types=1);
set_error_handler(fn($number, $text, $file, $line) => throw new ErrorException($text, 0, $number, $file, $line));

$root = getenv('PINFOLD_SERVER');
$base = "$root/api/v3";
$user = ['X-API-Key: ' . getenv('PINFOLD_API_KEY')];

function line(array $line): void
{
    echo json_encode($line, JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES), "\n";
}

// One request. Text is sent as JSON, an array as a form. Returns status, content type and body of
// the response.
function send(string $method, string $url, array $headers, string|array|null $body): array
{
    global $base;
    $ch = curl_init(str_starts_with($url, 'http') ? $url : $base . $url);
    if (is_string($body)) {
        $headers[] = 'Content-Type: application/json';
    }
    if ($body !== null) {
        curl_setopt($ch, CURLOPT_POSTFIELDS, $body);
    }
    curl_setopt_array($ch, [CURLOPT_CUSTOMREQUEST => $method, CURLOPT_HTTPHEADER => $headers, CURLOPT_RETURNTRANSFER => true]);
    $content = curl_exec($ch);
    if ($content === false) {
        throw new RuntimeException(curl_error($ch));
    }
    return [curl_getinfo($ch, CURLINFO_RESPONSE_CODE), (string) curl_getinfo($ch, CURLINFO_CONTENT_TYPE), $content];
}

function call(string $operation, string $method, string $url, array $headers = [], string|array|null $body = null): ?array
{
    [$status, $type, $content] = send($method, $url, $headers, $body);
    $is_json = str_starts_with($type, 'application/json');
    $shown = $is_json ? $content : 'null';
    // The undecoded body: PHP's arrays do not distinguish [] and {}.
    echo '{"operation":', json_encode($operation), ',"status":', $status, ',"ok":', $status < 400 ? 'true' : 'false', ',"answer":', $shown, "}\n";
    return $is_json ? json_decode($content, true, flags: JSON_THROW_ON_ERROR) : null;
}

line(['client' => 'PHP ' . PHP_MAJOR_VERSION . '.' . PHP_MINOR_VERSION . '.' . PHP_RELEASE_VERSION]);

call('service', 'GET', '');
call('bare base URL', 'GET', "$root/");
call('bare gateway URL', 'GET', "$root/ipfs/");
call('health', 'GET', '/health/');
call('peers', 'GET', '/peers/');
call('plans', 'GET', '/plans/');
call('languages', 'GET', '/locales/languages');
call('countries', 'GET', '/locales/countries');
call('old version', 'GET', "$root/api/v1/files/");
call('no credential', 'GET', '/users/me');
call('wrong key', 'GET', '/users/me', ['X-API-Key: pnf_nonsense']);

$login = ['email' => getenv('EMAIL'), 'password' => getenv('PASSWORD')];
call('wrong password', 'POST', '/auth/login', [], json_encode(['password' => 'a wrong password'] + $login));
$entered = call('login', 'POST', '/auth/login', [], json_encode($login));
$session = ["Authorization: Bearer {$entered['token']}", 'X-Request-Source: web'];
call('me', 'GET', '/users/me', $session);
call('change me', 'PUT', '/users/me', $session, json_encode(['name' => 'Ada Lovelace']));
call('change preferences', 'PUT', '/users/me/preferences', $session, json_encode(['theme' => 'dark', 'pageSize' => 50]));
call('preferences', 'GET', '/users/me/preferences', $session);
call('second factor', 'GET', '/auth/2fa/status', $session);
call('clusters', 'GET', '/users/me/clusters', $user);
call('my plan', 'GET', '/plans/my-plan', $user);
call('plans for me', 'GET', '/users/me/plans', $user);
call('payments', 'POST', '/payments/checkout', $session, json_encode(['planId' => 'premium']));
call('referrals', 'GET', '/users/me/referrals', $user);

$name = 'naïve "quoted" name.txt';
call('upload', 'POST', '/files/', $user, ['cl' => 'cl0-global', 'timelock' => '2040-01-01T00:00:00Z', 'file' => new CURLFile($name, 'text/plain', $name)]);
$late = call('upload, fields last', 'POST', '/files', $user, ['file' => new CURLStringFile(file_get_contents('late.txt'), 'late.txt'), 'cl' => 'cl0-global', 'customName' => 'straße & 🐟']);

// An array has each key once.
$once = 'an array of form fields has each name once';
line(['operation' => 'upload directory, files', 'leftOut' => $once]);
line(['operation' => 'upload directory, files[]', 'leftOut' => $once]);
$numbered = ['dirName' => 'site'];
$pairs = ['dirName' => 'site'];
$dropped = [];
foreach (['index.html', 'img/logo.svg', 'docs/ü/index.html'] as $i => $path) {
    $numbered["files[$i]"] = new CURLFile("site/$path", null, $path);
    // Both are text without a filename.
    $pairs["files[$i][path]"] = $path;
    $pairs["files[$i][content]"] = file_get_contents("site/$path");
    $dropped["files[$i]"] = new CURLFile("site/$path", null, basename($path));
}
$site = call('upload directory, files[i]', 'POST', '/files/directory-dag', $user, $numbered);
call('upload directory, pairs', 'POST', '/files/directory-dag', $user, $pairs);
call('upload directory, folders dropped', 'POST', '/files/directory-dag', $user, $dropped);

$cids = array_column($site['files'], 'cid', 'path');
$logo = $cids['img/logo.svg'];
$index = $cids['docs/ü/index.html'];
call('pin', 'POST', "/files/pin/$logo", $user, json_encode(['cl' => 'cl0-global', 'originalName' => 'logo.svg', 'customName' => 'Логотип']));
$again = call('pin again, no body', 'POST', "/files/pin/$logo", $user);
// An empty array is [] in JSON.
call('pin again, empty body', 'POST', "/files/pin/$logo", $user, json_encode([]));
call('pin, no CID', 'POST', '/files/pin/not-a-cid', $user, json_encode([]));
call('pin, dry run', 'POST', "/files/pin/$index?dryRun=true", $user, json_encode([]));
$idempotent = [...$user, 'Idempotency-Key: 8e03978e-40d5-43dd-bc93-6894a57f9324'];
call('pin, idempotency key', 'POST', "/files/pin/$index", $idempotent, json_encode(['customName' => 'once']));
call('pin, idempotency key again', 'POST', "/files/pin/$index", $idempotent, json_encode(['customName' => 'once']));
call('upload folder of the server', 'POST', '/files/directory', $user, json_encode(['dirPath' => getcwd() . '/site/img', 'cl' => 'cl0-global']));

$uploads = fn(string $operation, array $query) => call($operation, 'GET', '/users/me/uploads?' . http_build_query($query), $user);
$page = $uploads('list', ['page' => 1, 'limit' => 2]);
$uploads('list, next page', ['limit' => 2, 'cursor' => $page['nextCursor']]);
// PHP writes true as 1 in a query.
$uploads('list, filters', ['search' => 'naïve', 'status' => 'pinned', 'hasExpiration' => true, 'cl' => 'cl0-global', 'cid' => '']);
$uploads('list, in a directory', ['parentCid' => $site['cid']]);
call('directory', 'GET', "/users/me/uploads/dag/{$site['cid']}", $user);
call('rename', 'PUT', "/files/rename/{$again['uploadId']}", $user, json_encode(['newName' => 'the "logo" of ours']));
call('status', 'GET', "/status/$logo?cl=cl0-global", $user);

[$status, , $stream] = send('GET', "/status/$logo/events", [...$user, 'Accept: text/event-stream'], null);
preg_match_all('/^event: (.*)$/m', $stream, $events);
preg_match_all('/^data: (.*)$/m', $stream, $data);
line(['operation' => 'status, as events', 'status' => $status, 'ok' => $status < 400, 'answer' => ['events' => $events[1], 'last' => json_decode(end($data[1]))]]);

call('allocations', 'GET', "/allocations/$logo?cl=cl0-global", $user);
call('allocations, by status', 'GET', "/status/allocations/$logo", $user);

$batch = [['cid' => $late['cid'], 'customName' => 'first'], ['cid' => $index, 'customName' => 'second']];
call('pin batch', 'POST', '/files/pin-batch', $user, json_encode(['items' => $batch, 'cl' => 'cl0-global']));
call('remove batch', 'DELETE', '/files/pin-batch', $user, json_encode(['cids' => array_column($batch, 'cid')]));

$name = 'a name/with ü%';
$made = call('generate key', 'POST', '/tokens/generate', $session, json_encode(['name' => $name, 'label' => 'laptop', 'scopes' => ['files:read'], 'expiresInDays' => 30]));
$key = ["Authorization: Bearer {$made['token']}"];
call('generate key, name taken', 'POST', '/tokens/generate', $session, json_encode(['name' => $name]));
call('list keys', 'GET', '/tokens/list', $user);
call('key as Bearer', 'GET', '/users/me/uploads?limit=1', $key);
call('key without the scope', 'POST', "/files/pin/$logo", $key);
call('revoke key', 'DELETE', '/tokens/revoke/' . rawurlencode($name), $user);
call('revoked key', 'GET', '/users/me/uploads', $key);
call('generate key, defaults', 'POST', '/tokens/generate', $user, json_encode(['name' => 'second']));
call('revoke key, by body', 'POST', '/tokens/revoke', $user, json_encode(['name' => 'second']));

$hook = ['url' => 'https://hooks.example.org/pins?from=pinfold', 'events' => ['pin.pinned', 'pin.failed'], 'active' => false];
$made = call('create webhook', 'POST', '/webhooks', $session, json_encode($hook));
call('list webhooks', 'GET', '/webhooks', $session);
call('delete webhook', 'DELETE', "/webhooks/{$made['id']}", $session);
call('logs', 'GET', '/users/me/logs?limit=100', $user);

call('remove', 'DELETE', "/files/remove/$logo", $user);
call('remove again', 'DELETE', "/files/remove/$logo", $user);
call('remove upload', 'DELETE', "/users/me/uploads/{$site['cid']}", $user);
call('change plan', 'PUT', '/plans/change', $session, json_encode(['planId' => 'free']));
call('change plan back', 'PUT', '/plans/change', $session, json_encode(['planId' => 'premium']));
call('logout', 'POST', '/auth/logout', $session);
call('session after logout', 'GET', '/users/me', $session);
