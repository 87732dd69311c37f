/**
 * A client that runs every probe in its own jail and prints what it saw as JSON. A program of its own, so that the
 * probes can be run by a root client and by an unprivileged one.
 */
import { once } from "node:events"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createConnection, createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect } from "effect"
import { Jail } from "../../../src/ports/Jail.ts"
import { runJob, withJail } from "./harness.ts"
import { probesFor } from "./probes.ts"

/** What is printed: the jail's report, and each probe's answer. */
export interface ProbeAnswers {
  readonly isolation: string
  readonly probes: ReadonlyArray<{
    readonly name: string
    readonly expected: string
    readonly seen: string
    readonly holds: boolean
  }>
}

const listen = async (address: { readonly port: number; readonly host: string } | string) => {
  const server = createServer((socket) => socket.end())
  server.listen(address as never)
  await once(server, "listening")
  return server
}

const main = async () => {
  const folder = mkdtempSync(join(tmpdir(), "postern-probes-"))
  const secretFile = join(folder, "secret")
  writeFileSync(secretFile, "a secret of the host\n")
  const abstractSocket = `postern-probe-${process.pid}`
  const tcp = await listen({ port: 0, host: "127.0.0.1" })
  const abstract = await listen(`\0${abstractSocket}`)
  try {
    // Both can be reached from outside the jail; else their probes would prove nothing.
    const { port } = tcp.address() as { port: number }
    for (const target of [{ port, host: "127.0.0.1" }, { path: `\0${abstractSocket}` }]) {
      const socket = createConnection(target)
      await once(socket, "connect")
      socket.destroy()
    }
    const probes = probesFor({ secretFile, tcpPort: port, abstractSocket, pid: process.pid })
    const answers = Effect.gen(function* () {
      const { isolation } = yield* (yield* Jail).check
      const seen = yield* Effect.forEach(probes, ({ command, expected, limits, name }) =>
        runJob(
          { command, ...(limits === undefined ? {} : { limits }) },
          ({ outcome, stderrText, stdoutText }) => ({
            name,
            expected: expected.source,
            seen: expected.test(stdoutText)
              ? stdoutText
              : `${stdoutText} (${JSON.stringify(outcome)}; ${stderrText.slice(0, 200)})`,
            holds: expected.test(stdoutText)
          })
        )
      )
      return { isolation, probes: seen } satisfies ProbeAnswers
    })
    process.stdout.write(JSON.stringify(await Effect.runPromise(withJail(answers))))
  } finally {
    tcp.close()
    abstract.close()
    rmSync(folder, { recursive: true, force: true })
  }
}

await main()
