import { randomUUID } from "node:crypto"
import { linkSync, lstatSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Schedule, Scope } from "effect"
import { Jail } from "../../../src/ports/Jail.ts"
import { describeWith } from "../../support/requires.ts"
import { packageFolder, perl, requestOf, runJob, shell, startJob, withJail } from "./harness.ts"

const asRoot = process.getuid?.() === 0

/** Host pids of processes whose command line holds the marker. */
const marked = (marker: string): ReadonlyArray<string> =>
  readdirSync("/proc").filter((name) => {
    try {
      return /^\d+$/.test(name) && readFileSync(`/proc/${name}/cmdline`, "utf8").includes(marker)
    } catch {
      return false
    }
  })

/** Kills a process that may have fallen with another one. */
const killIfThere = (pid: number): void => {
  try {
    process.kill(pid, "SIGKILL")
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error
  }
}

/** Waits until something holds; looks every few milliseconds, gives up after a minute. */
const eventually = (holds: () => boolean) =>
  Effect.suspend(() => (holds() ? Effect.void : Effect.fail("not yet" as const))).pipe(
    Effect.retry(Schedule.max([Schedule.spaced(5), Schedule.recurs(12_000)]))
  )

const openDescriptors = () => readdirSync("/proc/self/fd").length
const hostMounts = () => readFileSync("/proc/self/mountinfo", "utf8")
const live = <A, E>(name: string, effect: () => Effect.Effect<A, E, Jail | Scope.Scope>) =>
  it.live(name, () => withJail(effect()))

describeWith(["jail", "perl"], "a job's end", () => {
  live("is told by the engine's own status", () =>
    Effect.gen(function* () {
      const end = (script: string) => runJob({ command: shell(script) }, ({ outcome }) => outcome)
      expect(yield* end("exit 0")).toEqual({ _tag: "Exited", code: 0 })
      expect(yield* end("exit 7")).toEqual({ _tag: "Exited", code: 7 })
      expect(yield* end("kill -TERM $$")).toEqual({ _tag: "Signaled", signal: "SIGTERM", code: 143 })
      expect(yield* end("kill -ABRT $$")).toEqual({ _tag: "Signaled", signal: "SIGABRT", code: 134 })
    })
  )

  live("is a failure of the engine, with its words, where the command cannot be executed", () =>
    Effect.gen(function* () {
      const outcome = yield* runJob({ command: ["no-such-program"] }, (finished) => finished.outcome)
      expect(outcome).toMatchObject({ _tag: "EngineFailed", reason: "command_not_started" })
      expect(outcome).toMatchObject({ detail: expect.stringContaining("no-such-program") })
    })
  )

  live("is a failure of the engine where somebody kills it from outside, and nothing is left", () =>
    Effect.gen(function* () {
      const marker = `marker-${randomUUID()}`
      let begun = false
      const onOutput = () =>
        Effect.sync(() => {
          begun = true
        })
      const run = yield* startJob({ command: shell(`echo begun; sleep 100; : ${marker}`), onOutput })
      yield* eventually(() => begun)
      for (const pid of marked(marker)) killIfThere(Number(pid))
      expect((yield* run.result).outcome).toMatchObject({ _tag: "EngineFailed", reason: "engine_killed" })
      yield* eventually(() => marked(marker).length === 0)
    })
  )

  live("comes with the time and memory it took", () =>
    Effect.gen(function* () {
      const { usage } = yield* runJob(
        {
          command: perl(
            `my $x = "x" x 50_000_000; my $n = 0; $n++ while $n < 8_000_000; select undef, undef, undef, 0.3`
          )
        },
        (finished) => finished
      )
      expect(usage.cpu_ms).toBeGreaterThan(100)
      expect(usage.wall_ms).toBeGreaterThanOrEqual(usage.cpu_ms ?? 0)
      expect(usage.peak_memory_bytes).toBeGreaterThan(50_000_000)
    })
  )
})

