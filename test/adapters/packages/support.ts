import { execFileSync } from "node:child_process"
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { zstdCompressSync } from "node:zlib"
import { Effect, Layer, Redacted } from "effect"
import { NativeCrypto, NativeCryptoEngine } from "../../../src/adapters/NativeCrypto.ts"
import type { ManifestDraft } from "../../../src/adapters/packages/BuildPackage.ts"
import { openPackage } from "../../../src/adapters/packages/OpenPackage.ts"
import { tarEnd, tarPadding, writeTarHeader } from "../../../src/adapters/packages/TarHeader.ts"
import { SystemEntropy } from "../../../src/adapters/SystemEntropy.ts"
import { formatIdentity, formatRecipient, x25519Identity } from "../../../src/crypto/AgeKeys.ts"
import { concatBytes, utf8 } from "../../../src/crypto/Bytes.ts"
import { canonicalBytes } from "../../../src/crypto/CanonicalJson.ts"
import { digestOf } from "../../../src/crypto/Documents.ts"
import { cipherEntropyBytes, encryptBytes } from "../../../src/crypto/PackageCipher.ts"
import { Recipient } from "../../../src/schemas/Ids.ts"
import { defaultJobLimits, type Manifest } from "../../../src/schemas/Manifest.ts"

export const engine = NativeCrypto
export const outside = Layer.merge(NativeCryptoEngine, SystemEntropy)

/** A key pair that is the same in every test: what is secret here is secret nowhere. */
const keyPair = (fill: number) => {
  const secret = Redacted.make(new Uint8Array(32).fill(fill))
  return {
    identity: x25519Identity(secret),
    recipient: Recipient.make(formatRecipient(engine.x25519.publicKey(Redacted.value(secret)))),
    identityText: Redacted.value(formatIdentity(secret))
  }
}
export const device = keyPair(7)
export const operator = keyPair(9)
export const stranger = keyPair(11)

export const draft: ManifestDraft = {
  name: "test",
  command: ["true"],
  environment: {},
  idempotent: false,
  limits: defaultJobLimits,
  grants: { devices: [], read_only: [] },
  artifacts: []
}

export const listed = (bytes: Uint8Array, executable = false) => ({
  digest: digestOf(engine, bytes),
  size_bytes: bytes.length,
  executable
})

/** A manifest's bytes that lists these files, changed at will. */
export const manifestOf = (
  files: Readonly<Record<string, Uint8Array>>,
  change: (manifest: Manifest) => unknown = (manifest) => manifest
): Uint8Array => {
  const entries = Object.entries(files).map(([path, bytes]) => [path, listed(bytes)] as const)
  return canonicalBytes(change({ ...draft, type: "postern/manifest/v1", files: Object.fromEntries(entries) }))
}

/** One tar entry, content padded. */
export const entry = (
  path: string,
  bytes: Uint8Array | "folder" = new Uint8Array(0),
  executable = false
): Uint8Array =>
  bytes === "folder"
    ? writeTarHeader({ kind: "folder", path, sizeBytes: 0, executable: true })
    : concatBytes(
        writeTarHeader({ kind: "file", path, sizeBytes: bytes.length, executable }),
        bytes,
        new Uint8Array(tarPadding(bytes.length))
      )

/** A header as {@link writeTarHeader} makes it, with bytes overwritten and the checksum set right again. */
export const forgedHeader = (
  path: string,
  sizeBytes: number,
  patches: ReadonlyArray<readonly [offset: number, bytes: string]>
): Uint8Array => {
  const block = writeTarHeader({ kind: "file", path, sizeBytes, executable: false })
  for (const [offset, bytes] of patches) block.set(Buffer.from(bytes, "latin1"), offset)
  block.fill(0x20, 148, 156)
  const sum = block.reduce((total, byte) => total + byte, 0)
  block.set(utf8(`${sum.toString(8).padStart(6, "0")}\u0000 `), 148)
  return block
}

/** A header of another kind than file or folder, with a link's target. */
export const linkEntry = (name: string, typeflag: string, target: string) =>
  forgedHeader(name, 0, [
    [156, typeflag],
    [157, target]
  ])

export const tarOf = (...parts: ReadonlyArray<Uint8Array>): Uint8Array => concatBytes(...parts, tarEnd())

/** Seals raw bytes (a hostile archive, already compressed) as a payload on disk, with the order's words about it. */
export const sealRaw = Effect.fnUntraced(function* (
  folder: string,
  compressed: Uint8Array,
  bounds: { readonly unpacked_bytes: number; readonly entries: number } = {
    unpacked_bytes: 1_000_000,
    entries: 1000
  }
) {
  const entropyBytes = crypto.getRandomValues(new Uint8Array(cipherEntropyBytes(1)))
  const sealed = encryptBytes(engine, { recipients: [device.recipient], entropyBytes }, compressed)
  const bytes = yield* Effect.fromResult(sealed)
  const ciphertext = join(folder, "payload.age")
  writeFileSync(ciphertext, bytes)
  return { ciphertext, payload: { digest: digestOf(engine, bytes), size_bytes: bytes.length, ...bounds } }
})

export const sealTar = (
  folder: string,
  tar: Uint8Array,
  bounds?: { readonly unpacked_bytes: number; readonly entries: number }
) => sealRaw(folder, zstdCompressSync(tar), bounds)

export const openAs =
  (who: typeof device) => (options: Omit<Parameters<typeof openPackage>[0], "engine" | "identities">) =>
    openPackage({ engine, identities: [who.identity], ...options })

/** Every file below a folder with mode and content; folders with null. */
export const treeOf = (
  folder: string
): Record<string, { readonly mode: number; readonly bytes: Uint8Array | null }> => {
  const tree: Record<string, { mode: number; bytes: Uint8Array | null }> = {}
  const visit = (below: string): void => {
    for (const name of readdirSync(join(folder, below))) {
      const path = below === "" ? name : `${below}/${name}`
      const found = statSync(join(folder, path))
      tree[path] = {
        mode: found.mode & 0o7777,
        bytes: found.isFile() ? new Uint8Array(readFileSync(join(folder, path))) : null
      }
      if (found.isDirectory()) visit(path)
    }
  }
  visit("")
  return tree
}

export const writeTree = (folder: string, files: Readonly<Record<string, Uint8Array | string>>): void => {
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true })
    writeFileSync(join(folder, path), content)
  }
}

export const run = (command: string, args: ReadonlyArray<string>, input?: Uint8Array): Buffer =>
  execFileSync(command, args, {
    ...(input === undefined ? {} : { input }),
    maxBuffer: 64 * 1024 * 1024,
    stdio: ["pipe", "pipe", "pipe"]
  })

export const hello = utf8("hello\n")

/** A sound beginning: manifest and one file, for what comes behind them. */
export const sound = [entry("manifest.json", manifestOf({ hello })), entry("hello", hello)] as const
