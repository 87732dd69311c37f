/**
 * What Tor stands on: its program, the programs of transports, and how the running program says it is.
 *
 * @module
 */
import { accessSync, constants } from "node:fs"
import { Effect } from "effect"
import type { Finding } from "../../schemas/Finding.ts"
import type { TorSettings } from "../../schemas/TorSettings.ts"
import type { TunnelState } from "../../schemas/TunnelState.ts"
import { launchPath } from "../jail/Launch.ts"
import { runTool } from "../Tool.ts"
import { requirement } from "./Findings.ts"

const versionMs = 5_000
/** Keys for single onion services are told over the control connection since this one; its defences came with 0.4.8. */
const oldest = [0, 4, 7] as const

/** `0.4.8.10` of `Tor version 0.4.8.10.`; null where that does not run or says something else. */
const versionOf = (command: string): Effect.Effect<string | null> =>
  runTool({
    command: [command, "--version"],
    timeoutMs: versionMs,
    environment: { PATH: `${launchPath}:${process.env["PATH"] ?? ""}` }
  }).pipe(
    Effect.map((words) => /^Tor version (\d+(?:\.\d+)*)/m.exec(words)?.[1] ?? null),
    Effect.orElseSucceed(() => null)
  )

const isOld = (version: string): boolean => {
  const numbers = version.split(".").map(Number)
  const differing = oldest.findIndex((number, index) => number !== numbers[index])
  return differing >= 0 && (numbers[differing] ?? 0) < (oldest[differing] as number)
}

const program = (settings: TorSettings): Effect.Effect<Finding> => {
  const is = requirement("tor.program", "tor, for addresses that are reached through it alone")
  const running = settings.control ?? settings.socks ?? null
  if (running !== null)
    return Effect.succeed(
      is.ok(
        `not needed: ${running} is of one that runs already, and should have ExtendedErrors at its SocksPort`
      )
    )
  return Effect.map(versionOf(settings.command), (version) => {
    if (version === null)
      return is.degraded(`there is no ${settings.command} that runs`, "apt-get install tor")
    return isOld(version)
      ? is.degraded(`${version}, which is old`, `install ${oldest.join(".")} or newer: apt-get install tor`)
      : is.ok(version)
  })
}

const transports = (settings: TorSettings): ReadonlyArray<Finding> =>
  settings.transports.map((line) => {
    const [names = "", , path = ""] = line.split(" ")
    const short = names.toLowerCase().replace(/[^a-z0-9_-]/g, "-")
    const is = requirement(`tor.transport.${short}`.slice(0, 64), `${path}, which hides that Tor is spoken`)
    try {
      accessSync(path, constants.X_OK)
      return is.ok(names)
    } catch {
      return is.degraded(
        `there is no program ${path}`,
        "install it (apt-get install obfs4proxy), or mend tor.transports"
      )
    }
  })

const network = (state: TunnelState | undefined): ReadonlyArray<Finding> => {
  if (state === undefined || state.phase === "off") return []
  const is = requirement("tor.network", "a way into Tor's network")
  if (state.phase === "ready") return [is.ok(state.summary)]
  const why = state.reason === null ? "" : `: ${state.reason}`
  return [
    is.degraded(
      `${state.phase} at ${state.progress} %, ${state.summary}${why}`,
      "see the log; where the network blocks Tor, set tor.bridges, tor.reachable_ports or proxy (docs/tor.md)"
    )
  ]
}

/** Everything, where Tor is needed. `state`: of the running device, if it tells. */
export const torChecks = (
  settings: TorSettings,
  state?: TunnelState
): Effect.Effect<ReadonlyArray<Finding>> =>
  Effect.map(program(settings), (found) => [found, ...transports(settings), ...network(state)])
