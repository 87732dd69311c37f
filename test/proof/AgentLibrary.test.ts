/** `postern/agent` as a program has it: by the package's name, from a folder of its own, against a built server. */
import { cpSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { extract } from "tar"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { BuiltFleet } from "../support/BuiltFleet.ts"
import { type Ended, Program, runToEnd, waitUntil } from "../support/Program.ts"

const root = join(import.meta.dirname, "../..")
const patienceMs = 180_000
const environment = { PATH: "/usr/bin:/bin", LANG: "C.UTF-8" }

/** The first example of a page that imports a module, word for word. */
const exampleOf = (page: string, module = "postern/agent"): string | undefined =>
  [...readFileSync(join(root, page), "utf8").matchAll(/^```ts\n(.*?)^```$/gms)]
    .map((block) => block[1] as string)
    .find((text) => text.includes(`from "${module}"`))

/** Type-checks a file of a project as its own compiler would, strictly. */
const typeCheck = (folder: string, file: string, ...more: ReadonlyArray<string>): Promise<Ended> => {
  const compiler = [process.execPath, join(root, "node_modules/typescript/bin/tsc")]
  const flags = ["--strict", "--noEmit", "--module", "nodenext", "--target", "es2022"]
  const types = ["--types", "node", "--typeRoots", join(root, "node_modules/@types")]
  return runToEnd([...compiler, ...flags, ...types, ...more, file], {
    cwd: folder,
    environment,
    timeoutMs: patienceMs
  })
}

/** Answers each message with what came, and says in its log what it gets. Its proofs are checked. */
const echo = `
import { AgentError, SmartAgent } from "postern/agent"

const say = (value) => console.log(JSON.stringify(value))
const [state, name] = process.argv.slice(2)
const agent = await SmartAgent.open({
  state, visible: true, edgeDevices: ["probe"],
  invitation: process.env.POSTERN_INVITATION,
  onState: (now) => say(now)
})
process.once("SIGTERM", agent.close)
for await (const message of agent.messages) {
  const { body, claimedFrom, from, level, proof, subject } = message
  const origin = proof === null ? null : await SmartAgent.checkOrigin(proof)
  const forged = proof === null ? null : await SmartAgent.checkOrigin({ ...proof, body: "another" })
  say({ got: { body, from, claimedFrom, level, subject, origin, forged } })
  if (body === "leave it") throw new Error("left")
  if (from !== null) {
    await agent.reach("known")
    await agent.send({ to: from, level, subject: "ping me", body: { answered: body } })
    say({ refusal: await agent.send({ to: [], body: 1 }).catch((error) =>
      [error instanceof AgentError, error.code]) })
  }
}
say({ closed: await agent.closed.then(() => true) })
`

/** The same on Effect, with a copy of Effect of its own. */
const onEffect = `
import { Effect, Stream } from "effect"
import { SmartAgent } from "postern/agent/effect"

const program = Effect.gen(function* () {
  const agent = yield* SmartAgent.make({ state: "carol", invitation: process.env.POSTERN_INVITATION })
  const failure = yield* Effect.flip(agent.send({ to: "alice", level: "public", body: "x".repeat(70_000) }))
  console.log(JSON.stringify([failure._tag, failure.code]))
  yield* agent.send({ to: "bob", level: "protected", subject: "greetings", body: ["from", "carol"] })
  const [answer] = yield* agent.messages.pipe(Stream.tap(({ done }) => done), Stream.take(1), Stream.runCollect)
  console.log(JSON.stringify([answer.from, answer.level, answer.body]))
}).pipe(Effect.scoped)

await Effect.runPromise(program)
`

describe("the library", () => {
  let fleet: BuiltFleet
  const started: Array<Program> = []

  /** The package as it is published, unpacked. */
  let unpacked = ""
  const pack = async (): Promise<void> => {
    const packed = join(fleet.folder, "packed")
    mkdirSync(packed)
    const npm = ["npm", "pack", "--ignore-scripts", "--silent", "--pack-destination", packed, root]
    const made = await runToEnd(npm, {
      cwd: packed,
      environment: { ...environment, PATH: process.env["PATH"] ?? "", HOME: packed },
      timeoutMs: patienceMs
    })
    expect(made, made.stderr).toMatchObject({ code: 0 })
    await extract({ file: join(packed, made.stdout.trim()), cwd: packed })
    unpacked = join(packed, "package")
  }

  /** A project of its own that has the package, and nothing else that it did not bring. */
  const project = (name: string, files: Readonly<Record<string, string>>): string => {
    const folder = join(fleet.folder, name)
    mkdirSync(join(folder, "node_modules"), { recursive: true })
    cpSync(unpacked, join(folder, "node_modules", "postern"), { recursive: true })
    for (const [file, text] of Object.entries({ "package.json": '{ "type": "module" }\n', ...files }))
      writeFileSync(join(folder, file), text)
    return folder
  }
  const invitation = async (name: string): Promise<Readonly<Record<string, string>>> => {
    const invite = ["invite", "--name", name, "--preauthorise"]
    return { POSTERN_INVITATION: (await fleet.ask<{ invitation: string }>(invite)).invitation }
  }
  const start = (
    folder: string,
    args: ReadonlyArray<string>,
    env: Readonly<Record<string, string>> = {}
  ): Program => {
    const command = ["env", "-C", folder, process.execPath, ...args]
    const log = join(folder, "log")
    const program = new Program(args.join(" "), command, { ...environment, HOME: folder, ...env }, log)
    started.push(program)
    program.start()
    return program
  }
  const says = (program: Program, ...texts: ReadonlyArray<string>) =>
    waitUntil(
      texts.join(" and "),
      () => texts.every((text) => program.log().includes(text)),
      patienceMs,
      () => `${program.log()}\n${fleet.server.log().slice(-2_000)}`
    )

  beforeAll(async () => {
    fleet = await BuiltFleet.withServer()
    await pack()
  }, patienceMs)
  afterAll(async () => {
    for (const program of started) if (program.isRunning()) program.signalGroup("SIGKILL")
    await fleet?.close()
  })

  it(
    "runs the ten lines of the page, word for word, with their types",
    async () => {
      const example = exampleOf("docs/agents.md") as string
      expect(example.trim().split("\n").length).toBeLessThanOrEqual(10)
      expect(exampleOf("README.md") ?? example).toBe(example)
      const alices = project("of-alice", { "example.ts": example })
      expect(await typeCheck(alices, "example.ts")).toMatchObject({ code: 0, stdout: "" })
      expect(readFileSync(join(root, "dist/agent/agent.js"), "utf8")).not.toMatch(/^import[ "{]|;import[ "{]/)

      const bobs = project("of-bob", { "echo.js": echo })
      const bob = start(bobs, ["echo.js", "bob"], await invitation("bob"))
      // What is sent to one who is no agent yet goes to nobody, and alice sends once.
      await says(bob, '"known"')
      const alice = start(alices, ["example.ts"], await invitation("alice"))
      await says(bob, '"celsius":21.5', '"refusal":')
      await says(alice, "private bob { answered: { celsius: 21.5 } }", " ms\n")
      const got = /^{"got":.*$/m.exec(bob.log())?.[0] as string
      expect(JSON.parse(got).got).toMatchObject({
        from: "alice",
        level: "private",
        origin: { valid: true, from: "alice" },
        forged: { valid: false, reason: "its signature does not fit" }
      })
      expect(bob.log()).toContain('"refusal":[true,"no_recipient"]')

      alice.signal("SIGINT")
      expect(await alice.ended()).toBe(0)
      expect(existsSync(join(alices, "alice", "agent.sock"))).toBe(false)
    },
    patienceMs
  )

  it(
    "is there for programs on an Effect of their own",
    async () => {
      const example = exampleOf("docs/agents.md", "postern/agent/effect") as string
      const typed = project("types", { "example.ts": example })
      symlinkSync(join(root, "node_modules", "effect"), join(typed, "node_modules", "effect"))
      expect(await typeCheck(typed, "example.ts", "--skipLibCheck")).toMatchObject({ code: 0, stdout: "" })

      const folder = project("of-carol", { "carol.js": onEffect })
      const own = join(folder, "node_modules", "effect")
      cpSync(join(root, "node_modules", "effect"), own, {
        recursive: true,
        filter: (path) => !/\.map$|\.d\.ts$|\/effect\/src(\/|$)/.test(path)
      })
      const carol = start(folder, ["carol.js"], await invitation("carol"))
      expect(await carol.ended(patienceMs), carol.log()).toBe(0)
      expect(carol.log().trim().split("\n")).toEqual([
        '["AgentFailure","body_too_large"]',
        '["bob","protected",{"answered":["from","carol"]}]'
      ])
    },
    patienceMs
  )

  it(
    "is spoken to by postern agent, and speaks with it",
    async () => {
      const bobs = ["--state", join(fleet.folder, "of-bob", "bob")]
      const dave = ["--state", join(fleet.folder, "dave")]
      const env = await invitation("dave")
      const odd = "two\nlines \u001b[31m and \u202e turned"
      // The first command enrols the agent, the others find it enrolled.
      const sent = await fleet.postern(["agent", "send", ...dave, "--to", "bob", "--level", "protected"], {
        env,
        input: `${odd}\n`
      })
      expect(sent, sent.stderr).toMatchObject({ code: 0 })
      expect(sent.stdout).toMatch(/^[a-z2-7]{26}\n$/)
      const heard = await fleet.postern(["agent", "listen", ...dave, "--json", "--count", "1"])
      const line = JSON.parse(heard.stdout) as { message: { from: string; body: unknown } }
      expect(line.message).toMatchObject({ from: "bob", body: { answered: odd }, subject: "ping me" })

      // What was let in beforehand comes into the device book with the next look at the server.
      await fleet.ask(["devices", "list"])
      const proof = join(fleet.folder, "message.json")
      writeFileSync(proof, heard.stdout)
      const verified = await fleet.postern(["agent", "verify", proof])
      expect(verified).toMatchObject({ code: 0, stdout: expect.stringMatching(/^verified: signed by bob /) })
      writeFileSync(proof, heard.stdout.replace("answered", "replied"))
      expect(await fleet.postern(["agent", "verify", proof])).toMatchObject({ code: 1, stdout: "" })

      // Bob's program runs: these speak through it.
      const peers = await fleet.ask<{ agents: ReadonlyArray<{ agent: string; edge_devices: unknown }> }>([
        "agent",
        "peers",
        ...bobs
      ])
      expect(peers.agents).toMatchObject([{ agent: "bob", edge_devices: ["probe"] }])
      const pinged = await fleet.postern(["agent", "ping", "broker-services", ...bobs, "--count", "1"])
      expect(pinged).toMatchObject({ code: 0, stdout: expect.stringContaining("1 ping, 0 lost, fastest ") })
      const report = await fleet.postern(["agent", "report", ...bobs])
      expect(report.stdout).toMatch(/^name: +bob\nstate: +known\n/)
      expect(report.stdout).toContain("broker-services  1")
      for (const [flag, seen] of [
        ["--no-visible", 0],
        ["--visible", 1]
      ] as const) {
        expect(await fleet.postern(["agent", "show", ...bobs, flag])).toMatchObject({ code: 0 })
        const look = ["agent", "peers", ...bobs]
        await waitUntil(
          `${seen} peers`,
          async () => (await fleet.ask<{ agents: ReadonlyArray<unknown> }>(look)).agents.length === seen,
          patienceMs
        )
      }
      const plain = await fleet.postern(["agent", "send", ...bobs, "--to", "dave", odd, "--subject", "odd"])
      expect(plain, plain.stderr).toMatchObject({ code: 0 })
      const shown = await fleet.postern(["agent", "listen", ...dave, "--count", "1"])
      expect(shown.stdout).toMatch(
        / {2}private {2}bob {2}odd\n {2}two\n {2}lines \\x1b\[31m and \\u\{202e\} turned\n$/
      )
      const nothing = await fleet.postern(["agent", "listen", ...dave, "--wait", "0s"])
      expect(nothing).toMatchObject({ code: 0, stdout: "" })
      const listening = start(fleet.folder, [join(root, "dist/cli.js"), "agent", "listen", ...dave])
      await says(listening, "Listening as dave")
      listening.signal("SIGINT")
      expect(await listening.ended(), listening.log()).toBe(130)
      expect(existsSync(join(fleet.folder, "dave", "agent.sock"))).toBe(false)
    },
    patienceMs
  )

  it(
    "brings again what a program did not get past, and says why it cannot be opened",
    async () => {
      const folder = join(fleet.folder, "of-bob")
      const bob = started[0] as Program
      const dave = ["--state", join(fleet.folder, "dave")]
      await fleet.postern(["agent", "send", ...dave, "--to", "bob", "leave it"])
      expect(await bob.ended(patienceMs)).toBe(1)
      const left = await fleet.postern(["agent", "listen", "--state", join(folder, "bob"), "--wait", "0s"])
      expect(left.stdout).toContain("  private  dave\n  leave it\n")
      const misused = [
        [["listen", ...dave, "--invitation", "nonsense"], /invitation does not begin with/],
        [["send", ...dave, "--to", "Bob", "x"], /--to/],
        [["send", ...dave, "--to", "bob", "--parse", "{"], /no JSON/],
        [["listen", "--state", join(fleet.folder, "nowhere")], /no server is known/]
      ] as const
      for (const [args, problem] of misused) {
        const ended = await fleet.postern(["agent", ...args])
        expect(ended.code).not.toBe(0)
        expect(ended.stderr).toMatch(problem)
      }
    },
    patienceMs
  )
})
