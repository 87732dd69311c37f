/**
 * The client's half of SOCKS 5 (RFC 1928, user names after RFC 1929), with the further replies that tor gives for onion
 * addresses (tor's socks-extensions). Names are sent as they are: the proxy resolves them, never this machine.
 *
 * @module
 */
import { isIPv4, isIPv6 } from "node:net"
import { concatBytes, utf8 } from "../../crypto/Bytes.ts"
import { isOnionOrigin } from "../../schemas/Onion.ts"
import { RouteError } from "./RouteError.ts"
import type { Target, Wire } from "./Wire.ts"

/** What the proxy is shown. Tor keeps streams of different user names on different circuits. */
export interface SocksUser {
  readonly name: string
  readonly password: string
}

const version = 5
const noAuthentication = 0
const byPassword = 2
const connectCommand = 1
const addressKind = { ipv4: 1, name: 3, ipv6: 4 } as const
const longestText = 255
const addressLengths: Readonly<Record<number, number>> = { [addressKind.ipv4]: 4, [addressKind.ipv6]: 16 }

/** By reply; those above 0xef are tor's own. */
const refusals: Readonly<Record<number, () => RouteError>> = {
  1: () => new RouteError("the proxy could not reach it, and does not say why"),
  2: () => new RouteError("the proxy does not let us connect to it", "proxy_refused"),
  3: () => new RouteError("the proxy has no network to it"),
  4: () => new RouteError("the proxy does not reach it, or does not know its name"),
  5: () => new RouteError("nobody listens there"),
  6: () => new RouteError("the proxy got no connection to it in time"),
  7: () => new RouteError("the proxy does not make connections", "proxy_refused"),
  8: () => new RouteError("the proxy does not take such addresses", "proxy_refused"),
  240: () =>
    new RouteError(
      "no onion service is published there: the server is down, has just started, or has another address",
      "onion_not_found"
    ),
  241: () => new RouteError("what is published of that onion service does not hold", "onion_not_found"),
  242: () => new RouteError("the onion service does not answer the knock", "onion_intro_failed"),
  243: () => new RouteError("the onion service did not come to the meeting point", "onion_intro_failed"),
  244: () =>
    new RouteError("the onion service wants a key that Tor here was not given", "onion_not_authorised"),
  245: () => new RouteError("the onion service does not accept this device's key", "onion_not_authorised"),
  246: () => new RouteError("it is no onion address: it is mistyped or cut", "onion_not_found"),
  247: () => new RouteError("the onion service did not answer the knock in time", "onion_intro_failed")
}

/**
 * Without ExtendedErrors at its SOCKS port, as Debian's, tor gives one of these for a service that is not published, for one
 * that wants another key, and for one that does not answer.
 */
const unexplaining: ReadonlySet<number> = new Set([1, 4])

const refusalOf = (reply: number, target: Target): RouteError => {
  if (unexplaining.has(reply) && isOnionOrigin(`http://${target.host}`))
    return new RouteError(
      "Tor does not reach the onion service, and does not say why: it says more with ExtendedErrors at its SocksPort",
      "onion_unexplained"
    )
  return refusals[reply]?.() ?? new RouteError(`the proxy refused it (reply ${reply})`, "proxy_refused")
}

const unsigned16 = (value: number): Uint8Array => Uint8Array.of(value >> 8, value & 0xff)

const withLength = (text: string): Uint8Array => {
  const bytes = utf8(text)
  return concatBytes(Uint8Array.of(bytes.length), bytes)
}

/** The 16 bytes of an address that is known to be IPv6. */
const ipv6Bytes = (host: string): Uint8Array => {
  const [before = "", after] = host.split("::")
  const words = (part: string): ReadonlyArray<number> =>
    part === ""
      ? []
      : part.split(":").flatMap((word) => {
          if (!word.includes(".")) return [Number.parseInt(word, 16)]
          const [a = 0, b = 0, c = 0, d = 0] = word.split(".").map(Number)
          return [a * 256 + b, c * 256 + d]
        })
  const [head, tail] = [words(before), words(after ?? "")]
  const zeros = after === undefined ? [] : Array<number>(8 - head.length - tail.length).fill(0)
  return concatBytes(...[...head, ...zeros, ...tail].map(unsigned16))
}

const addressBytes = (host: string): Uint8Array => {
  if (isIPv4(host)) return Uint8Array.of(addressKind.ipv4, ...host.split(".").map(Number))
  if (isIPv6(host)) return concatBytes(Uint8Array.of(addressKind.ipv6), ipv6Bytes(host))
  return concatBytes(Uint8Array.of(addressKind.name), withLength(host))
}

/** Whether a text can be sent as a name, user name or password. */
const isSendable = (text: string): boolean => text !== "" && utf8(text).length <= longestText

const authenticate = async (wire: Wire, user: SocksUser): Promise<void> => {
  wire.write(concatBytes(Uint8Array.of(1), withLength(user.name), withLength(user.password)))
  const [, status] = await wire.take(2)
  if (status !== 0)
    throw new RouteError("the proxy does not accept the user name and password", "proxy_refused")
}

/** What ends every reply: the address the proxy connected from, which is no business of ours. */
const skipAddress = async (wire: Wire, kind: number): Promise<void> => {
  const length = kind === addressKind.name ? (await wire.take(1))[0] : addressLengths[kind]
  if (length === undefined) throw new RouteError("what answers is no SOCKS proxy", "proxy_unreachable")
  await wire.take(length + 2)
}

/**
 * Asks for a connection to the target. Reads at most some 520 bytes, and not one beyond the handshake.
 *
 * Rejects with a {@link RouteError}.
 */
export const socksHandshake = async (wire: Wire, target: Target, user: SocksUser | null): Promise<void> => {
  const texts = [target.host, ...(user === null ? [] : [user.name, user.password])]
  if (!texts.every(isSendable))
    throw new RouteError(`its name, or the proxy's user name, is longer than ${longestText} bytes`)
  wire.write(Uint8Array.of(version, 1, user === null ? noAuthentication : byPassword))
  const [spoken, method] = await wire.take(2)
  if (spoken !== version) throw new RouteError("what answers is no SOCKS proxy", "proxy_unreachable")
  if (method !== (user === null ? noAuthentication : byPassword))
    throw new RouteError(
      user === null ? "the proxy wants a user name and password" : "the proxy takes no user name",
      "proxy_refused"
    )
  if (user !== null) await authenticate(wire, user)
  wire.write(
    concatBytes(Uint8Array.of(version, connectCommand, 0), addressBytes(target.host), unsigned16(target.port))
  )
  const [again, reply = 0, , kind = 0] = await wire.take(4)
  if (again !== version) throw new RouteError("what answers is no SOCKS proxy", "proxy_unreachable")
  if (reply !== 0) throw refusalOf(reply, target)
  await skipAddress(wire, kind)
}
