import { mkdirSync, writeFileSync } from "node:fs"
import { networkInterfaces } from "node:os"
import { dirname, join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { LinuxHost, type LinuxHostOptions } from "../../src/adapters/LinuxHost.ts"
import { type HostFigures, HostProbe } from "../../src/ports/HostProbe.ts"
import { HealthReport } from "../../src/schemas/Health.ts"
import type { Incarnation } from "../../src/schemas/Ids.ts"
import { healthReport } from "../support/health.ts"
import { temporaryFolder } from "./support/folders.ts"

const withProbe = <A, E>(
  options: Partial<LinuxHostOptions>,
  use: (probe: HostProbe["Service"]) => Effect.Effect<A, E>
) => Effect.flatMap(HostProbe, use).pipe(Effect.provide(LinuxHost({ stateFolder: "/", ...options })))

const put = (folder: string, files: Readonly<Record<string, string>>): void => {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true })
    writeFileSync(join(folder, path), text)
  }
}

/** A whole report around the figures of a machine. */
const reportOf = ({ machine, ...figures }: HostFigures) => ({
  ...figures,
  ...healthReport({ at_ms: 1 }, figures),
  identity: { ...machine, device: "dev_x", incarnation: "a".repeat(26) as Incarnation }
})

describe("the host's figures", () => {
  it.live("make a sound report on this very machine", () =>
    withProbe({}, (probe) =>
      Effect.gen(function* () {
        const figures = yield* probe.figures
        yield* Schema.decodeEffect(HealthReport)(reportOf(figures))
        assert.isAbove(figures.memory_available_bytes ?? 0, 0)
        assert.isAtMost(figures.memory_available_bytes ?? 0, figures.memory_total_bytes ?? 0)
        assert.isAbove(yield* probe.freeDiskBytes, 0)
        const names = figures.adapters.map(({ name }) => name)
        assert.includeMembers(names, Object.keys(networkInterfaces()))
        assert.deepInclude(names, "lo")
        const { largest, own } = figures.processes
        assert.isAtLeast(figures.processes.count ?? 0, own.length)
        assert.isTrue(own.some(({ pid }) => pid === process.pid))
        assert.deepEqual(
          [...largest],
          [...largest].sort((a, b) => b.memory_bytes - a.memory_bytes)
        )
        assert.match(figures.machine.boot ?? "", /^[0-9a-f-]{36}$/)
      })
    )
  )

  it.live("are read from /proc and /sys, the hottest sensible sensor first", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      put(folder, {
        "proc/meminfo": "MemTotal:       1000 kB\nMemAvailable:    600 kB\n",
        "sys/class/thermal/thermal_zone0/temp": "41234\n",
        "sys/class/thermal/thermal_zone1/temp": "52000\n",
        "sys/class/thermal/thermal_zone2/temp": "999000\n",
        "sys/class/thermal/thermal_zone3/temp": "\n",
        "sys/class/thermal/cooling_device0/temp": "60000\n",
        "sys/class/net/lo/operstate": "unknown\n"
      })
      const figures = yield* withProbe(
        { proc: join(folder, "proc"), sys: join(folder, "sys") },
        (probe) => probe.figures
      )
      assert.strictEqual(figures.memory_available_bytes, 600 * 1024)
      assert.strictEqual(figures.temperature_celsius, 52)
      assert.deepStrictEqual(
        figures.adapters.filter(({ up }) => up).map(({ name }) => name),
        ["lo"]
      )
    })
  )

  it.live("are null where a machine does not tell them", () =>
    Effect.gen(function* () {
      const nowhere = join(yield* temporaryFolder, "none")
      yield* withProbe({ proc: nowhere, sys: nowhere, stateFolder: nowhere }, (probe) =>
        Effect.gen(function* () {
          const figures = yield* probe.figures
          assert.isNull(figures.memory_available_bytes)
          assert.isNull(figures.temperature_celsius)
          assert.isNull(figures.disk_free_bytes)
          assert.isNull(figures.disk_total_bytes)
          yield* Schema.decodeEffect(HealthReport)(reportOf(figures))
          assert.match((yield* Effect.flip(probe.freeDiskBytes)).reason, /none: ENOENT/)
        })
      )
    })
  )
})
