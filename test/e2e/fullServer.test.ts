/** The server on a disk that is full: what it refuses, what it goes on with, and that it recovers by itself. */
import { execFileSync, spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { mkdirSync, readFileSync, rmSync } from "node:fs"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { hasSmallDisk } from "../adapters/support/smallDisk.ts"
import { BuiltFleet } from "../support/BuiltFleet.ts"
import { waitUntil } from "../support/Program.ts"

const patienceMs = 90_000

describe.skipIf(!hasSmallDisk())("a server whose disk fills up", () => {
  let fleet: BuiltFleet
  let mount: string
  let token: string
  beforeAll(async () => {
    fleet = await BuiltFleet.create()
    mount = fleet.serverFolder
    mkdirSync(mount)
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=16m,mode=0700", "tmpfs", mount])
    fleet.server.environment({ POSTERN_MINIMUM_FREE_BYTES: String(10 * 1024 * 1024) })
    await fleet.startServer()
    token = readFileSync(await fleet.token("alice", "admin"), "utf8").trim()
  }, patienceMs)
  afterAll(async () => {
    if (fleet.server.isRunning()) await fleet.server.crash()
    execFileSync("umount", ["-l", mount])
    await fleet.close()
  }, patienceMs)

  const ask = async (method: string, path: string, body?: Uint8Array | string) => {
    const type = typeof body === "string" ? "application/json" : "application/octet-stream"
    const answer = await fetch(`${fleet.address}/api/management/v1${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, ...(body === undefined ? {} : { "content-type": type }) },
      ...(body === undefined ? {} : { body: typeof body === "string" ? body : Buffer.from(body) })
    })
    return { status: answer.status, retryAfter: answer.headers.get("retry-after"), text: await answer.text() }
  }
  const upload = (fill: number) => {
    const bytes = new Uint8Array(3 * 1024 * 1024).fill(fill)
    const digest = createHash("sha256").update(bytes).digest("hex")
    return ask("PUT", `/payloads/sha256:${digest}?offset=0&total=${bytes.length}`, bytes)
  }
  const makeToken = (name: string) =>
    ask("POST", "/tokens", JSON.stringify({ name, role: "viewer", expires_at_ms: null }))

  it("refuses payloads first, then changes, answers reads all the while, and takes all again with room", async () => {
    expect((await upload(1)).status).toBe(200)
    const refused = await upload(2)
    expect(refused.status).toBe(507)
    expect(JSON.parse(refused.text)).toMatchObject({ code: "storage_full" })
    // The reserve is for what devices report and operators decide.
    expect((await makeToken("still-room")).status).toBe(200)

    const filler = join(mount, "filler")
    // The server may take some of it at the same time.
    expect(spawnSync("sh", ["-c", `cat /dev/zero > ${filler}`]).stderr.toString()).toMatch(/No space/)
    const full = await waitUntil(
      "a change to be refused",
      async () => {
        const answer = await makeToken(`token-${Math.floor(performance.now())}`)
        return answer.status === 200 ? undefined : answer
      },
      patienceMs
    )
    expect(full.status).toBe(503)
    expect(Number(full.retryAfter)).toBeGreaterThan(0)
    expect((await ask("GET", "/status")).status).toBe(200)
    expect(fleet.server.isRunning()).toBe(true)

    rmSync(filler)
    await waitUntil(
      "a change to be taken again",
      async () => (await makeToken("room-again")).status === 200,
      patienceMs
    )
    const listed = JSON.parse((await ask("GET", "/tokens")).text) as {
      tokens: ReadonlyArray<{ name: string }>
    }
    expect(listed.tokens.map(({ name }) => name)).toEqual(
      expect.arrayContaining(["alice", "room-again", "still-room"])
    )
  }, 200_000)
})
