import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { dirname, join } from "node:path"
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { checkGroup, requirement } from "../../src/adapters/doctor/Findings.ts"
import { jailChecks } from "../../src/adapters/doctor/MachineChecks.ts"
import { kindOfState, patientAt } from "../../src/adapters/doctor/Patient.ts"
import { reachChecks } from "../../src/adapters/doctor/ReachChecks.ts"
import { stateChecks } from "../../src/adapters/doctor/StateChecks.ts"
import type { Finding } from "../../src/schemas/Finding.ts"
import { temporaryFolder } from "./support/folders.ts"

const byId = (findings: ReadonlyArray<Finding>) => (id: string) => findings.find((one) => one.id === id)

describe("a check", () => {
  it.effect("that breaks is a finding itself", () =>
    Effect.gen(function* () {
      const broken = yield* checkGroup("jail", "the jail", Effect.die(new Error("no such\u001b[31m luck")))
      expect(broken).toMatchObject([{ id: "jail", state: "degraded" }])
      expect(broken[0]?.reason).toBe("it could not be looked at: no such [31m luck")
    })
  )

  it("cuts what is too long to show", () => {
    const { reason } = requirement("a.b", "it").failed("x".repeat(10_000), "")
    expect(reason).toHaveLength(500)
    expect(reason).toMatch(/…$/)
  })
})

describe("what the jail stands on", () => {
  it.effect("names each setting that keeps namespaces away, with what lifts it", () =>
    Effect.gen(function* () {
      const sysctl = yield* temporaryFolder
      const set = (file: string, value: string) => {
        mkdirSync(dirname(join(sysctl, file)), { recursive: true })
        writeFileSync(join(sysctl, file), `${value}\n`)
      }
      const namespaces = () => byId(jailChecks("bwrap", sysctl))("kernel.user_namespaces")
      expect(namespaces()).toMatchObject({ state: "ok" })
      set("kernel/apparmor_restrict_unprivileged_userns", "1")
      expect(namespaces()?.mend).toContain("kernel.apparmor_restrict_unprivileged_userns=0")
      set("kernel/unprivileged_userns_clone", "0")
      expect(namespaces()?.mend).toContain("kernel.unprivileged_userns_clone=1")
      set("user/max_user_namespaces", "0")
      expect(namespaces()).toMatchObject({ state: "degraded", reason: "user.max_user_namespaces is 0" })
      const found = byId(jailChecks("/nowhere/bwrap", sysctl))
      expect(found("program.bwrap")).toMatchObject({
        state: "degraded",
        mend: "apt-get install bubblewrap"
      })
      expect(found("kernel.seccomp")).toMatchObject({ state: "degraded" })
    })
  )
})

describe("a state folder", () => {
  it.effect("is looked at without being touched, whatever it is", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const look = (stateFolder: string, reserveBytes = 0) => byId(stateChecks({ stateFolder }, reserveBytes))
      const absent = look(join(folder, "none/deeper"))
      expect(absent("state.folder")).toMatchObject({ state: "degraded" })
      expect(absent("state.disk")).toMatchObject({ state: "ok" })
      expect(look(folder, Number.MAX_SAFE_INTEGER)("state.disk")).toMatchObject({ state: "degraded" })

      const file = join(folder, "file")
      writeFileSync(file, "")
      expect(look(file)("state.folder")).toMatchObject({ state: "failed" })
      const link = join(folder, "link")
      symlinkSync(folder, link)
      expect(look(link)("state.folder")).toMatchObject({ state: "failed" })

      const state = join(folder, "it's state")
      mkdirSync(join(state, "keys"), { recursive: true, mode: 0o700 })
      expect(look(state)("state.keys")).toMatchObject({ state: "degraded" })
      writeFileSync(join(state, "keys/node.json"), '{"kind":"server","id":"srv_x"}', { mode: 0o600 })
      expect(look(state)("state.keys")).toMatchObject({ state: "ok" })
      chmodSync(join(state, "keys"), 0o750)
      const mend = look(state)("state.keys")?.mend
      expect(mend).toBe(`chmod 0700 '${folder}/it'\\''s state/keys'`)
      expect(kindOfState(state)).toBe("server")
      expect(kindOfState(folder)).toBeNull()
      expect(yield* patientAt("server", state)).toMatchObject({ running: null })
    })
  )
})

describe("the way to a server", () => {
  const answering = (status: number, body: string) =>
    Effect.acquireRelease(
      Effect.callback<{ readonly address: string; readonly close: () => void }>((resume) => {
        const server = createServer((_request, response) => response.writeHead(status).end(body))
        server.listen(0, "127.0.0.1", () => {
          const { port } = server.address() as AddressInfo
          resume(Effect.succeed({ address: `http://127.0.0.1:${port}`, close: () => server.close() }))
        })
      }),
      ({ close }) => Effect.sync(close)
    )

  it.live("fails by name where nobody or somebody else answers", () =>
    Effect.gen(function* () {
      const other = yield* answering(200, "<html>")
      const lost = yield* answering(404, "")
      lost.close()
      const found = byId(yield* reachChecks([other.address, lost.address, "http://nowhere.invalid"], "look"))
      expect(found("server.reached")).toMatchObject({ state: "failed", mend: "look" })
      expect(found("server.reached")?.reason).toContain(`${other.address}: status 200, and not as a Postern`)
      expect(found("server.reached")?.reason).toContain(`${lost.address}: nobody listens there`)
      expect(found("network.names")).toMatchObject({ state: "failed" })
      expect(found("server.clock")).toBeUndefined()
    })
  )
})
