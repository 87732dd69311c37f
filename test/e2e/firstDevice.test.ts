import { copyFileSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { afterAll, beforeAll, expect, it } from "vitest"
import { Machine } from "../support/Machines.ts"
import { waitUntil } from "../support/Program.ts"
import { describeWith } from "../support/requires.ts"

const repository = join(import.meta.dirname, "../..")
const page = readFileSync(join(repository, "docs/first-device.md"), "utf8")

interface Step {
  /** What the page's hidden remark says of the command: where it runs, and how. */
  readonly remark: string
  readonly command: string
}

/** The commands of the page that carry such a remark, in their order. */
const steps: ReadonlyArray<Step> = [...page.matchAll(/^<!-- run: (.+) -->\n\n((?: {4}.+\n)+)/gm)].map(
  ([, remark = "", block = ""]) => ({ remark, command: block.replace(/^ {4}/gm, "").trim() })
)

/** What a person answers, by what stands on the screen. */
const answers: Readonly<Record<string, Parameters<Machine["talk"]>[1]>> = {
  "keys init": [
    ["[y/N] ", "y\r"],
    ["Passphrase for the private keys: ", "a gate in the wall\r"],
    ["The same again: ", "a gate in the wall\r"]
  ],
  "devices accept": [["Passphrase", "a gate in the wall\r"]],
  "run first-pi": [["Passphrase", "a gate in the wall\r"]]
}

const patienceMs = 60_000

describeWith(
  ["root", "jail", "ip", "nsenter", "python3"],
  "the page on the first device, followed between two machines",
  () => {
    let server: Machine
    let device: Machine
    const shown: Array<string> = []

    beforeAll(async () => {
      server = await Machine.start("postern-server")
      device = await Machine.start("first-pi")
      Machine.connect(server, "192.0.2.1", device, "192.0.2.2")
      const give = (machine: Machine, ...names: ReadonlyArray<string>) => {
        for (const name of names) copyFileSync(join(repository, "dist", name), join(machine.home, name))
      }
      give(server, "server.js", "cli.js")
      give(device, "client.js")
    })

    afterAll(async () => {
      await Promise.all([server, device].map((machine) => machine?.stop()))
    })

    const dialogueOf = (command: string) =>
      Object.entries(answers).find(([words]) => command.includes(words))?.[1] ?? []

    /** Does what a page's remark says with its command. */
    const follow = async ({ command, remark }: Step): Promise<void> => {
      const machine = remark.startsWith("server") ? server : device
      if (remark.endsWith("leave it running")) {
        const printed = /POSTERN_INVITATION=\S+ .*/.exec(shown.join("\n"))?.[0]
        const isPrinted = remark.includes("that was printed")
        if (isPrinted && printed?.startsWith(command.replace("…", "")) !== true)
          throw new Error(`the page's command is not the one printed: ${printed}`)
        await machine.leaveRunning(isPrinted ? (printed ?? "") : command, "program.log")
        const says = isPrinted ? /runs as dev_/ : /listens on http/
        await waitUntil(
          command,
          () => says.test(machine.log("program.log")),
          patienceMs,
          () => machine.log("program.log")
        )
      } else if (remark.endsWith("at a terminal")) {
        const { code, screen } = await machine.talk(command, dialogueOf(command), patienceMs)
        if (code !== 0) throw new Error(`${command} ended with ${code}:\n${screen}`)
        shown.push(screen)
      } else {
        const { code, stderr, stdout } = await machine.run(command, patienceMs)
        if (code !== 0) throw new Error(`${command} ended with ${code}:\n${stdout}${stderr}`)
        shown.push(stdout)
      }
    }

    /** A person reads on when the device's request has come. */
    const untilItWaits = () =>
      waitUntil(
        "the device's request",
        async () => (await server.run("node cli.js devices list")).stdout.includes("pending"),
        patienceMs,
        () => device.log("program.log")
      )

    it("ends in the verified receipt of uname -a, and a doctor without complaints of failure", async () => {
      expect(steps.map(({ remark }) => remark.split(",")[0])).toEqual([
        ...["server", "server", "server", "server", "device", "server", "server", "device"]
      ])
      for (const step of steps) {
        if (step.command.includes("devices accept")) await untilItWaits()
        await follow(step).catch((error: unknown) => {
          const logs = [server, device].map((machine) => machine.log("program.log").slice(-4_000))
          throw new Error([`${error}`, "the server:", logs[0], "the device:", logs[1]].join("\n"))
        })
      }
      const [ran = "", doctor = ""] = shown.slice(-2)
      expect(ran).toContain("Linux jail")
      expect(ran).toMatch(/verified: succeeded on first-pi .*receipt 1/)
      expect(doctor).toMatch(/, 0 failed$/m)
      expect(doctor).toContain("a server that answers: http://192.0.2.1:8470 answers")
      expect(doctor).toContain("the operators' acceptance of this device: accepted")
      expect(doctor).toContain("isolation: separate-uid")
    })
  }
)