describeWith(["jail", "perl"], "a job that will not end", () => {
  // Time for the job to be deaf before the end of its time, and to end by SIGTERM where it is not.
  const [timeoutMs, graceMs] = [1_000, 3_000]
  const limits = { timeout_ms: timeoutMs, grace_ms: 200 }
  const expectKilled = (name: string, command: ReadonlyArray<string>, killed: boolean) =>
    live(name, () =>
      Effect.gen(function* () {
        const marker = `marker-${randomUUID()}`
        const patient = killed ? limits : { ...limits, grace_ms: graceMs }
        const finished = yield* runJob({ command: [...command, marker], limits: patient }, (result) => result)
        expect(finished.outcome).toEqual({ _tag: "TimedOut", killed })
        expect(finished.usage.wall_ms).toBeGreaterThanOrEqual(timeoutMs - 1)
        expect(finished.usage.wall_ms).toBeLessThan(5_000)
        expect(marked(marker)).toEqual([])
      })
    )

  expectKilled("ends at SIGTERM", shell("sleep 100"), false)
  expectKilled(
    "ends by SIGKILL when it ignores SIGTERM",
    shell("trap '' TERM; while :; do sleep 1; done"),
    true
  )
  expectKilled("ends by SIGKILL when it has stopped itself", shell("kill -STOP $$"), true)
  expectKilled("ends by SIGKILL as a fork bomb", perl("$SIG{TERM} = 'IGNORE'; fork while 1"), true)
  expectKilled(
    "ends with all sessions it has opened",
    shell(
      "trap '' TERM; for i in 1 2 3 4; do setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' & done; wait; sleep 100"
    ),
    true
  )

  live("has its processor time counted even when killed", () =>
    Effect.gen(function* () {
      const { usage } = yield* runJob(
        { command: perl("$SIG{TERM} = 'IGNORE'; 1 while 1"), limits },
        (result) => result
      )
      // How much of the time a busy machine gave it is not for us to say.
      expect(usage.cpu_ms).toBeGreaterThanOrEqual(10)
    })
  )

  live("is killed when its processes together exceed the memory", () =>
    Effect.gen(function* () {
      const eat = `for (1 .. 6) { if (!fork) { my $x = "x" x 30_000_000; sleep 60 } } sleep 60`
      const finished = yield* runJob(
        { command: perl(eat), limits: { memory_bytes: 100 * 1024 * 1024, disk_bytes: 65_536 } },
        (result) => result
      )
      expect(finished.outcome).toEqual({ _tag: "Signaled", signal: "SIGKILL", code: 137 })
    })
  )
})

