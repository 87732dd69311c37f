/**
 * A tor to work with: one of this program's own, or one that runs already. Either way it is watched, and its end is told,
 * also where it hangs.
 *
 * @module
 */
import { connect, isIP } from "node:net"
import { Deferred, Duration, Effect, Redacted, type Scope } from "effect"
import type { Entropy } from "../../ports/Entropy.ts"
import { TorError } from "../../schemas/TorError.ts"
import {
  endpointText,
  parseEndpoint,
  parseProxy,
  type TorEndpoint,
  type TorSettings
} from "../../schemas/TorSettings.ts"
import { controlValue } from "./ControlReplies.ts"
import { noBootstrap, type TorBootstrap, watchBootstrap } from "./TorBootstrap.ts"
import { connectControl, type TorControl, type TorControlError, torInfo } from "./TorControl.ts"
import { reconnectOnMove } from "./TorMove.ts"
import { startTorProcess, type TorProcess } from "./TorProcess.ts"
import { runningTor, torPaths } from "./Torrc.ts"

export interface TorNodeOptions {
  /** Of a tor of our own: its files, 0700. Made where it is missing. */
  readonly folder: string
  readonly settings: TorSettings
  /** The upstream proxy of the configuration. */
  readonly proxy: Redacted.Redacted<string> | null
  /** Whether a way into Tor's network is wanted. Onion services need none. */
  readonly socks: boolean
  /** Further lines of torrc, by the program: onion services. A tor that runs already does not get them. */
  readonly lines: ReadonlyArray<string>
  /** For the safe cookie of a tor that runs already. */
  readonly entropy?: Entropy["Service"]
  /** Called at once, and whenever tor tells how far it is. Must be short. */
  readonly onBootstrap?: (state: TorBootstrap) => void
  /** How often tor is asked whether it lives, and how long its answer may take. Default 10 s each. */
  readonly watchMs?: number
}

export interface TorNode {
  /** Null where a tor that runs already is used by its SOCKS port alone. */
  readonly control: TorControl | null
  /** Null where no way into the network was asked for. */
  readonly socks: TorEndpoint | null
  readonly bootstrap: Effect.Effect<TorBootstrap>
  /** Ends with the reason when tor is gone. One that hangs is killed first, if it is our own. */
  readonly ended: Effect.Effect<string>
  /** Null of a tor that runs already. */
  readonly pid: number | null
  /** `0.4.8.10`; empty where it cannot be asked. */
  readonly version: string
}

const startMs = 30_000
const pollMs = 25
const lastWordsMs = 500
const defaultWatchMs = 10_000

const failed = (reason: string, mend = ""): TorError => new TorError({ code: "failed", reason, mend })

const fromControl = (error: TorControlError): TorError => failed(error.message)

