/**
 * The client's half of HTTP CONNECT (RFC 9110, 9.3.6): the proxy connects, and hands on bytes. Names are sent as they
 * are, and plain `http://` goes through such a connection too, so that the proxy sees no request.
 *
 * @module
 */
import { encodeBase64 } from "../../crypto/Base64.ts"
import { utf8 } from "../../crypto/Bytes.ts"
import { RouteError } from "./RouteError.ts"
import type { SocksUser } from "./Socks5.ts"
import type { Target, Wire } from "./Wire.ts"

const headBytes = 16 * 1024

/** A gateway's own words for a target that it did not reach. */
const unreachedStatuses: Readonly<Record<number, string>> = {
  502: "the proxy could not reach it (502)",
  503: "the proxy could not reach it (503)",
  504: "the proxy got no connection to it in time (504)"
}

const refusal = (status: number): RouteError => {
  if (status === 407)
    return new RouteError("the proxy wants a user name and password, or another one (407)", "proxy_refused")
  const unreached = unreachedStatuses[status]
  return unreached === undefined
    ? new RouteError(`the proxy does not let us connect to it (${status})`, "proxy_refused")
    : new RouteError(unreached)
}

/** Asks for a connection to the target. Rejects with a {@link RouteError}. */
export const connectHandshake = async (wire: Wire, target: Target, user: SocksUser | null): Promise<void> => {
  const authority = `${target.host.includes(":") ? `[${target.host}]` : target.host}:${target.port}`
  const authorization =
    user === null
      ? ""
      : `Proxy-Authorization: Basic ${encodeBase64(utf8(`${user.name}:${user.password}`))}\r\n`
  wire.write(utf8(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n${authorization}\r\n`))
  const head = await wire.takeHead(headBytes)
  const status = /^HTTP\/1\.[01] ([1-5][0-9]{2})(?: |\r\n)/.exec(head)?.[1]
  if (status === undefined) throw new RouteError("what answers is no HTTP proxy", "proxy_unreachable")
  if (!status.startsWith("2")) throw refusal(Number(status))
}
