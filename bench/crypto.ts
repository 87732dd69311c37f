/**
 * What crypto costs: age files as streams against the `age-encryption` package, and Ed25519 of the native engine
 * against pure JavaScript. Everybody works in this process, in turns, on one core.
 */
import { Decrypter, Encrypter } from "age-encryption"
import { Result as Outcome, Redacted } from "effect"
import { NativeCrypto } from "../src/adapters/NativeCrypto.ts"
import { formatIdentity, formatRecipient, x25519Identity } from "../src/crypto/AgeKeys.ts"
import type { Engine } from "../src/crypto/Engine.ts"
import { NobleEngine } from "../src/crypto/NobleEngine.ts"
import { cipherEntropyBytes, decryptor, encryptor } from "../src/crypto/PackageCipher.ts"
import { type Bench, type Contender, compare, type Result, race, timed } from "./measure.ts"

const secret = Redacted.make(NativeCrypto.sha256(Uint8Array.of(1)))
const recipient = formatRecipient(NativeCrypto.x25519.publicKey(Redacted.value(secret)))
const mebibyte = new Uint8Array(1024 * 1024).fill(7)
const message = new Uint8Array(512).fill(7)

const startEncryption = (engine: Engine) =>
  Outcome.getOrThrow(
    encryptor(engine, {
      recipients: [recipient],
      entropyBytes: new Uint8Array(cipherEntropyBytes(1)).fill(3)
    })
  )

/** A file of so many MiB, in the pieces the encryptor gives. */
const encrypted = (count: number): ReadonlyArray<Uint8Array> => {
  const running = startEncryption(NativeCrypto)
  const pieces = [running.header]
  for (let index = 0; index < count; index++) pieces.push(running.push(mebibyte))
  return [...pieces, running.end()]
}

const ourEncryption =
  (engine: Engine): Contender =>
  (count) =>
    timed(async () => {
      const running = startEncryption(engine)
      for (let index = 0; index < count; index++) running.push(mebibyte)
      running.end()
    })

const ourDecryption =
  (engine: Engine): Contender =>
  (count) => {
    const pieces = encrypted(count)
    return timed(async () => {
      const running = decryptor(engine, [x25519Identity(secret)])
      for (const piece of pieces) running.push(piece)
      running.end()
    })
  }

const streamOf = (pieces: Iterable<Uint8Array>): ReadableStream<Uint8Array<ArrayBuffer>> =>
  ReadableStream.from(pieces as Iterable<Uint8Array<ArrayBuffer>>)

const drain = async (stream: ReadableStream<Uint8Array>): Promise<void> => {
  const reader = stream.getReader()
  while (!(await reader.read()).done);
}

const theirEncryption: Contender = (count) =>
  timed(async () => {
    const encrypter = new Encrypter()
    encrypter.addRecipient(recipient)
    await drain(await encrypter.encrypt(streamOf(Array.from({ length: count }, () => mebibyte))))
  })

const theirDecryption: Contender = (count) => {
  const pieces = encrypted(count)
  return timed(async () => {
    const decrypter = new Decrypter()
    decrypter.addIdentity(Redacted.value(formatIdentity(secret)))
    await drain(await decrypter.decrypt(streamOf(pieces)))
  })
}

const signing =
  (engine: Engine): Contender =>
  (count) =>
    timed(async () => {
      for (let index = 0; index < count; index++) engine.ed25519.sign(message, Redacted.value(secret))
    })

const verifying =
  (engine: Engine): Contender =>
  (count) => {
    const publicKey = NativeCrypto.ed25519.publicKey(Redacted.value(secret))
    const signature = NativeCrypto.ed25519.sign(message, Redacted.value(secret))
    return timed(async () => {
      for (let index = 0; index < count; index++) engine.ed25519.verify(signature, message, publicKey)
    })
  }

const ours = "native engine"

const measure = async (
  about: Pick<Result, "name" | "unit">,
  contenders: Readonly<Record<string, Contender>>,
  options: { readonly count: number; readonly rounds: number }
): Promise<Result> =>
  compare({ ...about, better: "higher" }, await race(contenders, options), ours, {
    "age-encryption": { atLeast: 5 }
  })

/** All figures; the short form takes some seconds. */
export const run: Bench = async ({ short }) => {
  const sizes = short ? { count: 8, rounds: 3 } : { count: 64, rounds: 7 }
  const operations = short ? { count: 100, rounds: 3 } : { count: 500, rounds: 7 }
  return [
    await measure(
      { name: "age stream, encrypting", unit: "MiB/s" },
      {
        [ours]: ourEncryption(NativeCrypto),
        "noble engine": ourEncryption(NobleEngine),
        "age-encryption": theirEncryption
      },
      sizes
    ),
    await measure(
      { name: "age stream, decrypting", unit: "MiB/s" },
      {
        [ours]: ourDecryption(NativeCrypto),
        "noble engine": ourDecryption(NobleEngine),
        "age-encryption": theirDecryption
      },
      sizes
    ),
    await measure(
      { name: "Ed25519 sign, 512 bytes", unit: "signatures/s" },
      { [ours]: signing(NativeCrypto), "noble engine": signing(NobleEngine) },
      operations
    ),
    await measure(
      { name: "Ed25519 verify, 512 bytes", unit: "signatures/s" },
      { [ours]: verifying(NativeCrypto), "noble engine": verifying(NobleEngine) },
      operations
    )
  ]
}
