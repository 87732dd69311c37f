import { execFileSync } from "node:child_process"
import { appendFileSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { fileNames } from "../../../src/adapters/mosquitto/MosquittoFiles.ts"
import { NativeCryptoEngine } from "../../../src/adapters/NativeCrypto.ts"
import { SystemEntropy } from "../../../src/adapters/SystemEntropy.ts"
import { runProgram } from "../../../src/programs/cli/Program.ts"
import { posternCommand } from "../../../src/programs/cli/Root.ts"
import { Screen } from "../../../src/programs/cli/Screen.ts"
import { loadServerConfig, noServerArguments } from "../../../src/programs/server/ServerSettings.ts"
import { clientOf } from "../../support/bareBroker.ts"
import { withFolder } from "../../support/messaging.ts"
import { makeCertificates, RealMosquitto } from "../../support/mosquitto.ts"
import { freePort } from "../../support/Program.ts"
import { describeWith } from "../../support/requires.ts"

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
    const command = ["broker", "mosquitto-config", ...args, "--home", "/nonexistent/postern-home"]
    const code = yield* runProgram(posternCommand, "1.2.3", command).pipe(Effect.provide(services))
    return { code, ...written }
  })

const filesOf = (folder: string): ReadonlyArray<string> =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => `${entry.name} ${readFileSync(join(entry.parentPath, entry.name), "utf8")}`)
    .sort()

describe("postern broker mosquitto-config", () => {
  it.effect("writes files that fit each other, says what comes next, and overwrites nothing", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const folder = join(path, "mosquitto")
        const { code, out } = yield* run(folder, "--topic-root", "our/root", "--mqtt", "3.1.1")
        assert.strictEqual(code, 0)
        for (const words of ["Next steps", "chown -R mosquitto", "mosquitto -c", "postern-server.toml"])
          assert.include(out, words)
        const modeOf = (name: string) => statSync(join(folder, name)).mode & 0o777
        assert.strictEqual(modeOf(fileNames.password), 0o600)
        assert.strictEqual(modeOf(fileNames.security), 0o600)
        assert.strictEqual(modeOf(fileNames.data), 0o700)
        assert.strictEqual(modeOf(fileNames.firstSecurity), 0o600)
        assert.strictEqual(
          readFileSync(join(folder, fileNames.firstSecurity), "utf8"),
          readFileSync(join(folder, fileNames.security), "utf8")
        )
        const password = readFileSync(join(folder, fileNames.password), "utf8").trim()
        for (const name of [fileNames.configuration, fileNames.security, fileNames.settings])
          assert.notInclude(readFileSync(join(folder, name), "utf8"), password)
        const { config } = yield* loadServerConfig(
          { ...noServerArguments, config: join(folder, fileNames.settings), state: path },
          {}
        )
        assert.deepInclude(config.messaging, { broker: "mosquitto", topic_root: "our/root" })
        assert.deepStrictEqual(config.messaging.mosquitto, {
          address: "mqtt://127.0.0.1:1883",
          agents_address: null,
          ca_file: null,
          user: "broker-services",
          password_file: join(folder, fileNames.password),
          mqtt: 4
        })
        assert.include(
          readFileSync(join(folder, fileNames.configuration), "utf8"),
          "autosave_on_changes true\nautosave_interval 1\n"
        )
        const faster = join(path, "faster")
        yield* run(faster, "--save-every", "10")
        assert.include(
          readFileSync(join(faster, fileNames.configuration), "utf8"),
          "autosave_on_changes false\nautosave_interval 10\n"
        )
        const before = filesOf(folder)
        const again = yield* run(folder)
        assert.strictEqual(again.code, 1)
        assert.include(again.err, "Nothing was written")
        assert.deepStrictEqual(filesOf(folder), before)
      })
    )
  )

  it.effect("refuses what would send passwords in the clear, or cannot be reached", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const folder = join(path, "mosquitto")
        const refusals: ReadonlyArray<readonly [args: ReadonlyArray<string>, words: string]> = [
          [["--listen", "0.0.0.0:1883"], "in the clear"],
          [["--certificate", "a.crt"], "go together"],
          [["--certificate", "a.crt", "--key", "a.key"], "--address"],
          [["--address", "mqtts://broker.example:8883"], "does not fit"],
          [["--address", "mqtt://broker.example:1883"], "address"],
          [["--plugin", "/with a/space.so"], "no paths with spaces"]
        ]
        for (const [args, words] of refusals) {
          const { code, err } = yield* run(folder, ...args)
          assert.strictEqual(code, 2, args.join(" "))
          assert.include(err, words)
        }
        assert.deepStrictEqual(readdirSync(path), [])
      })
    )
  )
})

describeWith(["mosquitto", "openssl"], "a Mosquitto with the files of mosquitto-config", () => {
  it.live("runs, with TLS by a CA of one's own, and takes broker services by their password", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const folder = join(path, "mosquitto")
        const tls = join(path, "tls")
        mkdirSync(tls)
        makeCertificates(tls)
        const port = yield* Effect.promise(freePort)
        const { code, out } = yield* run(
          folder,
          ...["--listen", `127.0.0.1:${port}`],
          ...["--certificate", join(tls, "server.crt"), "--key", join(tls, "server.key")],
          ...["--ca", join(tls, "ca.crt")]
        )
        assert.strictEqual(code, 0)
        // Mosquitto gives root up unless it is told not to, and could not read a folder of this test's.
        if (process.getuid?.() === 0) appendFileSync(join(folder, fileNames.configuration), "user root\n")
        // As a kill can leave it; the line for systemd puts it back, which takes root.
        const security = join(folder, fileNames.security)
        const first = readFileSync(security, "utf8")
        const putBack = /ExecStartPre=\+(\/bin\/sh .*)/.exec(out)?.[1]
        assert.isDefined(putBack)
        if (process.getuid?.() === 0)
          for (const [before, after] of [
            ["", first],
            ["{}\n", "{}\n"]
          ] as const) {
            writeFileSync(security, before)
            execFileSync("/bin/sh", ["-c", putBack as string])
            assert.strictEqual(readFileSync(security, "utf8"), after)
          }
        writeFileSync(security, first)
        const settings = readFileSync(join(folder, fileNames.settings), "utf8")
        assert.include(settings, `address = "mqtts://127.0.0.1:${port}"`)
        const real = new RealMosquitto(path)
        real.port = port
        yield* Effect.acquireRelease(
          Effect.promise(() => real.start()),
          () => Effect.promise(() => real.stop())
        )
        const password = readFileSync(join(folder, fileNames.password), "utf8").trim()
        const attempt = (ca: string, word: string) =>
          Effect.scoped(
            clientOf(`mqtts://127.0.0.1:${port}`, {
              username: "broker-services",
              password: word,
              ca: readFileSync(join(tls, ca))
            }).pipe(Effect.match({ onFailure: () => "refused", onSuccess: () => "taken" }))
          )
        assert.strictEqual(yield* attempt("ca.crt", password), "taken")
        assert.strictEqual(yield* attempt("ca.crt", "guessed"), "refused")
        mkdirSync(join(tls, "others"))
        makeCertificates(join(tls, "others"))
        assert.strictEqual(yield* attempt("others/ca.crt", password), "refused")
      })
    )
  )
})
