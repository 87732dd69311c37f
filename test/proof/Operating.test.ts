/** Running a server for years, with the programs as they are shipped: backup, restore, tokens, retention, figures. */
import { execFileSync } from "node:child_process"
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type BuiltDevice, BuiltFleet } from "../support/BuiltFleet.ts"
import { waitUntil } from "../support/Program.ts"

const patienceMs = 90_000
let fleet: BuiltFleet
let device: BuiltDevice

beforeAll(async () => {
  fleet = await BuiltFleet.withServer()
  device = await fleet.acceptedDevice("kiosk")
})
afterAll(() => fleet?.close())

interface Submitted {
  readonly job: string
}

/** What `postern devices show` tells, as far as it is of interest here. */
interface Shown {
  readonly blocked: string | null
  readonly high_water: { readonly counter: number } | null
}

/** Submits `echo WORD`, and gives the job's id. */
const echo = (word: string) => fleet.ask<Submitted>(["run", "kiosk", "--detach", "--", "echo", word])

const operate = (...args: ReadonlyArray<string>) =>
  fleet.run("server", [...args, "--state", fleet.serverFolder])

describe("a server that is backed up while it works", () => {
  it("is restored after a crash: no device is stopped, nothing runs twice, what is lost is shown", async () => {
    const before = await echo("before")
    await fleet.finished(before.job, patienceMs)
    const backup = join(fleet.folder, "backup")
    // Under load: orders come in and run while the copy is made.
    const orders = ["one", "two", "three"].map((word) => echo(word))
    const busy = Promise.all(orders)
    await Promise.race(orders)
    const made = await operate("backup", backup)
    expect(made).toMatchObject({ code: 0, stderr: "" })
    // No command writes to the operator's folder while it is copied.
    const submitted = await busy
    // An operator who looks again only after the restore.
    const colleague = { env: { POSTERN_HOME: join(fleet.folder, "colleague") } }
    execFileSync("cp", ["-a", fleet.operatorFolder, colleague.env.POSTERN_HOME])
    for (const { job } of submitted) await fleet.finished(job, patienceMs)
    const after = await echo("after")
    await fleet.finished(after.job, patienceMs)
    const ran = readFileSync(device.program.logFile, "utf8").match(new RegExp(after.job, "g"))?.length ?? 0

    await fleet.server.crash()
    const used = await operate("restore", backup)
    expect(used.code).toBe(1)
    expect(used.stderr).toContain("not empty")
    fleet.moveServer("restored")
    expect(await operate("restore", backup)).toMatchObject({ code: 0, stderr: "" })
    await fleet.startServer()

    // The device knows more than the server, and goes on taking work; what the server lost is an alarm meanwhile.
    const known = await waitUntil(
      "the server to hear of the device",
      async () => {
        const shown = await fleet.postern(["devices", "show", "kiosk", "--json"])
        const told = JSON.parse(shown.stdout) as Shown
        return told.high_water?.counter === 5 ? { told, text: shown.stderr } : undefined
      },
      patienceMs,
      () => fleet.server.log().slice(-2_000)
    )
    expect(known.told).toMatchObject({ blocked: null, status: "accepted" })
    expect(known.text).toContain("the server forgot receipt")
    const run = await fleet.postern(["run", "kiosk", "--", "echo", "again"], { timeoutMs: patienceMs })
    expect(run.stdout).toContain("again")
    // The receipts that came after the backup are in the book, and the chain goes on from them.
    expect((await fleet.finished(before.job, patienceMs)).alarms).toEqual([])
    const missed = await fleet.postern(["devices", "show", "kiosk"], colleague)
    expect(missed.stderr).toContain("the server withholds receipt")
    const accepted = await fleet.postern(["devices", "accept-loss", "kiosk", "--yes"], colleague)
    expect(accepted).toMatchObject({ code: 0, stderr: "" })
    expect((await fleet.postern(["devices", "show", "kiosk"], colleague)).stderr).toBe("")
    const lost = await fleet.postern(["jobs", "show", after.job])
    expect(lost.code).toBe(1)
    expect(lost.stderr).toContain("knows no such thing")
    const again = readFileSync(device.program.logFile, "utf8").match(new RegExp(after.job, "g"))?.length ?? 0
    expect(again).toBe(ran)
    const status = await fleet.postern(["status", "--json"])
    const { restored } = JSON.parse(status.stdout) as { restored: { backup_at_ms: number; at_ms: number } }
    expect(restored.at_ms).toBeGreaterThan(restored.backup_at_ms)
  })

  it("a backup that was altered is refused whole, an encrypted one opens with its key alone", async () => {
    const plain = join(fleet.folder, "plain")
    expect((await operate("backup", plain)).code).toBe(0)
    const path = join(plain, "fleet.db")
    const bytes = readFileSync(path)
    bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] as number) ^ 1
    writeFileSync(path, bytes)
    const target = join(fleet.folder, "altered")
    const altered = await fleet.run("server", ["restore", plain, "--state", target])
    expect(altered.code).toBe(1)
    expect(altered.stderr).toContain("it was changed")
    expect(readdirSync(target)).toEqual([])

    const secret = readFileSync(join(fleet.serverFolder, "keys", "node.json"), "utf8")
    const identity = /AGE-SECRET-KEY-[0-9A-Z]+/.exec(secret)?.[0] ?? ""
    const recipient = (JSON.parse((await operate("identity")).stdout) as { recipient: string }).recipient
    const sealed = join(fleet.folder, "sealed")
    expect(
      (
        await fleet.postern([
          "server",
          "backup",
          sealed,
          "--recipient",
          recipient,
          "--state",
          fleet.serverFolder
        ])
      ).code
    ).toBe(0)
    expect(existsSync(join(sealed, "fleet.db"))).toBe(false)
    const all = readdirSync(sealed, { recursive: true, withFileTypes: true }).filter((entry) =>
      entry.isFile()
    )
    for (const entry of all) {
      expect(readFileSync(join(entry.parentPath, entry.name)).includes(identity)).toBe(false)
    }
    const closed = await fleet.run("server", ["restore", sealed, "--state", join(fleet.folder, "closed")])
    expect(closed.stderr).toContain("--identity")
    writeFileSync(join(fleet.folder, "identity"), `# a comment\n${identity}\n`, { mode: 0o600 })
    const opened = join(fleet.folder, "opened")
    const options = ["--identity", join(fleet.folder, "identity"), "--state", opened]
    expect(await fleet.run("server", ["restore", sealed, ...options])).toMatchObject({ code: 0 })
    expect(readFileSync(join(opened, "keys", "node.json"), "utf8")).toBe(secret)
  })
})

