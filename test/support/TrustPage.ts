/** The commands of docs/trust.md, run as they stand, each on the machine of whom the page names. */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import type { BuiltFleet } from "./BuiltFleet.ts"
import { type Ended, runToEnd } from "./Program.ts"

const page = join(import.meta.dirname, "../../docs/trust.md")

interface Block {
  readonly section: string
  readonly person: string
  readonly script: string
}

/** Every `sh` block of the page, in order; its first line says on whose machine. */
export const blocksOfPage = (): ReadonlyArray<Block> => {
  const blocks: Array<Block> = []
  let section = ""
  for (const part of readFileSync(page, "utf8").split(/^(?=## |```sh\n)/m)) {
    section = /^## (.*)$/m.exec(part)?.[1] ?? section
    const found = /^```sh\n# ([a-z0-9-]+)\n([\s\S]*?)^```$/m.exec(part)
    if (found !== null) blocks.push({ section, person: found[1] ?? "", script: found[2] ?? "" })
  }
  return blocks
}

/**
 * What a person would do at the terminal: answer yes, and set passphrases, which is tested elsewhere. Everything else of
 * the page is typed as it stands.
 */
const shell = `set -eu
postern() {
  case "$1 $2 \${3-}" in
    "keys init "*) set -- "$@" --yes --no-passphrase ;;
    "keys operator new" | "keys root new-key") set -- "$@" --no-passphrase ;;
    "keys operator add" | "keys operator revoke" | "keys renew "* | "keys root sign" | "keys root publish" | "devices accept "*)
      set -- "$@" --yes ;;
  esac
  "$PAGE_NODE" "$PAGE_PROGRAMS/cli.js" "$@"
}
node() {
  program="$1"; shift
  "$PAGE_NODE" "$PAGE_PROGRAMS/$program" "$@" --state "$PAGE_SERVER_STATE"
}
`

export class TrustPage {
  readonly fleet: BuiltFleet
  /** Put in place of the page's example values. */
  readonly values = new Map<string, string>()

  constructor(fleet: BuiltFleet) {
    this.fleet = fleet
  }

  /** The operator's home of a person. */
  home(person: string): string {
    return person === "anna" ? this.fleet.operatorFolder : join(this.fleet.folder, `home-${person}`)
  }

  /** Runs the blocks of a section, or of all sections whose heading is among these, in the page's order. */
  async run(...sections: ReadonlyArray<string>): Promise<ReadonlyArray<Ended>> {
    const ended: Array<Ended> = []
    for (const block of blocksOfPage().filter(({ section }) => sections.includes(section))) {
      let script = block.script
      for (const [from, to] of this.values) script = script.replaceAll(from, to)
      const done = await this.type(block.person, script)
      if (done.code !== 0)
        throw new Error(`${block.section}, ${block.person}:\n${script}\n${done.stdout}${done.stderr}`)
      ended.push(done)
    }
    return ended
  }

  /** A script on a person's machine. */
  type(person: string, script: string): Promise<Ended> {
    return runToEnd(["bash", "-c", `${shell}${script}`], {
      cwd: this.fleet.folder,
      timeoutMs: 300_000,
      environment: {
        PATH: "/usr/local/bin:/usr/bin:/bin",
        HOME: this.fleet.folder,
        LANG: "C.UTF-8",
        POSTERN_HOME: this.home(person),
        PAGE_NODE: process.execPath,
        PAGE_PROGRAMS: this.fleet.programsFolder,
        PAGE_SERVER_STATE: this.fleet.serverFolder
      }
    })
  }
}
