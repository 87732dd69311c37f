/** The check of the jail: runs the real engine once, and believes only what the job and the host have seen of it. */
import { accessSync, constants, lstatSync } from "node:fs"
import { isAbsolute, join } from "node:path"
import { Effect, type Scope } from "effect"
import type { JailRequest, JailRun } from "../../ports/Jail.ts"
import {
  type JailError,
  type JailReport,
  type JailResult,
  JailUnavailable
} from "../../schemas/JailProfile.ts"
import { defaultJobLimits } from "../../schemas/Manifest.ts"
import { runTool } from "../Tool.ts"
import type { JobHost } from "./JobHost.ts"
import { launchPath, launchTools } from "./Launch.ts"

const checkMs = 10_000
const versionMs = 5_000
const packageOf: Readonly<Record<string, string>> = {
  mount: "mount",
  sh: "dash",
  chmod: "coreutils",
  chown: "coreutils",
  mkdir: "coreutils",
  mkfifo: "coreutils",
  sleep: "coreutils",
  kill: "procps"
}

const unavailable = (reason: JailUnavailable["reason"], detail: string, remedy: string) =>
  new JailUnavailable({ reason, detail, remedy })

const isExecutable = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

const stands = (tool: string): boolean =>
  isAbsolute(tool)
    ? isExecutable(tool)
    : launchPath.split(":").some((folder) => isExecutable(join(folder, tool)))

const requireTools = (bwrap: string): Effect.Effect<void, JailUnavailable> =>
  Effect.suspend(() => {
    if (!stands(bwrap)) {
      return Effect.fail(
        unavailable("no_engine", `There is no ${bwrap}.`, "Install bubblewrap (apt-get install bubblewrap).")
      )
    }
    const missing = launchTools.filter((tool) => tool !== "kill" && !stands(tool))
    if (missing.length === 0) return Effect.void
    const packages = [...new Set(missing.map((tool) => packageOf[tool] ?? "util-linux"))].join(" ")
    return Effect.fail(
      unavailable(
        "missing_tool",
        `There is no ${missing.join(", no ")}.`,
        `Install the packages ${packages}.`
      )
    )
  })

const versionOf = (bwrap: string): Effect.Effect<string, JailUnavailable> =>
  runTool({
    command: [bwrap, "--version"],
    timeoutMs: versionMs,
    environment: { PATH: launchPath }
  }).pipe(
    Effect.map((words) => /^bubblewrap (\d+\.\d+(?:\.\d+)?)/.exec(words)?.[1]),
    Effect.orElseSucceed(() => undefined),
    Effect.flatMap((version) =>
      version === undefined
        ? Effect.fail(
            unavailable(
              "no_engine",
              `${bwrap} does not answer as bubblewrap does.`,
              "Install bubblewrap anew."
            )
          )
        : Effect.succeed(version)
    )
  )

/** `--disable-userns` came with 0.8. */
const requireVersion = (version: string): Effect.Effect<string, JailUnavailable> => {
  const [major = 0, minor = 0] = version.split(".").map(Number)
  return major > 0 || minor >= 8
    ? Effect.succeed(version)
    : Effect.fail(
        unavailable(
          "no_engine",
          `bubblewrap ${version} is too old.`,
          "Install 0.8 or newer (Debian 12 has it)."
        )
      )
}

const startRemedy = (asRoot: boolean) =>
  asRoot
    ? "As root the warden needs CAP_SYS_ADMIN, CAP_SETUID, CAP_SETGID, CAP_SETPCAP, CAP_CHOWN, CAP_DAC_READ_SEARCH, CAP_KILL and CAP_SYS_PTRACE; a container has them only with --privileged or the like. Else start it unprivileged."
    : "Allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces; on Ubuntu an AppArmor profile)."

const asUnavailable =
  (asRoot: boolean) =>
  (error: JailError | JailUnavailable): JailUnavailable => {
    if (error instanceof JailUnavailable) return error
    if (error.reason === "start_timed_out") {
      return unavailable("timed_out", error.detail, "See whether the machine is overloaded, then try again.")
    }
    if (error.reason !== "start_failed")
      return unavailable("probe_failed", error.detail, "Free what it lacks, then try again.")
    return unavailable(
      asRoot ? "no_mount_privilege" : "no_user_namespaces",
      error.detail,
      startRemedy(asRoot)
    )
  }

