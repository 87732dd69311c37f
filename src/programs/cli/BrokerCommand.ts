/**
 * `postern broker`: another MQTT broker than the server's own.
 *
 * @module
 */
import { chmodSync, existsSync, lstatSync } from "node:fs"
import { join, resolve } from "node:path"
import { Effect, Option, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { createPrivateFile, errorText, makeFolders } from "../../adapters/files/AtomicFile.ts"
import { findPlugin } from "../../adapters/mosquitto/DynamicSecurityPlugin.ts"
import {
  configurationText,
  fileNames,
  type MosquittoFilesOptions,
  saltBytes,
  securityText,
  settingsText
} from "../../adapters/mosquitto/MosquittoFiles.ts"
import { encodeBase64 } from "../../crypto/Base64.ts"
import { Entropy } from "../../ports/Entropy.ts"
import { ListenPlace } from "../../schemas/MessagingConfig.ts"
import { MosquittoAddress } from "../../schemas/MosquittoConfig.ts"
import { TopicRoot } from "../../schemas/Topics.ts"
import { failure, usage } from "./Failure.ts"
import { out, outJson, say } from "./Screen.ts"
import { Json } from "./Settings.ts"
import { visible } from "./Text.ts"

const passwordBytes = 24
/** Where Debian has it on the commonest machines; what a person looks at, if it is elsewhere. */
const usualPlugin = "/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so"

const optional = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(Flag.withMetavar(metavar), Flag.withDescription(description), Flag.optional)

const flags = {
  folder: Argument.String("folder").pipe(
    Argument.withDescription("Where the files go, and where Mosquitto will find them")
  ),
  listen: Flag.String("listen").pipe(
    Flag.withMetavar("HOST:PORT"),
    Flag.withDescription(
      "Where Mosquitto listens; default 127.0.0.1:1883, and with a certificate 0.0.0.0:8883"
    ),
    Flag.withSchema(ListenPlace),
    Flag.optional
  ),
  certificate: optional("certificate", "FILE", "Mosquitto's certificate, with those between (PEM)"),
  key: optional("key", "FILE", "Its key (PEM), which Mosquitto's user must be able to read"),
  ca: optional(
    "ca",
    "FILE",
    "Certificates that vouch for it (PEM), where that is nobody whom every machine trusts"
  ),
  address: Flag.String("address").pipe(
    Flag.withMetavar("URL"),
    Flag.withDescription(
      "Where server and devices reach it: mqtts://NAME:PORT, with a name of its certificate"
    ),
    Flag.withSchema(MosquittoAddress),
    Flag.optional
  ),
  topicRoot: Flag.String("topic-root").pipe(
    Flag.withMetavar("ROOT"),
    Flag.withDescription("What the topics of agents begin with, as messaging.topic_root"),
    Flag.withSchema(TopicRoot),
    Flag.withDefault("mf2c")
  ),
  mqtt: Flag.Literals("mqtt", ["5", "3.1.1"]).pipe(
    Flag.withDescription("Which MQTT devices speak with it"),
    Flag.withDefault("5" as const)
  ),
  plugin: optional("plugin", "FILE", "mosquitto_dynamic_security.so, where it is not found by itself"),
  queuePackets: Flag.Int("queue-packets").pipe(
    Flag.withMetavar("N"),
    Flag.withDescription("How many messages Mosquitto keeps for a device that is away"),
    Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum: 100, maximum: 1_000_000 }))),
    Flag.withDefault(10_000)
  ),
  saveEvery: Flag.Int("save-every").pipe(
    Flag.withMetavar("SECONDS"),
    Flag.withDescription(
      "How often Mosquitto writes what it holds to disk. 0 (default): after every change, so that a kill loses nothing; with seconds it is many times faster, and a kill loses what came in them"
    ),
    Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 3_600 }))),
    Flag.withDefault(0)
  )
}

type Given = Command.Command.Config.Infer<typeof flags>

