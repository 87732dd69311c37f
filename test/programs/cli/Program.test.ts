import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import type { Command } from "effect/cli"
import { NativeCryptoEngine } from "../../../src/adapters/NativeCrypto.ts"
import { SystemEntropy } from "../../../src/adapters/SystemEntropy.ts"
import { runProgram } from "../../../src/programs/cli/Program.ts"
import { posternCommand } from "../../../src/programs/cli/Root.ts"
import { Screen } from "../../../src/programs/cli/Screen.ts"

/** Runs the command line with nobody at a terminal, in a home that does not exist. */
const run = (...args: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const written = { out: "", err: "" }
    const screen = Layer.succeed(Screen, {
      outIsTerminal: false,
      errIsTerminal: false,
      canAsk: false,
      color: false,
      columns: () => 80,
      failure: () => undefined,
      write: (sink, text) =>
        Effect.sync(() => {
          written[sink] += typeof text === "string" ? text : new TextDecoder().decode(text)
        })
    })
    const services = Layer.mergeAll(screen, NativeCryptoEngine, SystemEntropy, NodeServices.layer)
    const home = ["--home", "/nonexistent/postern-home"]
    const code = yield* runProgram(posternCommand, "1.2.3", [...args, ...home]).pipe(Effect.provide(services))
    return { code, ...written }
  })

const commandPaths = (
  command: Command.Command.Any,
  path: ReadonlyArray<string>
): Array<ReadonlyArray<string>> => [
  path,
  ...command.subcommands.flatMap((group) =>
    group.commands.flatMap((below) => commandPaths(below, [...path, below.name]))
  )
]

describe("the command line", () => {
  const all = commandPaths(posternCommand, [])

  it.effect.each(all)("helps with: postern %s", (path) =>
    Effect.gen(function* () {
      const { code, err, out } = yield* run(...path, "--help")
      assert.deepStrictEqual({ code, err }, { code: 0, err: "" })
      for (const section of ["DESCRIPTION", "USAGE", "GLOBAL FLAGS"]) assert.include(out, section)
      const isGroup = out.includes("SUBCOMMANDS")
      if (!isGroup) assert.include(out, "EXAMPLES")
      assert.notMatch(out, /\bundefined\b/)
    })
  )

  it.effect.each(all)("refuses an unknown flag behind: postern %s", (path) =>
    Effect.gen(function* () {
      const { code, err, out } = yield* run(...path, "--no-such-flag")
      assert.deepStrictEqual({ code, out }, { code: 2, out: "" })
      assert.include(err, "--no-such-flag")
      assert.match(err, /\nSee: postern.* --help\n$/)
    })
  )

  it.effect("tells its version", () =>
    Effect.map(run("--version"), (ended) => {
      assert.deepStrictEqual(ended, { code: 0, out: "postern 1.2.3\n", err: "" })
    })
  )

  it.effect("without a command shows help on stderr and exits 2", () =>
    Effect.map(run(), ({ code, err, out }) => {
      assert.deepStrictEqual({ code, out }, { code: 2, out: "" })
      assert.include(err, "SUBCOMMANDS")
    })
  )

  it.effect("names the command that may have been meant", () =>
    Effect.map(run("jops"), ({ code, err }) => {
      assert.strictEqual(code, 2)
      assert.include(err, "jobs")
    })
  )

  it.effect("says how a name and an id must be, in words", () =>
    Effect.gen(function* () {
      const named = yield* run("invite", "--name", "K\u00fcche")
      assert.strictEqual(named.code, 2)
      assert.include(named.err, "Expected: 1 to 63 small letters, digits and dashes, with no dash first\n")
      const device = yield* run("devices", "preauthorise", "dev_q7rk", "--name", "pi")
      assert.include(device.err, "Expected: a device's whole id, dev_ and 52 characters")
    })
  )

  it.effect("refuses values in the wrong unit", () =>
    Effect.map(run("run", "pi", "--timeout", "5 minutes", "--", "true"), ({ code, err }) => {
      assert.strictEqual(code, 2)
      assert.match(err, /timeout.*90s, 10m, 7d/)
    })
  )

  const failing: ReadonlyArray<readonly [ReadonlyArray<string>, number, RegExp]> = [
    [["keys", "show"], 1, /^postern: There are no operator keys in .*keys init/],
    [["devices", "list"], 1, /^postern: No server is known yet\. Log in first/],
    [["login"], 2, /^postern: Say which server/],
    [
      ["login", "--server", "ftp://x", "--token-file", "/nonexistent"],
      2,
      /no server address\. Write it as http/
    ],
    [["login", "--server", "http://127.0.0.1:1"], 2, /no terminal to ask for the token.*--token-file/],
    [
      ["devices", "list", "--server", "http://127.0.0.1:1"],
      1,
      /no token for http:\/\/127\.0\.0\.1:1\. Log in/
    ],
    [["keys", "init"], 2, /Say which server/],
    [
      ["keys", "init", "--server", "http://127.0.0.1:1", "--proxy", "9050"],
      2,
      /9050 is no proxy\. Write it as socks5h:/
    ],
    [["keys", "init", "--server-identity", "/nonexistent/file"], 1, /Could not read the server's identity/]
  ]
  it.effect.each(failing)("says in one line what is missing: postern %s", ([args, expected, message]) =>
    Effect.gen(function* () {
      const { code, err, out } = yield* run(...args)
      assert.deepStrictEqual({ code, out }, { code: expected, out: "" })
      assert.match(err, message)
      assert.strictEqual(err.split("\n").length, 2, err)
    })
  )
})
