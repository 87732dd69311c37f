/**
 * The onion keeper: see its protocol. tor belongs to a life: when tor is gone or hangs, the life ends, and the next one
 * starts it again. What is published follows from the store alone, and is read anew in each life, so nothing depends on a
 * message that was lost.
 */
import { Cause, Clock, Effect, Exit, Scope } from "effect"
import type { RpcGroup } from "effect/rpc"
import { type ActorContext, Behaviour } from "../kernel/index.ts"
import { FleetStore } from "../ports/FleetStore.ts"
import { OnionServices, type OpenOnionServices } from "../ports/OnionServices.ts"
import type { DeviceId } from "../schemas/Ids.ts"
import { Limits } from "../schemas/Limits.ts"
import type { OnionStatus } from "../schemas/OnionStatus.ts"
import { OnionKeeperProtocol } from "../schemas/protocols/OnionKeeper.ts"
import type { OnionConfig } from "../schemas/ServerConfig.ts"
import type { TunnelState } from "../schemas/TunnelState.ts"
import { makeAccess } from "./Access.ts"
import { makeAlarm, monotonicMs } from "./Alarm.ts"
import { DeviceKey } from "./ServerKeys.ts"
import { makeTunnelStall, type Stalls } from "./TunnelStall.ts"

/** How often it is looked whether all is as it should be, and how soon again after a failure. */
const everyMs = 10_000
const againMs = 2_000
/** Changes of devices are gathered for so long, and lists follow each other no faster than that. */
const gatherMs = 200
const apartMs = 3_000
/** After so many looks the list is worked out again, whatever was said. */
const looksPerList = 6

const describeFailure = (cause: Cause.Cause<unknown>): string => {
  const error = Cause.squash(cause)
  return error instanceof Error ? error.message : String(error)
}

/** Which work waits. */
interface Due {
  clients: boolean
  enrolment: boolean
  check: boolean
}

/** Whether newcomers may come in now, and for a while after the last who could. */
const makeEnrolment = (mode: OnionConfig["enrolment"]) =>
  Effect.map(FleetStore, (store) => {
    let openUntilMs = 0
    return Effect.gen(function* () {
      if (mode !== "invited") return mode === "always"
      const nowMs = yield* Clock.currentTimeMillis
      if (yield* store.enrolmentOpen(nowMs)) openUntilMs = nowMs + Limits.enrolmentLingerMs
      return nowMs < openUntilMs
    })
  })

/** Tells a device's actor that its group has another key. */
type Stir = (device: DeviceId) => Effect.Effect<void>

/** Publishes the list of devices where it must be another, and gives how many can reach the enrol service alone. */
const makeListing = (maximumClients: number, stir: Stir) =>
  Effect.map(makeAccess(maximumClients), (access) =>
    Effect.fnUntraced(function* (services: OpenOnionServices) {
      const list = yield* access.current
      // First, since it is told once: a key that is not published yet harms nobody.
      yield* Effect.forEach(list.stirred, stir, { discard: true })
      if (list.mustPublish) {
        // Until it succeeds nobody knows which list counts.
        access.published(null)
        yield* services.setClients(list.keys)
        access.published(list.keys)
      }
      return list.waiting.length
    })
  )

/** Says that devices wait for the enrol service, once for each number of them. */
const makeWaitingWords = (mode: OnionConfig["enrolment"]) => {
  let said = 0
  return (waiting: number): Effect.Effect<void> => {
    const isNews = waiting > said
    said = waiting
    if (!isNews) return Effect.void
    const text = `${waiting} devices do not have their group's key to the onion service, and there is no room for all their own`
    return mode === "never"
      ? Effect.logWarning(`${text}: publish the enrol service (onion.enrolment), or they stay outside`)
      : Effect.logInfo(`${text}: they get it over the enrol service`)
  }
}

/** Carries out what is due, and takes it off the list as it is done. */
const makeRound = (config: KeeperConfig, stir: Stir) =>
  Effect.gen(function* () {
    const isEnrolmentOpen = yield* makeEnrolment(config.enrolment)
    const list = yield* makeListing(config.maximum_clients, stir)
    const sayWaiting = makeWaitingWords(config.enrolment)
    let wasOpen: boolean | null = null
    let waiting = 0
    return Effect.fnUntraced(function* (services: OpenOnionServices, due: Due) {
      if (due.clients) {
        due.clients = false
        waiting = yield* Effect.tapError(list(services), () =>
          Effect.sync(() => {
            due.clients = true
          })
        )
        yield* sayWaiting(waiting)
      }
      const isOpen = (yield* isEnrolmentOpen) || (config.enrolment === "invited" && waiting > 0)
      if (isOpen !== wasOpen) {
        yield* services.publishEnrolment(isOpen)
        if (config.enrolment === "invited" && (isOpen || wasOpen === true))
          yield* Effect.logInfo(`enrolment over Tor is ${isOpen ? "open" : "closed"}`)
        wasOpen = isOpen
      }
      if (due.check) {
        due.check = false
        yield* services.check
      }
    })
  })

/** Lets changes gather before a list is worked out, and keeps lists apart. */
const makeGathering = <E>(ring: Effect.Effect<void, E>) =>
  Effect.map(makeAlarm(ring), (alarm) => {
    let isGathering = false
    let lastAt = Number.NEGATIVE_INFINITY
    return {
      begin: Effect.flatMap(monotonicMs, (nowAt) => {
        if (isGathering) return Effect.void
        isGathering = true
        return alarm.ringIn(Math.max(gatherMs, lastAt + apartMs - nowAt))
      }),
      end: Effect.map(monotonicMs, (nowAt) => {
        isGathering = false
        lastAt = nowAt
      })
    }
  })

