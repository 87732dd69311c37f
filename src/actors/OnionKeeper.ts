/**
 * The onion keeper: see its protocol. tor belongs to a life: when tor is gone or hangs, the life ends, and the next one
 * starts it again. What is published follows from the store alone, and is read anew in each life, so nothing depends on a
 * message that was lost.
 */
import { Cause, Clock, Effect, Exit, Scope } from "effect"
import { Behaviour } from "../kernel/index.ts"
import { FleetStore } from "../ports/FleetStore.ts"
import { OnionServices, type OpenOnionServices } from "../ports/OnionServices.ts"
import { Limits } from "../schemas/Limits.ts"
import type { OnionClientKey } from "../schemas/Onion.ts"
import type { OnionStatus } from "../schemas/OnionStatus.ts"
import { OnionKeeperProtocol } from "../schemas/protocols/OnionKeeper.ts"
import type { OnionConfig } from "../schemas/ServerConfig.ts"
import { makeAlarm } from "./Alarm.ts"

/** How often it is looked whether all is as it should be, and how soon again after a failure. */
const everyMs = 10_000
const againMs = 2_000

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

/** The keys of devices that may come in. */
const noClients: Effect.Effect<ReadonlyArray<OnionClientKey>> = Effect.succeed([])

/** Carries out what is due, and takes it off the list as it is done. */
const makeRound = (config: Pick<OnionConfig, "enrolment">) =>
  Effect.map(makeEnrolment(config.enrolment), (isEnrolmentOpen) => {
    let wasOpen: boolean | null = null
    return Effect.fnUntraced(function* (services: OpenOnionServices, due: Due) {
      if (due.clients) {
        due.clients = false
        yield* Effect.tapError(services.setClients(yield* noClients), () =>
          Effect.sync(() => {
            due.clients = true
          })
        )
      }
      const isOpen = yield* isEnrolmentOpen
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

export const onionKeeper = (config: Pick<OnionConfig, "enrolment">) =>
  Behaviour.make(OnionKeeperProtocol, (context) =>
    Effect.gen(function* () {
      const port = yield* OnionServices
      const scope = yield* Effect.scope
      const round = yield* makeRound(config)
      const due: Due = { clients: true, enrolment: true, check: false }
      let services: OpenOnionServices | null = null
      let isBusy = false
      const alarm = yield* makeAlarm(context.self.tell("Due"))

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
        ClientsChanged: () =>
          Effect.suspend(() => {
            due.clients = true
            return work
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
