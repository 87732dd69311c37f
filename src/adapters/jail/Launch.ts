/**
 * How a job is started: the command line, the two small shell scripts in it and bubblewrap's arguments, as pure functions.
 *
 * The chain of processes, each the parent of the next:
 *
 *     warden
 *      └ guard    unshare(1) with a mount namespace of its own, in which /sys is the job's bounded tmpfs
 *        ├ viewer where the client is another user: sleeps under the client's uid, so that the client can see that tmpfs
 *        └ init   process 1 of a process namespace: sheds root, waits for the client's word, then runs the engine
 *          └ bubblewrap (monitor)
 *            └ bubblewrap (process 1 of the jail)
 *              └ the job
 *
 * Nothing of this lies on the host's disk or in its mount table, so nothing can be left behind: the kernel takes the
 * mounts back with the last process. Every link dies with its parent (pdeathsig), and init is told to go on only after
 * all of them are set, so that a warden killed at any moment leaves nothing running. When the guard has ended, init's
 * namespace is empty: the kernel does not let its process 1 be reaped before.
 *
 * Nothing here needs Effect: the warden loads it (see ../warden/Warden.ts).
 */
import type { JobLimits } from "../../schemas/Manifest.ts"

/** Numbers of the file descriptors that the chain gets besides 0, 1 and 2. None of them reaches the job. */
export const LaunchDescriptor = { arguments: 3, seccomp: 4, status: 5, gate: 6 } as const

/**
 * Where, in the chain's own mount namespace, things lie: all in the job's tmpfs, which stands at a place that exists on
 * every Linux and from which nothing is ever lent.
 */
export const LaunchFolder = { scratch: "/sys", package: "/sys/package" } as const

/** Where, in the chain's own mount namespace, the grant of that number is bound. */
export const grantPlace = (index: number): string => `${LaunchFolder.scratch}/grant${index}`

/** Where tools are looked for, and all the environment the chain gets. */
export const launchPath = "/usr/bin:/bin:/usr/sbin:/sbin"

/** The tools the chain is made of; all but bubblewrap belong to every Debian. */
export const launchTools = [
  ...["sh", "unshare", "setpriv", "prlimit", "mount", "kill"],
  ...["chmod", "chown", "mkdir", "mkfifo", "sleep"]
] as const

/** Exit codes of the scripts, for failures before the engine starts. */
export const launchFailures: Readonly<Record<number, string>> = {
  120: "the client went away before the start",
  121: "the job's file system could not be mounted",
  122: "the output pipes could not be made",
  123: "the job's control group could not be entered",
  124: "what was granted could not be bound (a file system mounted below it?)",
  125: "the job's folders could not be made"
}

/** Something of the host's that the job may see. */
export interface GrantedPath {
  readonly kind: "device" | "folder" | "file"
  /** Where it is, without links. It appears at the same place in the jail. */
  readonly path: string
}

/** What the chain must know beside the request. */
export interface LaunchPlan {
  readonly bwrap: string
  /** The uid and gid the job gets, where the client is root; null where it keeps the client's. */
  readonly uid: number | null
  readonly command: ReadonlyArray<string>
  readonly environment: Readonly<Record<string, string>>
  readonly packageFolder: string | null
  readonly granted: ReadonlyArray<GrantedPath>
  /** Groups the job gets so that it may open granted devices; only where it has a uid of its own. */
  readonly groups: ReadonlyArray<number>
  /** Whom a viewer is needed for: the client's uid, where it is neither root nor the job's. */
  readonly viewerUid: number | null
  readonly limits: JobLimits
  /** Folder of the job's control group, where there is one; then it holds memory, processes and processor share. */
  readonly cgroupFolder: string | null
  /** Hard limits of this very process, by prlimit's names; nothing may be raised above them. */
  readonly hardLimits: Readonly<Record<string, number>>
  /** Top-level folders of the host that are links into /usr (merged), and those that stand beside it. */
  readonly rootLinks: ReadonlyArray<readonly [name: string, target: string]>
  readonly rootFolders: ReadonlyArray<string>
}

/** Files the job may make: a file costs the kernel about a kilobyte that no size limit counts. */
export const scratchInodes = (diskBytes: number): number =>
  Math.min(65_536, Math.max(1_024, Math.floor(diskBytes / 8_192)))

/** Processes of the chain that count against the job's RLIMIT_NPROC: init, monitor and the jail's process 1, and the guard. */
const chainProcesses = 4

