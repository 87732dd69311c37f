/**
 * The files of a Mosquitto for this server, as texts: its configuration, what its dynamic security plugin begins with, and
 * the password of broker services. Pure but for the hash of the password.
 */
import { pbkdf2Sync } from "node:crypto"
import { encodeBase64 } from "../../crypto/Base64.ts"
import { MessageLimits } from "../../schemas/Message.ts"
import { defaultAccess, servicesAcls } from "./DynamicSecurity.ts"

export interface MosquittoFilesOptions {
  /** Where Mosquitto will find its files. */
  readonly folder: string
  readonly topicRoot: string
  /** The user name of broker services. */
  readonly user: string
  readonly listen: { readonly host: string; readonly port: number }
  /** Certificate and key (PEM files); null: without TLS, for this machine alone. */
  readonly tls: { readonly certificate: string; readonly key: string } | null
  /** The plugin's file. */
  readonly plugin: string
  readonly queuePackets: number
  /** Seconds between two savings of what Mosquitto has in memory; 0: after every change. */
  readonly saveEverySeconds: number
  /** Whom Mosquitto becomes when it is started as root; null leaves that to Mosquitto. */
  readonly runAs: string | null
}

/** Names below the folder. */
export const fileNames = {
  configuration: "mosquitto.conf",
  password: "broker-services.password",
  settings: "postern-server.toml",
  /** Mosquitto's own: it writes there. */
  data: "data",
  security: "data/dynamic-security.json",
  /** As {@link fileNames.security} was at first, to be put back where Mosquitto lost that. */
  firstSecurity: "dynamic-security.first.json"
} as const

/** As mosquitto_ctrl makes them. */
const iterations = 101
const hashBytes = 64
/** Of the salt that {@link securityText} takes. */
export const saltBytes = 12

/**
 * Messages that an agent has been sent and has not acknowledged: one whose inbox is full leaves them so, and above the bound
 * Mosquitto sends it no more of them. Answers to its handshakes, of QoS 0, still come. Mosquitto's own default is 20.
 */
const inflightMessages = 1_000

/** The fixed header and the topic come on top of what is carried. */
const packetBytes = MessageLimits.wireBytes + 1_024

/** mosquitto.conf(5). */
export const configurationText = (options: MosquittoFilesOptions): string => {
  const { folder, listen, plugin, queuePackets, runAs, saveEverySeconds, tls } = options
  const lines = [
    "# Mosquitto for a Postern server, made by: postern broker mosquitto-config",
    "# docs/mosquitto.md says what each line is for.",
    ...(runAs === null ? [] : [`user ${runAs}`]),
    "per_listener_settings false",
    "",
    `listener ${listen.port} ${listen.host}`,
    ...(tls === null
      ? ["# Without TLS: passwords travel in the clear, so it listens on this machine alone."]
      : [`certfile ${tls.certificate}`, `keyfile ${tls.key}`, "tls_version tlsv1.2"]),
    "",
    "# Accounts and rights: broker services keep them, over MQTT.",
    "allow_anonymous false",
    `plugin ${plugin}`,
    `plugin_opt_config_file ${folder}/${fileNames.security}`,
    "",
    ...(saveEverySeconds === 0
      ? [
          "# What was acknowledged is written to disk before anything else is read: nothing is lost when Mosquitto is killed.",
          "autosave_on_changes true",
          "autosave_interval 1"
        ]
      : [
          "# What was acknowledged since the last saving, and not passed on, is lost when Mosquitto is killed.",
          "autosave_on_changes false",
          `autosave_interval ${saveEverySeconds}`
        ]),
    "persistence true",
    `persistence_location ${folder}/${fileNames.data}/`,
    "# As long as a message may live.",
    "persistent_client_expiration 30d",
    "",
    "# Messages that wait for one agent. Above it Mosquitto drops the newest, without a word to their sender.",
    `max_queued_messages ${queuePackets}`,
    "# Of them, how many one agent may have been sent and not have acknowledged; above it that agent is sent no more.",
    `max_inflight_messages ${inflightMessages}`,
    "# The largest message, with its headers; whoever sends more is disconnected.",
    `max_packet_size ${packetBytes}`,
    "max_keepalive 300",
    "sys_interval 10",
    "log_dest stderr",
    "log_type error",
    "log_type warning",
    "log_type notice",
    "connection_messages true",
    ""
  ]
  return lines.join("\n")
}

/** What the plugin begins with: broker services alone. It writes the file anew with every account. */
export const securityText = (
  { topicRoot, user }: Pick<MosquittoFilesOptions, "topicRoot" | "user">,
  password: string,
  salt: Uint8Array
): string => {
  const hash = pbkdf2Sync(password, salt, iterations, hashBytes, "sha512")
  const role = "postern-broker-services"
  const document = {
    defaultACLAccess: defaultAccess,
    clients: [
      {
        username: user,
        textname: "Postern's broker services",
        roles: [{ rolename: role }],
        password: encodeBase64(hash),
        salt: encodeBase64(salt),
        iterations
      }
    ],
    groups: [],
    roles: [{ rolename: role, acls: servicesAcls(user, topicRoot) }]
  }
  return `${JSON.stringify(document, null, 2)}\n`
}

/** What the server's configuration takes up, as TOML. */
export const settingsText = (settings: {
  readonly topicRoot: string
  readonly address: string
  readonly ca: string | null
  readonly user: string
  readonly passwordFile: string
  readonly mqtt: 4 | 5
}): string => {
  // A JSON string is a basic string of TOML.
  const line = (key: string, value: string | number): string => `${key} = ${JSON.stringify(value)}`
  return [
    "[messaging]",
    line("broker", "mosquitto"),
    line("topic_root", settings.topicRoot),
    "",
    "[messaging.mosquitto]",
    line("address", settings.address),
    ...(settings.ca === null ? [] : [line("ca_file", settings.ca)]),
    line("user", settings.user),
    line("password_file", settings.passwordFile),
    line("mqtt", settings.mqtt),
    ""
  ].join("\n")
}
