import { describe, expect, it } from "@effect/vitest"
import { printableName } from "../../../src/adapters/jail/Artifacts.ts"
import { childTimesMs, statusExitCode } from "../../../src/adapters/jail/Chain.ts"
import {
  bubblewrapArguments,
  type LaunchPlan,
  launchCommand,
  scratchInodes
} from "../../../src/adapters/jail/Launch.ts"
import { signalOfExitCode } from "../../../src/adapters/jail/Signals.ts"
import { testLimits } from "./harness.ts"

const plan: LaunchPlan = {
  bwrap: "bwrap",
  uid: null,
  command: ["sh", "-c", "a command $(with) 'quotes' \"and\" `ticks`"],
  environment: { NAME: "a value; $(evil)" },
  packageFolder: "/state/a package $(evil)",
  limits: testLimits,
  granted: [],
  groups: [],
  viewerUid: null,
  cgroupFolder: null,
  hardLimits: {},
  rootLinks: [["bin", "usr/bin"]],
  rootFolders: ["lib"]
}

describe("the launch", () => {
  it("keeps what others chose out of the scripts: it comes as arguments only", () => {
    const [, args] = launchCommand(plan)
    for (const text of args.filter((argument) => argument.includes("\n"))) {
      expect(text).not.toContain("evil")
      expect(text).not.toContain("ticks")
    }
    expect(args.slice(-4)).toEqual([plan.bwrap, ...plan.command])
    expect(args).toContain(plan.packageFolder)
  })

  it("makes a user namespace only where there is no root to shed", () => {
    expect(launchCommand(plan)[1]).toContain("--map-root-user")
    const asRoot = launchCommand({ ...plan, uid: 64_000 })[1]
    expect(asRoot).not.toContain("--map-root-user")
    expect(asRoot.join("\n")).toContain("--reuid 64000 --regid 64000 --clear-groups")
  })

  it("binds what was granted as arguments, and lets the client look through eyes of its own", () => {
    const granted = [
      { kind: "folder" as const, path: "/srv/data $(evil)" },
      { kind: "device" as const, path: "/dev/ttyUSB0" }
    ]
    const lent = { ...plan, uid: 64_000, viewerUid: 63_999, granted, groups: [20] }
    const [, args] = launchCommand(lent)
    const guard = args.find((text) => text.includes("cgroup.procs")) ?? ""
    expect(guard).not.toContain("evil")
    expect(guard.match(/mount --bind -- "\$1" \/sys\/grant\d/g)).toHaveLength(2)
    expect(guard).toContain("--reuid 63999 --regid 63999 --clear-groups")
    expect(guard).toContain("--groups 20")
    const options = new TextDecoder().decode(bubblewrapArguments(lent)).split("\0").join(" ")
    expect(options).toContain("--ro-bind /sys/grant0 /srv/data $(evil)")
    expect(options).toContain("--dev-bind /sys/grant1 /dev/ttyUSB0")
    expect(launchCommand(plan)[1].join("\n")).not.toContain("sleep")
  })

  it("limits each process only where no control group limits the whole", () => {
    expect(launchCommand(plan)[1].join("\n")).toContain(
      `--data=${testLimits.memory_bytes} --as=${testLimits.memory_bytes * 4}`
    )
    const grouped = launchCommand({ ...plan, cgroupFolder: "/sys/fs/cgroup/x" })[1].join("\n")
    expect(grouped).not.toContain("--as=")
    expect(grouped).not.toContain("--data=")
    expect(grouped).not.toContain("--cpu=")
    expect(grouped).toContain("--nproc=")
  })

  it("asks for no more than this process may have itself", () => {
    const scripts = launchCommand({ ...plan, hardLimits: { as: 1_000_000, nproc: 7, nofile: 100 } })[1].join(
      "\n"
    )
    expect(scripts).toContain("--as=1000000 ")
    expect(scripts).toContain("--nproc=7 ")
    expect(scripts).toContain("--nofile=100 ")
  })

  it("gives bubblewrap its options NUL by NUL, the environment untouched", () => {
    const args = new TextDecoder().decode(bubblewrapArguments(plan)).split("\0")
    expect(args.at(-1)).toBe("")
    expect(args).toEqual(
      expect.arrayContaining(["--unshare-all", "--disable-userns", "--die-with-parent", "--clearenv"])
    )
    expect(args[args.indexOf("NAME") + 1]).toBe("a value; $(evil)")
    expect(args.join(" ")).toContain("--symlink usr/bin /bin --ro-bind /lib /lib")
  })

  it("bounds the number of files between a thousand and sixty-five thousand", () => {
    expect([0, 64 * 1024, 2 ** 26, 2 ** 40].map(scratchInodes)).toEqual([1_024, 1_024, 8_192, 65_536])
  })
})

describe("what the chain says", () => {
  it("is read as times, whichever shell said it", () => {
    const dash = `ready\n{ "child-pid": 3 }\n{ "exit-code": 7 }\n0m0.010000s 0m0.020000s\n1m1.320000s 0m0.040000s\n`
    expect(childTimesMs(dash)).toBe(61_360)
    expect(childTimesMs("0m0.000s 0m0.001s\n0m1.320s 0m0.000s\n")).toBe(1_320)
    expect(childTimesMs("0m0,000s 0m0,001s\n0m1,5s 0m0,000s\n")).toBe(1_500)
    expect(childTimesMs("ready\n")).toBe(null)
    expect(statusExitCode(dash)).toBe(7)
    expect(statusExitCode(`{ "child-pid": 3 }\n`)).toBe(null)
    expect(statusExitCode(`{ "exit-code": 1`)).toBe(null)
  })

  it("names signals, and leaves plain codes alone", () => {
    const names = [0, 1, 127, 128, 129, 134, 137, 143, 157, 162, 192, 193, 255].map(signalOfExitCode)
    expect(names).toEqual([
      null,
      null,
      null,
      null,
      "SIGHUP",
      "SIGABRT",
      "SIGKILL",
      "SIGTERM",
      "SIGIO",
      "SIGRT0",
      "SIGRT30",
      null,
      null
    ])
    for (let code = 129; code <= 192; code += 1) expect(signalOfExitCode(code)).toMatch(/^SIG[A-Z0-9]{1,12}$/)
  })
})

describe("a name shown to people", () => {
  it("cannot move the cursor, turn the text round or be endless", () => {
    expect(printableName("a\u001b[31m\u202eb\u2028c\ud800\\")).toBe(
      "a\\u{1b}[31m\\u{202e}b\\u{2028}c\\u{d800}\\u{5c}"
    )
    expect(printableName("größe 日本")).toBe("größe 日本")
    expect(printableName("x".repeat(1_000))).toHaveLength(300)
  })
})
