/**
 * Commands on a server's state folder, on the server's own machine: backup, restore, and dropping now what retention
 * would drop later. `server.js` and `postern server` have the same ones.
 */
import { existsSync, readFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { Effect, Option, type Redacted, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { backupServer, restoreServer } from "../../adapters/backup/ServerBackup.ts"
import { askControl } from "../../adapters/ControlSocket.ts"
import { errorText } from "../../adapters/files/AtomicFile.ts"
import { type AgeIdentity, parseIdentity, x25519Identity } from "../../crypto/AgeKeys.ts"
import { Recipient } from "../../schemas/Ids.ts"
import { Dropped } from "../../schemas/protocols/Retention.ts"
import { failure } from "../cli/Failure.ts"
import { out } from "../cli/Screen.ts"
import { showSize, showTime } from "../cli/Text.ts"
import { cryptoServices, ServerIdentityFiles } from "./RunServer.ts"
import { serverConfig } from "./ServerSettings.ts"
import { prepareState } from "./ServerState.ts"

const backup = Command.make(
  "backup",
  {
    folder: Argument.String("folder").pipe(
      Argument.withDescription("Where it goes: a folder that is new or empty; 0700 is made of a new one")
    ),
    recipient: Flag.String("recipient").pipe(
      Flag.withMetavar("AGE-RECIPIENT"),
      Flag.withDescription("Encrypt keys and databases to this age recipient; may be given several times"),
      Flag.withSchema(Recipient),
      Flag.atLeast(0)
    )
  },
  Effect.fnUntraced(function* ({ folder, recipient }) {
    const { state_folder: stateFolder } = yield* serverConfig
    if (!existsSync(join(stateFolder, "keys"))) {
      return yield* failure(`${stateFolder} is no server's state folder: name it with --state`)
    }
    const manifest = yield* backupServer({
      stateFolder,
      target: resolve(folder),
      recipients: recipient
    }).pipe(Effect.provide(ServerIdentityFiles(stateFolder)))
    const bytes = manifest.files.reduce((sum, file) => sum + file.size_bytes, 0)
    const kept =
      recipient.length > 0 ? "Keys and databases are encrypted." : "It holds the server's keys: keep it safe."
    yield* out(
      `Backed up ${manifest.files.length} files (${showSize(bytes)}) of ${manifest.server}. ${kept}\n`
    )
  })
).pipe(
  Command.withDescription("Back the server's state up into a folder, while it runs or not"),
  Command.withExamples([
    { command: "server.js backup /mnt/backup/today", description: "Everything, plainly" },
    {
      command: "server.js backup /mnt/backup/today --recipient age1…",
      description: "Keys and databases for the holder of that age key alone"
    }
  ])
)

/** The secret keys in a file as age writes it: one a line, comments begin with #. */
const identitiesIn = (path: string) =>
  Effect.gen(function* () {
    const text = yield* Effect.try({
      try: () => readFileSync(path, "utf8"),
      catch: (error) => failure(`Could not read ${path}: ${errorText(error)}`)
    })
    const lines = text.split("\n").map((line) => line.trim())
    const keys = lines.filter((line) => line !== "" && !line.startsWith("#")).map(parseIdentity)
    const known = keys.filter((key): key is Redacted.Redacted<Uint8Array> => key !== undefined)
    if (known.length === 0 || known.length !== keys.length) {
      return yield* failure(`${path} is no file of age identities (AGE-SECRET-KEY-1…)`)
    }
    return known.map(x25519Identity) as ReadonlyArray<AgeIdentity>
  })

const restore = Command.make(
  "restore",
  {
    folder: Argument.String("folder").pipe(Argument.withDescription("The backup")),
    identity: Flag.String("identity").pipe(
      Flag.withMetavar("FILE"),
      Flag.withDescription("The age identity that opens an encrypted backup"),
      Flag.optional
    )
  },
  Effect.fnUntraced(function* ({ folder, identity }) {
    const { maximum_devices: maximumDevices, state_folder: stateFolder } = yield* serverConfig
    const identities = Option.isSome(identity) ? yield* identitiesIn(identity.value) : []
    yield* prepareState(stateFolder)
    const source = resolve(folder)
    const manifest = yield* restoreServer({ source, stateFolder, identities, maximumDevices }).pipe(
      Effect.provide(cryptoServices())
    )
    yield* out(
      `Restored ${manifest.files.length} files of ${manifest.server}, as they were at ${showTime(manifest.made_at_ms)}, into ${stateFolder}. Start the server; docs/operating-the-server.md says what to look at then.\n`
    )
  })
).pipe(
  Command.withDescription(
    "Put a backup into an empty state folder; every file is proved by its digest. Stop the old server for good first"
  ),
  Command.withExamples([
    {
      command: "server.js restore /mnt/backup/today --state /var/lib/postern-server",
      description: "On the new machine, before the server is started"
    }
  ])
)

const decodeDropped = Schema.decodeUnknownEffect(Schema.NullOr(Dropped))

const sweep = Command.make(
  "sweep",
  {},
  Effect.fnUntraced(function* () {
    const { state_folder: stateFolder } = yield* serverConfig
    const answer = yield* askControl({ stateFolder, request: "sweep", timeoutMs: 10_000 })
    const dropped = yield* decodeDropped(answer)
    if (dropped === null)
      return yield* out("It takes longer and goes on; postern status shows what is left.\n")
    const words = Object.entries(dropped).flatMap(([what, count]) => (count > 0 ? [`${count} ${what}`] : []))
    yield* out(words.length === 0 ? "There was nothing to drop.\n" : `Dropped ${words.join(", ")}.\n`)
  })
).pipe(
  Command.withDescription("Drop now what the running server's retention settings let go of"),
  Command.withExamples([
    { command: "server.js sweep", description: "Now, not at the next quarter of an hour" }
  ])
)

export const stateCommands = [backup, restore, sweep] as const
