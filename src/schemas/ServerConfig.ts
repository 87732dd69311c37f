/** The server's configuration. Every key has a default that works. */
import { Schema } from "effect"
import { cryptoEngine } from "./CryptoSettings.ts"
import { intBetween } from "./Ids.ts"
import { Limits } from "./Limits.ts"
import { logFormat, logLevel } from "./LogSettings.ts"
import { MessagingConfig } from "./MessagingConfig.ts"
import { configuration, programSetting, setting, settingTable, unsetSetting } from "./Setting.ts"
import { torSettings } from "./TorSettings.ts"
import { ServerAddress } from "./TrustRoot.ts"

const days = (fallback: number, description: string, atLeast = 0) =>
  setting(intBetween(atLeast, 36_500), fallback, { description })

/** What the server lets go of, and when. */
export const RetentionConfig = settingTable(
  {
    results_days: days(
      30,
      "For how many days after a job's end its output and artifacts are kept. Afterwards asking for them is answered 410 with the day."
    ),
    results_bytes: setting(intBetween(0, Number.MAX_SAFE_INTEGER), 2 * 1024 ** 3, {
      description:
        "How many bytes the results of all ended jobs may take together; above it the oldest are dropped, whatever their age."
    }),
    payload_days: days(
      1,
      "For how many days after its last job has ended, or its order expired, a payload is kept."
    ),
    jobs_days: days(
      90,
      "For how many days after its end a job is shown. It is kept until its order has expired in any case, and so is each device's last one."
    ),
    receipts_days: days(
      1_095,
      "For how many days receipts are kept. Operators' tools accept that a chain begins late only where this is at least a year.",
      Limits.receiptDaysMinimum
    ),
    audit_days: days(365, "For how many days lines of the audit log are kept."),
    audit_entries: setting(intBetween(1_000, 100_000_000), 200_000, {
      description: "How many lines of the audit log are kept at the most, the newest."
    }),
    enrolments_days: days(
      7,
      "For how many days a device that waits for a decision, and asks no more, is remembered.",
      1
    )
  },
  { description: "What the server drops by itself, and when." }
)
export type RetentionConfig = typeof RetentionConfig.Type

/** The server as Tor onion services; the way for devices in networks where nothing but Tor gets through. */
export const OnionConfig = settingTable(
  {
    enabled: setting(Schema.Boolean, false, {
      description:
        "Whether the server is reached over Tor too: it starts tor, or attaches to one, and publishes onion services whose addresses stay the same. Devices need no other address then, and the server no open port.",
      flag: "--onion"
    }),
    enrolment: setting(Schema.Literals(["invited", "always", "never"]), "invited", {
      description:
        "When newcomers reach the server over Tor, by an address of their own that serves for enrolment alone: while an invitation or a pre-authorisation is open, always, or never (they then need another way)."
    }),
    management: setting(Schema.Boolean, false, {
      description:
        "Whether operators reach the management API over Tor, by an onion address that serves for nothing else. Whoever knows it can try tokens."
    }),
    maximum_clients: setting(intBetween(1, Limits.onionOwnKeys), Limits.onionKeys / 2, {
      description:
        "How many devices at the most are let to the onion service by keys of their own. Above it, they share keys in groups."
    }),
    ...torSettings
  },
  { description: "The server as Tor onion services (docs/tor.md)." }
)
export type OnionConfig = typeof OnionConfig.Type

export const ServerConfig = configuration({
  state_folder: programSetting(Schema.String, {
    description: "Where the server keeps its keys, its databases and the ciphertext it carries. Mode 0700.",
    form: "a folder's path",
    fallback: "/var/lib/postern-server for root, else ~/.local/state/postern-server",
    example: "/var/lib/postern-server",
    flag: "--state",
    alias: "POSTERN_STATE"
  }),
  host: setting(Schema.String, "127.0.0.1", {
    description:
      "The address to listen on. Loopback by default: put a proxy with TLS before it, or name the address of an interface (0.0.0.0 for all) where plain HTTP will do. SECURITY.md says what plain HTTP shows.",
    flag: "--host"
  }),
  port: setting(intBetween(0, 65_535), 8470, {
    description: "The port to listen on. 0 takes a free one and says which.",
    flag: "--port"
  }),
  // One less than a root holds: the onion address stands behind them.
  addresses: setting(Schema.Array(ServerAddress).check(Schema.isMaxLength(Limits.serverAddresses - 1)), [], {
    description:
      "Origins under which devices reach the server, best first; `postern keys init` puts them into the trust root, and the onion address behind them. Without any, the address it listens on.",
    form: `at most ${Limits.serverAddresses - 1} addresses of scheme, host and port alone, such as https://postern.example`,
    example: ["https://postern.example"]
  }),
  poll_sleep_ms: setting(intBetween(Limits.pollSleepMinimumMs, Limits.pollSleepMaximumMs), 60_000, {
    description: "The sleep told to devices that do not hold their polls open."
  }),
  maximum_requests: setting(intBetween(1, 1_000_000), 20_000, {
    description:
      "How many requests may be in work at once. Above it, devices are told to come later (503 with Retry-After)."
  }),
  health_reports: setting(intBetween(1, Limits.healthReports), 120, {
    description:
      "How many whole health reports are kept of each device, the newest. Older figures live on as series."
  }),
  health_days: setting(intBetween(1, 3_650), 90, {
    description:
      "For how many days the series of a device's figures are kept; reports are dropped then at the latest."
  }),
  requests_per_minute: setting(intBetween(1, 1_000_000), 6_000, {
    description:
      "How often each API token may ask in a minute; ten seconds' worth may come at once. Above it: 429 with Retry-After."
  }),
  minimum_free_bytes: setting(intBetween(0, Number.MAX_SAFE_INTEGER), 128 * 1024 ** 2, {
    description:
      "What stays free of the disk: payloads and artifacts that would go below are refused (507, or 503 for devices), so that receipts still find room."
  }),
  retention: RetentionConfig,
  onion: OnionConfig,
  messaging: MessagingConfig,
  otlp_endpoint: unsetSetting(Schema.String.check(Schema.isPattern(/^https?:[/][/][^\s]+$/)), {
    description:
      "Where traces go, as OTLP over HTTP with JSON: the collector's address without `/v1/traces`. Unset, there are no traces and they cost nothing.",
    form: "an http or https address",
    example: "http://127.0.0.1:4318"
  }),
  crypto_engine: cryptoEngine,
  log_level: logLevel,
  log_format: logFormat,
  maximum_devices: setting(intBetween(1, 1_000_000), 100_000, {
    description: "How many devices the server knows at the most."
  })
})
export type ServerConfig = typeof ServerConfig.Type
