/**
 * How tor is told of our services. A tor of our own gets them by their folders, over its control connection alone: its torrc
 * knows nothing of them, so neither a start nor a reload can publish a service before its list of clients was written. A tor
 * that runs already, as another user perhaps, gets keys and clients in commands, and forgets them with the connection.
 *
 * @module
 */
import { join } from "node:path"
import { Effect, Redacted } from "effect"
import { encodeBase64 } from "../../crypto/Base64.ts"
import type { OnionServiceKey } from "../../crypto/OnionAddress.ts"
import { OnionTrouble } from "../../ports/OnionServices.ts"
import type { OnionClientKey } from "../../schemas/Onion.ts"
import type { OnionServiceName } from "../../schemas/OnionStatus.ts"
import { errorText } from "../files/AtomicFile.ts"
import { controlQuoted, controlValue, controlWords } from "./ControlReplies.ts"
import { putService } from "./OnionFolders.ts"
import { type TorControl, type TorControlError, torInfo } from "./TorControl.ts"
import { torUnixAddress } from "./Torrc.ts"

/** A service that is to be published. */
export interface WantedService {
  readonly service: OnionServiceName
  readonly key: OnionServiceKey
  /** Who may reach it: everybody, or these, who are never nobody. */
  readonly clients: ReadonlySet<OnionClientKey> | null
  /** Where its door is: `unix:` and a path, or an origin on loopback. */
  readonly door: string
}

export interface Publisher {
  /** Makes what tor publishes exactly this. */
  readonly publish: (wanted: ReadonlyArray<WantedService>) => Effect.Effect<void, OnionTrouble>
  /** Whether tor has exactly this, and the files too. What is not so is mended by publishing. */
  readonly holds: (wanted: ReadonlyArray<WantedService>) => Effect.Effect<boolean, OnionTrouble>
}

/** What a client comes to: plain HTTP's port, so that the address needs none. */
const virtualPort = 80

/** Streams that one client may have open at once, by service; a circuit with more is closed. */
const streamsPerCircuit: Readonly<Record<OnionServiceName, number>> = {
  enrol: 16,
  device: 64,
  management: 64
}

export const troubled = (operation: string) => (error: TorControlError | { readonly message: string }) =>
  new OnionTrouble({ operation, reason: error.message })

const targetOf = (door: string): string =>
  door.startsWith("unix:") ? torUnixAddress(door.slice("unix:".length)) : new URL(door).host

/** A refusal of the proof of work alone: a tor that is too old for it, or built without it. */
const isAboutWork = (error: TorControlError): boolean => error.code === "refused" && /pow/i.test(error.reason)

/** Runs a command with proof-of-work defences; without, and said so, where this tor has none. */
const withWork =
  (onMissing: Effect.Effect<void>) =>
  <A>(command: (hasWork: boolean) => Effect.Effect<A, TorControlError>): Effect.Effect<A, TorControlError> =>
    Effect.catchIf(command(true), isAboutWork, () => Effect.andThen(onMissing, command(false)))

const saidOnce = (text: string): Effect.Effect<void> => {
  let isSaid = false
  return Effect.suspend(() => {
    if (isSaid) return Effect.void
    isSaid = true
    return Effect.logWarning(text)
  })
}

/** `since`: the first tor that takes it in the way in which it is told of the services. */
const noWork = (since: "0.4.8" | "0.4.9"): string =>
  `this tor has no proof-of-work defence for onion services: take tor ${since} or newer, built with it (Debian's is)`

/** The lines of one service, as SETCONF takes them: those of a service follow its HiddenServiceDir. */
const settingsOf = (
  folder: string,
  { door, service }: WantedService,
  hasWork: boolean
): ReadonlyArray<string> =>
  [
    ["HiddenServiceDir", folder],
    ["HiddenServicePort", `${virtualPort} ${targetOf(door)}`],
    ...(hasWork ? [["HiddenServicePoWDefensesEnabled", "1"]] : []),
    ["HiddenServiceEnableIntroDoSDefense", "1"],
    ["HiddenServiceMaxStreams", String(streamsPerCircuit[service])],
    ["HiddenServiceMaxStreamsCloseCircuit", "1"]
  ].map(([name, value = ""]) => `${name}=${controlQuoted(value)}`)