/**
 * Limits of each process by itself, where no control group holds the whole. Private memory is bounded by the data limit.
 * The address space may be larger, because runtimes such as Node's reserve what they never use (Node 20 needs 768 MiB).
 */
const perProcess = (limits: JobLimits): ReadonlyArray<readonly [name: string, value: number]> => [
  ["data", limits.memory_bytes],
  ["as", limits.memory_bytes * 4],
  ["cpu", Math.ceil((limits.timeout_ms / 1000) * (limits.cpu_percent / 100)) + 1]
]

const resourceLimits = (plan: LaunchPlan): ReadonlyArray<string> => {
  const { limits } = plan
  const wanted: ReadonlyArray<readonly [name: string, value: number]> = [
    ...(plan.cgroupFolder === null ? perProcess(limits) : []),
    ["nproc", limits.processes + chainProcesses],
    ["fsize", limits.disk_bytes],
    ["nofile", 256],
    ["core", 0],
    ["memlock", 0],
    ["msgqueue", 0]
  ]
  return wanted.map(([name, value]) => `--${name}=${Math.min(value, plan.hardLimits[name] ?? value)}`)
}

const scratchOptions = (plan: LaunchPlan): string =>
  [
    `size=${plan.limits.disk_bytes}`,
    `nr_inodes=${scratchInodes(plan.limits.disk_bytes)}`,
    "mode=0755,nosuid,nodev"
  ].join(",")

/** Binds the grants: $1 says whether it is a folder, $2 where it is. */
const grantScript = (plan: LaunchPlan): ReadonlyArray<string> =>
  plan.granted.map(({ kind }, index) => {
    const place = grantPlace(index)
    const make = kind === "folder" ? `mkdir ${place}` : `: >${place}`
    return `${make} && mount --bind -- "$1" ${place} || exit 124; shift`
  })

/**
 * A process of the client's uid in the guard's mount namespace; it holds nothing open and dies with the guard. It names
 * itself when it has become that user: before, the client may not look through its eyes.
 */
const viewerScript = (plan: LaunchPlan): ReadonlyArray<string> => {
  const { arguments: args, gate, seccomp, status } = LaunchDescriptor
  if (plan.viewerUid === null) return []
  const credentials = `--reuid ${plan.viewerUid} --regid ${plan.viewerUid} --clear-groups --inh-caps=-all --bounding-set=-all`
  const closed = [args, seccomp, gate].map((descriptor) => `${descriptor}>&-`).join(" ")
  const watch = `echo "viewer $$" >&${status}; exec sleep 2147483647 ${status}>&-`
  return [
    `setpriv ${credentials} --no-new-privs --pdeathsig KILL -- sh -c '${watch}' </dev/null >/dev/null 2>&1 ${closed} &`
  ]
}

/**
 * The guard. $1 package or empty, $2 control group or empty, $3 the script of init, then the paths granted, then engine
 * and command. The job is the first to go when memory runs out. Writing 0 into cgroup.procs moves the writer.
 */
const guardScript = (plan: LaunchPlan): string => {
  const groups = plan.groups.length === 0 ? "--clear-groups" : `--groups ${plan.groups.join(",")}`
  const credentials =
    plan.uid === null
      ? ""
      : `--reuid ${plan.uid} --regid ${plan.uid} ${groups} --inh-caps=-all --bounding-set=-all`
  return [
    "umask 022",
    "echo 1000 >/proc/self/oom_score_adj",
    `[ -z "$2" ] || echo 0 >"$2/cgroup.procs" || exit 123`,
    `mount -t tmpfs -o ${scratchOptions(plan)} postern ${LaunchFolder.scratch} || exit 121`,
    `mkdir ${LaunchFolder.package} || exit 125`,
    `[ -z "$1" ] || mount --bind -- "$1" ${LaunchFolder.package} || exit 121`,
    "script=$3; shift 3",
    ...grantScript(plan),
    // Last, so that the guard needs no right to write where it is not the owner.
    ...(plan.uid === null ? [] : [`chown ${plan.uid}:${plan.uid} ${LaunchFolder.scratch} || exit 121`]),
    ...viewerScript(plan),
    // With a /proc of its own: the engine looks its child up there, by a number that outside may be anybody's or nobody's.
    `exec unshare --pid --mount-proc --fork --kill-child -- setpriv ${credentials} --no-new-privs --pdeathsig KILL -- sh -c "$script" init "$@"`
  ].join("\n")
}