describeWith(["jail", "perl"], "ending a job from outside", () => {
  live("cancel is SIGTERM, and SIGKILL after the grace", () =>
    Effect.gen(function* () {
      for (const [script, killed, grace_ms] of [
        ["echo go; sleep 100", false, 5_000],
        ["trap '' TERM; echo go; while :; do sleep 1; done", true, 300]
      ] as const) {
        let going = false
        const run = yield* startJob({
          command: shell(script),
          limits: { timeout_ms: 60_000, grace_ms },
          onOutput: () =>
            Effect.sync(() => {
              going = true
            })
        })
        yield* eventually(() => going)
        yield* run.cancel
        yield* run.cancel
        expect((yield* run.result).outcome).toEqual({ _tag: "Canceled", killed })
      }
    })
  )

  live("cancel is SIGTERM too for a job that is about to begin", () =>
    Effect.gen(function* () {
      for (let delayMs = 0; delayMs < 20; delayMs += 2) {
        const run = yield* startJob({
          command: shell("sleep 100"),
          limits: { timeout_ms: 60_000, grace_ms: 5_000 }
        })
        yield* Effect.sleep(delayMs)
        yield* run.cancel
        expect((yield* run.result).outcome).toEqual({ _tag: "Canceled", killed: false })
      }
    })
  )

  live("kill is SIGKILL at once", () =>
    Effect.gen(function* () {
      const run = yield* startJob({
        command: shell("trap '' TERM; while :; do sleep 1; done"),
        limits: { grace_ms: 60_000 }
      })
      yield* run.kill
      const { outcome, usage } = yield* run.result
      expect(outcome).toEqual({ _tag: "Canceled", killed: true })
      expect(usage.wall_ms).toBeLessThan(5_000)
    })
  )

  live("changes nothing once it has ended", () =>
    Effect.gen(function* () {
      const run = yield* startJob({ command: ["true"] })
      const before = yield* run.result
      yield* run.cancel
      yield* run.kill
      expect(yield* run.result).toEqual(before)
      expect(before.outcome).toEqual({ _tag: "Exited", code: 0 })
    })
  )

  live("interruption kills the whole tree before it returns", () =>
    Effect.gen(function* () {
      const marker = `marker-${randomUUID()}`
      const fiber = yield* Effect.forkChild(
        runJob(
          { command: shell(`trap '' TERM; setsid sleep 100 & sleep 100; : ${marker}`) },
          (result) => result
        )
      )
      yield* eventually(() => marked(marker).length > 0)
      yield* Fiber.interrupt(fiber)
      expect(marked(marker)).toEqual([])
    })
  )

  live("closing the scope at any moment of the start leaves nothing", () =>
    Effect.gen(function* () {
      const descriptors = openDescriptors()
      for (let delayMs = 0; delayMs < 30; delayMs += 2) {
        const marker = `marker-${randomUUID()}`
        const fiber = yield* Effect.forkChild(
          runJob({ command: shell(`sleep 100; : ${marker}`) }, (result) => result)
        )
        yield* Effect.sleep(delayMs)
        yield* Fiber.interrupt(fiber)
        expect(marked(marker)).toEqual([])
      }
      yield* eventually(() => openDescriptors() <= descriptors)
    })
  )
})

describeWith(["jail", "perl"], "a job's output", () => {
  live("is cut at the limit and marked, and the job goes on", () =>
    Effect.gen(function* () {
      const finished = yield* runJob(
        {
          command: shell("head -c 200000000 /dev/zero; echo done >out/proof; echo late >&2; exit 3"),
          limits: { output_bytes: 100_000 }
        },
        (result) => result
      )
      expect(finished.outcome).toEqual({ _tag: "Exited", code: 3 })
      expect(finished.output).toEqual({
        stdout: { seen_bytes: 200_000_000, kept_bytes: 100_000 },
        stderr: { seen_bytes: 5, kept_bytes: 0 },
        truncated: true
      })
      expect(finished.stdoutText.length).toBe(100_000)
      expect(finished.artifacts.map(({ path }) => path)).toEqual(["proof"])
    })
  )

  live("is whole, in order and not marked below the limit", () =>
    Effect.gen(function* () {
      const finished = yield* runJob(
        { command: shell("seq 1 20000; seq 1 5 >&2; echo more >/dev/stderr") },
        (result) => result
      )
      expect(finished.stdoutText).toBe(
        Array.from({ length: 20_000 }, (_, index) => `${index + 1}\n`).join("")
      )
      expect(finished.stderrText).toBe("1\n2\n3\n4\n5\nmore\n")
      expect(finished.output.truncated).toBe(false)
    })
  )

  live("ends with the main process, whoever keeps the pipe open", () =>
    Effect.gen(function* () {
      const marker = `marker-${randomUUID()}`
      const finished = yield* runJob(
        {
          command: shell(`setsid sh -c 'while :; do sleep 1; done; : ${marker}' & sleep 100 & echo parting`)
        },
        (result) => result
      )
      expect(finished.outcome).toEqual({ _tag: "Exited", code: 0 })
      expect(finished.stdoutText).toBe("parting\n")
      expect(finished.usage.wall_ms).toBeLessThan(10_000)
      expect(marked(marker)).toEqual([])
    })
  )

  live("taken slowly holds back the job, never its time-out", () =>
    Effect.gen(function* () {
      const run = yield* startJob({
        command: ["yes"],
        limits: { timeout_ms: 200, grace_ms: 5_000, output_bytes: 300_000 },
        onOutput: () => Effect.sleep(20)
      })
      const { outcome, output } = yield* run.result
      expect(outcome).toEqual({ _tag: "TimedOut", killed: false })
      expect(output.stdout.kept_bytes).toBeLessThanOrEqual(300_000)
    })
  )

  live("never taken does not keep the scope from closing", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      yield* startJob({ command: ["yes"], onOutput: () => Effect.never }).pipe(Scope.provide(scope))
      yield* Effect.timeout(Scope.close(scope, Exit.void), 5_000)
    })
  )
})

