/**
 * Everything that may be weaker on a device than it should be, as a closed set: one code for each, so that a device, its
 * server, an operator and a machine mean the same. They go along with every poll and health report; none of them ever
 * keeps a device from polling.
 */
import { Schema } from "effect"
import { labelUpTo } from "./Ids.ts"

interface ConditionText {
  /** What it means. */
  readonly means: string
  /** What to do about it. */
  readonly mend: string
}

export const conditionTexts = {
  no_link: {
    means: "No network interface is up.",
    mend: "Plug in the cable, or check the radio: ip link."
  },
  no_address: {
    means: "An interface is up, but has no address.",
    mend: "Check DHCP or the interface's configuration: ip address."
  },
  no_route: {
    means: "There is an address, but no way to the server's network.",
    mend: "Check the default gateway: ip route."
  },
  no_name_resolution: {
    means: "Names cannot be resolved.",
    mend: "Check the name servers in /etc/resolv.conf, or name the server by its address."
  },
  captive_portal: {
    means: "Somebody else answers in the server's place: this network wants a login in a browser first.",
    mend: "Log in once from this network, or have the device let through; Tor with bridges often passes."
  },
  no_reference_host: {
    means: "None of the configured reference hosts is reached.",
    mend: "Check the network beyond the gateway, or the key reference_hosts."
  },
  proxy_unreachable: {
    means: "The configured proxy does not answer.",
    mend: "Check the proxy, and the key proxy."
  },
  proxy_refused: {
    means: "The configured proxy answers, but does not let the device through.",
    mend: "Check name and password in the key proxy, and what the proxy allows: CONNECT to port 443 at least."
  },
  clock_wrong: {
    means: "The clock is wrong by more than Tor or the server's certificate can bear.",
    mend: "Set the time (timedatectl; chronyc makestep): the device goes on by itself. Let a time service do it at boot."
  },
  tor_failed: {
    means: "Tor does not run on the device.",
    mend: "See the detail: install tor, or check the keys of the table tor."
  },
  tor_unavailable: {
    means: "Tor cannot be started or attached to, so addresses that need it are not used.",
    mend: "See the detail: install tor, or check the keys of the table tor. postern doctor on the device looks closer."
  },
  tor_bootstrapping: {
    means: "Tor has not found its way into the Tor network yet.",
    mend: "Wait a minute; where this network blocks Tor, configure bridges, a transport, or a proxy."
  },
  onion_not_found: {
    means: "Tor works, but the server's onion service is not published.",
    mend: "Check the server and its tor: postern status. Check the address too."
  },
  onion_not_authorised: {
    means: "The server's onion service is there, but does not know this device's key.",
    mend: "Accept the device (again): postern devices accept."
  },
  onion_intro_failed: {
    means: "The server's onion service is published, but its tor does not answer.",
    mend: "Check the server's tor and its network; after a restart it is back within seconds."
  },
  server_unreachable: {
    means: "The network works as far as can be seen, but the server does not answer.",
    mend: "Check the server, its port, and what filters between."
  },
  root_expired: {
    means: "The trust root has expired and no newer one is on the server.",
    mend: "Make it last longer: postern keys renew."
  },
  root_expiring: {
    means: "The trust root expires within 90 days.",
    mend: "Make it last longer: postern keys renew."
  },
  clock_unproven: {
    means: "The server has not told the time in this boot yet.",
    mend: "Nothing: it ends with the first answer."
  },
  clock_leapt: {
    means: "The device's time leapt by more than 30 days since the program started.",
    mend: "Check the server's clock. A device without a clock of its own leaps once after a long time off."
  },
  ledger_rolled_back: {
    means: "The server knows of later orders than the device's ledger: it was restored from a backup.",
    mend: "Accept the device again: postern devices accept."
  },
  cloned: {
    means: "Two devices use this identity.",
    mend: "Switch one off and give it a new state folder; accept the other again."
  },
  no_jail: {
    means: "There is no safe jail, so no package is run.",
    mend: "Install bubblewrap, and run postern doctor on the device."
  },
  jail_weakened: {
    means: "The jail holds, but one of its layers is missing.",
    mend: "See the detail, and postern doctor on the device."
  },
  same_uid: {
    means: "Jobs share the client's user id: the jail has one layer less.",
    mend: "Start the client as root (its systemd unit does), so that it can give jobs a user of their own."
  },
  disk_low: {
    means: "Less disk is free than is kept in reserve, so nothing is downloaded.",
    mend: "Free some, or lower disk_reserve_bytes."
  },
  disk_unknown: {
    means: "How much disk is free cannot be read, so nothing is downloaded.",
    mend: "Check the disk of the state folder: dmesg, mount."
  },
  outbox_full: {
    means: "Too many results wait to be sent, so no orders are taken.",
    mend: "Nothing where the server is away; else see its log for what it refuses."
  },
  ledger_unreadable: {
    means: "The ledger cannot be read or written.",
    mend: "Free disk; if the file is damaged, move ledger.db away and accept the device again."
  },
  history_unavailable: {
    means: "The device's own history cannot be written; it goes on without.",
    mend: "Free disk, or check the state folder."
  },
  history_set_aside: {
    means: "The history's file was damaged; it was set aside and a new one begun.",
    mend: "Look at history.db.damaged in the state folder, then remove it. Mind the card: they fail this way."
  },
  loop_silent: {
    means: "A loop of the program was silent for longer than it said, and is started afresh.",
    mend: "See the log. If it comes again, report it."
  },
  agent_offline: {
    means: "The device has had no session with the fleet's broker services for five minutes: messages wait.",
    mend: "See the detail; postern status on the operator's machine tells how the broker is."
  },
  agent_inbox_full: {
    means: "The inbox is full of messages that no program has taken: more stay with the broker.",
    mend: "Run the program that takes them (postern agent listen shows them); they go when they expire."
  },
  agent_ids_full: {
    means: "The device remembers as many ids of messages as it may: more messages stay with the broker.",
    mend: "Let its peers send fewer messages, or such as expire sooner: an id is kept until its message has expired."
  },
  program_missing: {
    means: "A program that the client can use is not installed.",
    mend: "See the detail for the package, and postern doctor on the device."
  },
  process_missing: {
    means: "A process that the configuration requires does not run.",
    mend: "Start it, or take it out of required_processes."
  },
  configuration_unwritten: {
    means: "There is no configuration file, and none could be written: defaults are in force.",
    mend: "Name one with --config, or make its folder writable."
  }
} as const satisfies Readonly<Record<string, ConditionText>>

export type ConditionCode = keyof typeof conditionTexts
export const conditionCodes = Object.keys(conditionTexts) as [ConditionCode, ...Array<ConditionCode>]
export const ConditionCode = Schema.Literals(conditionCodes)

export const Condition = Schema.Struct({
  code: ConditionCode,
  /** What of it: a name, a figure, a reason. Empty where the code says all. */
  detail: labelUpTo(200)
})
export type Condition = typeof Condition.Type

/**
 * What each poll carries: the codes alone, each once. A server takes codes it does not know yet, so that a device of a
 * newer version is not shut out.
 */
export const DegradedCodes = Schema.Array(
  Schema.String.check(Schema.isPattern(/^[a-z][a-z0-9_]{0,39}$/))
).check(Schema.isMaxLength(64), Schema.isUnique())

/** A condition as one line. A code of a newer version stands for itself. */
export const conditionLine = ({
  code,
  detail
}: {
  readonly code: string
  readonly detail: string
}): string => {
  const means = Object.hasOwn(conditionTexts, code) ? conditionTexts[code as ConditionCode].means : ""
  return [`${code}:`, means, detail === "" ? "" : `(${detail})`].filter((part) => part !== "").join(" ")
}
