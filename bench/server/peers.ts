/** What the built server is measured against: bare `node:http`, as programs for `node -e`. */

/** Answers as long as ours: some 120 bytes of body and a statement of some 800 in the head. */
export const answering = (withSignatures: boolean): string => `
  const { createServer } = require("node:http")
  const { sign, verify, generateKeyPairSync } = require("node:crypto")
  const { privateKey, publicKey } = generateKeyPairSync("ed25519")
  const message = Buffer.alloc(500, 1), signature = sign(null, message, privateKey)
  const body = JSON.stringify({ orders: [], cancels: [], stops: [], admission: null, objection: null, sleep_ms: 60000 })
  createServer((incoming, outgoing) => {
    const parts = []
    incoming.on("data", (part) => parts.push(part))
    incoming.on("end", () => {
      JSON.parse(Buffer.concat(parts).toString())
      let statement = "s".repeat(800)
      if (${withSignatures}) {
        if (!verify(null, message, publicKey, signature)) process.exit(1)
        statement = sign(null, message, privateKey).toString("base64").repeat(9)
      }
      outgoing.writeHead(200, { "content-type": "application/json", "postern-statement": statement, "content-length": body.length })
      outgoing.end(body)
    })
  }).listen(Number(process.argv[1]), "127.0.0.1")`

/** Reads requests and keeps their answers open. */
export const holding = `
  const { createServer } = require("node:http")
  const held = new Set()
  createServer((incoming, outgoing) => {
    incoming.resume()
    incoming.on("end", () => {
      held.add(outgoing)
      outgoing.on("close", () => held.delete(outgoing))
    })
  }).listen(Number(process.argv[1]), "127.0.0.1")`
