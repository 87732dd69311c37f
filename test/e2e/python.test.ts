import { type ChildProcess, execFileSync, spawn } from "node:child_process"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type Level, type Message, SmartAgent } from "../../src/programs/agent.ts"
import { BuiltFleet } from "../support/BuiltFleet.ts"
import { freePort, waitUntil } from "../support/Program.ts"
import { describeWith } from "../support/requires.ts"

const folder = join(import.meta.dirname, "../../examples/python")
const python = "/usr/bin/python3"
/** No byte code beside the sources, and every warning an error. */
const options = ["-B", "-W", "error"]

type Event = Readonly<Record<string, unknown>>

/** The example as a process: what it prints, line by line. */
class PythonAgent {
  readonly events: Array<Event> = []
  private readonly child: ChildProcess
  private errors = ""

  constructor(args: ReadonlyArray<string>) {
    this.child = spawn(python, [...options, join(folder, "agent.py"), ...args], { stdio: "pipe" })
    createInterface({ input: this.child.stdout as NodeJS.ReadableStream }).on("line", (line) => {
      this.events.push(JSON.parse(line) as Event)
    })
    this.child.stderr?.on("data", (text) => {
      this.errors += text
    })
  }

  say(line: unknown): void {
    this.child.stdin?.write(`${JSON.stringify(line)}\n`)
  }

  /** The first event, from a place on, that is so. */
  heard(what: string, is: (event: Event) => boolean, from = 0): Promise<Event> {
    const look = () => this.events.slice(from).find(is)
    return waitUntil(what, look, 60_000, () => `${this.errors}\n${JSON.stringify(this.events)}`)
  }

  get hasEnded(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null
  }

  /** Ends its input; gives its exit code. */
  async leave(): Promise<number | null> {
    this.child.stdin?.end()
    await waitUntil(
      "the end of the agent in Python",
      () => this.hasEnded,
      60_000,
      () => this.errors
    )
    return this.child.exitCode
  }

  kill(): void {
    if (!this.hasEnded) this.child.kill("SIGKILL")
  }
}

const secure: ReadonlyArray<Level> = ["protected", "private", "end_to_end"]