/** What tor says of a configuration it does not take. */
const misconfiguration = (complaints: ReadonlyArray<string>): TorError | undefined => {
  const words = complaints.filter((text) => !/^(?:Reading config failed|Couldn't|Error)/.test(text)).at(-1)
  const isAboutConfiguration = complaints.some((text) => /pars.*config|Reading config failed/i.test(text))
  return isAboutConfiguration && words !== undefined
    ? new TorError({
        code: "misconfigured",
        reason: `tor does not take its configuration: ${words}`,
        mend: "look at the settings of Tor and the proxy"
      })
    : undefined
}

/** Connects as soon as tor has made its control socket. */
const awaitControl = (tor: TorProcess, path: string): Effect.Effect<TorControl, TorError, Scope.Scope> => {
  const attempt: Effect.Effect<TorControl, TorControlError, Scope.Scope> = Effect.catch(
    connectControl({ endpoint: { path } }),
    (error) =>
      error.code === "unreachable" || error.code === "closed"
        ? Effect.delay(
            Effect.suspend(() => attempt),
            Duration.millis(pollMs)
          )
        : Effect.fail(error)
  )
  return Effect.raceFirst(
    Effect.mapError(attempt, fromControl),
    Effect.flatMap(tor.ended, (reason) => Effect.fail(misconfiguration(tor.complaints()) ?? failed(reason)))
  ).pipe(
    Effect.timeoutOrElse({
      duration: Duration.millis(startMs),
      orElse: () => Effect.fail(failed(`tor did not listen for commands within ${startMs / 1000} s`))
    })
  )
}

/** Asks now and then; what does not answer hangs. Gives the reason when it does, and only then. */
const untilSilent = (control: TorControl, watchMs: number): Effect.Effect<string> =>
  torInfo(control, "network-liveness", { timeoutMs: watchMs }).pipe(
    Effect.delay(Duration.millis(watchMs)),
    Effect.catch((error) =>
      // A tor too old for the question lives; one that closes the connection shows it elsewhere.
      error.code === "timed_out" ? Effect.fail(error.reason) : Effect.void
    ),
    Effect.forever,
    Effect.flip
  )

const startOwn = Effect.fnUntraced(function* (options: TorNodeOptions, onComplaint: (text: string) => void) {
  const { folder, lines, settings, socks } = options
  const proxy = options.proxy === null ? null : (parseProxy(Redacted.value(options.proxy)) ?? null)
  const tor = yield* startTorProcess({ folder, lines, settings, socks, proxy }, onComplaint)
  const control = yield* awaitControl(tor, torPaths(folder).control)
  // From here on tor ends with this connection, whatever becomes of this program.
  yield* Effect.mapError(control.send("TAKEOWNERSHIP"), fromControl)
  yield* Effect.forkScoped(
    reconnectOnMove(control, { others: proxy !== null && isIP(proxy.host) !== 0 ? [proxy.host] : [] })
  )
  const killed = (reason: string) => Effect.as(tor.kill, reason)
  const silent = Effect.flatMap(untilSilent(control, options.watchMs ?? defaultWatchMs), killed)
  // A tor that is ending closes the connection first, and then says why.
  const deaf = Effect.flatMap(control.closed, (reason) =>
    Effect.raceFirst(tor.ended, Effect.delay(killed(reason), Duration.millis(lastWordsMs)))
  )
  return {
    control,
    socks: socks ? { path: torPaths(folder).socks } : null,
    pid: tor.pid,
    ended: Effect.raceAllFirst([tor.ended, silent, deaf])
  }
})

const unreachable = (endpoint: TorEndpoint, why: string): TorError =>
  new TorError({
    code: "unreachable",
    reason: `the running Tor at ${endpointText(endpoint)} is not to be had: ${why}`,
    mend: "start it, or take tor.socks and tor.control away, so that one is started here"
  })

/** Whether somebody listens there; why not, where nobody does. */
const knock = (endpoint: TorEndpoint): Effect.Effect<string | null> =>
  Effect.callback((resume) => {
    const socket = connect("path" in endpoint ? { path: endpoint.path } : endpoint)
    const done = (outcome: string | null): void => {
      clearTimeout(timer)
      socket.destroy()
      resume(Effect.succeed(outcome))
    }
    const timer = setTimeout(() => done("it does not answer"), 5_000)
    socket.once("connect", () => done(null))
    socket.on("error", (error) => done(error.message))
    return Effect.sync(() => {
      clearTimeout(timer)
      socket.destroy()
    })
  })

/** The first SOCKS port that a running tor says it has. */
const socksOf = Effect.fnUntraced(function* (control: TorControl, endpoint: TorEndpoint) {
  const text = yield* Effect.mapError(torInfo(control, "net/listeners/socks"), fromControl)
  const first = /"(?:\\.|[^"\\])*"/.exec(text)?.[0]
  return first === undefined
    ? yield* unreachable(endpoint, "it has no SOCKS port (tor.socks may name another's)")
    : parseEndpoint(controlValue(first))
})

/**
 * Says so where the SOCKS port does not tell apart a service that is not published, one that wants another key, and one that
 * is dead. Nothing is said where tor does not tell, or the port is another tor's.
 */
const warnOfTerseness = Effect.fnUntraced(function* (control: TorControl, socks: TorEndpoint) {
  const lines = yield* Effect.orElseSucceed(control.send("GETCONF SocksPort"), () => [])
  const settings = lines.map((line) => controlValue(line.replace(/^SocksPort=?/, "")).replaceAll('"', ""))
  const names = "path" in socks ? [endpointText(socks)] : [endpointText(socks), String(socks.port)]
  const own = settings.find((setting) => names.includes(setting.split(" ")[0] ?? ""))
  if (own === undefined || own.includes("ExtendedErrors")) return
  yield* Effect.logWarning(
    `the running Tor will not say why an onion service is not reached: write "SocksPort ${own} ExtendedErrors" into its configuration`
  )
})