/** Certificate and key, both or neither. */
const tlsOf = ({ certificate, key }: Given) => {
  if (Option.isNone(certificate) && Option.isNone(key)) return Effect.succeed(null)
  if (Option.isNone(certificate) || Option.isNone(key))
    return Effect.fail(usage("--certificate and --key go together"))
  return Effect.succeed({ certificate: resolve(certificate.value), key: resolve(key.value) })
}

const isOnThisMachine = (host: string): boolean => /^(?:127(?:\.\d{1,3}){3}|localhost|\[?::1\]?)$/.test(host)

/** Where it listens, and where others reach it. */
const placesOf = (given: Given, hasTls: boolean) =>
  Effect.gen(function* () {
    const text = Option.getOrElse(given.listen, () => (hasTls ? "0.0.0.0:8883" : "127.0.0.1:1883"))
    const at = text.lastIndexOf(":")
    const listen = { host: text.slice(0, at).replace(/^\[(.*)\]$/, "$1"), port: Number(text.slice(at + 1)) }
    const isHere = isOnThisMachine(listen.host)
    if (!hasTls && !isHere)
      return yield* usage(
        `Passwords would travel in the clear to ${text}: give --certificate and --key (docs/mosquitto.md makes them), or listen on 127.0.0.1`
      )
    if (Option.isSome(given.address)) {
      if (given.address.value.startsWith("mqtts:") !== hasTls)
        return yield* usage(
          `${given.address.value} does not fit: ${hasTls ? "with" : "without"} a certificate it begins with ${hasTls ? "mqtts" : "mqtt"}://`
        )
      return { listen, address: given.address.value }
    }
    if (!isHere)
      return yield* usage(
        "Say where devices reach it: --address mqtts://NAME:PORT, with a name of its certificate"
      )
    return { listen, address: `${hasTls ? "mqtts" : "mqtt"}://${text}` }
  })

/** Fails where any of them is there, so that nothing is overwritten and nothing is written by half. */
const requireAbsent = (paths: ReadonlyArray<string>) => {
  const there = paths.filter((path) => lstatSync(path, { throwIfNoEntry: false }) !== undefined)
  return there.length === 0
    ? Effect.void
    : Effect.fail(
        failure(
          `Nothing was written, since something is there already: ${there.join(", ")}. Take another folder, or move these away. A new password needs a new dynamic-security.json, and then all devices get new passwords`
        )
      )
}

/** For its owner alone, but for what holds no secret. */
const write = (path: string, text: string, isSecret: boolean) =>
  Effect.try({
    try: () => {
      createPrivateFile(path, new TextEncoder().encode(text))
      if (!isSecret) chmodSync(path, 0o644)
    },
    catch: (error) => failure(`Could not write ${path}: ${errorText(error)}`)
  })

/** Everybody may pass through the folder; Mosquitto's own in it is its own. */
const makeBothFolders = (folder: string) =>
  Effect.try({
    try: () => {
      makeFolders(folder, 0o755)
      makeFolders(join(folder, fileNames.data), 0o700)
    },
    catch: (error) => failure(`Could not make the folder ${folder}: ${errorText(error)}`)
  })

/** What is left to do by hand. */
const nextSteps = (options: MosquittoFilesOptions, hasPlugin: boolean): string => {
  const { folder, tls } = options
  const path = (name: string): string => join(folder, name)
  // A kill can leave Mosquitto's file of accounts empty; the server makes agents' accounts anew.
  const putBack = `/bin/sh -c 'test -s ${path(fileNames.security)} || install -m 600 -o mosquitto ${path(fileNames.firstSecurity)} ${path(fileNames.security)}'`
  const steps = [
    ...(hasPlugin
      ? []
      : [
          `Install Mosquitto 2 with its plugin mosquitto_dynamic_security.so (Debian: apt install mosquitto), and see that ${path(fileNames.configuration)} names the plugin's place.`
        ]),
    `Give Mosquitto the folder that it writes to:\n     chown -R mosquitto ${path(fileNames.data)}`,
    ...(tls === null ? [] : [`Let Mosquitto's user read ${tls.key}, and nobody else.`]),
    `Start it with this configuration alone: it is not made to be included by another.\n     mosquitto -c ${path(fileNames.configuration)}\n   Under systemd: systemctl edit mosquitto, with the lines\n     [Service]\n     ExecStartPre=+${putBack}\n     ExecStart=\n     ExecStart=/usr/sbin/mosquitto -c ${path(fileNames.configuration)}`,
    `Give the server its password, and put what ${path(fileNames.settings)} says into its configuration:\n     chown postern-server ${path(fileNames.password)}`,
    "Start the server again. It says: connected with Mosquitto. Devices find their way by themselves."
  ]
  return `Next steps, as root:\n${steps.map((step, index) => `${index + 1}. ${step}\n`).join("")}`
}