describeWith(["python3", "python3-paho-mqtt", "python3-cryptography"], "an agent in Python", () => {
  it("makes and judges the vectors alike", () => {
    const said = execFileSync(python, [...options, join(folder, "vectors.py")], { encoding: "utf8" })
    expect(said).toMatch(/^([1-9][0-9]+) of \1 vectors hold\n$/)
  })

  it("reads public messages in any form, within the bounds of a message", () => {
    const message = (body: unknown) => ({
      type: "postern/public/v1",
      id: "a".repeat(26),
      claimed_from: "bob",
      issued_at_ms: 1,
      subject: "",
      body
    })
    const nested = (depth: number): unknown => (depth === 0 ? 1 : [nested(depth - 1)])
    const texts = [
      JSON.stringify(message({ z: 1, a: 2 }), null, 2),
      JSON.stringify(message(nested(16))),
      JSON.stringify(message(nested(17))),
      JSON.stringify(message("x".repeat(72 * 1024))),
      JSON.stringify(message(1)).replace("{", '{"subject":"twice",')
    ]
    const program = `
import json, sys
sys.path.insert(0, sys.argv[1])
import wire
for text in json.load(sys.stdin):
    try:
        wire.read_public(text.encode())
        print("taken")
    except wire.Refused as refused:
        print(refused.code)`
    const said = execFileSync(python, [...options, "-c", program, folder], {
      encoding: "utf8",
      input: JSON.stringify(texts)
    })
    expect(said.trim().split("\n")).toEqual(["taken", "taken", "malformed", "too_large", "malformed"])
  })

  describe("on a server with a SmartAgent", () => {
    let fleet: BuiltFleet
    let smart: SmartAgent
    let snake: PythonAgent
    const got: Array<Message> = []
    const running: Array<PythonAgent> = []
    const agent = (args: ReadonlyArray<string>) => {
      const made = new PythonAgent(args)
      running.push(made)
      return made
    }
    const isPeers = (event: Event) => event["event"] === "peers" && `${event["peers"]}` === "smart,snake"
    const runSnake = (...more: ReadonlyArray<string>) =>
      agent(["run", "--state", join(fleet.folder, "snake"), ...more])
    let listen = ""

    beforeAll(async () => {
      listen = `127.0.0.1:${await freePort()}`
      fleet = await BuiltFleet.withServer({
        serverSettings: ["[messaging]", "discovery_interval_ms = 1000", `listen = "${listen}"`]
      })
      type Invited = { readonly invitation: string }
      const [forSmart, forSnake] = [
        await fleet.ask<Invited>(["invite", "--name", "smart", "--preauthorise"]),
        await fleet.ask<Invited>(["invite", "--name", "snake"])
      ]
      const state = join(fleet.folder, "snake")
      const enrolling = agent(["enrol", "--state", state, "--name", "snake", forSnake.invitation])
      const waits = await enrolling.heard("its enrolment", ({ event }) => event === "waiting")
      await fleet.ask(["devices", "accept", `${waits["device"]}`])
      await enrolling.heard("its acceptance", ({ event }) => event === "accepted")
      expect(await enrolling.leave()).toBe(0)

      smart = await SmartAgent.open({
        state: join(fleet.folder, "smart"),
        invitation: forSmart.invitation,
        name: "smart",
        visible: true,
        tor: "never"
      })
      void (async () => {
        for await (const message of smart.messages) got.push(message)
      })()
      snake = runSnake()
      await smart.reach("known")
      await snake.heard("the other agent", isPeers)
      await waitUntil("the list of agents", async () => (await smart.peers()).length === 2)
    }, 180_000)

    afterAll(async () => {
      await smart?.close()
      for (const each of running) each.kill()
      await fleet?.close()
    })

    it.each(["public", ...secure] as const)("sends a %s message, and takes one", async (level) => {
      const body = { level, "€": [1.5, 1e-7, null, "\u{1f600}"] }
      snake.say({ level, to: ["smart"], subject: "from Python", body })
      const ours = await waitUntil("its message", () => got.find((each) => each.level === level))
      expect(ours).toMatchObject({ subject: "from Python", body })
      expect(ours.level === "public" ? ours.claimedFrom : ours.from).toBe("snake")
      await smart.send({ to: "snake", level, subject: "to Python", body })
      const theirs = await snake.heard(`a ${level} message`, (event) => event["level"] === level)
      expect(theirs).toMatchObject({ subject: "to Python", body: { level } })
    })

    it("proves its word to third parties", async () => {
      const message = await waitUntil("a message", () => got.find(({ level }) => level === "private"))
      const known = (await smart.peers()).find(({ name }) => name === "snake")
      expect(await SmartAgent.checkOrigin(message.proof, known?.signingKey)).toMatchObject({
        valid: true,
        from: "snake"
      })
    })

    it("asks and answers pings", async () => {
      expect(await smart.ping("snake")).toBeTypeOf("number")
      for (const to of ["smart", "broker-services"]) {
        snake.say({ ping: to })
        await snake.heard(`${to}'s answer`, ({ event, from }) => event === "pong" && from === to)
      }
    })

    it("takes what came while it was away, once, by another way, and leaves cleanly", async () => {
      expect(await snake.leave()).toBe(0)
      await waitUntil("its departure", async () => {
        const peers = await smart.peers()
        return peers.find(({ name }) => name === "snake")?.status === "DG"
      })
      for (const level of secure) await smart.send({ to: "snake", level, body: "while away" })
      await waitUntil("all to be sent", async () => (await smart.report()).queued === 0)
      snake = runSnake("--url", `mqtt://${listen}`)
      const isIt = (level: string) => (event: Event) =>
        event["level"] === level && event["body"] === "while away"
      for (const level of secure) await snake.heard(`the ${level} message`, isIt(level))
      expect(snake.events.filter(({ body }) => body === "while away")).toHaveLength(secure.length)
      expect(snake.events.filter(({ event }) => event === "refused_message")).toEqual([])
    })
  })
})
