/**
 * The demo as a story in steps: a server, an operator and a device on this machine do the main job with the programs as
 * they are shipped. Everything happens in one temporary folder and is gone at the end.
 *
 * @module
 */
import { chmodSync, copyFileSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { join } from "node:path"
import { Effect, Option } from "effect"
import { Jail } from "../../ports/Jail.ts"
import { showTheAgents, startTheAgent, visibleAgent } from "./AgentStory.ts"
import { ask, type } from "./PosternCommands.ts"
import { DemoFailure, runCommand, type Service, startService, waitFor } from "./Processes.ts"
import {
  BadRow,
  checkSeries,
  generatedSeries,
  packageDescription,
  seriesBytes,
  statisticsScript
} from "./Series.ts"
import { folderOf, program, type Stage, step, temporaryFolder, write, writeSettings } from "./Stage.ts"
import { bringTor, showTheWay } from "./TorStory.ts"
import { deviceSettings, serverSettings } from "./TorWay.ts"

/** How long a program may take to come up, or a device to report. */
const startMs = 90_000

/** The series to compute with: the person's file, checked row by row, or a generated one. */
export const loadSeries = (file: Option.Option<string>) =>
  Effect.gen(function* () {
    if (Option.isNone(file)) return generatedSeries()
    const path = file.value
    const text = yield* Effect.try({
      try: () => {
        const { size } = statSync(path)
        if (size > seriesBytes) throw new Error(`it has ${size} bytes, more than ${seriesBytes}`)
        return readFileSync(path, "utf8")
      },
      catch: (error) =>
        new DemoFailure({
          message: `Could not read ${path}: ${error instanceof Error ? error.message : error}`
        })
    })
    const checked = checkSeries(text)
    if (checked instanceof BadRow) return yield* new DemoFailure({ message: `${path}: ${checked.message}` })
    return text
  })

const writePackage = (stage: Stage, series: string): Effect.Effect<string> =>
  Effect.sync(() => {
    const folder = folderOf(stage, "statistics")
    mkdirSync(folder, { mode: 0o700 })
    writeFileSync(join(folder, "postern.json"), `${JSON.stringify(packageDescription, null, 2)}\n`)
    writeFileSync(join(folder, "statistics.sh"), statisticsScript)
    writeFileSync(join(folder, "series.csv"), series)
    return folder
  })

/** A port of loopback that is free now. */
const freePort: Effect.Effect<number> = Effect.callback((resume) => {
  const probe = createServer()
  probe.listen(0, "127.0.0.1", () => {
    const address = probe.address()
    probe.close(() =>
      resume(Effect.succeed(address !== null && typeof address === "object" ? address.port : 0))
    )
  })
})

const startTheServer = (stage: Stage) =>
  Effect.gen(function* () {
    yield* step(
      stage,
      "A server",
      "It keeps encrypted work for devices and what they return. It can read and sign nothing of it."
    )
    const address = `http://127.0.0.1:${yield* freePort}`
    const state = folderOf(stage, "server")
    const configured = yield* writeSettings(stage, "server.toml", serverSettings)
    const server = yield* startService({
      name: "server",
      command: [
        ...program(stage, "server"),
        "--state",
        state,
        "--port",
        new URL(address).port,
        ...configured
      ],
      environment: {},
      logFile: folderOf(stage, "server.log")
    })
    yield* waitFor("its port", server, lineWith(server, "listens on"), startMs)
    const told = yield* runCommand({
      command: [...program(stage, "server"), "identity", "--state", state],
      environment: {},
      show: false
    })
    const token = yield* runCommand({
      command: [...program(stage, "server"), "token", "create", "demo", "--role", "admin", "--state", state],
      environment: {},
      show: false
    })
    const tokenFile = folderOf(stage, "token")
    yield* Effect.sync(() => writeFileSync(tokenFile, token.stdout, { mode: 0o600 }))
    const id = (JSON.parse(told.stdout) as { readonly server: string }).server
    yield* write(`It runs at ${address} and calls itself ${id}.\n`)
    return { address, id, tokenFile }
  })

const makeTheOperator = (
  stage: Stage,
  server: { readonly address: string; readonly id: string; readonly tokenFile: string }
) =>
  Effect.gen(function* () {
    yield* step(
      stage,
      "An operator",
      `You. Your keys stay in your own folder; the trust root you sign says whom devices may obey. Here the keys have no
passphrase, because nobody is there to type it; without --no-passphrase you would be asked for one.`
    )
    const flags = ["--server", server.address, "--server-id", server.id, "--token-file", server.tokenFile]
    yield* type(stage, [
      "keys",
      "init",
      ...flags,
      "--no-passphrase",
      "--recovery-key",
      folderOf(stage, "recovery.key")
    ])
  })

/** Says what to install, if this machine has no safe jail. */
const requireJail = Effect.gen(function* () {
  const jail = yield* Jail
  yield* Effect.mapError(
    jail.check,
    (error) =>
      new DemoFailure({
        message: `There is no safe jail on this machine, so no device can run work here. ${error.message}`
      })
  )
})

/** The client where every user can read it: this repository may lie in a home that is closed to others. */
const copyTheClient = (stage: Stage): Effect.Effect<string> =>
  Effect.sync(() => {
    const file = folderOf(stage, "client.js")
    copyFileSync(join(stage.programs, "client.js"), file)
    chmodSync(file, 0o644)
    return file
  })

const bringTheDevice = (stage: Stage) =>
  Effect.gen(function* () {
    yield* step(
      stage,
      "A device",
      `It only ever connects outward. The invitation proves to you that it is the device you mean, and to the device that
the server is yours. It runs work in a jail: no network, nothing of this machine but /usr.`
    )
    yield* requireJail
    const { invitation } = yield* ask(stage, ["invite", "--name", "pi-demo"])
    const client = yield* copyTheClient(stage)
    const configured = yield* writeSettings(stage, "device.toml", deviceSettings)
    const device = yield* startService({
      name: "device",
      command: [process.execPath, client, "--state", folderOf(stage, "device"), ...configured],
      environment: { ...visibleAgent, POSTERN_INVITATION: invitation as string },
      logFile: folderOf(stage, "device.log")
    })
    yield* poll("its request", device, stage, ["devices", "list"], (answer) => statusOf(answer) === "pending")
    yield* type(stage, ["devices", "accept", "--waiting"])
    yield* poll(
      "its first poll",
      device,
      stage,
      ["devices", "show", "pi-demo"],
      (answer) => answer["blocked"] === null && answer["last_seen_at_ms"] !== null
    )
    return configured
  })

const statusOf = (answer: Record<string, unknown>): unknown =>
  (answer["devices"] as ReadonlyArray<{ readonly status: string }>)[0]?.status

/** Asks `postern` again and again until its answer is as wanted. */
const poll = (
  what: string,
  service: Service,
  stage: Stage,
  args: ReadonlyArray<string>,
  holds: (answer: Record<string, unknown>) => boolean
) =>
  Effect.gen(function* () {
    let isThere = false
    const asking = Effect.gen(function* () {
      while (!isThere) isThere = holds(yield* ask(stage, args))
    })
    yield* Effect.raceFirst(
      Effect.andThen(asking, Effect.void),
      Effect.andThen(
        waitFor(what, service, () => (isThere ? true : undefined), startMs),
        Effect.void
      )
    )
  })

const lineWith = (service: Service, words: string) => (): true | undefined =>
  readFileSync(service.logFile, "utf8").includes(words) ? true : undefined

const doTheJob = (stage: Stage, series: string) =>
  Effect.gen(function* () {
    const folder = yield* writePackage(stage, series)
    const rows = series.trimEnd().split("\n").length
    yield* step(
      stage,
      "A work package",
      `A folder with ${rows} rows of a sensor series, a script for daily statistics and a postern.json that says what to run.
It is packed and encrypted to the device and to you, then uploaded with a signed order: nobody else can read or change it.`
    )
    const file = folderOf(stage, "statistics.postern")
    yield* type(stage, ["package", "build", folder, "--device", "pi-demo", "-o", file])
    yield* write(`\n$ postern jobs submit statistics.postern --device pi-demo --yes\n`)
    const { job } = yield* ask(stage, ["jobs", "submit", file, "--device", "pi-demo", "--yes"])
    yield* write(`${job}\n`)
    yield* step(
      stage,
      "The run",
      "The device fetches the order, proves it, runs it in the jail, and sends encrypted output while it runs."
    )
    yield* type(stage, ["jobs", "logs", "-f", job as string])
    yield* step(
      stage,
      "The receipt",
      "Signed by the device, checked against your own device book; the server could not have made it up."
    )
    yield* type(stage, ["jobs", "show", job as string])
    yield* step(
      stage,
      "The artifact",
      "What the job left in /work/out, decrypted here and checked against the receipt."
    )
    const results = folderOf(stage, "results")
    yield* type(stage, ["jobs", "results", job as string, "-o", results])
    const artifact = yield* Effect.sync(() => readFileSync(join(results, "statistics.csv"), "utf8"))
    yield* write(`\nresults/statistics.csv:\n${artifact}`)
  })

const next = `
That was the main job. Everything ran in a temporary folder, which is gone now.

Try next:
  npm run demo -- --data FILE      your own series, as lines of unix_seconds,value
  npm run demo -- --tor            the same over a private Tor network
  node dist/server.js --help       a server that stays
  node dist/client.js --help       a device
  node dist/cli.js --help          everything the operator can do, such as
  node dist/cli.js run DEVICE -- uname -a
  node dist/cli.js agent --help    messages between devices
`

/** The whole story. Everything it starts is stopped, and its folder removed, when it ends in whatever way. */
export const tellStory = (programs: string, data: Option.Option<string>, withTor: boolean) =>
  Effect.scoped(
    Effect.gen(function* () {
      const series = yield* loadSeries(data)
      const folder = yield* temporaryFolder
      let steps = 0
      const open: Stage = { programs, folder, tor: null, nextStep: () => ++steps }
      yield* write(
        `Postern: work for devices that only connect outward. Server, operator and device on this machine,\nin ${folder}\n`
      )
      const stage = withTor ? { ...open, tor: yield* bringTor(open) } : open
      const server = yield* startTheServer(stage)
      yield* makeTheOperator(stage, server)
      const settings = yield* bringTheDevice(stage)
      if (withTor) yield* showTheWay(stage, server.address)
      const agent = yield* startTheAgent(stage, settings)
      yield* doTheJob(stage, series)
      yield* showTheAgents(stage, agent)
    })
  ).pipe(Effect.andThen(write(next)))
