/**
 * A SOCKS 5 server of the tests: it remembers what it was asked for, and connects, refuses or keeps silent as the test
 * says. In place of names it knows where their servers really listen.
 */
import { mkdtempSync, rmSync } from "node:fs"
import { type AddressInfo, connect, createServer, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect } from "effect"
import type { TorEndpoint } from "../../../src/schemas/TorSettings.ts"

/** What a client asked for. */
export interface SocksAsk {
  readonly user: string | null
  readonly password: string | null
  readonly kind: number
  readonly host: string
  readonly port: number
}

/** A port of loopback to connect to, a reply, raw bytes to answer with, or silence for ever. */
export type SocksAnswer = number | { readonly reply: number } | { readonly raw: Uint8Array } | "silence"

const reader = (socket: Socket) => {
  let held = Buffer.alloc(0)
  let wake = (): void => undefined
  let isOver = false
  socket.on("data", (bytes: Buffer) => {
    held = Buffer.concat([held, bytes])
    wake()
  })
  socket.on("close", () => {
    isOver = true
    wake()
  })
  return {
    take: async (count: number): Promise<Buffer> => {
      while (held.length < count) {
        if (isOver) throw new Error("the client is gone")
        await new Promise<void>((resolve) => {
          wake = resolve
        })
      }
      const taken = held.subarray(0, count)
      held = held.subarray(count)
      return taken
    },
    rest: () => held
  }
}

const readHost = async (take: (count: number) => Promise<Buffer>, kind: number): Promise<string> => {
  if (kind === 1) return [...(await take(4))].join(".")
  if (kind === 3) return (await take((await take(1))[0] as number)).toString("latin1")
  const words = await take(16)
  return Array.from({ length: 8 }, (_, at) => words.readUInt16BE(at * 2).toString(16)).join(":")
}

const serve = async (
  socket: Socket,
  asks: Array<SocksAsk>,
  answer: (ask: SocksAsk) => SocksAnswer
): Promise<Socket | undefined> => {
  const { rest, take } = reader(socket)
  const [, methods = 0] = await take(2)
  const method = (await take(methods))[0]
  socket.write(Uint8Array.of(5, method as number))
  let user: string | null = null
  let password: string | null = null
  if (method === 2) {
    user = (await take((await take(2))[1] as number)).toString("latin1")
    password = (await take((await take(1))[0] as number)).toString("latin1")
    socket.write(Uint8Array.of(1, 0))
  }
  const [, , , kind = 0] = await take(4)
  const ask = { user, password, kind, host: await readHost(take, kind), port: (await take(2)).readUInt16BE() }
  asks.push(ask)
  const decided = answer(ask)
  if (decided === "silence") return undefined
  if (typeof decided === "object" && "raw" in decided) {
    socket.write(decided.raw)
    return undefined
  }
  if (typeof decided === "object") {
    socket.end(Uint8Array.of(5, decided.reply, 0, 1, 0, 0, 0, 0, 0, 0))
    return undefined
  }
  const onward = connect(decided, "127.0.0.1")
  onward.on("error", () => socket.destroy())
  onward.on("close", () => socket.destroy())
  socket.on("close", () => onward.destroy())
  onward.once("connect", () => {
    socket.removeAllListeners("data")
    socket.write(Uint8Array.of(5, 0, 0, 1, 0, 0, 0, 0, 0, 0))
    onward.write(rest())
    socket.pipe(onward)
    onward.pipe(socket)
  })
  return onward
}

/** Starts one; it ends with the scope, and cuts all it carries. `unix`: on a socket in a folder of its own. */
export const socksServer = (answer: (ask: SocksAsk) => SocksAnswer, unix = false) =>
  Effect.gen(function* () {
    const asks: Array<SocksAsk> = []
    const sockets = new Set<Socket>()
    const folder = mkdtempSync(join(tmpdir(), "postern-socks-"))
    const server = createServer((socket) => {
      sockets.add(socket)
      socket.on("error", () => undefined)
      socket.on("close", () => sockets.delete(socket))
      serve(socket, asks, answer).catch(() => socket.destroy())
    })
    const path = join(folder, "socks")
    yield* Effect.acquireRelease(
      Effect.callback<void>((resume) => {
        const done = () => resume(Effect.void)
        if (unix) server.listen(path, done)
        else server.listen(0, "127.0.0.1", done)
      }),
      () =>
        Effect.callback<void>((resume) => {
          for (const socket of sockets) socket.destroy()
          server.close(() => {
            rmSync(folder, { recursive: true, force: true })
            resume(Effect.void)
          })
        })
    )
    const endpoint: TorEndpoint = unix
      ? { path }
      : { host: "127.0.0.1", port: (server.address() as AddressInfo).port }
    return { asks, endpoint, sockets }
  })
