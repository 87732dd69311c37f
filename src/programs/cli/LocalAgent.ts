/**
 * The agent that `postern agent` speaks through: the one that runs on a state folder of this machine, else one that the
 * command runs itself and ends with.
 *
 * @module
 */
import { resolve } from "node:path"
import { Effect, Logger, Option, Result } from "effect"
import { Flag } from "effect/cli"
import { ConfigError, renderProblem } from "../../adapters/TomlConfig.ts"
import type { AgentDesk } from "../../ports/AgentDesk.ts"
import type { LocalReport } from "../../schemas/AgentLocal.ts"
import type { MessageId } from "../../schemas/Message.ts"
import { openAcceptedIn } from "../agent/OpenAgent.ts"
import { type OpenedAgent, untilAccepted } from "../agent/OpenedAgent.ts"
import { loadClientConfig, noClientArguments } from "../client/ClientSettings.ts"
import { readInvitation } from "../client/Invitations.ts"
import { failure, usage } from "./Failure.ts"
import { Screen, say } from "./Screen.ts"
import { givenProxy, Server } from "./Settings.ts"
import { showDuration, visible } from "./Text.ts"

/** Which agent, and how one of the command's own is let in. */
export const agentFlags = {
  state: Flag.String("state").pipe(
    Flag.withMetavar("DIR"),
    Flag.withDescription(
      "The agent's state folder; default $POSTERN_STATE, else the client's: /var/lib/postern for root, else ~/.local/state/postern"
    ),
    Flag.optional
  ),
  invitation: Flag.String("invitation").pipe(
    Flag.withMetavar("TEXT"),
    Flag.withDescription(
      "For a new state folder: what `postern invite` printed; better in $POSTERN_INVITATION, since others can see command lines"
    ),
    Flag.optional
  )
}
export type AgentFlags = { readonly [K in keyof typeof agentFlags]: Option.Option<string> }

/** Settings as the client of this state folder would have them. */
const settingsOf = ({ invitation, state }: AgentFlags) =>
  Effect.gen(function* () {
    const server = yield* Server
    const proxy = yield* givenProxy
    const arguments_ = { ...noClientArguments, state: Option.map(state, (path) => resolve(path)), server }
    const environment = proxy === undefined ? process.env : { ...process.env, POSTERN_PROXY: proxy }
    const { config } = yield* loadClientConfig(arguments_, environment)
    const given = Option.getOrUndefined(invitation) ?? process.env["POSTERN_INVITATION"] ?? ""
    const invited = given === "" ? Result.succeed(null) : readInvitation(given)
    if (Result.isFailure(invited)) return yield* usage(invited.failure)
    const appearance = { visible: config.agent.visible, edgeDevices: [] }
    return { config, invitation: invited.success, appearance }
  }).pipe(
    Effect.mapError((error) =>
      error instanceof ConfigError ? usage(error.problems.map(renderProblem).join("\n")) : error
    )
  )

/** Who was accepted beforehand is let in within the first looks: of that nobody need be told. */
const quietLooks = 10

/** Tells a person what an agent of the command's own waits for, each thing once. */
const makeTeller = Effect.map(Screen, (screen) => {
  let told = ""
  let looks = 0
  return ({ enrolment: { claim_code: code, detail, phase } }: LocalReport) =>
    Effect.gen(function* () {
      if (phase === "accepted" || looks++ < quietLooks) return
      const compare =
        code === null
          ? ""
          : ` Its claim code is ${code}; postern devices show prints the same to an operator.`
      const trouble = detail === "" ? "" : ` (${visible(detail)})`
      const text = `Waiting for an operator to accept this agent: postern devices accept.${compare}${trouble}`
      if (text !== told) yield* say(text)
      told = text
    }).pipe(Effect.provideService(Screen, screen))
})

/** Inside, agents log; here only what the command itself says is of interest. */
const quiet = Logger.layer([])

/** An accepted agent, for as long as the scope lasts. */
export const openedAgent = (flags: AgentFlags, mayWaitMs?: number) =>
  Effect.gen(function* () {
    const tell = yield* makeTeller
    return yield* openAcceptedIn(yield* settingsOf(flags), (opened) => {
      const accepted = untilAccepted(opened, tell)
      return mayWaitMs === undefined
        ? accepted
        : Effect.timeoutOrElse(accepted, {
            duration: mayWaitMs,
            orElse: () =>
              Effect.fail(failure(`No operator has accepted this agent within ${showDuration(mayWaitMs)}.`))
          })
    })
  }).pipe(Effect.provide(quiet))

/** How long an agent of the command's own has to be let in, or to hear what operators decided, before it is shown as it is. */
const settlingMs = 10_000

/** Waits until an agent that was just started knows how it stands with its operators, or is long enough without an answer. */
export const untilSettled = (opened: OpenedAgent) =>
  opened.isOwn
    ? untilAccepted(opened, () => Effect.void).pipe(
        Effect.timeoutOption(settlingMs),
        Effect.catchIf(
          ({ code }) => code === "rejected" || code === "revoked",
          () => Effect.void
        ),
        Effect.asVoid
      )
    : Effect.asVoid(opened.desk.report)

/** How an agent stands, accepted or not. */
export const agentReport = (flags: AgentFlags) =>
  Effect.gen(function* () {
    const { desk } = yield* openAcceptedIn(yield* settingsOf(flags), untilSettled)
    return yield* desk.report
  }).pipe(Effect.provide(quiet))

/** What a command does with an agent; it ends where the agent does. */
export const withAgent = <A, E, R>(opened: OpenedAgent, use: Effect.Effect<A, E, R>) =>
  Effect.raceFirst(use, opened.ended)

const lookMs = 100

/** Waits until a report is as it should be; fails after a time with how it is then. */
const untilReport = (
  desk: AgentDesk,
  waitMs: number,
  isGood: (report: LocalReport) => boolean,
  otherwise: (report: LocalReport) => string
) =>
  Effect.gen(function* () {
    for (let waitedMs = 0; ; waitedMs += lookMs) {
      const report = yield* desk.report
      if (isGood(report)) return report
      if (waitedMs >= waitMs) return yield* failure(otherwise(report))
      yield* Effect.sleep(lookMs)
    }
  })

/** How an agent stands, in a few words. */
export const standingText = ({ agent: { detail, state } }: LocalReport): string =>
  `the agent is ${state}${detail === "" ? "" : ` (${visible(detail)})`}`

/** Waits until a message waits no more to be sent, whatever else does; fails after a time with how the agent is then. */
export const untilSent = (desk: AgentDesk, id: MessageId, waitMs: number) =>
  Effect.gen(function* () {
    for (let waitedMs = 0; yield* desk.unsent(id); waitedMs += lookMs) {
      if (waitedMs >= waitMs)
        return yield* failure(
          `The message ${id} is kept and goes out as soon as it can be sent; ${standingText(yield* desk.report)}`
        )
      yield* Effect.sleep(lookMs)
    }
  })

/** Waits until broker services know the agent. */
export const untilKnown = (desk: AgentDesk, waitMs: number) =>
  untilReport(
    desk,
    waitMs,
    ({ agent }) => agent.state === "known",
    (report) => `Broker services are not reached within ${showDuration(waitMs)}: ${standingText(report)}`
  )
