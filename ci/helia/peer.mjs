// A Helia node on loopback that a test drives line by line.
//
//   node peer.mjs tcp|ws tls|noise
//
// It prints {"id","addresses"} once it listens, then answers each line of JSON on its standard input with one line:
//   {"do":"import","path":P}           adds a file or a folder, as unixfs-v1-2025   → {"cid"}
//   {"do":"encode","value":V}          stores a DAG-JSON value as dag-cbor          → {"cid"}
//   {"do":"dial","address":A}          connects to a multiaddr with /p2p/…          → {"address"}
//   {"do":"fetch","cid":C}             walks a whole DAG over bitswap and pins it   → {"blocks"}
//   {"do":"read","cid":C}              reads a file                                 → {"bytes","sha256"}
// A command that fails, or takes over two minutes, answers {"error"}. The node ends with its standard input.
// It knows no router, no gateway and no bootstrap peer: what it fetches comes over bitswap from whom it is connected to.

import { createHash } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { createReadStream } from 'node:fs'
import { createInterface } from 'node:readline'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { withBitswap } from '@helia/bitswap'
import { withLibp2pLight } from '@helia/libp2p'
import { globSource, unixfs } from '@helia/unixfs'
import * as dagCbor from '@ipld/dag-cbor'
import * as dagJson from '@ipld/dag-json'
import { identify } from '@libp2p/identify'
import { tcp } from '@libp2p/tcp'
import { tls } from '@libp2p/tls'
import { webSockets } from '@libp2p/websockets'
import { multiaddr } from '@multiformats/multiaddr'
import { createHeliaLight } from 'helia'
import { CID } from 'multiformats/cid'
import { sha256 } from 'multiformats/hashes/sha2'

const COMMAND_MAX_MS = 120_000

const [transport, security] = process.argv.slice(2)
const transports = { tcp: tcp(), ws: webSockets() }
const securities = { tls: tls(), noise: noise() }
if (!(transport in transports) || !(security in securities)) {
  console.error('usage: peer.mjs tcp|ws tls|noise')
  process.exit(2)
}

const helia = withBitswap(withLibp2pLight(createHeliaLight({ codecs: [dagCbor, dagJson] }), {
  addresses: { listen: [`/ip4/127.0.0.1/tcp/0${transport === 'ws' ? '/ws' : ''}`] },
  transports: [transports[transport]],
  connectionEncrypters: [securities[security]],
  streamMuxers: [yamux()],
  connectionGater: { denyDialMultiaddr: () => false }, // loopback is refused by default
  services: { identify: identify() }
}))
await helia.start()
const files = unixfs(helia)

const commands = {
  async import ({ path }, signal) {
    const found = await stat(path)
    if (found.isFile()) {
      return { cid: String(await files.addByteStream(createReadStream(path), { signal })) }
    }
    let root
    for await (const entry of files.addAll(globSource(path, '**/*'), { wrapWithDirectory: true, signal })) {
      root = entry.cid
    }
    return { cid: String(root) }
  },

  async encode ({ value }, signal) {
    const block = dagCbor.encode(dagJson.parse(JSON.stringify(value)))
    const cid = CID.createV1(dagCbor.code, await sha256.digest(block))
    await helia.blockstore.put(cid, block, { signal })
    return { cid: String(cid) }
  },

  async dial ({ address }, signal) {
    const connection = await helia.libp2p.dial(multiaddr(address), { signal })
    return { address: String(connection.remoteAddr) }
  },

  async fetch ({ cid }, signal) {
    let blocks = 0
    for await (const _ of helia.pins.add(CID.parse(cid), { signal })) blocks += 1
    return { blocks }
  },

  async read ({ cid }, signal) {
    const hash = createHash('sha256')
    let bytes = 0
    for await (const chunk of files.cat(CID.parse(cid), { signal })) {
      hash.update(chunk)
      bytes += chunk.length
    }
    return { bytes, sha256: hash.digest('hex') }
  }
}

const say = answer => process.stdout.write(JSON.stringify(answer) + '\n')
say({ id: String(helia.libp2p.peerId), addresses: helia.libp2p.getMultiaddrs().map(String) })

for await (const line of createInterface({ input: process.stdin })) {
  try {
    const command = JSON.parse(line)
    say(await commands[command.do](command, AbortSignal.timeout(COMMAND_MAX_MS)))
  } catch (error) {
    say({ error: String(error?.stack ?? error) })
  }
}
await helia.stop()
process.exit(0)
