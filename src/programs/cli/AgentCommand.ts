/**
 * `postern agent`: messages from and to this machine's agent. What comes is from strangers: it is shown so that no terminal
 * obeys it.
 *
 * @module
 */
import { readFileSync } from "node:fs"
import { Effect, Option, type Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { deviceRecords } from "../../adapters/operator/DeviceBook.ts"
import { AgentLocalLimits, type InboxMessage } from "../../schemas/AgentLocal.ts"
import { EdgeDeviceName } from "../../schemas/Agents.ts"
import { labelUpTo } from "../../schemas/Ids.ts"
import { SecureLevel } from "../../schemas/Message.ts"
import { AgentName } from "../../schemas/Topics.ts"
import { checkOrigin } from "../agent/CheckOrigin.ts"
import type { OpenedAgent } from "../agent/OpenedAgent.ts"
import { messageText, peerRow, peerTableHeader, reportText } from "./AgentText.ts"
import { type CliFailure, failure, silentExit, usage } from "./Failure.ts"
import { durationFlag, optionalDurationFlag } from "./Flags.ts"
import { agentFlags, agentReport, openedAgent, untilKnown, untilSent, withAgent } from "./LocalAgent.ts"
import { out, outJson, say } from "./Screen.ts"
import { Json, withHome } from "./Settings.ts"
import { counted, showDuration, table, visible } from "./Text.ts"

const waitFlag = durationFlag("wait", "How long broker services may take to be reached", "30s")

const count = (name: string, description: string) =>
  Flag.Int(name).pipe(Flag.withMetavar("N"), Flag.withDescription(description))

const readText = (path: string): Effect.Effect<string, ReturnType<typeof usage>> =>
  Effect.try({
    try: () => new TextDecoder("utf-8", { fatal: true }).decode(readFileSync(path === "-" ? 0 : path)),
    catch: (error) =>
      usage(
        `The body cannot be read from ${path === "-" ? "the standard input" : path}: ${error instanceof Error ? error.message : error}`
      )
  })

/** The body: from the command line, a file, or the standard input, whose last newline is dropped. */
const bodyOf = (body: Option.Option<string>, file: Option.Option<string>, isJson: boolean) =>
  Effect.gen(function* () {
    if (Option.isSome(body) && Option.isSome(file))
      return yield* usage("Give the body as an argument or by --file, not both")
    if (Option.isNone(body) && Option.isNone(file) && process.stdin.isTTY === true)
      return yield* usage(
        "What is to be sent? Give the body as an argument, by --file, or on the standard input"
      )
    const text = Option.isSome(body)
      ? body.value
      : (yield* readText(Option.getOrElse(file, () => "-"))).replace(/\r?\n$/, "")
    if (!isJson) return text as Schema.Json
    return yield* Effect.try({
      try: () => JSON.parse(text) as Schema.Json,
      catch: (error) => usage(`The body is no JSON: ${error instanceof Error ? error.message : error}`)
    })
  })

/** Why a message is not on its way, as far as that can be known here, and what makes it go. */
const explainKept = (
  { message }: CliFailure,
  { desk, isOwn }: OpenedAgent,
  level: string,
  to: ReadonlyArray<string>
) =>
  Effect.gen(function* () {
    const known = new Set<string>((yield* desk.peers).map(({ agent }) => agent))
    const unknown = level === "end_to_end" ? to.filter((name) => !known.has(name)) : []
    return yield* failure(
      [
        message,
        ...unknown.map((name) => `${name} is not among the visible agents, so its key is not known`),
        ...(isOwn
          ? [
              "Nothing runs on the state folder once this has ended: start the client, or postern agent listen"
            ]
          : [])
      ].join(". ")
    )
  })

const send = Command.make(
  "send",
  {
    body: Argument.String("body").pipe(
      Argument.withDescription("The message; without it, --file or the standard input"),
      Argument.optional
    ),
    to: Flag.String("to").pipe(
      Flag.withSchema(AgentName),
      Flag.withMetavar("NAME"),
      Flag.withDescription("Whom it is for; may be given several times"),
      Flag.atLeast(1)
    ),
    level: Flag.Literals("level", ["public", ...SecureLevel.literals]).pipe(
      Flag.withDescription(
        "public: anybody may read and forge it. protected: signed. private: sealed to broker services, and by them to each recipient. end_to_end: sealed to the recipient alone"
      ),
      Flag.withDefault("private" as const)
    ),
    subject: Flag.String("subject").pipe(
      Flag.withSchema(labelUpTo(128)),
      Flag.withDescription("What it is about, in one line of at most 128 characters"),
      Flag.withDefault("")
    ),
    file: Flag.String("file").pipe(
      Flag.withMetavar("FILE"),
      Flag.withDescription("Read the body from a file; - is the standard input"),
      Flag.optional
    ),
    parse: Flag.Boolean("parse").pipe(
      Flag.withDescription("The body is JSON, not text"),
      Flag.withDefault(false),
      Flag.withoutNegation
    ),
    lifetime: optionalDurationFlag(
      "lifetime",
      "After this nobody takes it any more; default 1d, at most 30d"
    ),
    wait: durationFlag("wait", "How long to wait until the broker has it; 0s: do not wait", "30s"),
    ...agentFlags
  },
  Effect.fnUntraced(function* ({ body, file, level, lifetime, parse, subject, to, wait, ...flags }) {
    const content = yield* bodyOf(body, file, parse)
    const opened = yield* openedAgent(flags, Math.max(wait, 1_000))
    const { desk } = opened
    const id = yield* desk.send({
      level,
      to,
      subject,
      body: content,
      lifetime_ms: Option.getOrNull(lifetime)
    })
    const gone = untilSent(desk, id, wait).pipe(
      Effect.catchTag("CliFailure", (kept) => explainKept(kept, opened, level, to))
    )
    if (wait > 0) yield* withAgent(opened, gone)
    if (yield* Json) return yield* outJson({ id, sent: wait > 0 })
    yield* out(`${id}\n`)
  }, Effect.scoped)
).pipe(
  Command.withDescription(
    "Send a message and print its id. It is kept on disk until the broker has it. Exit code 1 where that takes longer than --wait"
  ),
  Command.withExamples([
    { command: 'postern agent send --to bob "The door is open"', description: "Text, private" },
    {
      command: "postern agent send --to bob --to carol --level protected --parse '{\"celsius\":21.5}'",
      description: "JSON to two, signed but not sealed"
    },
    {
      command: "df -h / | postern agent send --to bob --level end_to_end --subject disk",
      description: "What another program prints, so that only bob can read it"
    }
  ])
)

const shownMessage = ({ message, received_at_ms }: InboxMessage) =>
  Effect.gen(function* () {
    if (yield* Json) return yield* outJson({ received_at_ms, message })
    yield* out(messageText(message))
  })

const listen = Command.make(
  "listen",
  {
    count: count("count", "End after so many messages").pipe(Flag.optional),
    wait: optionalDurationFlag("wait", "End when no message came for so long; 0s: show what is there"),
    ...agentFlags
  },
  Effect.fnUntraced(function* ({ count, wait, ...flags }) {
    const opened = yield* openedAgent(flags)
    const { done, take } = yield* opened.desk.listen
    const takeMs = Option.getOrElse(wait, () => AgentLocalLimits.waitMs)
    const most = Option.getOrElse(count, () => Number.POSITIVE_INFINITY)
    if (Option.isNone(wait)) {
      const { agent } = yield* opened.desk.report
      yield* say(
        `Listening as ${visible(agent.name ?? "nobody yet")}, which is ${agent.state}. Ctrl-C ends it.`
      )
    }
    const loop = Effect.gen(function* () {
      for (let shown = 0, idleMs = 0; shown < most; ) {
        const pieceMs = Math.min(takeMs - (Option.isSome(wait) ? idleMs : 0), AgentLocalLimits.waitMs)
        const came = yield* take(1, pieceMs)
        idleMs = came.length === 0 ? idleMs + pieceMs : 0
        for (const message of came) {
          yield* shownMessage(message)
          yield* done([message.place])
          shown++
        }
        if (Option.isSome(wait) && came.length === 0 && idleMs >= wait.value) return
      }
    })
    yield* withAgent(opened, loop)
  }, Effect.scoped)
).pipe(
  Command.withDescription(
    "Print messages as they come. Each is forgotten once it is printed; where several listen, each message goes to one of them"
  ),
  Command.withExamples([
    { command: "postern agent listen", description: "The agent of the client on this machine" },
    {
      command: "postern agent listen --json --count 1 | jq .message.body",
      description: "The next message, for a script"
    },
    {
      command: "POSTERN_INVITATION=postern-invite-v1.… postern agent listen --state ./alice",
      description: "An agent of its own, without a client"
    }
  ])
)

interface Round {
  readonly sent: number
  readonly rtts: ReadonlyArray<number>
}

const summaryOf = (to: string, { rtts, sent }: Round): string => {
  const lost = sent - rtts.length
  const mean = rtts.reduce((sum, rtt) => sum + rtt, 0) / Math.max(rtts.length, 1)
  const times =
    rtts.length === 0
      ? ""
      : `, fastest ${showDuration(Math.min(...rtts))}, mean ${showDuration(mean)}, slowest ${showDuration(Math.max(...rtts))}`
  return `${to}: ${counted(sent, "ping", "pings")}, ${lost} lost${times}\n`
}

const ping = Command.make(
  "ping",
  {
    agent: Argument.String("agent").pipe(
      Argument.withDescription("An agent's name, or broker-services"),
      Argument.withSchema(AgentName)
    ),
    count: count("count", "How often; default 4").pipe(Flag.withDefault(4)),
    interval: durationFlag("interval", "Between two", "1s"),
    wait: waitFlag,
    ...agentFlags
  },
  Effect.fnUntraced(function* ({ agent, count, interval, wait, ...flags }) {
    const opened = yield* openedAgent(flags, wait)
    const { desk } = opened
    yield* untilKnown(desk, wait)
    const isJson = yield* Json
    const rtts: Array<number> = []
    const sent = Math.max(1, count)
    for (let index = 0; index < sent; index++) {
      if (index > 0) yield* Effect.sleep(interval)
      const rtt = yield* withAgent(opened, desk.ping(agent))
      if (rtt !== null) rtts.push(rtt)
      if (isJson) yield* outJson({ agent, rtt_ms: rtt })
      else yield* out(`${agent}: ${rtt === null ? "no answer" : showDuration(rtt)}\n`)
    }
    if (!isJson) yield* out(summaryOf(agent, { sent, rtts }))
    if (rtts.length === 0) return yield* silentExit(1)
  }, Effect.scoped)
).pipe(
  Command.withDescription(
    "Measure the round trip to another agent. Both must be visible, or the other must be broker-services. Exit code 1 where no answer came"
  ),
  Command.withExamples([
    { command: "postern agent ping bob", description: "Four times" },
    { command: "postern agent ping broker-services --count 1", description: "As far as the broker and back" }
  ])
)

/** How long the list may take behind the handshake. */
const listMs = 2_000

const peers = Command.make(
  "peers",
  { wait: waitFlag, ...agentFlags },
  Effect.fnUntraced(function* ({ wait, ...flags }) {
    const { desk, isOwn } = yield* openedAgent(flags, wait)
    yield* untilKnown(desk, wait)
    let found = yield* desk.peers
    for (let waitedMs = 0; isOwn && found.length === 0 && waitedMs < listMs; waitedMs += 100) {
      yield* Effect.sleep(100)
      found = yield* desk.peers
    }
    if (yield* Json) return yield* outJson({ agents: found })
    if (found.length === 0)
      return yield* out("No agent has chosen to be visible. On a device: agent.visible = true\n")
    yield* out(table(peerTableHeader, found.map(peerRow)))
  }, Effect.scoped)
).pipe(
  Command.withDescription("The agents that chose to be visible, as broker services sign the list"),
  Command.withExamples([{ command: "postern agent peers", description: "Who is there" }])
)

const report = Command.make(
  "report",
  { ...agentFlags },
  Effect.fnUntraced(function* (flags) {
    const told = yield* agentReport(flags)
    if (yield* Json) return yield* outJson(told)
    yield* out(reportText(told))
  }, Effect.scoped)
).pipe(
  Command.withDescription(
    "How the agent stands: its state, what waits, what was refused, and its links by pings"
  ),
  Command.withExamples([{ command: "postern agent report", description: "Of the client on this machine" }])
)

const show = Command.make(
  "show",
  {
    visible: Flag.Boolean("visible").pipe(
      Flag.withDescription("Whether others are told of this agent; --no-visible hides it")
    ),
    edge: Flag.String("edge").pipe(
      Flag.withSchema(EdgeDeviceName),
      Flag.withMetavar("NAME"),
      Flag.withDescription("An edge device that it speaks for; may be given several times"),
      Flag.atLeast(0)
    ),
    ...agentFlags
  },
  Effect.fnUntraced(function* ({ edge, visible: isVisible, ...flags }) {
    const { desk, isOwn } = yield* openedAgent(flags, 30_000)
    if (isOwn)
      return yield* failure(
        "No agent runs on this state folder whose appearance could be changed. In the client's configuration it is agent.visible"
      )
    yield* desk.show({ visible: isVisible, edge_devices: edge })
    yield* say(
      isVisible ? "Others are told of this agent now." : "Others are not told of this agent any more."
    )
  }, Effect.scoped)
).pipe(
  Command.withDescription("Change what others are told of the running agent, until it is started again"),
  Command.withExamples([
    { command: "postern agent show --visible --edge thermometer", description: "With an edge device" },
    { command: "postern agent show --no-visible", description: "Not in the list any more" }
  ])
)

/** The signed message in what `postern agent listen --json` printed, or on its own. */
const messageIn = (text: string) =>
  Effect.try({
    try: () => {
      const value = JSON.parse(text) as unknown
      return typeof value === "object" && value !== null && "message" in value ? value.message : value
    },
    catch: () => usage("What is to be verified is no JSON: give one line of postern agent listen --json")
  })

const verify = Command.make(
  "verify",
  {
    file: Argument.String("file").pipe(
      Argument.withDescription("A message as postern agent listen --json prints it; - is the standard input"),
      Argument.withDefault("-")
    )
  },
  Effect.fnUntraced(function* ({ file }) {
    const checked = checkOrigin(yield* messageIn(yield* readText(file)))
    if (!checked.valid) return yield* failure(`This proves nothing: ${visible(checked.reason)}`)
    const records = yield* deviceRecords
    const owner = records.find((record) => record.signing_key === checked.signingKey)
    const device =
      owner === undefined ? null : { device: owner.device, name: owner.name, status: owner.status }
    if (yield* Json) return yield* outJson({ ...checked, device })
    yield* out(
      owner === undefined
        ? `signed by ${checked.signingKey}, as ${checked.from}. Your device book does not know this key; postern devices list takes in what is new.\n`
        : `verified: signed by ${owner.name} (${owner.device}, ${owner.status})${owner.name === checked.from ? "" : `, as ${checked.from}`}\n`
    )
    if (owner === undefined) return yield* silentExit(1)
  }, withHome)
).pipe(
  Command.withDescription(
    "Check who signed a message, against your device book: needs neither server nor agent. Exit code 1 where that is not known"
  ),
  Command.withExamples([
    { command: "postern agent verify message.json", description: "A message that somebody forwarded to you" }
  ])
)

export const agentCommand = Command.make("agent").pipe(
  Command.withDescription(
    "Messages from and to the agent of this machine: the client's that runs here, or one that the command runs itself"
  ),
  Command.withSubcommands([listen, send, ping, peers, report, show, verify])
)
