/**
 * Encryption of packages, output and artifacts: age files (https://age-encryption.org/v1), written and read here on
 * the engine, as streams in constant memory (one chunk of 64 KiB).
 *
 * Why not the `age-encryption` package: it draws its own randomness, so a simulation could not be repeated; its
 * streams are asynchronous, so under virtual time they are not deterministic; and it runs on JavaScript ciphers only,
 * an order of magnitude below the native engine. The format is small. The package and the `age` tool of Debian serve
 * as peers in the tests, with age's own test kit for the reader.
 *
 * Everything is synchronous and pure: the chance comes in as bytes drawn from the Entropy port.
 *
 * @module
 */
import { type Redacted, Result } from "effect"
import {
  type AgeStanza,
  ageFileKeyBytes,
  DecryptError,
  findAgeHeaderEnd,
  isAgeHeaderAuthentic,
  parseAgeHeader,
  writeAgeHeader
} from "./AgeHeader.ts"
import { type AgeIdentity, parseRecipient, passphraseStanza, unwrapFileKey, x25519Stanza } from "./AgeKeys.ts"
import { concatBytes, utf8 } from "./Bytes.ts"
import { chachaNonceBytes, chachaTagBytes, type Engine, requireLength, x25519KeyBytes } from "./Engine.ts"
import type { InvalidKey, X25519PublicKey } from "./Keys.ts"

/** Plaintext per chunk of the payload. */
export const cipherChunkBytes = 64 * 1024
const sealedChunkBytes = cipherChunkBytes + chachaTagBytes
const payloadNonceBytes = 16
const scryptSaltBytes = 16
const empty = new Uint8Array(0)

/** Writes an age file piece by piece. Pieces concatenated are the file. */
export interface Encryptor {
  /** The first bytes of the file: header and payload nonce. */
  readonly header: Uint8Array
  /** Takes plaintext, gives the ciphertext that is complete (often none). */
  readonly push: (plaintext: Uint8Array) => Uint8Array
  /** The rest of the ciphertext. The encryptor is spent afterwards. */
  readonly end: () => Uint8Array
}

/** Reads an age file piece by piece, however it is cut. All plaintext it gives has been authenticated. */
export interface Decryptor {
  /**
   * Takes bytes of the file, gives the plaintext that is proved (often none).
   *
   * @throws DecryptError; the decryptor stays failed
   */
  readonly push: (ciphertext: Uint8Array) => Uint8Array
  /**
   * The rest of the plaintext. Only now is it known that nothing was cut off at the end.
   *
   * @throws DecryptError; the decryptor stays failed
   */
  readonly end: () => Uint8Array
}

/** An `age1…` text, or a key already accepted. */
export type CipherRecipient = string | X25519PublicKey

/** How many bytes of entropy an encryption to so many recipients takes. */
export const cipherEntropyBytes = (recipients: number): number =>
  ageFileKeyBytes + payloadNonceBytes + recipients * x25519KeyBytes

/** How many bytes of entropy an encryption under a passphrase takes. */
export const passphraseEntropyBytes = ageFileKeyBytes + payloadNonceBytes + scryptSaltBytes

/** Size of the file that so much plaintext becomes, encrypted to so many X25519 recipients. */
export const ciphertextBytes = (plaintextBytes: number, recipients: number): number => {
  const chunks = Math.max(1, Math.ceil(plaintextBytes / cipherChunkBytes))
  // Version line 22, per recipient two lines of 54 and 44, MAC line 48.
  return 22 + recipients * 98 + 48 + payloadNonceBytes + plaintextBytes + chunks * chachaTagBytes
}

/** The payload's nonces: a counter of 11 bytes and a flag on the last chunk, which makes cutting visible. */
const chunkNonces = () => {
  const nonce = new Uint8Array(chachaNonceBytes)
  const view = new DataView(nonce.buffer)
  let counter = 0
  return (isLast: boolean): Uint8Array => {
    view.setUint32(3, Math.floor(counter / 2 ** 32))
    view.setUint32(7, counter % 2 ** 32)
    nonce[11] = isLast ? 1 : 0
    counter += 1
    return nonce
  }
}

/**
 * Cuts what comes in into pieces of `size`, holding back the last one (which may be shorter) until the end: only then
 * is it known to be the last. Full pieces inside one input are not copied.
 */
