/**
 * A device that reaches its server through Tor alone works again by itself, whatever was taken away: how long that takes,
 * in the middle and at the worst, counted from when it could.
 */
import { afterAll, beforeAll, expect, it } from "vitest"
import { waitUntil } from "../support/Program.ts"
import { proofSize } from "../support/proof.ts"
import { describeWith } from "../support/requires.ts"
import { TorWorld } from "../support/torRecovery.ts"

const rounds = proofSize === "short" ? 2 : 20
/** How long the network is gone: once so long that the device has said of it what is wrong. */
const goneMs = (round: number): number => (proofSize === "short" ? 8_000 : round === 0 ? 180_000 : 30_000)
const toldAfterMs = 120_000
const timeoutMs = proofSize === "short" ? 600_000 : 3_000_000

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))
const seconds = (ms: number): string => (ms / 1_000).toFixed(1).padStart(7)

interface Row {
  readonly kind: string
  readonly tookMs: ReadonlyArray<number>
}

const lineOf = ({ kind, tookMs }: Row): string => {
  const sorted = [...tookMs].sort((left, right) => left - right)
  const median = sorted[Math.floor((sorted.length - 1) / 2)] ?? Number.NaN
  return `  ${kind.padEnd(44)}${`${sorted.length}`.padStart(6)}${seconds(median)} s${seconds(sorted.at(-1) ?? Number.NaN)} s`
}

describeWith(
  ["root", "ip", "unshare", "nsenter", "mount", "faketime", "tor", "tor-gencert", "jail"],
  "a device that reaches its server through Tor alone works again",
  () => {
    let world: TorWorld
    const rows: Array<Row> = []

    beforeAll(async () => {
      world = await TorWorld.open()
    }, 180_000)
    afterAll(async () => {
      const head = `  ${"after".padEnd(44)}rounds   median     worst`
      process.stdout.write(
        `\nthrough Tor, until the second answered poll\n${head}\n${rows.map(lineOf).join("\n")}\n`
      )
      await world?.close()
    }, 60_000)

    /** Does the same to a device that works, again and again. `fault` gives back when it could work again. */
    const recovers = (kind: string, fault: (round: number) => Promise<void>): void => {
      it(`after ${kind}`, { timeout: timeoutMs }, async () => {
        const tookMs: Array<number> = []
        rows.push({ kind, tookMs })
        for (let round = 0; round < rounds; round++) {
          await world.meets()
          await fault(round)
          tookMs.push(await world.meets())
        }
        expect(tookMs).toHaveLength(rounds)
      })
    }

    recovers("kill -9 of the device's tor", async () => {
      process.kill(world.deviceTorPid, "SIGKILL")
    })

    recovers("kill -9 of the server's tor", async () => {
      process.kill(world.serverTorPid, "SIGKILL")
    })

    recovers("a request to a service whose tor has just died", async (round) => {
      // Whoever asks between the death and the next descriptor may wait for a meeting that never comes.
      process.kill(world.serverTorPid, "SIGKILL")
      await pause((round * 137) % 1_000)
      await world.renewCircuits()
    })

    recovers("kill -9 of the server, and its start", async () => {
      await world.fleet.server.crash()
      world.fleet.server.start()
    })

    recovers("a network that was gone for a while", async (round) => {
      world.unplug()
      try {
        await pause(goneMs(round))
        const told = await world.conditions()
        if (goneMs(round) > toldAfterMs) expect([...told.keys()]).toContain("no_link")
      } finally {
        world.plugIn()
      }
    })

    recovers("a boot with a wrong clock, put right", async (round) => {
      await world.device.program.stop()
      world.setClock(["-10d", "+10d", "-1000d"][round % 3] as string)
      world.device.program.start()
      const told = async () => (await world.conditions()).get("clock_wrong")
      const detail = await waitUntil("the word that the clock is wrong", told, 120_000, () =>
        world.device.program.log().slice(-4_000)
      )
      expect(detail).toMatch(/days behind|certificate/)
      world.setClock("+0")
    })
  }
)
