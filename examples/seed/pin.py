"""Pins a CID with requests: pip install requests, then python3 pin.py [CID]"""

import json
import os
import sys

import requests

cid = sys.argv[1] if len(sys.argv) > 1 else "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
url = f"{os.environ.get('PINFOLD_SERVER', 'http://127.0.0.1:3000')}/api/v3/files/pin/{cid}"
headers = {
    "X-API-Key": os.environ["PINFOLD_API_KEY"],
    "Content-Type": "application/json",
}
payload = {"cl": "cl0-global"}
r = requests.post(url, headers=headers, json=payload)
if not r.ok:
    sys.exit(r.text)
print(json.dumps(r.json()))
