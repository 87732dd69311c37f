/**
 * The layers below any connection: interfaces from /sys, addresses as Node sees them, routes as the kernel decides them
 * (connecting a datagram socket sends nothing). Looking at them tells nobody anything.
 *
 * @module
 */
import { createSocket } from "node:dgram"
import { readdir } from "node:fs/promises"
import { isIP } from "node:net"
import { networkInterfaces } from "node:os"
import { join } from "node:path"
import { numberOf, textOf } from "../host/Reading.ts"
import type { Trouble } from "./Targets.ts"

/** The kernel's number for loopback interfaces. */
const loopbackType = 772
/** Addresses that stand for the world beyond the gateway (RFC 5737, RFC 3849): nothing is ever sent to them. */
const elsewhere = ["192.0.2.1", "2001:db8::1"]
const maximumRoutes = 8

/** Interfaces but loopback, and those of them that carry a signal. */
export const linkTrouble = async (sys: string): Promise<Trouble> => {
  const folder = join(sys, "class/net")
  const names = await readdir(folder).catch(() => [])
  const isOutward = await Promise.all(
    names.map(async (name) => (await numberOf(join(folder, name, "type"))) !== loopbackType)
  )
  const outward = names.filter((_, index) => isOutward[index] && names[index] !== "bonding_masters")
  const states = await Promise.all(outward.map((name) => textOf(join(folder, name, "operstate"), 32)))
  // Point-to-point interfaces do not know their state.
  if (states.some((state) => state === "up" || state === "unknown")) return undefined
  return outward.length === 0
    ? "there is no interface but loopback"
    : outward.map((name, index) => `${name} is ${states[index] ?? "unknown"}`).join(", ")
}

/** Whether any interface has an address that leads beyond its own wire. */
export const addressTrouble = (): Trouble => {
  const outward = Object.entries(networkInterfaces()).flatMap(([name, addresses = []]) =>
    addresses.filter(({ internal }) => !internal).map(({ address }) => ({ name, address }))
  )
  if (outward.some(({ address }) => !/^(?:fe[89ab][0-9a-f]:|169\.254\.)/i.test(address))) return undefined
  return outward.length === 0
    ? "no interface has an address"
    : `only addresses of the wire itself: ${outward.map(({ address, name }) => `${name} ${address}`).join(", ")}`
}

/** The address of this machine that a way begins at, or why the kernel knows none. */
type Way = { readonly from: string } | { readonly trouble: string }

const wayTo = (address: string): Promise<Way> =>
  new Promise((resolve) => {
    const socket = createSocket(isIP(address) === 6 ? "udp6" : "udp4")
    const done = (way: Way) => {
      socket.removeAllListeners()
      socket.on("error", () => undefined)
      socket.close()
      resolve(way)
    }
    socket.once("error", (error) => done({ trouble: `${address}: ${error.message}` }))
    socket.once("connect", () => done({ from: socket.address().address }))
    socket.connect(9, address)
  })

/** Why the kernel knows no way to an address; undefined where it does. */
const routeTo = async (address: string): Promise<Trouble> => {
  const way = await wayTo(address)
  return "from" in way ? undefined : way.trouble
}

/**
 * The address that this machine would reach the first of some others from, or else the world beyond the gateway; null
 * where there is no way to any.
 */
export const outwardAddress = async (others: ReadonlyArray<string> = []): Promise<string | null> => {
  const ways = await Promise.all([...others.slice(0, maximumRoutes), ...elsewhere].map(wayTo))
  return ways.find((way) => "from" in way)?.from ?? null
}

/** A way to one of the addresses, or to the world beyond the gateway, is a way. */
export const routeTrouble = async (addresses: ReadonlyArray<string>): Promise<Trouble> => {
  const wanted = addresses.slice(0, maximumRoutes)
  const found = await Promise.all([...wanted, ...elsewhere].map(routeTo))
  if (found.includes(undefined)) return undefined
  return wanted.length === 0
    ? "there is no default route"
    : `there is no default route, nor one to ${found[0]}`
}
