// Writes one file of the UnixFS vectors: node vector.mjs RECIPE PATH, where RECIPE is the vector's
// `input` as JSON.
import { createCipheriv, hash } from 'node:crypto'
import { closeSync, openSync, writeSync } from 'node:fs'

const PIECE = 1 << 20

function * sha256ctr ({ seed, size }) {
  const text = Buffer.from(seed)
  const input = Buffer.concat([text, Buffer.alloc(8)])
  for (let counter = 0n; size > 0;) {
    const piece = Buffer.alloc(Math.min(PIECE, size))
    for (let at = 0; at < piece.length; at += 32, counter++) {
      input.writeBigUInt64BE(counter, text.length)
      hash('sha256', input, 'buffer').copy(piece, at)
    }
    size -= piece.length
    yield piece
  }
}

function * chacha20 ({ seed, size }) {
  // The 16 bytes that OpenSSL expects are the block counter and the nonce.
  const cipher = createCipheriv('chacha20', hash('sha256', Buffer.from(seed), 'buffer'), Buffer.alloc(16))
  const zeros = Buffer.alloc(PIECE)
  for (; size > 0; size -= PIECE) yield cipher.update(zeros.subarray(0, Math.min(PIECE, size)))
}

function * utf8 ({ text }) {
  yield Buffer.from(text)
}

const [recipe, path] = [JSON.parse(process.argv[2]), process.argv[3]]
const file = openSync(path, 'w')
for (const piece of { sha256ctr, chacha20, utf8 }[recipe.gen](recipe)) writeSync(file, piece)
closeSync(file)