/**
 * Init. $1 engine, then the command. The end of the gate without a line means that the warden is dead. When the engine
 * has ended, what is left is killed and reaped before `times` tells the processor time of all that was waited for;
 * /bin/true is there because the shell reaps strangers only while it waits for a child of its own. Then what the job left
 * is opened to the client, which is another user: only the job's own uid can do that without following a trap.
 */
const initScript = (plan: LaunchPlan): string => {
  const { arguments: args, gate, status } = LaunchDescriptor
  const { scratch } = LaunchFolder
  const out = `${scratch}/work/out`
  return [
    `mkdir ${["work", "work/out", "tmp", "shm"].map((name) => `${scratch}/${name}`).join(" ")} || exit 125`,
    `mkfifo -m 0644 ${scratch}/stdout ${scratch}/stderr || exit 122`,
    `echo ready >&${status}`,
    `read -r go <&${gate} || exit 120`,
    `exec ${gate}<&-`,
    "engine=$1; shift",
    `prlimit ${resourceLimits(plan).join(" ")} -- "$engine" --args ${args} -- "$@" >${scratch}/stdout 2>${scratch}/stderr`,
    "code=$?",
    "kill -s KILL -- -1 2>/dev/null",
    "while kill -s 0 -- -1 2>/dev/null; do /bin/true; done",
    `times >&${status}`,
    ...(plan.viewerUid === null ? [] : [`[ -L ${out} ] || chmod -R u+rwX,go+rX ${out} 2>/dev/null`]),
    `exit "$code"`
  ].join("\n")
}

/** Program and arguments of the guard, to be spawned with {@link launchPath} as its whole environment. */
export const launchCommand = (plan: LaunchPlan): readonly [file: string, args: ReadonlyArray<string>] => [
  "unshare",
  [
    ...(plan.uid === null ? ["--user", "--map-root-user"] : []),
    "--mount",
    "--",
    "setpriv",
    "--pdeathsig",
    "KILL",
    "--",
    "sh",
    "-c",
    guardScript(plan),
    "guard",
    plan.packageFolder ?? "",
    plan.cgroupFolder ?? "",
    initScript(plan),
    ...plan.granted.map(({ path }) => path),
    plan.bwrap,
    ...plan.command
  ]
]

const environmentOf = (plan: LaunchPlan): ReadonlyArray<string> => {
  const given: Record<string, string> = {
    PATH: "/usr/bin:/bin",
    HOME: "/work",
    LANG: "C.UTF-8",
    ...plan.environment,
    ...(plan.packageFolder === null ? {} : { POSTERN_PACKAGE: "/package" })
  }
  return Object.entries(given).flatMap(([name, value]) => ["--setenv", name, value])
}

/** bubblewrap's options, NUL-separated as `--args` reads them: the command line can be read inside, this cannot. */
export const bubblewrapArguments = (plan: LaunchPlan): Uint8Array => {
  const { package: packageAt, scratch } = LaunchFolder
  const args = [
    ...["--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session"],
    ...["--cap-drop", "ALL", "--uid", "1000", "--gid", "1000", "--hostname", "jail", "--clearenv"],
    ...environmentOf(plan),
    ...["--ro-bind", "/usr", "/usr"],
    ...plan.rootLinks.flatMap(([name, target]) => ["--symlink", target, `/${name}`]),
    ...plan.rootFolders.flatMap((name) => ["--ro-bind", `/${name}`, `/${name}`]),
    // Debian's awk and its like are links to here; the folder holds nothing but links.
    ...["--ro-bind-try", "/etc/alternatives", "/etc/alternatives"],
    ...["--proc", "/proc", "--dev", "/dev", "--bind", `${scratch}/shm`, "/dev/shm"],
    ...["--bind", `${scratch}/tmp`, "/tmp", "--bind", `${scratch}/work`, "/work", "--chdir", "/work"],
    ...(plan.packageFolder === null ? [] : ["--ro-bind", packageAt, "/package"]),
    ...plan.granted.flatMap(({ kind, path }, index) => [
      kind === "device" ? "--dev-bind" : "--ro-bind",
      grantPlace(index),
      path
    ]),
    ...["--remount-ro", "/dev", "--remount-ro", "/"],
    ...["--seccomp", String(LaunchDescriptor.seccomp), "--json-status-fd", String(LaunchDescriptor.status)]
  ]
  return new TextEncoder().encode(args.map((argument) => `${argument}\0`).join(""))
}
