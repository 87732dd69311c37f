/**
 * `postern keys`: the operator's keys and the trust root that follows from them.
 *
 * @module
 */
import { resolve } from "node:path"
import { Clock, Effect, Option, type Redacted, Result } from "effect"
import { Command, Flag } from "effect/cli"
import { createCarriedFile, errorText } from "../../adapters/files/AtomicFile.ts"
import { fetchServerIdentity, ManagementClient } from "../../adapters/operator/ManagementClient.ts"
import { OperatorHome, writeJson } from "../../adapters/operator/OperatorHome.ts"
import {
  cardOf,
  firstRoot,
  isProtected,
  keyFileBytes,
  makeKeys,
  operatorProfile,
  profileOf
} from "../../adapters/operator/OperatorKeys.ts"
import {
  OperatorProfile,
  operatorCardFile,
  operatorFile,
  operatorKeyFile
} from "../../adapters/operator/Records.ts"
import { keepRoot, trustedRoot } from "../../adapters/operator/TrustStore.ts"
import { verifyServerIdentity } from "../../crypto/Trust.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import type { ServerIdentity } from "../../schemas/Enrolment.ts"
import { labelUpTo } from "../../schemas/Ids.ts"
import { Limits } from "../../schemas/Limits.ts"
import { confirm } from "./Ask.ts"
import { explain, failure, usage } from "./Failure.ts"
import { durationFlag, yesFlag } from "./Flags.ts"
import { defaultLabel } from "./Labels.ts"
import { logIn, readToken, tokenFile } from "./LoginCommand.ts"
import { operatorCommand, renewCommand } from "./OperatorCommand.ts"
import { rootCommand } from "./RootCommand.ts"
import { out, outJson, Screen, say } from "./Screen.ts"
import { identityFromFile } from "./ServerIdentities.ts"
import {
  chosenServer,
  Json,
  parseAddress,
  requireRoot,
  Server,
  serverEntries,
  wayTo,
  withClientOf,
  withHome
} from "./Settings.ts"
import { properties, showTime, visible } from "./Text.ts"
import { newPassphrase } from "./Unlock.ts"

const optionalText = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(Flag.withMetavar(metavar), Flag.withDescription(description), Flag.optional)

const initFlags = {
  label: Flag.String("label").pipe(
    Flag.withMetavar("TEXT"),
    Flag.withDescription("What the operator's key is called in the root; default USER@HOST"),
    Flag.withSchema(labelUpTo(Limits.labelLength)),
    Flag.optional
  ),
  serverIdentity: optionalText(
    "server-identity",
    "FILE",
    "The server's identity as a file, instead of asking --server for it"
  ),
  serverId: optionalText(
    "server-id",
    "ID",
    "The id the server showed (srv_…): what was fetched must be it, and nothing is asked"
  ),
  address: Flag.String("address").pipe(
    Flag.withMetavar("URL"),
    Flag.withDescription(
      "Where devices reach the server, best first; default what the server says, else --server"
    ),
    Flag.atMost(Limits.serverAddresses)
  ),
  recoveryKey: optionalText(
    "recovery-key",
    "FILE",
    "Where to write the recovery key; default recovery.key in the home"
  ),
  passphrase: Flag.Boolean("passphrase").pipe(
    Flag.withDescription(
      "Protect the private keys with a passphrase, asked for or read from $POSTERN_PASSPHRASE_FILE (default)"
    ),
    Flag.withDefault(true)
  ),
  expires: durationFlag("expires", "How long the root is good", "365d"),
  tokenFile,
  yes: yesFlag
}

/** The server's identity, compared by the person or by `--server-id`. */
const comparedIdentity = (flags: {
  readonly serverIdentity: Option.Option<string>
  readonly serverId: Option.Option<string>
  readonly yes: boolean
}) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const given = yield* Server
    if (Option.isNone(given) && Option.isNone(flags.serverIdentity)) {
      return yield* usage("Say which server: --server URL, or --server-identity FILE")
    }
    const address = Option.isSome(given) ? yield* parseAddress(given.value) : null
    const claimed = Option.isSome(flags.serverIdentity)
      ? yield* identityFromFile(flags.serverIdentity.value)
      : yield* fetchServerIdentity(yield* wayTo(address as string))
    const verified = verifyServerIdentity(engine, claimed)
    if (Result.isFailure(verified))
      return yield* failure(`The server's identity does not hold: ${verified.failure.message}`)
    const identity = verified.success
    if (Option.isSome(flags.serverId)) {
      if (flags.serverId.value !== identity.server) {
        return yield* failure(
          `The server is ${identity.server}, not ${flags.serverId.value}. Nothing was made. Somebody may stand between`
        )
      }
      return { address, identity }
    }
    if (Option.isSome(flags.serverIdentity)) return { address, identity }
    yield* say(`The server at ${address} is\n\n    ${identity.server}\n`)
    const isSame =
      flags.yes ||
      (yield* confirm(
        "Is this the id that the server printed when it started?",
        "There is no terminal to compare the server's id. Give it with --server-id ID, or trust the network with --yes"
      ))
    if (!isSame) return yield* failure("The server's id was not confirmed. Nothing was made")
    return { address, identity }
  })