const untilDeaf = (endpoint: TorEndpoint, watchMs: number): Effect.Effect<string> =>
  knock(endpoint).pipe(
    Effect.delay(Duration.millis(watchMs)),
    Effect.flatMap((why) => (why === null ? Effect.void : Effect.fail(`the running Tor is gone: ${why}`))),
    Effect.forever,
    Effect.flip
  )

/** A tor that runs already, by its control port, its SOCKS port, or both. */
const attach = Effect.fnUntraced(function* (options: TorNodeOptions) {
  const { entropy, settings } = options
  const watchMs = options.watchMs ?? defaultWatchMs
  const found = runningTor(settings)
  const password = settings.control_password
  const control =
    found.control === null
      ? null
      : yield* connectControl({
          endpoint: found.control,
          ...(password === null ? {} : { password: Redacted.value(password) }),
          ...(entropy === undefined ? {} : { entropy })
        }).pipe(Effect.mapError((error) => unreachable(found.control as TorEndpoint, error.reason)))
  const wanted = options.socks
    ? (found.socks ?? (control === null ? null : yield* socksOf(control, found.control as TorEndpoint)))
    : null
  const why = wanted === null ? null : yield* knock(wanted)
  if (wanted !== null && why !== null) return yield* unreachable(wanted, why)
  if (control !== null && wanted !== null) yield* warnOfTerseness(control, wanted)
  const watches = [
    ...(control === null ? [] : [control.closed, untilSilent(control, watchMs)]),
    ...(wanted === null ? [] : [untilDeaf(wanted, watchMs)])
  ]
  return { control, socks: wanted, pid: null, ended: Effect.raceAllFirst(watches) }
})

/** What is to be said of a tor that cannot be asked. */
const unknownBootstrap: TorBootstrap = {
  ...noBootstrap,
  progress: 100,
  tag: "done",
  summary: "A running Tor that is used by its SOCKS port alone and does not tell how it is",
  circuits: true
}

/**
 * Completes what tor tells of its way by the last complaint in its log: of proxies and transports that refuse, for one, it
 * tells nowhere else. What it complained of before it took commands was its configuration.
 */
const makeTelling = (onBootstrap: (state: TorBootstrap) => void) => {
  let last: TorBootstrap | null = null
  let complaint: string | null = null
  const tell = (state: TorBootstrap): void => {
    last = state
    if (state.circuits) complaint = null
    onBootstrap({ ...state, warning: state.warning ?? complaint })
  }
  const hear = (text: string): void => {
    if (last === null || last.circuits) return
    complaint = text
    tell(last)
  }
  return { hear, tell }
}

/**
 * Starts tor, or attaches to the one that the settings name; ready as soon as it takes commands, long before it has
 * reached its network. What was started ends with the scope.
 */
export const openTor = Effect.fnUntraced(function* (
  options: TorNodeOptions
): Effect.fn.Return<TorNode, TorError, Scope.Scope> {
  const { control: wantsControl, socks: wantsSocks } = runningTor(options.settings)
  const isRunning = wantsControl !== null || (wantsSocks !== null && options.socks)
  const { hear, tell } = makeTelling(options.onBootstrap ?? (() => undefined))
  const found = yield* isRunning ? attach(options) : startOwn(options, hear)
  const { control, pid, socks } = found
  if (control === null) tell(unknownBootstrap)
  const bootstrap =
    control === null
      ? Effect.succeed(unknownBootstrap)
      : yield* Effect.mapError(watchBootstrap(control, tell), fromControl)
  const version = control === null ? "" : yield* Effect.mapError(torInfo(control, "version"), fromControl)
  const ended = yield* Deferred.make<string>()
  yield* Effect.forkScoped(Effect.flatMap(found.ended, (reason) => Deferred.succeed(ended, reason)))
  return { control, socks, bootstrap, ended: Deferred.await(ended), pid, version }
})
