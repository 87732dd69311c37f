/**
 * Where the published vectors lie: beside the checkout, not in it. A machine without them still tests the RFC
 * values kept in this folder.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { describe, it } from "@effect/vitest"

const root = fileURLToPath(new URL("../../../shared/vectors/", import.meta.url))

export const hasVectors = existsSync(root)

/** A group of tests that needs the vectors; without them it holds one skipped test, whose name says why. */
export const describeWithVectors = (name: string, tests: () => void): void => {
  const because = "../shared/vectors is not there"
  describe(name, () => {
    if (hasVectors) tests()
    else it(`skipped, because ${because}`, (context) => context.skip(because))
  })
}

export const readVector = (path: string): Uint8Array => Uint8Array.from(readFileSync(root + path))
export const readVectorText = (path: string): string => readFileSync(root + path, "utf8")
export const listVectors = (folder: string): ReadonlyArray<string> => readdirSync(root + folder).sort()

/** One Wycheproof case. */
export interface WycheproofCase {
  readonly tcId: number
  readonly comment: string
  readonly flags: ReadonlyArray<string>
  readonly result: "valid" | "invalid" | "acceptable"
  /** A hexadecimal member, as bytes. */
  readonly hex: (member: string) => Uint8Array
  readonly number: (member: string) => number
  /** The group's public key, empty where it has none. */
  readonly publicKey: Uint8Array
}

interface RawCase extends Omit<WycheproofCase, "hex" | "number" | "publicKey"> {
  readonly [member: string]: unknown
}

interface RawFile {
  readonly testGroups: ReadonlyArray<{ publicKey?: { pk: string }; tests: ReadonlyArray<RawCase> }>
}

export const wycheproof = (name: string): ReadonlyArray<WycheproofCase> => {
  const file = JSON.parse(readVectorText(`wycheproof/${name}.json`)) as RawFile
  return file.testGroups.flatMap((group) =>
    group.tests.map((test) => ({
      tcId: test.tcId,
      comment: test.comment,
      flags: test.flags,
      result: test.result,
      hex: (member) => hex(test[member] as string),
      number: (member) => test[member] as number,
      publicKey: hex(group.publicKey?.pk ?? "")
    }))
  )
}

export const hex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replace(/\s/g, ""), "hex"))

/** The same bytes with one bit turned. */
export const flipBit = (bytes: Uint8Array, bit: number): Uint8Array => {
  const flipped = Uint8Array.from(bytes)
  const index = Math.floor(bit / 8) % bytes.length
  flipped[index] = (flipped[index] as number) ^ (1 << (bit % 8))
  return flipped
}
