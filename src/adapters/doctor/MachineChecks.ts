/**
 * The machine itself: its Node, kernel, clock, memory, and what of the kernel the jail stands on.
 *
 * @module
 */
import { readFileSync } from "node:fs"
import { release } from "node:os"
import { join } from "node:path"
import { Effect } from "effect"
import type { Finding } from "../../schemas/Finding.ts"
import { launchPath } from "../jail/Launch.ts"
import { nodeFinding, toolFindings } from "../Requirements.ts"
import { isSeccompArchitecture } from "../Seccomp.ts"
import { runTool } from "../Tool.ts"
import { requirement } from "./Findings.ts"

const readText = (path: string): string | null => {
  try {
    return readFileSync(path, "utf8").trim()
  } catch {
    // What a kernel does not have, or does not tell, is not known.
    return null
  }
}

/** Settings of kernels that keep unprivileged users from making namespaces, with what lifts each. */
const namespaceBars: ReadonlyArray<readonly [file: string, bars: (value: string) => boolean, mend: string]> =
  [
    ["user/max_user_namespaces", (value) => Number(value) === 0, "sysctl -w user.max_user_namespaces=15000"],
    [
      "kernel/unprivileged_userns_clone",
      (value) => value === "0",
      "sysctl -w kernel.unprivileged_userns_clone=1"
    ],
    [
      "kernel/apparmor_restrict_unprivileged_userns",
      (value) => value === "1",
      "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for bwrap"
    ]
  ]

const namespaces = (sysctl: string): Finding => {
  const found = requirement("kernel.user_namespaces", "user namespaces, which the jail is made of")
  for (const [file, bars, mend] of namespaceBars) {
    const value = readText(join(sysctl, file))
    if (value !== null && bars(value)) {
      return found.degraded(
        `${file.replace("/", ".")} is ${value}`,
        `${mend} (and write it to /etc/sysctl.d/postern.conf to keep it)`
      )
    }
  }
  return readText("/proc/self/uid_map") === null
    ? found.degraded("this kernel has none", "use a kernel with CONFIG_USER_NS")
    : found.ok(`allowed by kernel ${release()}`)
}

const seccomp = (sysctl: string): Finding => {
  const found = requirement("kernel.seccomp", "seccomp, which narrows what work may ask of the kernel")
  if (!isSeccompArchitecture(process.arch))
    return found.degraded(`there is no filter for ${process.arch}`, "use a machine with x64, arm64 or arm")
  const actions = readText(join(sysctl, "kernel/seccomp/actions_avail"))
  return actions === null
    ? found.degraded("this kernel does not tell of it", "use a kernel with CONFIG_SECCOMP_FILTER")
    : found.ok(`a filter for ${process.arch}`)
}

const memoryControl = (): Finding => {
  const found = requirement("kernel.memory_control", "control groups that hold a job's memory as a whole")
  const controllers = readText("/sys/fs/cgroup/cgroup.controllers")
  if (controllers === null) {
    return found.degraded(
      "control groups of version 2 are not mounted: memory is held per process and weighed four times a second",
      "boot with systemd.unified_cgroup_hierarchy=1"
    )
  }
  return controllers.split(" ").includes("memory")
    ? found.ok(`controllers ${controllers}`)
    : found.degraded(
        "the memory controller is off: memory is held per process and weighed four times a second",
        "add cgroup_enable=memory to the kernel's command line (/boot/firmware/cmdline.txt on a Raspberry Pi) and reboot"
      )
}

/** Swap that could put keys on a disk in the clear. */
const swap = (): Finding => {
  const found = requirement("machine.swap", "no unencrypted swap, since keys are in memory")
  const plain = (readText("/proc/swaps") ?? "")
    .split("\n")
    .slice(1)
    .map((line) => line.split(/\s+/)[0] ?? "")
    .filter((name) => name !== "" && !/^\/dev\/(zram|dm-|mapper\/)/.test(name))
  return plain.length === 0
    ? found.ok("none on a plain disk")
    : found.degraded(
        `${plain.join(", ")} may hold parts of keys`,
        "swapoff -a and take it out of /etc/fstab, or use zram-tools"
      )
}

const clockMs = 3_000

const clock: Effect.Effect<Finding> = Effect.suspend(() => {
  const found = requirement("machine.clock", "a clock that is set by the network")
  const mend = "timedatectl set-ntp true (or install systemd-timesyncd)"
  return runTool({
    command: ["timedatectl", "show", "--property=NTPSynchronized", "--value"],
    timeoutMs: clockMs,
    environment: { PATH: launchPath }
  }).pipe(
    Effect.orElseSucceed(() => ""),
    Effect.map((words) => {
      const answer = words.trim()
      if (answer === "") return found.degraded("nobody here tells whether it is set", mend)
      return answer === "yes" ? found.ok("set by the network") : found.degraded("it is not set", mend)
    })
  )
})

const sysctlFolder = "/proc/sys"

/** What every program of ours needs of its machine. */
export const machineChecks: Effect.Effect<ReadonlyArray<Finding>> = Effect.map(clock, (found) => [
  nodeFinding(process.versions.node),
  found,
  swap()
])

/** What the jail stands on. */
export const jailChecks = (bwrap: string, sysctl = sysctlFolder): ReadonlyArray<Finding> => [
  ...toolFindings({ bwrap, environment: process.env }),
  namespaces(sysctl),
  seccomp(sysctl),
  memoryControl()
]