describeWith(["jail", "perl"], "what a job leaves in /work/out", () => {
  live("comes back with its path, size and mode", () =>
    runJob(
      {
        command: shell(
          "mkdir -p out/a/b; echo one >out/a/b/1.txt; echo two >out/2; chmod 755 out/2; mkdir out/empty; echo no >other"
        )
      },
      ({ artifacts, refused_artifact_count }) => {
        expect(artifacts.map(({ executable, path, size_bytes }) => [path, size_bytes, executable])).toEqual([
          ["2", 4, true],
          ["a/b/1.txt", 4, false]
        ])
        expect(artifacts.map(({ host_path }) => readFileSync(host_path, "utf8"))).toEqual(["two\n", "one\n"])
        expect(refused_artifact_count).toBe(0)
      }
    )
  )

  live("is refused where it is no plain file with a plain name", () =>
    runJob(
      {
        command: perl(
          String.raw`chdir "out"; sub f { open(my $f, ">", $_[0]) or die "$_[0]: $!"; print $f "x"; close $f }
          f("good"); symlink "/etc/shadow", "link"; symlink "/", "root"; f("a\nb"); f("esc\e[2J"); f("rtl\xe2\x80\xae.txt");
          f("bad\xff\xfe"); f("back\\slash"); mkdir "bad\tfolder"; f("bad\tfolder/inner"); f("x" x 250);
          my $p = ""; for (1 .. 20) { $p .= "d/"; mkdir $p } f($p . "deep");
          use Socket; socket(S, 1, 1, 0); bind(S, pack("S a*", 1, "socket"));
          f("secret"); chmod 0, "secret"; mkdir "closed"; f("closed/inner"); chmod 0, "closed"`
        )
      },
      ({ artifacts, outcome, refused_artifact_count, refused_artifacts, stderrText }) => {
        expect([outcome, stderrText]).toEqual([{ _tag: "Exited", code: 0 }, ""])
        expect(artifacts.map(({ path }) => path)).toEqual(["closed/inner", "good", "secret"])
        expect(artifacts.map(({ host_path }) => readFileSync(host_path, "utf8"))).toEqual(["x", "x", "x"])
        const reasons = Object.fromEntries(
          refused_artifacts.map(({ name, reason }) => [name.slice(0, 40), reason])
        )
        expect(reasons).toEqual({
          "a\\u{a}b": "bad_name",
          "back\\u{5c}slash": "bad_name",
          "bad\\u{9}folder": "bad_name",
          badÿþ: "bad_name",
          ["d/".repeat(16) + "d"]: "too_deep",
          "esc\\u{1b}[2J": "bad_name",
          link: "not_a_file",
          root: "not_a_file",
          "rtl\\u{202e}.txt": "bad_name",
          socket: "not_a_file",
          ["x".repeat(40)]: "bad_name"
        })
        expect(refused_artifact_count).toBe(11)
      }
    )
  )

  live("is bounded in bytes and number, sparse files and hard links counted as large as they look", () =>
    Effect.gen(function* () {
      const bytes = yield* runJob(
        {
          command: shell("cd out; echo a >a; truncate -s 5M b; ln a c; echo d >d"),
          limits: { artifact_bytes: 5 }
        },
        (result) => result
      )
      expect(bytes.artifacts.map(({ path }) => path)).toEqual(["a", "c"])
      expect(bytes.refused_artifacts.map(({ reason }) => reason)).toEqual(["too_large", "too_large"])
      const many = yield* runJob(
        { command: shell("cd out; for i in $(seq 150); do : >f$i; done"), limits: { artifact_entries: 10 } },
        (result) => result
      )
      expect(many.artifacts).toHaveLength(10)
      expect(many.refused_artifacts).toHaveLength(100)
      expect(many.refused_artifact_count).toBe(140)
    })
  )

  live("is nothing where the folder was replaced", () =>
    Effect.gen(function* () {
      const link = yield* runJob({ command: shell("rmdir out; ln -s /etc out") }, (result) => result)
      expect([link.artifacts, link.refused_artifacts]).toEqual([
        [],
        [{ name: "/work/out", reason: "not_a_file" }]
      ])
      const gone = yield* runJob({ command: shell("rmdir out") }, (result) => result)
      expect([gone.artifacts, gone.refused_artifacts]).toEqual([
        [],
        [{ name: "/work/out", reason: "unreadable" }]
      ])
    })
  )

  live("can be read until the scope closes, and no longer", () =>
    Effect.gen(function* () {
      const path = yield* runJob({ command: shell("echo x >out/x") }, ({ artifacts }) => {
        expect(readFileSync(artifacts[0]?.host_path ?? "", "utf8")).toBe("x\n")
        return artifacts[0]?.host_path ?? ""
      })
      expect(path).not.toBe("")
      expect(lstatSync(path, { throwIfNoEntry: false })).toBe(undefined)
    })
  )
})

