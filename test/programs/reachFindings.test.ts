/** What a doctor finds of a device's way to its server, where only the client can know it. */
import { expect, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { reachFindings } from "../../src/programs/doctor/reachFindings.ts"
import { ClientConfig } from "../../src/schemas/ClientConfig.ts"

const onion = `http://${"a".repeat(55)}d.onion`
const nobody = "http://127.0.0.1:1"
const nowMs = 1_800_000_000_000

const found = (
  tor: (typeof ClientConfig.Encoded)["tor"],
  addresses: ReadonlyArray<string>,
  lastPollAtMs: number | null
) => {
  const config = Schema.decodeSync(ClientConfig)({ state_folder: "/nowhere", ...(tor && { tor }) })
  return Effect.map(reachFindings(config, addresses, lastPollAtMs, nowMs), (findings) =>
    findings.filter(({ id }) => id === "server.reached")
  )
}

it.live("the client's own word counts where tor.control alone leads to the server", () =>
  Effect.gen(function* () {
    const tor = { control: "unix:/run/tor/control" }
    for (const addresses of [[onion], [onion, nobody]]) {
      expect(yield* found(tor, addresses, nowMs - 4_000)).toMatchObject([
        { state: "ok", reason: expect.stringContaining("4 seconds ago") }
      ])
      for (const lastMs of [null, nowMs - 3_600_000])
        expect(yield* found(tor, addresses, lastMs)).toMatchObject([
          {
            state: "degraded",
            reason: expect.stringContaining("not looked at"),
            mend: expect.stringContaining("tor.socks")
          }
        ])
    }
  })
)

it.live("what the doctor can reach itself is asked", () =>
  Effect.gen(function* () {
    expect(yield* found({ control: "unix:/run/tor/control" }, [nobody], nowMs)).toMatchObject([
      { state: "failed" }
    ])
    const bySocks = { control: "unix:/nowhere/control", socks: "unix:/nowhere/socks" }
    expect(yield* found(bySocks, [onion], nowMs)).toMatchObject([{ state: "failed" }])
    expect(yield* found({}, [], null)).toMatchObject([{ state: "failed", reason: "no server is known yet" }])
  })
)