const writeRecoveryKey = (path: string, bytes: Uint8Array) =>
  Effect.try({
    try: () => createCarriedFile(path, bytes),
    catch: (error) =>
      failure(`Could not write the recovery key to ${path}: ${errorText(error)}. Nothing was made`)
  })

const publish = Effect.gen(function* () {
  const { chain } = yield* requireRoot
  const entry = yield* chosenServer
  yield* withClientOf(entry)(
    Effect.gen(function* () {
      const client = yield* ManagementClient
      for (const envelope of chain) {
        yield* client.call("publish the trust root", ({ server }) =>
          server.publishRoot({ payload: envelope })
        )
      }
    })
  )
  return entry
})

/** Logs in where a token is at hand; says how to go on where none is. */
const publishIfPossible = (address: string | null, given: Option.Option<string>) =>
  Effect.gen(function* () {
    const screen = yield* Screen
    const hasToken = Option.isSome(given) || process.env["POSTERN_TOKEN_FILE"] !== undefined || screen.canAsk
    if (address === null || !hasToken) return false
    const known = (yield* serverEntries).servers.some((entry) => entry.address === address)
    if (!known || Option.isSome(given)) yield* logIn(address, yield* readToken(given, address))
    yield* publish
    return true
  })

const recoveryAdvice = (path: string, isProtectedToo: boolean): string =>
  `The recovery key is in ${path}.
It signs a new trust root should the operator's key be lost or stolen, and serves for nothing else.
Move it off this machine now: two USB sticks in two places, or on paper in a safe.${isProtectedToo ? " It has the same passphrase." : ""}`

/** Makes both keys and the first root, and writes them down. */
const makeAndKeep = (parts: {
  readonly label: string
  readonly server: ServerIdentity
  readonly addresses: ReadonlyArray<string>
  readonly recoveryPath: string
  readonly passphrase: Redacted.Redacted | null
  readonly lifetimeMs: number
}) =>
  Effect.gen(function* () {
    const home = yield* OperatorHome
    const engine = yield* CryptoEngine
    const nowMs = yield* Clock.currentTimeMillis
    const operator = yield* makeKeys("operator", parts.label, nowMs)
    const recovery = yield* makeKeys("recovery", "recovery", nowMs)
    const made = firstRoot(engine, { ...parts, operator, recovery, nowMs })
    // The operator's key comes last: as long as it is missing, nothing was made.
    yield* writeJson(operatorFile, OperatorProfile, profileOf(operator))
    yield* home.write(operatorCardFile, `${yield* cardOf(operator)}\n`)
    yield* writeRecoveryKey(parts.recoveryPath, yield* keyFileBytes(recovery.stored, parts.passphrase))
    yield* keepRoot(1, made.envelope)
    yield* home.createBytes(operatorKeyFile, yield* keyFileBytes(operator.stored, parts.passphrase))
    const [brokerServices = null] = made.root.roles.broker_services.keys
    return {
      operator: operator.keyId,
      recovery: recovery.keyId,
      broker_services: brokerServices,
      root_version: 1,
      root_digest: made.digest
    }
  })

/** Where devices reach the server: as the flags say, else as the server says, else where we reached it. */
const deviceAddresses = (given: ReadonlyArray<string>, identity: ServerIdentity, address: string | null) =>
  Effect.gen(function* () {
    const named = yield* Effect.forEach(given, parseAddress)
    const known = [named, identity.addresses, address === null ? [] : [address]].find(
      (list) => list.length > 0
    )
    if (known !== undefined) return known
    return yield* usage("The server's identity names no address. Say where devices reach it: --address URL")
  })