describeWith(["jail", "perl"], "the jail's housekeeping", () => {
  live("leaves mounts, descriptors and folders as they were", () =>
    Effect.gen(function* () {
      yield* runJob({ command: ["true"] }, () => undefined)
      const before = [openDescriptors(), hostMounts()]
      for (let round = 0; round < 5; round += 1) {
        yield* runJob({ command: shell("head -c 1000000 /dev/zero; echo x >out/x; exit 1") }, () => undefined)
        yield* runJob({ command: ["no-such-program"] }, () => undefined)
      }
      yield* eventually(() => openDescriptors() <= Number(before[0]))
      expect(hostMounts()).toBe(before[1])
    })
  )

  live("shows the package, and gives it back unchanged", () =>
    Effect.gen(function* () {
      const folder = yield* packageFolder
      const finished = yield* runJob(
        {
          packageFolder: folder,
          command: shell("cat $POSTERN_PACKAGE/greeting.txt; /package/run.sh; pwd; echo $ANSWER"),
          environment: { ANSWER: "4 2" }
        },
        (result) => result
      )
      expect(finished.stdoutText).toBe("good day\nfrom a script\n/work\n4 2\n")
      expect(readFileSync(join(folder, "greeting.txt"), "utf8")).toBe("good day\n")
      expect(readdirSync(folder).sort()).toEqual(["greeting.txt", "run.sh"])
    })
  )

  live("runs several jobs at once, each in a slot, and refuses one too many", () =>
    Effect.gen(function* () {
      const folder = yield* packageFolder
      const command = (n: number) => shell(`echo ${n} >out/n; until [ -e /package/go ]; do sleep 0.1; done`)
      const limits = { timeout_ms: 60_000 }
      const runs = yield* Effect.forEach([1, 2, 3, 4, 5, 6, 7, 8], (n) =>
        startJob({ command: command(n), packageFolder: folder, limits })
      )
      const refused = yield* Effect.flip(startJob({ command: ["true"] }))
      expect(refused).toMatchObject({ _tag: "JailError", reason: "no_free_slot" })
      writeFileSync(join(folder, "go"), "")
      const owners = yield* Effect.forEach(runs, (run) =>
        Effect.map(run.result, ({ artifacts }) => lstatSync(artifacts[0]?.host_path ?? "").uid)
      )
      const own = process.getuid?.() ?? -1
      expect(owners).toEqual(owners.map((_, index) => (asRoot ? 64_000 + index : own)))
    })
  )

  live("gives a slot back", () =>
    Effect.gen(function* () {
      for (let round = 0; round < 12; round += 1) yield* runJob({ command: ["true"] }, () => undefined)
    })
  )
})