const pieces = (size: number) => {
  const held = new Uint8Array(size)
  let heldBytes = 0
  return {
    take: (input: Uint8Array, each: (piece: Uint8Array) => void): void => {
      let offset = 0
      while (heldBytes + input.length - offset > size) {
        if (heldBytes === 0) {
          each(input.subarray(offset, offset + size))
          offset += size
        } else {
          const missing = size - heldBytes
          held.set(input.subarray(offset, offset + missing), heldBytes)
          offset += missing
          heldBytes = 0
          each(held)
        }
      }
      held.set(input.subarray(offset), heldBytes)
      heldBytes += input.length - offset
    },
    rest: (): Uint8Array => held.subarray(0, heldBytes)
  }
}

const payloadKey = (engine: Engine, fileKey: Uint8Array, nonce: Uint8Array): Uint8Array =>
  engine.hkdfSha256(fileKey, nonce, utf8("payload"), 32)

const startEncryptor = (
  engine: Engine,
  entropy: { readonly fileKey: Uint8Array; readonly nonce: Uint8Array },
  stanzas: ReadonlyArray<AgeStanza>
): Encryptor => {
  const key = payloadKey(engine, entropy.fileKey, entropy.nonce)
  const nextNonce = chunkNonces()
  const input = pieces(cipherChunkBytes)
  let ended = false
  const requireOpen = (): void => {
    if (ended) throw new RangeError("The encryptor has ended: begin a new one")
  }
  return {
    header: concatBytes(writeAgeHeader(engine, entropy.fileKey, stanzas), entropy.nonce),
    push: (plaintext) => {
      requireOpen()
      const sealed: Array<Uint8Array> = []
      input.take(plaintext, (piece) =>
        sealed.push(engine.chacha20poly1305.seal(key, nextNonce(false), piece))
      )
      return sealed.length === 1 ? (sealed[0] as Uint8Array) : concatBytes(...sealed)
    },
    end: () => {
      requireOpen()
      ended = true
      return engine.chacha20poly1305.seal(key, nextNonce(true), input.rest())
    }
  }
}

const acceptRecipients = (
  recipients: ReadonlyArray<CipherRecipient>
): Result.Result<Array<X25519PublicKey>, InvalidKey> =>
  Result.all(
    recipients.map((each) => (typeof each === "string" ? parseRecipient(each) : Result.succeed(each)))
  )

/**
 * Begins an age file that every one of the recipients can open.
 *
 * `entropyBytes` are exactly {@link cipherEntropyBytes} fresh bytes of the Entropy port; they are split into file key,
 * payload nonce and one ephemeral key per recipient. Using them twice breaks the encryption. A wrong amount, or no
 * recipient at all, is a `RangeError`.
 */
export const encryptor = (
  engine: Engine,
  options: { readonly recipients: ReadonlyArray<CipherRecipient>; readonly entropyBytes: Uint8Array }
): Result.Result<Encryptor, InvalidKey> => {
  const { entropyBytes, recipients } = options
  if (recipients.length === 0) throw new RangeError("An age file needs at least one recipient")
  requireLength("The entropy of an age file", entropyBytes, cipherEntropyBytes(recipients.length))
  return Result.map(acceptRecipients(recipients), (keys) => {
    const fileKey = entropyBytes.slice(0, 16)
    const nonce = entropyBytes.slice(16, 32)
    const stanzas = keys.map((key, index) => {
      const start = 32 + index * x25519KeyBytes
      return x25519Stanza(engine, key, fileKey, entropyBytes.subarray(start, start + x25519KeyBytes))
    })
    return startEncryptor(engine, { fileKey, nonce }, stanzas)
  })
}

/**
 * Begins an age file that a passphrase opens (`age -d` asks for it). `entropyBytes` are exactly
 * {@link passphraseEntropyBytes} fresh bytes; 2^logN steps of work and as many KiB of memory are spent.
 */
export const passphraseEncryptor = (
  engine: Engine,
  options: {
    readonly passphrase: Redacted.Redacted
    readonly logN: number
    readonly entropyBytes: Uint8Array
  }
): Encryptor => {
  requireLength("The entropy of an age file", options.entropyBytes, passphraseEntropyBytes)
  const fileKey = options.entropyBytes.slice(0, 16)
  const nonce = options.entropyBytes.slice(16, 32)
  const salt = options.entropyBytes.slice(32)
  const stanza = passphraseStanza(engine, options.passphrase, fileKey, salt, options.logN)
  return startEncryptor(engine, { fileKey, nonce }, [stanza])
}