/** How it is without tor, and why. */
const closedBy = (closed: OnionStatus, reason: string | null): OnionStatus => ({
  ...closed,
  tor: {
    ...closed.tor,
    warning:
      reason === null
        ? null
        : reason
            .replace(/\p{C}+/gu, " ")
            .slice(0, 500)
            .toWellFormed()
  }
})

type KeeperConfig = Pick<OnionConfig, "enrolment" | "maximum_clients">

type Context = ActorContext<RpcGroup.Rpcs<typeof OnionKeeperProtocol>>

/** What is known from one life to the next: why tor was lost, while there is none, and how often it stood still. */
interface Memory extends Stalls {
  loss: string | null
}

/** tor, in one life. */
const makeTor = (context: Context, memory: Memory) =>
  Effect.gen(function* () {
    const port = yield* OnionServices
    const scope = yield* Effect.scope
    let services: OpenOnionServices | null = null
    const opening = Effect.tap(Effect.provideService(port.open, Scope.Scope, scope), (opened) =>
      Effect.sync(() => {
        services = opened
        memory.loss = null
      })
    )
    yield* context.startTask(opening, (exit) =>
      Exit.isSuccess(exit) ? ["Opened"] : ["Lost", { reason: describeFailure(exit.cause) }]
    )
    return {
      services: () => services,
      /** Sends the message that tor is lost, once it is. */
      watch: Effect.suspend(() =>
        context.startTask(services?.ended ?? Effect.succeed("tor is gone"), (exit) => [
          "Lost",
          { reason: Exit.isSuccess(exit) ? exit.value : describeFailure(exit.cause) }
        ])
      ),
      status: Effect.suspend(() =>
        services === null ? Effect.succeed(closedBy(port.closed, memory.loss)) : services.status
      )
    }
  })

const unseen: TunnelState = {
  phase: "starting",
  progress: 0,
  summary: "",
  reason: null,
  problem: null,
  clockSkewSeconds: null,
  clockDoubt: null
}

/** Ends a life in which tor does not get on. It is looked at now and then. */
const makeWatch = (context: Context, memory: Memory, services: () => OpenOnionServices | null) =>
  Effect.gen(function* () {
    let seen = unseen
    const alarm = yield* makeAlarm(context.self.tell("Stalled"))
    const stall = makeTunnelStall(
      alarm,
      (reason) => Effect.ignore(context.self.tell("Lost", { reason })),
      memory
    )
    return {
      look: Effect.gen(function* () {
        const now = yield* services()?.tunnel ?? Effect.succeed(null)
        if (now === null) return
        const before = seen
        seen = now
        yield* stall.changed(before, now)
      }),
      rang: Effect.suspend(() => stall.rang(seen))
    }
  })

const keeper = (config: KeeperConfig, memory: Memory) =>
  Behaviour.make(OnionKeeperProtocol, (context) =>
    Effect.gen(function* () {
      const stir: Stir = (device) => Effect.ignore(context.refOf(DeviceKey, device).tell("Changed"))
      const round = yield* makeRound(config, stir)
      const due: Due = { clients: true, enrolment: true, check: false }
      let isBusy = false
      let looks = 0
      const alarm = yield* makeAlarm(context.self.tell("Due"))
      const gathering = yield* makeGathering(context.self.tell("ClientsDue"))
      const tor = yield* makeTor(context, memory)
      const watch = yield* makeWatch(context, memory, tor.services)

      const work = Effect.suspend(() => {
        const services = tor.services()
        if (services === null || isBusy) return Effect.void
        isBusy = true
        due.enrolment = false
        return context.startTask(round(services, due), (exit) => [
          "Applied",
          { failure: Exit.isSuccess(exit) ? null : describeFailure(exit.cause) }
        ])
      })
      const workOn = (what: keyof Due) =>
        Effect.suspend(() => {
          due[what] = true
          return work
        })

      return context.handlers({
        ClientsChanged: () => gathering.begin,
        ClientsDue: () => Effect.andThen(gathering.end, workOn("clients")),
        EnrolmentChanged: () => workOn("enrolment"),
        Status: () => tor.status,
        Opened: () => Effect.all([tor.watch, alarm.ringIn(everyMs), gathering.end, work], { discard: true }),
        Due: () =>
          Effect.suspend(() => {
            // A message may get lost, a change must not.
            due.clients ||= ++looks % looksPerList === 0
            return Effect.all([alarm.ringIn(everyMs), watch.look, workOn("check")], { discard: true })
          }),
        Stalled: () => watch.rang,
        Applied: ({ payload }) =>
          Effect.gen(function* () {
            isBusy = false
            if (payload.failure !== null) {
              yield* Effect.logError(payload.failure)
              due.check = true
              return yield* alarm.ringIn(againMs)
            }
            if (due.clients || due.enrolment) yield* work
          }),
        Lost: ({ payload }) =>
          Effect.suspend(() => {
            memory.loss = payload.reason
            return Effect.andThen(
              Effect.logError(`the server is not reached over Tor: ${payload.reason}`),
              context.stopSelf
            )
          })
      })
    })
  )

export const onionKeeper = (config: KeeperConfig) => keeper(config, { loss: null, stalls: 0 })
