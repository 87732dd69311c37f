/** The built client on lines that are worse, and for longer, than the usual tests have time for. */
import { afterAll, beforeAll, expect, it } from "vitest"
import { type Behind, Firewalls, plainPort, proxyUrl, worldAddress } from "../support/Firewalls.ts"
import { waitUntil } from "../support/Program.ts"
import { proofSize } from "../support/proof.ts"
import { describeWith } from "../support/requires.ts"

const patienceMs = 280_000
const isLong = proofSize === "long"

const parts = ["root", "jail", "ip", "nsenter", "nft", "openssl", "python3", "tinyproxy"]

describeWith(parts, "a device on a bad line", () => {
  let firewalls: Firewalls

  beforeAll(async () => {
    firewalls = await Firewalls.open()
  })
  afterAll(() => firewalls?.close())

  /** Waits until so much more has come than before. */
  const until = async (behind: Behind, bytes: number): Promise<void> => {
    const before = await behind.came()
    await waitUntil("a part of the payload", async () => (await behind.came()) - before > bytes, patienceMs)
  }

  it.concurrent("carries a large payload with a delay of 300 ms and a loss of 5 %", async () => {
    const behind = await firewalls.behind("far", { outgoing: "", line: { delayMs: 300, loss: 0.05 } })
    await behind.enrol()
    const startedMs = performance.now()
    const bytes = isLong ? 4_000_000 : 400_000
    expect(await behind.run(bytes, isLong ? 1_500_000 : patienceMs)).toEqual({ digestFits: true })
    process.stdout.write(
      `far: ${bytes} bytes and a receipt in ${((performance.now() - startedMs) / 1000).toFixed(1)} s\n`
    )
  })

  it.concurrent("goes on behind a gate that got another address and forgot its connections", async () => {
    const line = { rate: 200_000, queueBytes: 50_000 }
    const behind = await firewalls.behind("renumbered", { outgoing: "", line })
    await behind.enrol()
    const before = await behind.came()
    const renumber = async () => {
      await until(behind, 300_000)
      await behind.renumber()
      await behind.link?.set({ rate: null })
      return performance.now()
    }
    const [ran, changedMs] = await Promise.all([behind.run(1_000_000, patienceMs), renumber()])
    expect(ran).toEqual({ digestFits: true })
    expect((await behind.came()) - before).toBeLessThan(1_500_000)
    process.stdout.write(
      `renumbered: receipt ${((performance.now() - changedMs) / 1000).toFixed(1)} s after the change\n`
    )
  })

  it.concurrent("goes on after the line was dead in the middle of a download", async () => {
    const line = { rate: 200_000, queueBytes: 50_000 }
    const behind = await firewalls.behind("interrupted", { outgoing: "", line })
    await behind.enrol()
    const before = await behind.came()
    const interrupt = async () => {
      await until(behind, 300_000)
      await behind.link?.set({ loss: 1 })
      const noticed = /not reached|nothing was heard/
      await waitUntil(
        "the client to notice",
        () => noticed.test(behind.log()),
        patienceMs,
        () => behind.log()
      )
      await behind.link?.set({ loss: 0, rate: null })
      return performance.now()
    }
    const [ran, backMs] = await Promise.all([behind.run(1_000_000, patienceMs), interrupt()])
    expect(ran).toEqual({ digestFits: true })
    expect((await behind.came()) - before).toBeLessThan(1_500_000)
    process.stdout.write(
      `interrupted: receipt ${((performance.now() - backMs) / 1000).toFixed(1)} s after the line was back\n`
    )
  })

  it.concurrent("takes the server's other address where a proxy refuses to connect to the first", async () => {
    const behind = await firewalls.behind("plain", { outgoing: null, proxy: [plainPort] })
    await behind.enrol([`proxy = "${proxyUrl}"`])
    expect(await behind.run(1_000_000)).toEqual({ digestFits: true })
    const { keptIn, letOut } = await behind.figures()
    expect([keptIn, letOut]).toEqual([0, 0])
    const log = behind.gate.log("proxy.log")
    expect(log).toContain(`CONNECT ${worldAddress}:443`)
    expect(log).toContain(`CONNECT ${worldAddress}:${plainPort}`)
  })
})
