<?php
// Pins a CID with PHP and curl: php pin.php [CID]
$cid = $argv[1] ?? 'bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi';
$url = (getenv('PINFOLD_SERVER') ?: 'http://127.0.0.1:3000') . "/api/v3/files/pin/$cid";
$apiKey = getenv('PINFOLD_API_KEY');
$ch = curl_init($url);
curl_setopt($ch, CURLOPT_POST, true);
curl_setopt($ch, CURLOPT_POSTFIELDS, json_encode(['cl' => 'cl0-global']));
curl_setopt($ch, CURLOPT_HTTPHEADER, [
    'X-API-Key: ' . $apiKey,
    'Content-Type: application/json',
]);
curl_setopt($ch, CURLOPT_RETURNTRANSFER, true);
$response = curl_exec($ch);
$status = curl_getinfo($ch, CURLINFO_RESPONSE_CODE);
if ($response === false) {
    fwrite(STDERR, curl_error($ch) . "\n");
    exit(1);
}
$data = json_decode($response, true);
echo json_encode($data), "\n";
exit($status >= 200 && $status < 300 ? 0 : 1);
