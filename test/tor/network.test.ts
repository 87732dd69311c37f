/** The private Tor network itself: what stands when it is announced, and what is left when its starter is killed. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmdirSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, Fiber } from "effect"
import { expect, it } from "vitest"
import { startPrivateTorNetwork } from "../../src/adapters/tor/lab/PrivateTorNetwork.ts"
import { waitUntil } from "../support/Program.ts"
import { describeWith } from "../support/requires.ts"
import { ownTorNetwork, sharedTorNetwork } from "../support/torNetwork.ts"
import { NetworkStarter, processesOf } from "../support/torProcesses.ts"

describeWith(["tor", "tor-gencert"], "a private Tor network", () => {
  it.concurrent("is one authority and three relays, all running", async () => {
    const network = await sharedTorNetwork()
    expect(Object.keys(network.pids).sort()).toEqual(["authority", "relay1", "relay2", "relay3"])
    for (const pid of Object.values(network.pids)) expect(existsSync(`/proc/${pid}`)).toBe(true)
    expect(network.relays.every(({ role }) => role === "relay")).toBe(true)
    expect(network.bridge).toBeNull()
  })

  it.concurrent("leaves neither processes nor files when its starter is killed half-way", async () => {
    const starter = new NetworkStarter()
    await starter.runs(2)
    await starter.killed()
    expect(existsSync(starter.parent)).toBe(false)
  })

  it.concurrent("that is given up while a tool makes its keys leaves neither the tool nor files", async () => {
    const folder = mkdtempSync(join(tmpdir(), "postern-slow-tor-"))
    const parent = join(folder, "network")
    mkdirSync(parent)
    const tor = join(folder, "slow-tor")
    // It ends with this test, and starts no other process: one that is just being made has its starter's command line still.
    writeFileSync(tor, '#!/bin/sh\nexec tail --pid="$PPID" -f "$0" -- "$@" 2>/dev/null\n', { mode: 0o755 })
    const network = Effect.runFork(Effect.scoped(startPrivateTorNetwork({ parent, tor })))
    await waitUntil("the tool", () =>
      processesOf(folder).some((command) => command.includes("--list-fingerprint"))
    )
    await Effect.runPromise(Fiber.interrupt(network))
    expect(processesOf(folder)).toEqual([])
    expect(readdirSync(parent)).toEqual([])
    rmSync(folder, { recursive: true })
  })

  it.concurrent.each([
    [{ tor: "no-such-tor" }, "The authority's keys could not be made: no-such-tor: "],
    [{ via: ["no-such-command"] }, "The tor authority could not be started"],
    [{ via: ["false"] }, "The tor authority ended. Its last words:"],
    [{ relays: 2 }, "An onion service needs 3 relays, not 2"]
  ])("that cannot start with %j says why, and leaves nothing", async (options, message) => {
    const parent = mkdtempSync(join(tmpdir(), "postern-no-network-"))
    await expect(ownTorNetwork({ parent, ...options })).rejects.toThrow(message)
    expect(readdirSync(parent)).toEqual([])
    rmdirSync(parent)
  })
})
