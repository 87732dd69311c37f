/**
 * The addresses of a server: which serve for what, in which order they are tried, and how long each may take.
 *
 * @module
 */
import { Effect, Result, type Scope } from "effect"
import { type LinkError, type ServerTrust, ServerUnreachable } from "../../ports/ServerLink.ts"

/** What a newcomer asks, what everybody asks, and what only an accepted device asks. */
export type Purpose = "enrolment" | "roots" | "work"

/** How long an address may take to be connected to while there are others to try; twice as long after each failure. */
const firstPatienceMs = 15_000
const longestPatienceMs = 120_000

/** The addresses in the order to try: those that failed come last, the one that did so longest ago first among them. */
const makeOrder = () => {
  const failures = new Map<string, { readonly place: number; readonly times: number }>()
  let preferred: string | undefined
  let count = 0
  const rank = (address: string): number => failures.get(address)?.place ?? (address === preferred ? -1 : 0)
  return {
    sorted: (addresses: ReadonlyArray<string>): ReadonlyArray<string> =>
      [...new Set(addresses)].sort((left, right) => rank(left) - rank(right)),
    worked: (address: string): void => {
      preferred = address
      failures.delete(address)
    },
    failed: (address: string): void => {
      failures.set(address, { place: ++count, times: (failures.get(address)?.times ?? 0) + 1 })
    },
    patienceMs: (address: string): number =>
      Math.min(firstPatienceMs * 2 ** (failures.get(address)?.times ?? 0), longestPatienceMs),
    preferred: () => preferred
  }
}

/** Whom to talk to and where; changes as roots come and addresses fail. */
export const makeServerAddresses = (
  bootstrap: ReadonlyArray<string>,
  forEnrolment: ReadonlyArray<string>
) => {
  let trust: ServerTrust | null = null
  let highestRoot = 0
  let isAccepted = false
  const order = makeOrder()
  let narrowed: ReadonlyArray<string> = []
  /** The root's addresses for the server, then those it began with. */
  const forWork = (): ReadonlyArray<string> => {
    const known = trust?.root.servers.find((server) => server.id === trust?.server)?.addresses ?? []
    const others = [...forEnrolment, ...narrowed]
    return [...known, ...bootstrap.filter((address) => !others.includes(address))]
  }
  const addresses = (purpose: Purpose): ReadonlyArray<string> => {
    const newcomers = [...forEnrolment, ...narrowed]
    if (purpose === "work" || (purpose === "roots" && isAccepted)) return order.sorted(forWork())
    return order.sorted(isAccepted ? [...forWork(), ...newcomers] : [...newcomers, ...forWork()])
  }
  return {
    trust: () => trust,
    setTrust: (next: ServerTrust): void => {
      // A new root is the word of its own keys: whatever the server said before it counts no more.
      const isSame = trust?.server === next.server && trust.root.version === next.root.version
      highestRoot = isSame ? highestRoot : next.root.version
      trust = next
    },
    /** Why a statement's root version is not believed; remembers the highest. */
    fallenRoot: (version: number | null): string | null => {
      if (version === null || version < highestRoot) {
        return `it has root version ${version ?? "none"} after it had ${highestRoot}: it was set back, or is another`
      }
      highestRoot = version
      return null
    },
    addresses,
    worked: order.worked,
    failed: order.failed,
    patienceMs: order.patienceMs,
    /** Whether there is an acceptance: then enrolment's own addresses have served. */
    setAccepted: (accepted: boolean): void => {
      isAccepted = accepted
    },
    /** What the server says of itself can show that an address given for more is for enrolment alone. */
    narrow: (claimed: ReadonlyArray<string>): void => {
      narrowed = bootstrap.filter((address) => claimed.includes(address))
    },
    /** Without trust, who answers first may be anybody: each new question who is there goes to the next address. */
    turn: (): void => {
      const last = order.preferred()
      if (trust === null && last !== undefined) order.failed(last)
    }
  }
}
export type ServerAddresses = ReturnType<typeof makeServerAddresses>

/** Which address a call has come to. */
export interface Progress {
  origin: string | undefined
}

/** What is known of the way is worth more than a mere silence elsewhere, and a doubt outweighs every failure to reach. */
const worse = (before: LinkError, now: LinkError): LinkError => {
  if (before._tag === "ServerUntrusted") return before
  const knew = before._tag === "ServerUnreachable" && before.code !== undefined
  return knew && now._tag === "ServerUnreachable" && now.code === undefined ? before : now
}

/**
 * Tries the addresses in turn; what the server itself says ends the search. `attempt` is told how long it may take to be
 * connected: one address must not use up the time of all, and yet each gets, after some failures, as long as it needs.
 */
export const inTurn = Effect.fnUntraced(function* <A>(
  way: ServerAddresses,
  purpose: Purpose,
  attempt: (origin: string, connectTimeoutMs: number) => Effect.Effect<A, LinkError, Scope.Scope>,
  progress: Progress = { origin: undefined }
): Effect.fn.Return<A, LinkError, Scope.Scope> {
  const addresses = way.addresses(purpose)
  let worst: LinkError = new ServerUnreachable({ address: "(none)", reason: "the server has no address" })
  for (const [index, origin] of addresses.entries()) {
    progress.origin = origin
    const isLast = index === addresses.length - 1
    const outcome = yield* Effect.result(attempt(origin, isLast ? longestPatienceMs : way.patienceMs(origin)))
    if (Result.isSuccess(outcome) || outcome.failure._tag === "ServerRefused") way.worked(origin)
    else way.failed(origin)
    if (Result.isSuccess(outcome)) return outcome.success
    if (outcome.failure._tag === "ServerRefused") return yield* outcome.failure
    worst = worse(worst, outcome.failure)
  }
  return yield* worst
})
