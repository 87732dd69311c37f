import { execFile } from "node:child_process"
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { promisify } from "node:util"
import { afterAll, beforeAll, describe, expect, it } from "vitest"

const root = join(import.meta.dirname, "../..")
const biome = join(root, "node_modules/@biomejs/biome/bin/biome")

/** Packages and paths that stand for everything outside a room, by the name used below. */
const outside = {
  effect: "effect",
  effectTesting: "effect/testing",
  cluster: "effect/cluster",
  clusterModule: "effect/cluster/Entity",
  node: "node:fs",
  bareNode: "fs",
  noble: "@noble/curves/ed25519.js",
  age: "age-encryption",
  canonicalize: "canonicalize",
  tar: "tar",
  platformNode: "@effect/platform-node/NodeRuntime",
  test: "../../test/support/requires.ts",
  bench: "../../bench/run.ts",
  scripts: "../../scripts/build.ts",
  web: "../../web/page.ts"
} as const

const rooms = ["schemas", "kernel", "crypto", "ports", "actors", "adapters", "programs"] as const

type Room = (typeof rooms)[number]
type Target = Room | keyof typeof outside

/** The whole house, in one table: what each room may import. Everything else it must not. */
const allowed: Record<Room, ReadonlyArray<Target>> = {
  schemas: ["effect", "effectTesting"],
  kernel: ["effect", "effectTesting"],
  crypto: ["schemas", "effect", "effectTesting", "noble", "age", "canonicalize"],
  ports: ["schemas", "crypto", "effect", "effectTesting"],
  actors: ["schemas", "kernel", "crypto", "ports", "effect", "effectTesting"],
  adapters: [
    ...["schemas", "kernel", "crypto", "ports", "effect", "effectTesting"],
    ...["node", "bareNode", "noble", "age", "canonicalize", "tar", "platformNode"]
  ] as ReadonlyArray<Target>,
  programs: [
    ...["schemas", "kernel", "crypto", "ports", "actors", "adapters", "effect", "effectTesting"],
    ...["node", "bareNode", "noble", "age", "canonicalize", "tar", "platformNode"]
  ] as ReadonlyArray<Target>
}

const targets: ReadonlyArray<Target> = [...rooms, ...(Object.keys(outside) as Array<keyof typeof outside>)]

const isRoom = (target: Target): target is Room => (rooms as ReadonlyArray<string>).includes(target)

const specifier = (target: Target): string => (isRoom(target) ? `../${target}/Neighbour.ts` : outside[target])

/** Every way to write an import, the type-only ones too: a type from above is a dependency all the same. */
const forms: Record<string, (path: string) => string> = {
  value: (path) => `import { value } from "${path}"\nexport const used = value\n`,
  type: (path) => `import type { Value } from "${path}"\nexport type Used = Value\n`,
  reexport: (path) => `export { value } from "${path}"\n`,
  dynamic: (path) => `export const used = () => import("${path}")\n`
}

interface Finding {
  readonly category: string
  readonly path: string
}

const lint = async (folder: string): Promise<ReadonlyArray<Finding>> => {
  const args = [biome, "lint", "--reporter=json", "--max-diagnostics=none", "."]
  const run = promisify(execFile)
  const { stdout } = await run(process.execPath, args, { cwd: folder, maxBuffer: 64 * 1024 * 1024 }).catch(
    (error: { stdout: string }) => error
  )
  const report = JSON.parse(stdout)
  return report.diagnostics.map((found: { category: string; location: { path: unknown } }) => ({
    category: found.category,
    path: String((found.location.path as { file?: string }).file ?? found.location.path)
  }))
}

const write = (folder: string, path: string, text: string): void => {
  mkdirSync(dirname(join(folder, path)), { recursive: true })
  writeFileSync(join(folder, path), text)
}