describe("the operator's view of a server", () => {
  it("makes, lists, rotates and revokes tokens, and reads the audit log", async () => {
    const made = await fleet.ask<{ token: string }>([
      "tokens",
      "create",
      "scraper",
      "--role",
      "viewer",
      "--expires",
      "30d"
    ])
    const asks = (token: string) =>
      fetch(`${fleet.address}/metrics`, { headers: { authorization: `Bearer ${token}` } })
    const figures = await asks(made.token)
    expect(figures.status).toBe(200)
    const text = await figures.text()
    for (const name of [
      "postern_devices",
      "postern_http_requests_total",
      "postern_store_calls_total",
      "postern_messages_handled_total"
    ]) {
      expect(text).toMatch(new RegExp(`^${name}`, "m"))
    }
    // However many devices there are, none has a series of its own.
    expect(text).not.toContain("dev_")
    expect((await fetch(`${fleet.address}/metrics`)).status).toBe(401)
    const rotated = await fleet.ask<{ token: string }>(["tokens", "rotate", "scraper"])
    expect((await asks(made.token)).status).toBe(401)
    expect((await asks(rotated.token)).status).toBe(200)
    const { tokens } = await fleet.ask<{ tokens: ReadonlyArray<{ name: string }> }>(["tokens", "list"])
    expect(tokens.map(({ name }) => name)).toEqual(["operator", "scraper"])
    await fleet.ask(["tokens", "revoke", "scraper"])
    expect((await asks(rotated.token)).status).toBe(401)
    const { entries } = await fleet.ask<{ entries: ReadonlyArray<{ action: string }> }>([
      "audit",
      "--limit",
      "2"
    ])
    expect(entries.map(({ action }) => action)).toEqual(["revoke token", "rotate token"])
    expect(fleet.server.log()).not.toContain(made.token.slice(-20))
  })

  it("drops on demand, and shows what it keeps", async () => {
    const swept = await operate("sweep")
    expect(swept).toMatchObject({ code: 0, stderr: "" })
    const status = await fleet.postern(["status"])
    expect(status.stdout).toMatch(/storage:\s+payloads .*free/)
  })
})

describe("what a server tells collectors", () => {
  it("traces over OTLP, log lines as JSON with the trace and the request, and no secret in either", async () => {
    const spans: Array<string> = []
    const collector = createServer((incoming, outgoing) => {
      let body = ""
      incoming.setEncoding("utf8").on("data", (part) => {
        body += part
      })
      incoming.on("end", () => {
        spans.push(`${incoming.url} ${body}`)
        outgoing.end("{}")
      })
    })
    await new Promise<void>((resolve) => collector.listen(0, "127.0.0.1", resolve))
    const address = collector.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    const other = await BuiltFleet.create()
    try {
      other.server.environment({
        POSTERN_OTLP_ENDPOINT: `http://127.0.0.1:${port}`,
        POSTERN_LOG_FORMAT: "json",
        POSTERN_LOG_LEVEL: "debug"
      })
      await other.startServer()
      const token = readFileSync(await other.token("scraper", "viewer"), "utf8").trim()
      const headers = { authorization: `Bearer ${token}` }
      const answer = await fetch(`${other.address}/api/management/v1/roots?from=1`, { headers })
      expect(answer.status).toBe(200)
      const seen = await waitUntil(
        "a span at the collector",
        () => spans.find((each) => each.includes("GET /roots")),
        patienceMs
      )
      expect(seen).toContain("/v1/traces")
      expect(seen).toContain("postern-server")
      expect(seen).toContain(answer.headers.get("x-request-id") ?? "no id")
      const lines = other.server
        .log()
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as Record<string, string>)
      expect(lines[0]).toMatchObject({ level: "info", actor: "/server/gateways/http" })
      const secret = token.split(".")[1] as string
      expect(other.server.log()).not.toContain(secret)
      expect(spans.join("\n")).not.toContain(secret)
    } finally {
      await other.close()
      collector.closeAllConnections()
      await new Promise((resolve) => collector.close(resolve))
    }
  })
})