describe("a request that cannot be granted", () => {
  const refusal = (change: Partial<Parameters<typeof requestOf>[0]> & { readonly grants?: boolean }) =>
    Effect.gen(function* () {
      const folder = change.grants === true ? yield* packageFolder : "/nowhere/at-all"
      const request = requestOf({ command: ["true"], ...change }, folder)
      const grants = change.grants === true ? { devices: ["serial"], read_only: [] } : request.grants
      const error = yield* Effect.flip((yield* Jail).run({ ...request, grants }))
      return error.reason
    })

  live("is refused with its reason before anything is started", () =>
    Effect.gen(function* () {
      expect(yield* refusal({ command: [] })).toBe("bad_request")
      expect(yield* refusal({ command: ["a\0b"] })).toBe("bad_request")
      expect(yield* refusal({ environment: { "A=B": "" } })).toBe("bad_request")
      expect(yield* refusal({ environment: { A: "x\0y" } })).toBe("bad_request")
      expect(yield* refusal({ limits: { timeout_ms: -1 } })).toBe("bad_request")
      expect(yield* refusal({ packageFolder: "relative" })).toBe("bad_request")
      expect(yield* refusal({ grants: true })).toBe("grant_refused")
      expect(yield* refusal({})).toBe("package_unusable")
    })
  )

  live("is refused where the system does not take a command line as long as that", () =>
    Effect.gen(function* () {
      const command = ["true", ...Array.from({ length: 255 }, () => "€".repeat(8_192))]
      const folder = yield* packageFolder
      expect(yield* refusal({ command, packageFolder: folder })).toBe("start_failed")
    })
  )

  live("is refused where the package holds more than plain files, as root", () =>
    Effect.gen(function* () {
      if (!asRoot) return
      const folder = yield* packageFolder
      symlinkSync("/etc/shadow", join(folder, "link"))
      expect(yield* refusal({ packageFolder: folder })).toBe("package_unusable")
      const second = yield* packageFolder
      linkSync(join(second, "greeting.txt"), join(second, "again"))
      expect(yield* refusal({ packageFolder: second })).toBe("package_unusable")
    })
  )
})

describeWith(["jail"], "the check", () => {
  live("reports the engine and what holds", () =>
    Effect.gen(function* () {
      const report = yield* (yield* Jail).check
      expect(report).toMatchObject({
        engine: "bubblewrap",
        seccomp: true,
        isolation: asRoot ? "separate-uid" : "same-uid"
      })
    })
  )

  it.live("fails closed without the engine, with a wrong one, with an unsafe uid", () =>
    Effect.gen(function* () {
      const check = Effect.flatMap(Jail, (jail) => Effect.flip(jail.check))
      expect(yield* withJail(check, { bwrap: "/nowhere/bwrap" })).toMatchObject({ reason: "no_engine" })
      expect(yield* withJail(check, { bwrap: "/usr/bin/true" })).toMatchObject({ reason: "no_engine" })
      if (asRoot) expect(yield* withJail(check, { uidBase: 0 })).toMatchObject({ reason: "unsafe_uid" })
    })
  )

  it.live("does not run a job where the engine is something else", () =>
    Effect.gen(function* () {
      const outcome = yield* withJail(Effect.exit(runJob({ command: ["true"] }, (result) => result)), {
        bwrap: "/usr/bin/false"
      })
      expect(Exit.isFailure(outcome)).toBe(true)
    })
  )
})
