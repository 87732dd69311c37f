/**
 * The onion keeper: see its protocol. tor belongs to a life: when tor is gone or hangs, the life ends, and the next one
 * starts it again. What is published follows from the store alone, and is read anew in each life, so nothing depends on a
 * message that was lost.
 */
import { Cause, Clock, Effect, Exit, Scope } from "effect"
import { Behaviour } from "../kernel/index.ts"
import { FleetStore } from "../ports/FleetStore.ts"
import { OnionServices, type OpenOnionServices } from "../ports/OnionServices.ts"
import type { DeviceId } from "../schemas/Ids.ts"
import { Limits } from "../schemas/Limits.ts"
import type { OnionStatus } from "../schemas/OnionStatus.ts"
import { OnionKeeperProtocol } from "../schemas/protocols/OnionKeeper.ts"
import type { OnionConfig } from "../schemas/ServerConfig.ts"
import { makeAccess } from "./Access.ts"
import { makeAlarm, monotonicMs } from "./Alarm.ts"
import { DeviceKey } from "./ServerKeys.ts"

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

type KeeperConfig = Pick<OnionConfig, "enrolment" | "maximum_clients">

export const onionKeeper = (config: KeeperConfig) =>
  Behaviour.make(OnionKeeperProtocol, (context) =>
    Effect.gen(function* () {
      const port = yield* OnionServices
      const scope = yield* Effect.scope
      const stir: Stir = (device) => Effect.ignore(context.refOf(DeviceKey, device).tell("Changed"))
      const round = yield* makeRound(config, stir)
      const due: Due = { clients: true, enrolment: true, check: false }
      let services: OpenOnionServices | null = null
      let isBusy = false
      const alarm = yield* makeAlarm(context.self.tell("Due"))
      const gathering = yield* makeGathering(context.self.tell("ClientsDue"))
      let looks = 0

      const work = Effect.suspend(() => {
        if (services === null || isBusy) return Effect.void
        isBusy = true
        due.enrolment = false
        return context.startTask(round(services, due), (exit) => [
          "Applied",
          { failure: Exit.isSuccess(exit) ? null : describeFailure(exit.cause) }
        ])
      })
      const opening = Effect.tap(port.open.pipe(Effect.provideService(Scope.Scope, scope)), (opened) =>
        Effect.sync(() => {
          services = opened
        })
      )
      yield* context.startTask(opening, (exit) =>
        Exit.isSuccess(exit) ? ["Opened"] : ["Lost", { reason: describeFailure(exit.cause) }]
      )
      const status: Effect.Effect<OnionStatus> = Effect.suspend(() =>
        services === null ? Effect.succeed(port.closed) : services.status
      )

      return context.handlers({
        ClientsChanged: () => gathering.begin,
        ClientsDue: () =>
          Effect.suspend(() => {
            due.clients = true
            return Effect.andThen(gathering.end, work)
          }),
        EnrolmentChanged: () =>
          Effect.suspend(() => {
            due.enrolment = true
            return work
          }),
        Status: () => status,
        Opened: Effect.fnUntraced(function* () {
          const ended = services?.ended ?? Effect.succeed("tor is gone")
          yield* context.startTask(ended, (exit) => [
            "Lost",
            { reason: Exit.isSuccess(exit) ? exit.value : describeFailure(exit.cause) }
          ])
          yield* alarm.ringIn(everyMs)
          yield* work
        }),
        Due: () =>
          Effect.suspend(() => {
            due.check = true
            // A message may get lost, a change must not.
            due.clients ||= ++looks % looksPerList === 0
            return Effect.andThen(alarm.ringIn(everyMs), work)
          }),
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
          Effect.andThen(
            Effect.logError(`the server is not reached over Tor: ${payload.reason}`),
            context.stopSelf
          )
      })
    })
  )
