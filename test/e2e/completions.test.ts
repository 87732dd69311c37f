import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { afterAll, beforeAll, expect, it } from "vitest"
import { BuiltFleet } from "../support/BuiltFleet.ts"
import { runToEnd } from "../support/Program.ts"
import { describeWith } from "../support/requires.ts"

/** Presses Tab behind the words given as arguments, in a shell that has read the script; prints what is offered. */
const pressTab = `
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=\${#COMP_LINE}
COMPREPLY=()
function=$(complete -p postern | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
"$function" postern "\${COMP_WORDS[COMP_CWORD]}" "\${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "\${COMPREPLY[@]}"
`

describeWith(["bash"], "completions", () => {
  let fleet: BuiltFleet

  beforeAll(async () => {
    fleet = await BuiltFleet.create()
    const made = await fleet.postern(["completions", "bash"])
    expect(made).toMatchObject({ code: 0, stderr: "" })
    writeFileSync(join(fleet.folder, "postern.bash"), made.stdout)
    const book = join(fleet.operatorFolder, "devices")
    mkdirSync(book, { recursive: true })
    for (const name of ["pi-cellar", "pi-roof"])
      writeFileSync(join(book, `${name}.json`), `${JSON.stringify({ name, status: "accepted" }, null, 2)}\n`)
  })
  afterAll(() => fleet?.close())

  const offered = async (...words: ReadonlyArray<string>): Promise<ReadonlyArray<string>> => {
    const command = ["bash", "--norc", "-c", pressTab, "bash", join(fleet.folder, "postern.bash"), ...words]
    const ended = await runToEnd(command, {
      cwd: fleet.folder,
      environment: { PATH: "/usr/bin:/bin", HOME: fleet.folder, POSTERN_HOME: fleet.operatorFolder }
    })
    expect(ended).toMatchObject({ code: 0, stderr: "" })
    return ended.stdout.split("\n").filter((line) => line !== "")
  }

  it("offer commands, commands of commands, and flags in bash", async () => {
    expect(await offered("postern", "")).toEqual(expect.arrayContaining(["keys", "run", "doctor"]))
    expect(await offered("postern", "dev")).toEqual(["devices"])
    expect(await offered("postern", "keys", "in")).toEqual(["init"])
    expect(await offered("postern", "invite", "--na")).toEqual(["--name"])
  })

  it("offer the names in the device book where a device is asked for, and nowhere else", async () => {
    expect(await offered("postern", "run", "pi-")).toEqual(["pi-cellar", "pi-roof"])
    expect(await offered("postern", "devices", "show", "pi-r")).toEqual(["pi-roof"])
    expect(await offered("postern", "jobs", "submit", "x.postern", "--device", "pi-c")).toEqual(["pi-cellar"])
    expect(await offered("postern", "run", "pi-roof", "--", "pi-")).toEqual([])
    expect(await offered("postern", "keys", "pi-")).toEqual([])
  })

  it.each(["zsh", "fish"])("name every command for %s", async (shell) => {
    const { code, stdout } = await fleet.postern(["completions", shell])
    expect(code).toBe(0)
    for (const name of ["keys", "invite", "devices", "run", "doctor"]) expect(stdout).toContain(name)
  })

  it("are refused for a shell nobody knows", async () => {
    const { code, stderr } = await fleet.postern(["completions", "tcsh"])
    expect(code).toBe(2)
    expect(stderr).toContain("bash")
  })
})
