// Pins a CID with fetch: node fetch.mjs [CID]
const cid = process.argv[2] ?? "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi";
const url = process.env.PINFOLD_SERVER ?? "http://127.0.0.1:3000";

const response = await fetch(`${url}/api/v3/files/pin/${cid}`, {
  method: "POST",
  headers: {
    "X-API-Key": process.env.PINFOLD_API_KEY,
    "Content-Type": "application/json",
  },
  body: JSON.stringify({ cl: "cl0-global" }),
});
const data = await response.json();

console.log(JSON.stringify(data));
process.exitCode = response.ok ? 0 : 1;
