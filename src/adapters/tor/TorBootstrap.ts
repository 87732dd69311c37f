/**
 * How far a tor is on its way into Tor's network, gathered from the events in which it tells of it (control-spec, 4.1.10
 * and 4.1.27).
 *
 * @module
 */
import { Effect, type Scope } from "effect"
import { controlWords } from "./ControlReplies.ts"
import { type TorControl, type TorControlError, type TorEvent, torInfo } from "./TorControl.ts"

export interface TorBootstrap {
  /** In percent. */
  readonly progress: number
  /** Tor's word for the step: `conn_done`, `loading_descriptors` … */
  readonly tag: string
  /** The same for people. */
  readonly summary: string
  /** Tor's last warning on the way; null once it went on. */
  readonly warning: string | null
  /** Tor's word for its reason: `NOROUTE`, `CONNECTREFUSED`, `TLS_ERROR` …; null where there is none. */
  readonly reason: string | null
  /** Whether circuits are built. */
  readonly circuits: boolean
  /** Whether tor thinks that its network is reached at all. */
  readonly live: boolean
  /** Seconds by which the machine's clock is ahead of the network's; null where tor found nothing to complain of. */
  readonly clockSkewSeconds: number | null
  /** Tor's complaint of certificates that are not valid by this machine's clock; null without. */
  readonly clockDoubt: string | null
}

export const noBootstrap: TorBootstrap = {
  progress: 0,
  tag: "starting",
  summary: "Starting",
  warning: null,
  reason: null,
  circuits: false,
  live: true,
  clockSkewSeconds: null,
  clockDoubt: null
}

const clockGood = { clockSkewSeconds: null, clockDoubt: null } as const

/** A percentage that may come from anybody. */
const percent = (text: string | undefined): number | undefined => {
  const number = Number(text)
  return text !== undefined && Number.isInteger(number) && number >= 0 && number <= 100 ? number : undefined
}

const bootstrapped = (state: TorBootstrap, fields: Readonly<Record<string, string>>): TorBootstrap => ({
  ...state,
  progress: percent(fields["PROGRESS"]) ?? state.progress,
  tag: fields["TAG"] ?? state.tag,
  summary: fields["SUMMARY"] ?? state.summary,
  warning: fields["WARNING"] ?? null,
  reason: fields["REASON"] ?? null
})

const clientStatus = (state: TorBootstrap, text: string): TorBootstrap => {
  const { fields, words } = controlWords(text)
  switch (words[1]) {
    case "BOOTSTRAP":
      return bootstrapped(state, fields)
    case "CIRCUIT_ESTABLISHED":
      // What stood in the way has passed.
      return { ...state, circuits: true, live: true, warning: null, reason: null, ...clockGood }
    case "CIRCUIT_NOT_ESTABLISHED":
      return { ...state, circuits: false, reason: fields["REASON"] ?? state.reason }
    default:
      return state
  }
}

/**
 * A clock that is days ahead shows in nothing else: relays' certificates seem to have ended, so that nobody is believed
 * who could tell the time.
 */
const certificateComplaint = /certificate.*(?:expired|not (?:yet )?valid|in the future)/i

/** Whoever gets through has a clock that is good enough: then one relay alone is wrong. */
const getsThrough = ({ circuits, live }: TorBootstrap): boolean => circuits && live

const generalStatus = (state: TorBootstrap, text: string): TorBootstrap => {
  const { fields, words } = controlWords(text)
  // The clock was set: what tor found wrong with it before counts no more.
  if (words[1] === "CLOCK_JUMPED") return { ...state, ...clockGood }
  if (words[1] !== "CLOCK_SKEW" || getsThrough(state)) return state
  const skew = Number(fields["SKEW"] ?? fields["MIN_SKEW"])
  return Number.isSafeInteger(skew) ? { ...state, clockSkewSeconds: skew } : state
}

/** What an event changes. */
export const afterEvent = (
  state: TorBootstrap,
  { name, text }: Pick<TorEvent, "name" | "text">
): TorBootstrap => {
  if (name === "STATUS_CLIENT") return clientStatus(state, text)
  if (name === "STATUS_GENERAL") return generalStatus(state, text)
  if (name === "WARN")
    return certificateComplaint.test(text) && !getsThrough(state) ? { ...state, clockDoubt: text } : state
  return name === "NETWORK_LIVENESS" ? { ...state, live: text.trim() === "UP" } : state
}

/** Follows a tor for as long as the scope lasts; `onChange` is called at once, and after each event that told of it. */
export const watchBootstrap = Effect.fnUntraced(function* (
  control: TorControl,
  onChange: (state: TorBootstrap) => void
): Effect.fn.Return<Effect.Effect<TorBootstrap>, TorControlError, Scope.Scope> {
  let state = noBootstrap
  const take = (next: TorBootstrap): void => {
    state = next
    onChange(next)
  }
  yield* control.subscribe(["STATUS_CLIENT", "STATUS_GENERAL", "NETWORK_LIVENESS", "WARN"], (event) =>
    take(afterEvent(state, event))
  )
  // What was before the first event, and is told to nobody who comes late. An older tor may not know all of it.
  const asked = (key: string) => Effect.orElseSucceed(torInfo(control, key), () => "")
  const phase = yield* torInfo(control, "status/bootstrap-phase")
  const circuits = yield* asked("status/circuit-established")
  const liveness = yield* asked("network-liveness")
  take({
    ...bootstrapped(state, controlWords(phase).fields),
    circuits: circuits === "1" || state.circuits,
    live: liveness !== "down"
  })
  return Effect.sync(() => state)
})
