import { once } from "node:events"
import { connect, createServer, type Server, type Socket } from "node:net"
import { afterEach, beforeEach, expect, it } from "vitest"
import { makeAddressWatch } from "../../../src/adapters/net/AddressWatch.ts"
import { waitUntil } from "../../support/Program.ts"

let server: Server
const open: Array<Socket> = []

beforeEach(async () => {
  server = createServer((socket) => {
    socket.on("error", () => undefined)
    open.push(socket)
  }).listen(0, "127.0.0.1")
  await once(server, "listening")
})
afterEach(() => {
  for (const socket of open.splice(0)) socket.destroy()
  server.close()
})

const connected = async (localAddress: string): Promise<Socket> => {
  const { port } = server.address() as { readonly port: number }
  const socket = connect({ host: "127.0.0.1", port, localAddress })
  open.push(socket)
  await once(socket, "connect")
  return socket
}

it("cuts a connection whose address the machine has lost, and no other", async () => {
  let addresses: ReadonlySet<string> | undefined = new Set(["127.0.0.1", "127.0.0.2"])
  const watch = makeAddressWatch({ addresses: () => addresses, intervalMs: 5 })
  const [kept, lost] = [await connected("127.0.0.1"), await connected("127.0.0.2")]
  const errors: Array<string> = []
  lost.on("error", (error) => errors.push(error.message))
  watch.watch(kept)
  watch.watch(lost)
  addresses = new Set(["127.0.0.1"])
  await waitUntil("the cut", () => lost.destroyed && errors.length > 0)
  expect(errors).toEqual(["this machine no longer has the address 127.0.0.2, which it was reached from"])
  expect(kept.destroyed).toBe(false)
  watch.stop()
})

it("lets an address be missing for one look, and nothing be known at all", async () => {
  const told: Array<ReadonlySet<string> | undefined> = [
    ...[new Set<string>(), new Set(["127.0.0.1"]), undefined, new Set<string>(), new Set(["127.0.0.1"])]
  ]
  let looks = 0
  const addresses = () => {
    looks++
    return told.shift()
  }
  const watch = makeAddressWatch({ addresses, intervalMs: 5 })
  const socket = await connected("127.0.0.1")
  watch.watch(socket)
  await waitUntil("enough looks", () => looks > 8)
  expect(socket.destroyed).toBe(false)
  watch.stop()
})

it("looks at the machine's own addresses by itself, and only as long as there are connections", async () => {
  const own = makeAddressWatch({ intervalMs: 1 })
  let looks = 0
  const counted = makeAddressWatch({
    addresses: () => {
      looks++
      return undefined
    },
    intervalMs: 1
  })
  const socket = await connected("127.0.0.1")
  own.watch(socket)
  counted.watch(socket)
  await waitUntil("some looks", () => looks > 20)
  expect(socket.destroyed).toBe(false)
  socket.destroy()
  await once(socket, "close")
  const atEnd = looks
  const another = await connected("127.0.0.1")
  await new Promise((resolve) => setImmediate(resolve))
  expect(looks).toBe(atEnd)
  another.destroy()
  own.stop()
})