const truncated = (where: string): DecryptError =>
  new DecryptError({ reason: "payload_truncated", message: `The age file is cut off ${where}` })

const corrupt = (): DecryptError =>
  new DecryptError({ reason: "payload_corrupt", message: "The content of the age file was changed or cut" })

/** Opens payload chunks once the file key is known. */
const payloadReader = (engine: Engine, key: Uint8Array) => {
  const nextNonce = chunkNonces()
  const input = pieces(sealedChunkBytes)
  let isFirst = true
  const open = (piece: Uint8Array, isLast: boolean): Uint8Array => {
    const plaintext = engine.chacha20poly1305.open(key, nextNonce(isLast), piece)
    if (plaintext === undefined) throw corrupt()
    return plaintext
  }
  return {
    push: (bytes: Uint8Array): Uint8Array => {
      const opened: Array<Uint8Array> = []
      input.take(bytes, (piece) => {
        opened.push(open(piece, false))
        isFirst = false
      })
      return opened.length === 1 ? (opened[0] as Uint8Array) : concatBytes(...opened)
    },
    end: (): Uint8Array => {
      const rest = input.rest()
      if (rest.length < chachaTagBytes) throw truncated("in its content")
      const plaintext = open(rest, true)
      // An empty chunk behind full ones would be a second spelling of the same content.
      if (plaintext.length === 0 && !isFirst) throw corrupt()
      return plaintext
    }
  }
}

/**
 * Begins to read an age file with any of the identities. Pure and synchronous; holds at most one header or one chunk.
 */
export const decryptor = (engine: Engine, identities: ReadonlyArray<AgeIdentity>): Decryptor => {
  let before: Uint8Array = empty
  let payload: ReturnType<typeof payloadReader> | undefined
  let failure: DecryptError | undefined
  let ended = false

  /** Collects header and payload nonce; gives what lies behind them. */
  const begin = (bytes: Uint8Array): Uint8Array => {
    before = concatBytes(before, bytes)
    const headerEnd = findAgeHeaderEnd(before)
    if (headerEnd === undefined || before.length < headerEnd + payloadNonceBytes) return empty
    const header = parseAgeHeader(before.subarray(0, headerEnd))
    const fileKey = unwrapFileKey(engine, identities, header.stanzas)
    if (!isAgeHeaderAuthentic(engine, fileKey, header)) {
      throw new DecryptError({ reason: "header_mac", message: "The header of the age file was changed" })
    }
    const nonce = before.subarray(headerEnd, headerEnd + payloadNonceBytes)
    payload = payloadReader(engine, payloadKey(engine, fileKey, nonce))
    const rest = before.subarray(headerEnd + payloadNonceBytes)
    before = empty
    return rest
  }

  const guarded = (work: () => Uint8Array): Uint8Array => {
    if (failure !== undefined) throw failure
    if (ended) throw new RangeError("The decryptor has ended: begin a new one")
    try {
      return work()
    } catch (error) {
      if (error instanceof DecryptError) failure = error
      throw error
    }
  }

  return {
    push: (bytes) =>
      guarded(() => {
        const rest = payload === undefined ? begin(bytes) : bytes
        return payload === undefined ? empty : payload.push(rest)
      }),
    end: () =>
      guarded(() => {
        if (payload === undefined) throw truncated("before its content")
        const rest = payload.end()
        ended = true
        return rest
      })
  }
}

/** Encrypts in one go. For what is small: packages are streamed. */
export const encryptBytes = (
  engine: Engine,
  options: { readonly recipients: ReadonlyArray<CipherRecipient>; readonly entropyBytes: Uint8Array },
  plaintext: Uint8Array
): Result.Result<Uint8Array, InvalidKey> =>
  Result.map(encryptor(engine, options), (running) =>
    concatBytes(running.header, running.push(plaintext), running.end())
  )

/** Decrypts in one go. For what is small: packages are streamed. */
export const decryptBytes = (
  engine: Engine,
  identities: ReadonlyArray<AgeIdentity>,
  file: Uint8Array
): Result.Result<Uint8Array, DecryptError> => {
  const running = decryptor(engine, identities)
  try {
    return Result.succeed(concatBytes(running.push(file), running.end()))
  } catch (error) {
    if (error instanceof DecryptError) return Result.fail(error)
    throw error
  }
}
