#!/usr/bin/env bash
# Pins a CID with curl: curl.sh [CID]
set -eu
cid=${1:-bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi}

curl --silent --show-error --fail-with-body -X POST "${PINFOLD_SERVER:-http://127.0.0.1:3000}/api/v3/files/pin/$cid" \
  -H "X-API-Key: $PINFOLD_API_KEY" \
  -H "Content-Type: application/json" \
  -d '{"cl": "cl0-global"}'