describe("import boundaries", () => {
  let folder = ""
  let findings: ReadonlyArray<Finding> = []
  const refused = (path: string, category = "lint/style/noRestrictedImports") =>
    findings.some((found) => found.path.endsWith(path) && found.category === category)

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "postern-boundaries-"))
    for (const file of ["biome.json", "package.json", ".gitignore"])
      cpSync(join(root, file), join(folder, file))
    symlinkSync(join(root, "node_modules"), join(folder, "node_modules"))
    for (const room of rooms) {
      write(folder, `src/${room}/Neighbour.ts`, "export const value = 1\nexport type Value = number\n")
      for (const target of targets) {
        if (target === room) continue
        for (const [form, text] of Object.entries(forms)) {
          write(folder, `src/${room}/${target}-${form}.ts`, text(specifier(target)))
          const deeper = specifier(target).startsWith("../") ? `../${specifier(target)}` : specifier(target)
          write(folder, `src/${room}/nested/${target}-${form}.ts`, text(deeper))
        }
      }
    }
    write(folder, "src/adapters/cluster/Host.ts", forms["value"]!("effect/cluster"))
    write(folder, "src/adapters/cluster/Wrong.ts", forms["value"]!("../../actors/Neighbour.ts"))
    write(folder, "web/Page.ts", forms["value"]!("../src/schemas/Neighbour.ts"))
    write(folder, "web/Wrong.ts", forms["value"]!("../src/kernel/Neighbour.ts"))
    write(folder, "web/Node.ts", forms["value"]!("node:fs"))
    write(folder, "src/kernel/Roundabout.ts", forms["value"]!("./../schemas/Neighbour.ts"))
    write(
      folder,
      "src/kernel/CycleA.ts",
      'import { b } from "./CycleB.ts"\nexport const a = (): number => b()\n'
    )
    write(
      folder,
      "src/kernel/CycleB.ts",
      'import { a } from "./CycleA.ts"\nexport const b = (): number => a()\n'
    )
    write(folder, "src/kernel/UsesProcess.ts", "export const path = process.env\n")
    write(folder, "src/adapters/UsesProcess.ts", "export const path = process.env\n")
    write(folder, "src/adapters/Undeclared.ts", 'export * from "left-pad"\n')
    findings = await lint(folder)
  }, 60_000)

  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  it("knows every room of the house", () => {
    const present = readdirSync(join(root, "src"), { withFileTypes: true }).filter((entry) =>
      entry.isDirectory()
    )
    expect([...rooms]).toEqual(expect.arrayContaining(present.map((entry) => entry.name)))
  })

  for (const room of rooms) {
    for (const target of targets) {
      if (target === room) continue
      const may = allowed[room].includes(target)
      it(`${room} ${may ? "may" : "must not"} import ${specifier(target)}`, () => {
        for (const form of Object.keys(forms)) {
          const seen = [`src/${room}/${target}-${form}.ts`, `src/${room}/nested/${target}-${form}.ts`].map(
            (path) => ({
              path,
              refused: refused(path)
            })
          )
          expect(
            seen.map((one) => one.refused),
            seen[0]!.path
          ).toEqual([!may, !may])
        }
      })
    }
  }

  it("allows effect/cluster in adapters/cluster, and nothing else beyond the adapters' own", () => {
    expect(refused("src/adapters/cluster/Host.ts")).toBe(false)
    expect(refused("src/adapters/cluster/Wrong.ts")).toBe(true)
  })

  it("lets web import schemas, and neither the kernel nor Node", () => {
    expect(refused("web/Page.ts")).toBe(false)
    expect(refused("web/Wrong.ts")).toBe(true)
    expect(refused("web/Node.ts")).toBe(true)
  })

  it("is not fooled by a roundabout path", () => {
    expect(refused("src/kernel/Roundabout.ts")).toBe(true)
  })

  it("refuses a cycle of imports", () => {
    expect(refused("src/kernel/CycleA.ts", "lint/suspicious/noImportCycles")).toBe(true)
  })

  it("refuses Node's globals outside adapters and programs", () => {
    expect(refused("src/kernel/UsesProcess.ts", "lint/style/noRestrictedGlobals")).toBe(true)
    expect(refused("src/adapters/UsesProcess.ts", "lint/style/noRestrictedGlobals")).toBe(false)
  })

  it("refuses a package that package.json does not name", () => {
    expect(refused("src/adapters/Undeclared.ts", "lint/correctness/noUndeclaredDependencies")).toBe(true)
  })
})