const mosquittoConfig = Command.make("mosquitto-config", flags, (given) =>
  Effect.gen(function* () {
    const entropy = yield* Entropy
    const folder = resolve(given.folder)
    const tls = yield* tlsOf(given)
    const { address, listen } = yield* placesOf(given, tls !== null)
    const plugin = Option.getOrUndefined(given.plugin) ?? findPlugin()
    const options: MosquittoFilesOptions = {
      folder,
      topicRoot: given.topicRoot,
      user: "broker-services",
      listen,
      tls,
      plugin: plugin ?? usualPlugin,
      queuePackets: given.queuePackets,
      saveEverySeconds: given.saveEvery,
      runAs: null
    }
    const ca = Option.match(given.ca, { onNone: () => null, onSome: (path) => resolve(path) })
    const names = [folder, options.plugin, tls?.certificate ?? "", tls?.key ?? ""]
    if (names.some((name) => /[\s"]/.test(name)))
      return yield* usage("Mosquitto's configuration takes no paths with spaces or quotes")
    const password = encodeBase64(yield* entropy.bytes(passwordBytes))
    const passwordFile = join(folder, fileNames.password)
    const security = securityText(options, password, yield* entropy.bytes(saltBytes))
    const files: ReadonlyArray<readonly [path: string, text: string, secrecy: "open" | "secret"]> = [
      [join(folder, fileNames.configuration), configurationText(options), "open"],
      [join(folder, fileNames.security), security, "secret"],
      [join(folder, fileNames.firstSecurity), security, "secret"],
      [passwordFile, `${password}\n`, "secret"],
      [
        join(folder, fileNames.settings),
        settingsText({
          topicRoot: options.topicRoot,
          address,
          ca,
          user: options.user,
          passwordFile,
          mqtt: given.mqtt === "5" ? 5 : 4
        }),
        "open"
      ]
    ]
    yield* requireAbsent(files.map(([path]) => path))
    yield* makeBothFolders(folder)
    for (const [path, text, secrecy] of files) yield* write(path, text, secrecy === "secret")
    const paths = files.map(([path]) => path)
    if (yield* Json) return yield* outJson({ folder, address, files: paths })
    yield* out(`${paths.map((path) => `wrote ${visible(path)}\n`).join("")}\n`)
    for (const path of tls === null ? [] : [tls.certificate, tls.key])
      if (!existsSync(path))
        yield* say(`There is no ${visible(path)} yet: Mosquitto will not start without it.`)
    yield* out(nextSteps(options, plugin !== undefined))
  })
).pipe(
  Command.withDescription(
    "Write what a Mosquitto 2 needs to carry this server's messages: configuration, rights and the password of broker services; and the server's settings for it. Never overwrites anything"
  ),
  Command.withExamples([
    {
      command: "postern broker mosquitto-config /etc/postern/mosquitto",
      description: "For a Mosquitto on the server's own machine, which devices reach from there alone"
    },
    {
      command:
        "postern broker mosquitto-config /etc/postern/mosquitto --certificate server.crt --key server.key --ca ca.crt --address mqtts://broker.example:8883",
      description: "For devices everywhere, with TLS"
    }
  ])
)

export const brokerCommand = Command.make("broker").pipe(
  Command.withDescription("Another MQTT broker than the server's own"),
  Command.withSubcommands([mosquittoConfig])
)
