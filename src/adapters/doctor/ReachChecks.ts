/**
 * The way to a server: its name, its answer, its clock. One plain request each, as any newcomer would make it.
 *
 * @module
 */
import { lookup } from "node:dns/promises"
import { isIP } from "node:net"
import { Clock, Effect, Schema } from "effect"
import { ServerIdentity } from "../../schemas/Enrolment.ts"
import type { Finding } from "../../schemas/Finding.ts"
import { Limits } from "../../schemas/Limits.ts"
import { errorText } from "../files/AtomicFile.ts"
import { requirement } from "./Findings.ts"

const lookupMs = 5_000
const answerMs = 10_000
const toleratedMs = 60_000

const names = (addresses: ReadonlyArray<string>): Effect.Effect<Finding> => {
  const is = requirement("network.names", "name resolution for the server's addresses")
  const hosts = [
    ...new Set(addresses.map((address) => new URL(address).hostname.replace(/^\[|\]$/g, "")))
  ].filter((host) => isIP(host) === 0)
  if (hosts.length === 0) return Effect.succeed(is.ok("not needed: the addresses are numbers"))
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

const ask = (address: string): Effect.Effect<Answer> =>
  Effect.tryPromise({
    try: async (signal) => {
      const both = AbortSignal.any([signal, AbortSignal.timeout(answerMs)])
      const response = await fetch(`${address}/api/device/v1/identity`, { redirect: "error", signal: both })
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
  mend: string
): Effect.Effect<ReadonlyArray<Finding>> =>
  Effect.gen(function* () {
    const [named, answers] = yield* Effect.all(
      [names(addresses), Effect.forEach(addresses, ask, { concurrency: 8 })],
      { concurrency: 2 }
    )
    return [named, reached(answers, mend), ...serverClock(answers, yield* Clock.currentTimeMillis)]
  })
