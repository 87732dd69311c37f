/**
 * Who is looked at: the state folder of a program, and the process that works on it, if one does. Looking changes nothing
 * there, whoever looks.
 *
 * @module
 */
import { lstatSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { Effect, Option, Schema } from "effect"
import { askControl } from "../ControlSocket.ts"
import { openToRead } from "../sqlite/Database.ts"

export type PatientKind = "device" | "server"

/** A running program, as the kernel and the program itself tell. */
export interface RunningProgram {
  /** Null where the folder does not say it. */
  readonly pid: number | null
  /** Its answer to `doctor` on the control socket; null where it gives none. */
  readonly answer: unknown
}

export interface Patient {
  readonly kind: PatientKind
  readonly stateFolder: string
  /** Null where none answers on the folder's control socket. */
  readonly running: RunningProgram | null
}

const readText = (path: string): string | null => {
  try {
    return readFileSync(path, "utf8")
  } catch {
    // Absent or not ours to read: nothing is known.
    return null
  }
}

const KeyFileHead = Schema.fromJsonString(
  Schema.Struct({ kind: Schema.Literals(["device", "server"]), id: Schema.String })
)
const decodeHead = Schema.decodeUnknownOption(KeyFileHead)

/** What the key file says in public; none where it cannot be read. */
const keyFileHead = (stateFolder: string) => decodeHead(readText(join(stateFolder, "keys", "node.json")))

/** The program's own id, `dev_…` or `srv_…`; null where whoever looks may not read it. */
export const idOfState = (stateFolder: string): string | null =>
  Option.getOrNull(Option.map(keyFileHead(stateFolder), ({ id }) => id))

const stands = (path: string): boolean => lstatSync(path, { throwIfNoEntry: false }) !== undefined

/** Whose state a folder holds; null where it holds none yet. */
export const kindOfState = (stateFolder: string): PatientKind | null => {
  try {
    const head = keyFileHead(stateFolder)
    if (Option.isSome(head)) return head.value.kind
    if (stands(join(stateFolder, "ledger.db"))) return "device"
    return stands(join(stateFolder, "fleet.db")) ? "server" : null
  } catch {
    // A folder that cannot be entered is a finding of the checks.
    return null
  }
}

const answerMs = 5_000

/** Looks whether a program works on the folder, and lets it tell of itself. */
export const patientAt = (kind: PatientKind, stateFolder: string): Effect.Effect<Patient> =>
  Effect.gen(function* () {
    const ask = (request: string) => Effect.result(askControl({ stateFolder, request, timeoutMs: answerMs }))
    const doctor = yield* ask("doctor")
    const isSilent = doctor._tag === "Failure" && doctor.failure.code !== "refused"
    if (isSilent) return { kind, stateFolder, running: null }
    const pid = Number(readText(join(stateFolder, "lock.pid"))?.trim())
    const running: RunningProgram = {
      pid: Number.isSafeInteger(pid) && pid > 0 ? pid : null,
      answer: doctor._tag === "Success" ? doctor.success : null
    }
    return { kind, stateFolder, running }
  })

/** A file of /proc about the running program; null where there is none to read. */
export const ofProcess = ({ running }: Patient, file: string): string | null =>
  running?.pid === null || running === null ? null : readText(`/proc/${running.pid}/${file}`)

/** The same of the process that started it: a client's warden, which systemd talks to. */
export const ofWarden = (patient: Patient, file: string): string | null => {
  const parent = /^PPid:\s+(\d+)$/m.exec(ofProcess(patient, "status") ?? "")?.[1]
  return parent === undefined || parent === "0" ? null : readText(`/proc/${parent}/${file}`)
}

/**
 * Rows of one of the folder's databases; null where there is no such database. While the program runs, it is read beside
 * it, as SQLite's log allows; else as it lies, since opening it would make files that belong to whoever looks.
 *
 * @throws what SQLite throws
 */
export const rowsOf = (
  { running, stateFolder }: Patient,
  file: string,
  query: string
): ReadonlyArray<Readonly<Record<string, unknown>>> | null => {
  const path = join(stateFolder, file)
  if (!stands(path)) return null
  const database = openToRead(path, { inUse: running !== null })
  try {
    return database.prepare(query).all()
  } finally {
    database.close()
  }
}
