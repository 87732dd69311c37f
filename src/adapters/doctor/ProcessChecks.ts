/**
 * The running program: whether it runs, as whom, and what it gave up before it went on the network.
 *
 * @module
 */
import type { Finding } from "../../schemas/Finding.ts"
import { requirement } from "./Findings.ts"
import { ofProcess, ofWarden, type Patient } from "./Patient.ts"

/** The unit that starts a program; deploy/ has it. */
export const unitOf = (kind: Patient["kind"]): string =>
  kind === "device" ? "postern-client" : "postern-server"

const isRunning = (patient: Patient): Finding => {
  const unit = unitOf(patient.kind)
  const is = requirement("program.running", `the ${patient.kind === "device" ? "client" : "server"} at work`)
  const { running } = patient
  if (running === null)
    return is.degraded(
      "nothing runs on this state folder",
      `systemctl start ${unit}; systemctl status ${unit}`
    )
  return is.ok(running.pid === null ? "it answers" : `process ${running.pid}`)
}

/** A line of /proc/PID/status. */
const statusLine = (status: string, name: string): string | undefined =>
  new RegExp(`^${name}:\\s+(\\S+)`, "m").exec(status)?.[1]

const user = (patient: Patient, status: string): Finding => {
  const is = requirement("defence.user", "a user of its own, which is not root")
  const uid = statusLine(status, "Uid")
  return uid === "0"
    ? is.degraded("it runs as root", `use the unit deploy/${unitOf(patient.kind)}.service`)
    : is.ok(`user ${uid}`)
}

const noNewPrivileges = (patient: Patient, status: string): Finding => {
  const is = requirement("defence.no_new_privs", "no way to gain privileges by set-uid programs")
  return statusLine(status, "NoNewPrivs") === "1"
    ? is.ok("no_new_privs is set")
    : is.degraded(
        "no_new_privs is not set",
        `NoNewPrivileges=yes, as deploy/${unitOf(patient.kind)}.service has it`
      )
}

const umask = (status: string): Finding => {
  const is = requirement("defence.umask", "files that others cannot read from their first moment")
  const value = statusLine(status, "Umask")
  return value !== undefined && (Number.parseInt(value, 8) & 0o077) === 0o077
    ? is.ok(`umask ${value}`)
    : is.degraded(`umask ${value ?? "unknown"}`, "restart the program: it sets its umask itself")
}

const coreDumps = (patient: Patient): Finding => {
  const is = requirement("defence.core_dumps", "no image of the memory, with its keys, on disk after a crash")
  const soft = /^Max core file size\s+(\S+)/m.exec(ofProcess(patient, "limits") ?? "")?.[1]
  return soft === "0"
    ? is.ok("core dumps are off")
    : is.degraded(
        `core dumps up to ${soft ?? "an unknown size"} are written`,
        `LimitCORE=0, as deploy/${unitOf(patient.kind)}.service has it`
      )
}

const serviceManager = (patient: Patient): Finding => {
  const unit = unitOf(patient.kind)
  const is = requirement(
    "service.systemd",
    "systemd, which starts it at boot and again when it dies or hangs"
  )
  const mend = `install deploy/${unit}.service (docs/first-device.md says how)`
  const unitName = /\/([^/\n]+\.service)(?:\/|$)/m.exec(ofProcess(patient, "cgroup") ?? "")?.[1]
  if (unitName === undefined) return is.degraded("it was not started by systemd", mend)
  const environments = [ofProcess(patient, "environ"), ofWarden(patient, "environ")]
  if (environments.every((text) => text === null)) return is.ok(`started as ${unitName}`)
  return environments.some((text) => /(^|\0)WATCHDOG_USEC=/.test(text ?? ""))
    ? is.ok(`started as ${unitName}, with a watchdog`)
    : is.degraded(`${unitName} has no watchdog`, mend)
}

/** What can be seen of the running program from outside; only that it does not run, where it does not. */
export const processChecks = (patient: Patient): ReadonlyArray<Finding> => {
  const first = isRunning(patient)
  if (patient.running === null) return [first]
  const status = ofProcess(patient, "status")
  if (status === null) {
    const is = requirement("defence.process", "the running program's own defences")
    return [first, is.degraded("this user may not look at its process", "run postern doctor as root")]
  }
  return [
    first,
    user(patient, status),
    noNewPrivileges(patient, status),
    umask(status),
    coreDumps(patient),
    serviceManager(patient)
  ]
}