/** For a tor of our own. `folder` holds the services' folders. */
export const folderPublisher = (control: TorControl, folder: string): Publisher => {
  const work = withWork(saidOnce(noWork("0.4.8")))
  const folderOf = (service: OnionServiceName): string => join(folder, service)

  /** Gives whether anything on the disk was not as it must be. */
  const writeAll = (wanted: ReadonlyArray<WantedService>) =>
    Effect.try({
      try: () =>
        wanted
          .map(({ clients, key, service }) => putService(folderOf(service), key, clients))
          .some((isChanged) => isChanged),
      catch: (error) => new OnionTrouble({ operation: "writing the keys", reason: errorText(error) })
    })

  const publish: Publisher["publish"] = Effect.fnUntraced(function* (wanted) {
    yield* writeAll(wanted)
    yield* work((hasWork) => {
      const settings = wanted.flatMap((each) => settingsOf(folderOf(each.service), each, hasWork))
      return control.send(
        settings.length === 0 ? "RESETCONF HiddenServiceDir" : `SETCONF ${settings.join(" ")}`
      )
    }).pipe(Effect.mapError(troubled("publishing")))
  })

  return {
    publish,
    holds: Effect.fnUntraced(function* (wanted) {
      const isChanged = yield* writeAll(wanted)
      const lines = yield* Effect.mapError(control.send("GETCONF HiddenServiceOptions"), troubled("looking"))
      const key = "HiddenServiceDir="
      const there = lines
        .filter((line) => line.startsWith(key))
        .map((line) => controlValue(line.slice(key.length)))
      const meant = wanted.map(({ service }) => folderOf(service))
      return !isChanged && there.length === meant.length && meant.every((path) => there.includes(path))
    })
  }
}

const addOnion = ({ clients, door, key, service }: WantedService, hasWork: boolean): string =>
  [
    `ADD_ONION ED25519-V3:${encodeBase64(Redacted.value(key.expanded))}`,
    // With V3Auth tor refuses a service without clients.
    `Flags=DiscardPK,MaxStreamsCloseCircuit${clients === null ? "" : ",V3Auth"}`,
    `MaxStreams=${streamsPerCircuit[service]}`,
    ...(hasWork ? ["PoWDefensesEnabled=1"] : []),
    `Port=${virtualPort},${targetOf(door)}`,
    ...[...(clients ?? [])].map((client) => `ClientAuthV3=${client}`)
  ].join(" ")

const isSame = (one: WantedService, other: WantedService): boolean =>
  one.door === other.door &&
  one.clients?.size === other.clients?.size &&
  [...(one.clients ?? [])].every((client) => other.clients?.has(client) === true)

const idOf = ({ host }: OnionServiceKey): string => host.slice(0, -".onion".length)

/**
 * For a tor that runs already. It can change the clients of a service in no other way than by taking it away and adding it
 * again, which costs those who come in between some seconds.
 */
export const commandPublisher = (control: TorControl): Publisher => {
  const work = withWork(saidOnce(noWork("0.4.9")))
  const there = new Map<OnionServiceName, WantedService>()

  /**
   * Holds what we know of against what tor has, which may be otherwise: a command whose answer came too late, or to nobody,
   * was carried out all the same. Gives what it has and we know nothing of; others' services are not told to us.
   */
  const look = Effect.fnUntraced(function* () {
    const ids = new Set(controlWords(yield* torInfo(control, "onions/current")).words)
    for (const [service, { key }] of [...there]) if (!ids.delete(idOf(key))) there.delete(service)
    return ids
  })

  const publish: Publisher["publish"] = Effect.fnUntraced(
    function* (wanted) {
      const names = new Map(wanted.map((each) => [each.service, each]))
      for (const id of yield* look()) yield* control.send(`DEL_ONION ${id}`)
      for (const [service, before] of [...there]) {
        const next = names.get(service)
        if (next !== undefined && isSame(before, next)) continue
        yield* control.send(`DEL_ONION ${idOf(before.key)}`)
        there.delete(service)
      }
      for (const each of wanted) {
        if (there.has(each.service)) continue
        yield* work((hasWork) => control.send(addOnion(each, hasWork)))
        there.set(each.service, each)
      }
    },
    Effect.mapError(troubled("publishing"))
  )

  return {
    publish,
    holds: Effect.fnUntraced(function* (wanted) {
      const strays = yield* Effect.mapError(look(), troubled("looking"))
      return (
        strays.size === 0 &&
        wanted.length === there.size &&
        wanted.every((each) => {
          const before = there.get(each.service)
          return before !== undefined && isSame(before, each)
        })
      )
    })
  }
}
