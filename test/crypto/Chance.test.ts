import { readdirSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { assert, it } from "@effect/vitest"

const source = fileURLToPath(new URL("../../src/", import.meta.url))

/** Every way to draw secure chance past the Entropy port, as it looks in code. */
const generators =
  /\b(?:randomBytes|randomFill|randomFillSync|randomInt|randomUUID|getRandomValues|generateKeyPair(?:Sync)?|generateKey(?:Sync)?|keygen|randomSecretKey|generate(?:X25519|Hybrid)?Identity)\s*\(|["'](?:age-encryption|effect\/crypto(?:\/[^"']*)?)["']/

it("secure chance is drawn in one file only", () => {
  const files = readdirSync(source, { recursive: true, encoding: "utf8" }).filter((file) =>
    file.endsWith(".ts")
  )
  assert.isAbove(files.length, 10)
  const drawing = files.filter((file) => generators.test(readFileSync(source + file, "utf8")))
  assert.deepStrictEqual(drawing, ["adapters/SystemEntropy.ts"])
})
