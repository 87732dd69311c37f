/**
 * Broker services of a test as a process of their own, with their database in a thread, so that they can be killed:
 *
 *     node test/support/messagingServices.ts FOLDER PORT AGENT…
 *
 * SIGUSR2 crashes the actor that keeps the broker, SIGHUP the directory.
 */
import { Effect } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { BrokerKeeperKey, DirectoryKey } from "../../src/actors/ServerKeys.ts"
import { isDatabaseWorker, serveDatabase } from "../../src/adapters/sqlite/DatabaseWorker.ts"
import { messagesDatabase } from "../../src/adapters/sqlite/messages/MessagesDatabase.ts"
import { openInWorker } from "../../src/adapters/sqlite/WorkerDatabase.ts"
import { ActorKey, Behaviour, ChildSpec } from "../../src/kernel/index.ts"
import { Fleet, startServices } from "./messaging.ts"

const SaboteurProtocol = RpcGroup.make(Rpc.make("CrashBroker"), Rpc.make("CrashDirectory"))
const SaboteurKey = ActorKey.make("saboteur", SaboteurProtocol)

const saboteur = ChildSpec.make({
  key: SaboteurKey,
  behaviour: Behaviour.make(SaboteurProtocol, (context) =>
    Effect.succeed(
      context.handlers({
        CrashBroker: () => Effect.ignore(context.restart(BrokerKeeperKey, "crashed by the test")),
        CrashDirectory: () => Effect.ignore(context.restart(DirectoryKey, "crashed by the test"))
      })
    )
  )
})

const run = (folder: string, port: number, names: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const fleet = new Fleet()
    for (const name of names) fleet.add(name)
    const database = yield* openInWorker(messagesDatabase, {
      path: `${folder}/messages.db`,
      entry: new URL(import.meta.url)
    })
    const { system } = yield* startServices(fleet, folder, {
      port,
      database,
      saboteur,
      intervalMs: 60_000
    })
    process.on("SIGUSR2", () => Effect.runFork(Effect.ignore(system.ref(SaboteurKey).tell("CrashBroker"))))
    process.on("SIGHUP", () => Effect.runFork(Effect.ignore(system.ref(SaboteurKey).tell("CrashDirectory"))))
    process.stdout.write(`${servicesProcess.ready}\n`)
    return yield* Effect.never
  })

/** This script, and what it says when broker services are there. */
export const servicesProcess = { script: import.meta.filename, ready: "broker services are there" } as const

if (isDatabaseWorker()) serveDatabase([messagesDatabase])
else if (process.argv[1] === import.meta.filename) {
  const [folder = "", port = "0", names = ""] = process.argv.slice(2)
  Effect.runFork(Effect.scoped(run(folder, Number(port), names.split(","))))
}
