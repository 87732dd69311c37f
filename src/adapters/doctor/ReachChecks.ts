/**
 * The way to a server: its name, its answer, its clock. One plain request each, as any newcomer would make it, by the route
 * that the program's own requests take: a name that goes to a proxy or to Tor is not looked up here.
 *
 * @module
 */
import { lookup } from "node:dns/promises"
import { isIP } from "node:net"
import { Clock, Effect, Schema } from "effect"
import { deviceApiPath } from "../../schemas/DeviceApi.ts"
import { ServerIdentity } from "../../schemas/Enrolment.ts"
import type { Finding } from "../../schemas/Finding.ts"
import { Limits } from "../../schemas/Limits.ts"
import { errorText } from "../files/AtomicFile.ts"
import { httpTransport } from "../HttpTransport.ts"
import { proxyRoutes, type Route, type Routes } from "../net/Routes.ts"
import { fetchOver } from "../operator/RoutedFetch.ts"
import { requirement } from "./Findings.ts"

const lookupMs = 5_000
const answerMs = 10_000
/** Until an answer through Tor is there, its circuits included. */
const torAnswerMs = 45_000
/** How long these checks may take in all. */
export const reachWithinMs = 60_000
const toleratedMs = 60_000

/** An address, and how it is reached. */
interface Way {
  readonly address: string
  readonly route: Route
}

const names = (ways: ReadonlyArray<Way>): Effect.Effect<Finding> => {
  const is = requirement("network.names", "name resolution for the server's addresses")
  const direct = ways.filter(({ route }) => route._tag === "Direct")
  const hosts = [
    ...new Set(direct.map(({ address }) => new URL(address).hostname.replace(/^\[|\]$/g, "")))
  ].filter((host) => isIP(host) === 0)
  if (hosts.length === 0)
    return Effect.succeed(
      is.ok(
        direct.length === ways.length
          ? "not needed: the addresses are numbers"
          : "not needed: names go to Tor or to the proxy"
      )
    )
  const resolve = (host: string) =>
    Effect.tryPromise(() => lookup(host)).pipe(
      Effect.timeout(lookupMs),
      Effect.map(({ address }) => `${host} is ${address}`),
      Effect.option
    )
  return Effect.map(Effect.forEach(hosts, resolve, { concurrency: 4 }), (found) => {
    const good = found.flatMap((one) => (one._tag === "Some" ? [one.value] : []))
    return good.length > 0
      ? is.ok(good.join(", "))
      : is.failed(
          `no address for ${hosts.join(", ")}`,
          "check /etc/resolv.conf: getent hosts NAME must answer"
        )
  })
}

interface Answer {
  readonly address: string
  /** Null where the answer carried no date. */
  readonly dateMs: number | null
  readonly problem: string | null
}

const decodeIdentity = Schema.decodeUnknownOption(Schema.fromJsonString(ServerIdentity))

const boundedText = async (response: Response): Promise<string> => {
  const length = Number(response.headers.get("content-length"))
  return length > Limits.envelopeBytes ? "" : await response.text()
}

const ask =
  (fetchBy: typeof fetch) =>
  ({ address, route }: Way): Effect.Effect<Answer> =>
    Effect.tryPromise({
      try: async (signal) => {
        const limit = AbortSignal.timeout(route._tag === "Tor" ? torAnswerMs : answerMs)
        const both = AbortSignal.any([signal, limit])
        const response = await fetchBy(`${address}${deviceApiPath}/identity`, { signal: both })
        const isOurs = response.ok && decodeIdentity(await boundedText(response))._tag === "Some"
        const date = Date.parse(response.headers.get("date") ?? "")
        const problem = isOurs ? null : `status ${response.status}, and not as a Postern server answers`
        return { address, dateMs: Number.isNaN(date) ? null : date, problem }
      },
      // fetch hides what happened behind "fetch failed".
      catch: (error): string =>
        errorText(error instanceof Error && error.cause instanceof Error ? error.cause : error)
    }).pipe(Effect.catch((problem) => Effect.succeed({ address, dateMs: null, problem })))

const reached = (answers: ReadonlyArray<Answer>, mend: string): Finding => {
  const is = requirement("server.reached", "a server that answers")
  const good = answers.find(({ problem }) => problem === null)
  if (good !== undefined) return is.ok(`${good.address} answers`)
  const shown = answers.map(({ address, problem }) => `${address}: ${problem}`).join("; ")
  return is.failed(shown, mend)
}

const serverClock = (answers: ReadonlyArray<Answer>, nowMs: number): ReadonlyArray<Finding> => {
  const is = requirement("server.clock", "a clock that agrees with the server's")
  const told = answers.find(({ dateMs, problem }) => problem === null && dateMs !== null)?.dateMs
  if (told === undefined || told === null) return []
  const apartMs = Math.abs(told - nowMs)
  return [
    apartMs <= toleratedMs
      ? is.ok("they agree within a minute")
      : is.degraded(
          `they are ${Math.round(apartMs / 1_000)} seconds apart`,
          "set the wrong one: timedatectl set-ntp true"
        )
  ]
}

/** Asks all addresses at once. `mend` is for a server that none of them reaches. */
export const reachChecks = (
  addresses: ReadonlyArray<string>,
  mend: string,
  routes: Routes = proxyRoutes(null)
): Effect.Effect<ReadonlyArray<Finding>> =>
  Effect.gen(function* () {
    const ways = yield* Effect.forEach(addresses, (address) =>
      Effect.map(routes.to(address), (route): Way => ({ address, route }))
    )
    const fetchBy = fetchOver(yield* httpTransport({ routes }))
    const [named, answers] = yield* Effect.all(
      [names(ways), Effect.forEach(ways, ask(fetchBy), { concurrency: 8 })],
      { concurrency: 2 }
    )
    return [named, reached(answers, mend), ...serverClock(answers, yield* Clock.currentTimeMillis)]
  }).pipe(Effect.scoped)