const init = Command.make(
  "init",
  initFlags,
  Effect.fnUntraced(function* (flags) {
    const home = yield* OperatorHome
    if ((yield* isProtected) !== undefined) {
      return yield* failure(
        `There are operator keys in ${home.folder} already. See them with postern keys show; use another --home for others`
      )
    }
    const { address, identity } = yield* comparedIdentity(flags)
    const addresses = yield* deviceAddresses(flags.address, identity, address)
    const passphrase = yield* newPassphrase(flags.passphrase)
    const recoveryPath = resolve(Option.getOrElse(flags.recoveryKey, () => `${home.folder}/recovery.key`))
    const made = yield* makeAndKeep({
      label: Option.getOrElse(flags.label, defaultLabel),
      server: identity,
      addresses,
      recoveryPath,
      passphrase,
      lifetimeMs: flags.expires
    })
    const publishing = `postern login --server ${address ?? "URL"}, then postern keys publish`
    const isPublished = yield* Effect.mapError(publishIfPossible(address, flags.tokenFile), (error) =>
      failure(
        `${explain(error)}\nThe keys and the trust root are made, in ${home.folder}, the recovery key in ${recoveryPath}; only the root is not published. Next: ${publishing}`
      )
    )
    const common = { recovery_key_file: recoveryPath, server: identity.server, addresses }
    if (yield* Json)
      return yield* outJson({ ...made, ...common, protected: passphrase !== null, published: isPublished })
    yield* out(`Made the operator's keys and the trust root in ${home.folder}\n\n`)
    yield* out(
      properties([
        ["operator", made.operator],
        ["recovery", made.recovery],
        ["root", `version 1, ${made.root_digest}`],
        ["server", `${identity.server} at ${addresses.join(" ")}`],
        ...(made.broker_services === null ? [] : [["broker services", made.broker_services] as const])
      ])
    )
    yield* out(`\n${recoveryAdvice(recoveryPath, passphrase !== null)}\n\n`)
    if (passphrase === null) {
      yield* say("The private keys have no passphrase: whoever reads this folder can give your devices work.")
    }
    yield* out(
      isPublished
        ? "The root is published. Next: postern invite --name NAME\n"
        : `The root is not published yet. Next: ${publishing}\n`
    )
  }, withHome)
).pipe(
  Command.withDescription("Make the operator's keys, a recovery key, and the trust root for a server"),
  Command.withExamples([
    { command: "postern keys init --server http://127.0.0.1:8470", description: "Ask for everything" },
    {
      command:
        "postern keys init --server http://127.0.0.1:8470 --server-id srv_… --token-file token --recovery-key /media/stick/postern.key",
      description: "Ask for the passphrase only"
    }
  ])
)

const publishCommand = Command.make(
  "publish",
  {},
  Effect.fnUntraced(function* () {
    const { address, server } = yield* publish
    const { root } = yield* requireRoot
    if (yield* Json) return yield* outJson({ address, server, root_version: root.version })
    yield* out(`Version ${root.version} of the trust root is on ${address}.\n`)
  }, withHome)
).pipe(
  Command.withDescription("Put the trust root on the server you are logged in to (again)"),
  Command.withExamples([{ command: "postern keys publish", description: "After postern login" }])
)

const show = Command.make(
  "show",
  {},
  Effect.fnUntraced(function* () {
    const home = yield* OperatorHome
    const profile = yield* operatorProfile
    const trusted = yield* trustedRoot
    const protection = yield* isProtected
    if (profile === undefined || protection === undefined) {
      return yield* failure(
        `There are no operator keys in ${home.folder}. Make them first: postern keys init --server URL, or, where there are operators already: postern keys operator new`
      )
    }
    if (trusted === undefined) {
      return yield* failure(
        `There is the key ${profile.key_id} in ${home.folder}, but no trust root yet. Have an operator add its card (postern keys operator card), log in, and take the root in: postern keys root fetch --root-digest sha256:…`
      )
    }
    const hasRecovery = (yield* home.readBytes("recovery.key")) !== undefined
    const { firstDigest, root } = trusted
    if (yield* Json) {
      return yield* outJson({
        home: home.folder,
        operator: profile,
        protected: protection,
        recovery_key_in_home: hasRecovery,
        root_version: root.version,
        root_expires_at_ms: root.expires_at_ms,
        root_digest: firstDigest,
        servers: root.servers
      })
    }
    yield* out(
      properties([
        ["home", home.folder],
        ["operator", `${profile.key_id} (${visible(profile.label)})`],
        ["recipient", profile.recipient],
        ["passphrase", protection ? "yes" : "none"],
        ["root", `version ${root.version}, expires ${showTime(root.expires_at_ms)}`],
        ["first root", firstDigest],
        ...root.servers.map((server) => ["server", `${server.id} at ${server.addresses.join(" ")}`] as const)
      ])
    )
    if (hasRecovery)
      yield* say(
        `The recovery key still lies in ${home.folder}/recovery.key. Move it to a safe place off this machine.`
      )
  }, withHome)
).pipe(
  Command.withDescription("Show the operator's public keys and the trust root"),
  Command.withExamples([{ command: "postern keys show --json", description: "For a script" }])
)

export const keysCommand = Command.make("keys").pipe(
  Command.withDescription("The operator's keys and the trust root"),
  Command.withSubcommands([init, publishCommand, show, operatorCommand, renewCommand, rootCommand])
)
