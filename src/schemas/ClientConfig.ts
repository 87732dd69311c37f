/** The device's configuration. Every key has a default that works; times in milliseconds, sizes in bytes. */
import { Schema } from "effect"
import { AgentConfig } from "./AgentConfig.ts"
import { cryptoEngine } from "./CryptoSettings.ts"
import { Count, intBetween, Name } from "./Ids.ts"
import { Limits } from "./Limits.ts"
import { logFormat, logLevel } from "./LogSettings.ts"
import { Grants } from "./Manifest.ts"
import {
  configuration,
  optionalSetting,
  programSetting,
  setting,
  settingTable,
  unsetSetting
} from "./Setting.ts"
import { proxySetting, torSettings, torSocks } from "./TorSettings.ts"
import { ServerAddress } from "./TrustRoot.ts"

/** `host:port` or `[address]:port`. */
const ReferenceHost = Schema.String.check(
  Schema.isMaxLength(Limits.addressLength),
  Schema.isPattern(/^(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[1-9][0-9]{0,4}$/)
)

/** Over TLS nobody could answer in its place. */
const PortalPage = Schema.String.check(
  Schema.isMaxLength(Limits.addressLength),
  Schema.isPattern(/^http:\/\/[A-Za-z0-9._[\]:-]+(?:\/[!-~]*)?$/),
  Schema.makeFilter((text) => URL.canParse(text) || "it is no URL")
)

/** As the kernel names it: at most 15 characters. */
const ProcessName = Schema.String.check(Schema.isPattern(/^[^\p{C}\p{Z}/]{1,15}$/u))

const bound = (description: string, example: number) => optionalSetting(Count, { description, example })

/** What one job may use at the most on this device; the names are those of a manifest's limits. */
const jobLimits = settingTable(
  {
    timeout_ms: bound("Wall clock.", 600_000),
    grace_ms: bound("Time between SIGTERM and SIGKILL.", 5_000),
    memory_bytes: bound("Memory of all processes together.", 256 * 1024 * 1024),
    cpu_percent: bound("Share of one processor: 150 is one and a half.", 100),
    processes: bound("Processes and threads at once.", 64),
    disk_bytes: bound("Room in /work, /tmp and /dev/shm together.", 64 * 1024 * 1024),
    output_bytes: bound("Output and error output together; what comes after is cut and marked.", 1024 * 1024),
    artifact_bytes: bound("All artifacts together.", 16 * 1024 * 1024),
    artifact_entries: bound("Number of artifacts.", 100)
  },
  {
    description:
      "Upper bounds of this device on what a package may ask for. Those left out are the general ones of the format."
  }
)

const grants = settingTable(
  {
    devices: setting(Grants.fields.devices, [], {
      description: "Names of devices that packages may be lent.",
      form: "at most 16 different names of small letters, digits and dashes",
      example: ["camera"]
    }),
    read_only: setting(Grants.fields.read_only, [], {
      description: "Folders and files of this machine that packages may be shown, read-only.",
      form: "at most 16 different absolute paths",
      example: ["/srv/measurements"]
    })
  },
  {
    description:
      "What packages may be granted beyond the bare jail, where their signed manifest asks for it: nothing, unless it is named here."
  }
)

const tor = settingTable(
  {
    mode: setting(Schema.Literals(["auto", "always", "never"]), "auto", {
      description:
        "What goes through Tor. `auto`: onion addresses, and nothing else; no Tor runs where no server has one. `always`: everything; no name is resolved here and nothing is connected to but Tor's network. `never`: nothing; onion addresses are not used."
    }),
    socks: torSocks,
    ...torSettings
  },
  {
    description:
      "The way through Tor. Without further keys a Tor of the client's own is started when it is needed, in its state folder and with its rights; it is not the one that a package of the system may start."
  }
)

export const ClientConfig = configuration({
  state_folder: programSetting(Schema.String, {
    description: "Where the device keeps its keys, its ledger and packages. Mode 0700.",
    form: "a folder's path",
    fallback: "/var/lib/postern for root, else ~/.local/state/postern",
    example: "/var/lib/postern",
    flag: "--state",
    alias: "POSTERN_STATE"
  }),
  server: unsetSetting(ServerAddress, {
    description: "The server to ask while no root is known yet; an invitation brings its own.",
    form: "scheme, host and port alone, such as https://postern.example",
    fallback: "none",
    example: "https://postern.example",
    flag: "--server"
  }),
  name: unsetSetting(Name, {
    description: "The name to ask for at enrolment.",
    form: "1 to 63 small letters, digits and dashes, with no dash first",
    fallback: "the host's name, where it is such a name",
    example: "kitchen-pi",
    flag: "--name"
  }),
  long_poll_ms: setting(intBetween(0, Limits.longPollMs), 25_000, {
    description: "How long the server holds a poll open, so that orders come at once. 0 turns it off."
  }),
  sleep_minimum_ms: setting(intBetween(Limits.pollSleepMinimumMs, Limits.pollSleepMaximumMs), 1_000, {
    description: "The shortest sleep between polls that the server may ask for."
  }),
  sleep_maximum_ms: setting(intBetween(Limits.pollSleepMinimumMs, Limits.pollSleepMaximumMs), 300_000, {
    description: "The longest sleep between polls that the server may ask for."
  }),
  crypto_engine: cryptoEngine,
  log_level: logLevel,
  log_format: logFormat,
  health_interval_ms: setting(intBetween(1_000, 24 * 3_600_000), 60_000, {
    description: "Time between health reports."
  }),
  reference_hosts: setting(Schema.Array(ReferenceHost).check(Schema.isMaxLength(Limits.referenceHosts)), [], {
    description:
      "Hosts that are reached where the network beyond the gateway is good. They only help to tell what is broken; the device polls whatever they do. None by default: a closed network has none.",
    form: `at most ${Limits.referenceHosts} texts of host and port`,
    example: ["192.0.2.1:443"]
  }),
  captive_portal_url: unsetSetting(PortalPage, {
    description:
      "A page that answers with status 204 and nothing else, to tell a captive portal where the server's own address cannot (onion addresses). Asked directly, and only after a failed poll; never with tor.mode always. None by default: nobody but the server is asked.",
    form: "an http:// URL",
    fallback: "none",
    example: "http://postern.example/empty"
  }),
  required_processes: setting(
    Schema.Array(ProcessName).check(Schema.isMaxLength(Limits.requiredProcesses)),
    [],
    {
      description: "Processes of the machine that must run; a missing one is reported.",
      form: `at most ${Limits.requiredProcesses} names as ps -o comm shows them`,
      example: ["sshd"]
    }
  ),
  disk_reserve_bytes: setting(intBetween(0, Number.MAX_SAFE_INTEGER), 64 * 1024 * 1024, {
    description: "With less free room than this, nothing is downloaded; polling goes on and says so."
  }),
  download_timeout_ms: setting(intBetween(1_000, 7 * 86_400_000), 6 * 3_600_000, {
    description:
      "A download that takes longer, with all that it resumes, is put off, so that other orders get their turn."
  }),
  download_minimum_rate: setting(intBetween(1, 1_000_000_000), 100, {
    description: "A download must come at least at this rate, in bytes per second over 30 seconds."
  }),
  download_circuits: setting(intBetween(1, Limits.downloadCircuits), 4, {
    description:
      "Circuits that a large download takes at once where it goes through Tor. One is gentler, and slower."
  }),
  proxy: proxySetting,
  tor,
  agent: AgentConfig,
  grants,
  devices: setting(
    Schema.Record(
      Schema.String.check(Schema.isPattern(/^[a-z0-9][a-z0-9-]{0,62}$/)),
      Schema.String.check(Schema.isMaxLength(Limits.packagePathLength), Schema.isPattern(/^\/dev\/[^\0]+$/))
    ).check(Schema.isMaxProperties(64)),
    {},
    {
      description:
        "Devices of this machine by the names that packages use: serial lines, cameras, USB devices. A device is lent only where grants.devices names it too.",
      form: "at most 64 names of small letters, digits and dashes, each with a path in /dev",
      example: { arduino: "/dev/serial/by-id/usb-Arduino_Uno-if00" }
    }
  ),
  user: setting(Schema.String.check(Schema.isPattern(/^[a-z_][a-z0-9_-]{0,31}$/)), "postern", {
    description:
      "The user the client becomes where it is started as root. Jobs run as others still, see jail_uid_base.",
    form: "a user's name"
  }),
  client_uid: setting(intBetween(1_000, 2_000_000_000), 63_999, {
    description: "The uid and gid the client becomes instead, where there is no such user."
  }),
  hung_after_ms: setting(intBetween(1_000, 3_600_000), 60_000, {
    description:
      "How long the client may give no sign of life before it is killed and started again. Its loops have four minutes at least."
  }),
  job_limits: jobLimits,
  jail_uid_base: setting(intBetween(1_000, 2_000_000_000), 64_000, {
    description: "The first uid of this machine for jobs, where the client may change uids."
  }),
  bwrap: setting(Schema.String, "bwrap", {
    description: "bubblewrap, the engine of the jail: its name in the PATH, or its absolute path."
  })
})
export type ClientConfig = typeof ClientConfig.Type
