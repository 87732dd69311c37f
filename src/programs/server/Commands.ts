/** The server's commands. */
import { Clock, Effect, Layer, Option, Redacted } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { BrokerServicesKeysFile, brokerServicesWord } from "../../adapters/BrokerServicesKeys.ts"
import { hashToken, makeToken } from "../../adapters/http/ManagementAccess.ts"
import { SqliteFleetStoreInProcess } from "../../adapters/sqlite/SqliteFleetStore.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { Entropy } from "../../ports/Entropy.ts"
import { FleetStore } from "../../ports/FleetStore.ts"
import { Identity } from "../../ports/Identity.ts"
import type { ServerIdentity } from "../../schemas/Enrolment.ts"
import { Name, type ServerId } from "../../schemas/Ids.ts"
import { ServerConfig } from "../../schemas/ServerConfig.ts"
import { configCommand } from "../ConfigCommand.ts"
import { failure } from "../cli/Failure.ts"
import { out } from "../cli/Screen.ts"
import { ownDoctorCommand } from "../doctor/Examination.ts"
import { examineServer } from "../doctor/ServerDoctor.ts"
import { enrolAddresses, identityAddresses } from "../serverDoors.ts"
import { hostsIfEnabled } from "./OnionReach.ts"
import { cryptoServices, runServer, ServerIdentityFiles } from "./RunServer.ts"
import { loadServerConfig, serverArguments, serverConfig, settingFlags } from "./ServerSettings.ts"
import { prepareState } from "./ServerState.ts"
import { stateCommands } from "./StateCommands.ts"

/** Where the server would listen; null where the system will choose. */
const plannedOrigin = ({ host, port }: ServerConfig): string | null =>
  port === 0 ? null : `http://${host.includes(":") ? `[${host}]` : host}:${port}`

const identity = Command.make("identity", {}, () =>
  Effect.gen(function* () {
    const config = yield* serverConfig
    yield* prepareState(config.state_folder)
    const body = yield* Effect.gen(function* () {
      const own = yield* Identity
      const onion = yield* hostsIfEnabled(config)
      const newcomers = enrolAddresses(config, onion)
      const services = config.messaging.enabled
        ? yield* Effect.provide(brokerServicesWord, BrokerServicesKeysFile(config.state_folder))
        : null
      const body: ServerIdentity = {
        type: "postern/server-identity/v1",
        server: own.id as ServerId,
        signing_key: own.signingKey,
        recipient: own.recipient,
        addresses: identityAddresses(config, onion, plannedOrigin(config)),
        ...(newcomers.length > 0 ? { enrol_addresses: newcomers } : {}),
        ...(services === null ? {} : { broker_services: services })
      }
      return body
    }).pipe(Effect.provide(ServerIdentityFiles(config.state_folder)))
    yield* out(`${JSON.stringify(body, null, 2)}\n`)
  })
).pipe(Command.withDescription("Print the server's public identity as JSON; made on the first start"))

const createToken = Command.make(
  "create",
  {
    name: Argument.String("name").pipe(
      Argument.withDescription("Whose token it is, for the audit log"),
      Argument.withSchema(Name)
    ),
    role: Flag.Literals("role", ["viewer", "operator", "admin"]).pipe(
      Flag.withDescription(
        "viewer: read. operator: also submit, cancel, accept. admin: also roots and invitations"
      )
    )
  },
  ({ name, role }) =>
    Effect.gen(function* () {
      const config = yield* serverConfig
      yield* prepareState(config.state_folder)
      const folder = { folder: config.state_folder, maximumDevices: config.maximum_devices }
      const token = yield* Effect.gen(function* () {
        const store = yield* FleetStore
        const made = yield* makeToken(yield* Entropy)
        const hash = hashToken(yield* CryptoEngine, made)
        const outcome = yield* store.addToken(name, role, hash, yield* Clock.currentTimeMillis)
        return outcome === "added" ? Option.some(made) : Option.none()
      }).pipe(Effect.provide(Layer.merge(SqliteFleetStoreInProcess(folder), cryptoServices())))
      if (Option.isNone(token))
        return yield* failure(`there is a token named ${name} already: choose another name`)
      yield* out(`${Redacted.value(token.value)}\n`)
    })
).pipe(
  Command.withDescription(
    "Make an API token and print it, once; only its hash is kept. Works while the server runs"
  )
)

const token = Command.make("token").pipe(
  Command.withDescription("API tokens for operators' tools"),
  Command.withSubcommands([createToken])
)

const config = configCommand({
  program: "server",
  schema: ServerConfig,
  load: Effect.flatMap(serverArguments, (args) => loadServerConfig(args, process.env))
})

const doctor = ownDoctorCommand(
  Effect.flatMap(serverArguments, (args) => examineServer(loadServerConfig(args, process.env)))
)

/** `server.js` and everything below it. */
export const serverCommand = (entry: URL) => {
  const start = Effect.flatMap(serverConfig, (config) => runServer(config, entry))
  const run = Command.make("run", {}, () => start).pipe(
    Command.withDescription("Run the server; the default")
  )
  return Command.make("server.js", {}, () => start).pipe(
    Command.withDescription(
      "The Postern server: keeps signed, encrypted work for devices that only ever connect outward, and what they return. It holds no key that could sign work or read a package."
    ),
    Command.withSubcommands([run, identity, token, config, doctor, ...stateCommands]),
    Command.withGlobalFlags(settingFlags),
    Command.withExamples([
      {
        command: "server.js token create alice --role admin",
        description: "Make a token for the first operator"
      },
      {
        command: "server.js --port 8470",
        description: "Run on loopback; put a proxy with TLS before it"
      },
      { command: "server.js --onion", description: "Be reached over Tor, from behind any NAT" }
    ])
  )
}