/** What must stand in the job's own /proc/self/status. */
const expectedStatus: ReadonlyArray<readonly [what: string, pattern: RegExp]> = [
  ["its seccomp filter", /^Seccomp:\s+2$/m],
  ["no way to new privileges", /^NoNewPrivs:\s+1$/m],
  ["no capability permitted", /^CapPrm:\s+0+$/m],
  ["no capability in its bounding set", /^CapBnd:\s+0+$/m]
]

const judgeProbe = (
  host: JobHost,
  status: string,
  result: JailResult
): Effect.Effect<void, JailUnavailable> => {
  const { outcome } = result
  if (outcome._tag !== "Exited" || outcome.code !== 0) {
    const detail = outcome._tag === "EngineFailed" ? outcome.detail : `it ended as ${outcome._tag}`
    return Effect.fail(
      unavailable("probe_failed", `A trial job did not run: ${detail}.`, startRemedy(host.separateUid))
    )
  }
  const lacking = expectedStatus.filter(([, pattern]) => !pattern.test(status)).map(([what]) => what)
  const proof = result.artifacts.find(({ path }) => path === "probe")
  const uid = proof === undefined ? null : lstatSync(proof.host_path).uid
  const expected = host.separateUid ? null : process.getuid?.()
  const right =
    uid !== null && uid !== 0 && (expected === null ? uid !== process.getuid?.() : uid === expected)
  if (!right) lacking.push("the uid meant for it")
  return lacking.length === 0
    ? Effect.void
    : Effect.fail(
        unavailable(
          "not_contained",
          `A trial job ran without ${lacking.join(", ")}.`,
          "Report this with the output of `bwrap --version` and `uname -a`: jobs stay refused."
        )
      )
}

const notesOf = (host: JobHost): ReadonlyArray<string> => [
  ...(!host.separateUid
    ? [
        "Jobs share the client's uid; start the client as root (systemd does), so that jobs get one of their own."
      ]
    : []),
  ...(!host.controlGroups
    ? [
        "No delegated control group: memory is limited per process and weighed as a whole four times a second; processor time is a budget of seconds per process."
      ]
    : [])
]

const reportOf = (host: JobHost, version: string): JailReport => {
  const mechanism = host.controlGroups ? ("cgroup" as const) : ("rlimit" as const)
  return {
    engine: "bubblewrap",
    version,
    isolation: host.separateUid ? "separate-uid" : "same-uid",
    seccomp: true,
    limits: { memory: mechanism, processes: mechanism, cpu: mechanism, disk: "tmpfs" },
    notes: notesOf(host)
  }
}

type Probe = Omit<JailRequest, "packageFolder"> & { readonly packageFolder: null }

/** Checks tools and version, then runs a trial job through the very code that runs the others. */
export const checkJail = (
  host: JobHost,
  bwrap: string,
  filter: Effect.Effect<unknown, JailUnavailable>,
  run: (request: Probe) => Effect.Effect<JailRun, JailError | JailUnavailable, Scope.Scope>
): Effect.Effect<JailReport, JailUnavailable> =>
  Effect.gen(function* () {
    yield* filter
    yield* requireTools(bwrap)
    const version = yield* Effect.flatMap(versionOf(bwrap), requireVersion)
    let status = ""
    yield* Effect.scoped(
      Effect.gen(function* () {
        const trial = yield* run({
          command: ["sh", "-c", "/usr/bin/true && cat /proc/self/status && echo >out/probe"],
          environment: {},
          packageFolder: null,
          limits: { ...defaultJobLimits, disk_bytes: 1024 * 1024, timeout_ms: 5_000, grace_ms: 0 },
          grants: { devices: [], read_only: [] },
          onOutput: (stream, bytes) =>
            Effect.sync(() => {
              if (stream === "stdout") status += Buffer.from(bytes).toString("latin1")
            })
        }).pipe(Effect.mapError(asUnavailable(host.separateUid)))
        const result = yield* trial.result
        yield* judgeProbe(host, status, result)
      })
    )
    return reportOf(host, version)
  }).pipe(
    Effect.timeoutOrElse({
      duration: checkMs,
      orElse: () =>
        Effect.fail(
          unavailable(
            "timed_out",
            `The jail's check took more than ${checkMs} ms.`,
            "See whether the machine is overloaded."
          )
        )
    })
  )
