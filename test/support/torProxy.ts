/** A proxy that counts: HTTP CONNECT or SOCKS 5, on loopback, with a user and a password that must be right. */
import { connect, createServer, type Server, type Socket } from "node:net"

/** Gives the target and the answer to say when the connection stands; undefined for a refusal. */
interface Asked {
  readonly host: string
  readonly port: number
  readonly good: Buffer | string
}

export interface CountingProxy {
  readonly port: number
  /** Connections that it made. */
  readonly made: () => number
  /** Those it refused, for their credentials. */
  readonly refused: () => number
  readonly close: () => Promise<void>
}

const user = "device"
const password = 'p@ss:w"rd #1'

/** User and password as they stand in the proxy's address. */
export const proxyCredentials = `${user}:${encodeURIComponent(password)}`

const readHttp = async (next: () => Promise<Buffer>, socket: Socket): Promise<Asked | undefined> => {
  let head = ""
  while (!head.includes("\r\n\r\n")) head += (await next()).toString("latin1")
  const [, host = "", port] = /^CONNECT (\S+):(\d+) HTTP/.exec(head) ?? []
  const given = /^proxy-authorization: basic (\S+)/im.exec(head)?.[1]
  if (given !== Buffer.from(`${user}:${password}`).toString("base64")) {
    socket.end("HTTP/1.0 407 Proxy Authentication Required\r\n\r\n")
    return undefined
  }
  return { host, port: Number(port), good: "HTTP/1.0 200 OK\r\n\r\n" }
}

const readSocks = async (next: () => Promise<Buffer>, socket: Socket): Promise<Asked | undefined> => {
  const greeting = await next()
  if (!greeting.subarray(2).includes(2)) {
    socket.end(Buffer.from([5, 0xff]))
    return undefined
  }
  socket.write(Buffer.from([5, 2]))
  const login = await next()
  const length = login[1] as number
  const name = login.toString("utf8", 2, 2 + length)
  const secret = login.toString("utf8", 3 + length)
  if (name !== user || secret !== password) {
    socket.end(Buffer.from([1, 1]))
    return undefined
  }
  socket.write(Buffer.from([1, 0]))
  const request = await next()
  // Addresses of relays only: version 4, four bytes.
  const host = [...request.subarray(4, 8)].join(".")
  return { host, port: request.readUInt16BE(8), good: Buffer.from([5, 0, 0, 1, 0, 0, 0, 0, 0, 0]) }
}

/** Starts one. Messages of a handshake are taken to come in one piece each, as tor sends them. */
export const countingProxy = async (kind: "http" | "socks5"): Promise<CountingProxy> => {
  const sockets = new Set<Socket>()
  let made = 0
  let refused = 0
  const keep = (socket: Socket): Socket => {
    sockets.add(socket)
    socket.on("error", () => socket.destroy())
    socket.on("close", () => sockets.delete(socket))
    return socket
  }
  const serve = async (socket: Socket): Promise<void> => {
    const next = () =>
      new Promise<Buffer>((resolve, reject) => {
        socket.once("data", resolve)
        socket.once("close", () => reject(new Error("closed")))
      })
    const asked = await (kind === "http" ? readHttp : readSocks)(next, socket)
    if (asked === undefined) {
      refused++
      return
    }
    const onward = keep(connect({ host: asked.host, port: asked.port }))
    onward.once("connect", () => {
      made++
      socket.write(asked.good)
      socket.pipe(onward).pipe(socket)
    })
    onward.once("close", () => socket.destroy())
    socket.once("close", () => onward.destroy())
  }
  const server: Server = createServer((socket) => void serve(keep(socket)).catch(() => socket.destroy()))
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  const address = server.address()
  if (address === null || typeof address === "string") throw new Error("a TCP server has a port")
  return {
    port: address.port,
    made: () => made,
    refused: () => refused,
    close: async () => {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    }
  }
}
