// Pins a CID with axios: npm install axios, then node axios.mjs [CID]
import axios from "axios";

const cid = process.argv[2] ?? "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi";
const url = process.env.PINFOLD_SERVER ?? "http://127.0.0.1:3000";

try {
  const { data } = await axios.post(
    `${url}/api/v3/files/pin/${cid}`,
    { cl: "cl0-global" },
    {
      headers: {
        "X-API-Key": process.env.PINFOLD_API_KEY,
        "Content-Type": "application/json",
      },
    }
  );
  console.log(JSON.stringify(data));
} catch (error) {
  console.error(error.response ? JSON.stringify(error.response.data) : error.message);
  process.exitCode = 1;
}
