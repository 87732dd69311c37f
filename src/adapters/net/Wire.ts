/**
 * A connection while a handshake is spoken on it: reads of exactly what is asked for, so that not a byte beyond the
 * handshake is taken from whoever gets the connection afterwards.
 *
 * @module
 */
import { connect, type Socket } from "node:net"
import type { TorEndpoint } from "../../schemas/TorSettings.ts"
import { errorCode, errorText } from "../files/AtomicFile.ts"
import { RouteError } from "./RouteError.ts"

/** What a proxy is asked to connect to. A name goes to the proxy as it is. */
export interface Target {
  readonly host: string
  readonly port: number
}

export interface Wire {
  readonly write: (bytes: Uint8Array) => void
  /** So many bytes, no more and no less. Rejects when the other side hangs up before. */
  readonly take: (count: number) => Promise<Uint8Array>
  /** The bytes up to and with the first empty line of a head; rejects when it is longer than the bound. */
  readonly takeHead: (maximumBytes: number) => Promise<string>
  /** Ends the handshake: the connection is the caller's. */
  readonly release: () => Socket
}

const hungUp = "it hung up in the middle of the handshake"

/** Lets a handshake be spoken on a socket. */
export const makeWire = (socket: Socket): Wire => {
  let ended: string | undefined
  let wake = (): void => undefined
  const events = ["readable", "end", "close"] as const
  const onEvent = (): void => wake()
  const onEnd = (): void => {
    ended ??= hungUp
    wake()
  }
  const onError = (error: Error): void => {
    ended = error instanceof RouteError ? error.message : errorText(error)
    wake()
  }
  for (const event of events) socket.on(event, event === "readable" ? onEvent : onEnd)
  socket.on("error", onError)

  const more = async (): Promise<void> => {
    if (ended !== undefined || socket.destroyed) throw new RouteError(ended ?? hungUp)
    await new Promise<void>((resolve) => {
      wake = resolve
    })
  }

  const take = async (count: number): Promise<Uint8Array> => {
    for (;;) {
      const bytes: Buffer | null = socket.read(count)
      // At the end of the stream it gives what is left, even if that is less.
      if (bytes?.length === count) return bytes
      if (bytes !== null) throw new RouteError(hungUp)
      await more()
    }
  }

  const takeHead = async (maximumBytes: number): Promise<string> => {
    let head = ""
    while (!head.endsWith("\r\n\r\n")) {
      if (head.length >= maximumBytes)
        throw new RouteError(`the head of its answer is longer than ${maximumBytes} bytes`)
      head += String.fromCharCode((await take(1))[0] as number)
    }
    return head
  }

  return {
    write: (bytes) => void socket.write(bytes),
    take,
    takeHead,
    release: () => {
      for (const event of events) socket.off(event, event === "readable" ? onEvent : onEnd)
      socket.off("error", onError)
      // Until its new owner listens, a moment later, an error must not be one that nobody hears.
      socket.on("error", () => undefined)
      return socket
    }
  }
}

/** What errors of a connection mean, in words. */
export const unreached: Readonly<Record<string, string>> = {
  ECONNREFUSED: "nobody listens there",
  ENOENT: "nobody listens there",
  EACCES: "this user may not use it",
  ENOTFOUND: "its name is not known",
  EAI_AGAIN: "its name could not be looked up",
  EHOSTUNREACH: "there is no way to that host",
  ENETUNREACH: "there is no network"
}

/**
 * Connects to a proxy, speaks the handshake and gives the connection; rejects with a {@link RouteError}, and leaves no
 * connection behind, when the signal is raised before that.
 */
export const throughProxy = async (
  endpoint: TorEndpoint,
  handshake: (wire: Wire) => Promise<void>,
  unreachable: (reason: string) => RouteError,
  signal: AbortSignal
): Promise<Socket> => {
  signal.throwIfAborted()
  const socket = connect({ ...endpoint, noDelay: true })
  const giveUp = (): void => void socket.destroy(signal.reason)
  signal.addEventListener("abort", giveUp, { once: true })
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve)
      socket.once("error", (error) => {
        if (signal.aborted) reject(signal.reason)
        else reject(unreachable(unreached[errorCode(error) ?? ""] ?? errorText(error)))
      })
    })
    const wire = makeWire(socket)
    await handshake(wire)
    return wire.release()
  } catch (error) {
    socket.on("error", () => undefined)
    socket.destroy()
    throw signal.aborted ? signal.reason : error
  } finally {
    signal.removeEventListener("abort", giveUp)
  }
}
