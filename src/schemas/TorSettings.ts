/**
 * Settings of Tor that both programs have, to be spread into their tables. All that becomes a line of tor's configuration
 * is held so narrow here that no value can begin another line, a comment or a quoted string.
 */
import { Schema } from "effect"
import { intBetween } from "./Ids.ts"
import { Limits } from "./Limits.ts"
import { setting, unsetSetting } from "./Setting.ts"

/** Printable ASCII in words with one space between, without what tor's configuration gives a meaning: `"`, `\` and `#`. */
const plainWords = (pattern: RegExp) =>
  Schema.String.check(
    Schema.isMaxLength(Limits.torLineLength),
    Schema.isPattern(/^[!$-[\]-~]+(?: [!$-[\]-~]+)*$/),
    Schema.isPattern(pattern)
  )

const isPath = (endpoint: string): boolean => endpoint.startsWith("unix:")

/** `host:port`, `[address]:port` or `unix:/path`. */
const Endpoint = Schema.String.check(
  Schema.isMaxLength(Limits.addressLength),
  Schema.isPattern(
    /^(?:(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[1-9][0-9]{0,4}|unix:\/[A-Za-z0-9._/-]{1,100})$/
  ),
  Schema.makeFilter((text) => isPath(text) || Number(text.slice(text.lastIndexOf(":") + 1)) <= 65_535)
)

/** `[transport] address:port [fingerprint] [key=value …]`, as the Tor Project hands bridges out, with or without `Bridge`. */
const BridgeLine = plainWords(
  /^(?:Bridge )?(?:[A-Za-z_][A-Za-z0-9_]* )?(?:\d{1,3}(?:\.\d{1,3}){3}|\[[0-9A-Fa-f:.]+\]):[1-9]\d{0,4}(?: [0-9A-Fa-f]{40})?(?: [A-Za-z0-9_-]+=[^ ]*)*$/
)

/** `name[,name] exec /path [arguments]`. */
const TransportLine = plainWords(
  /^[A-Za-z_][A-Za-z0-9_]*(?:,[A-Za-z_][A-Za-z0-9_]*)* exec \/[^ ]+(?: [^ ]+)*$/
)

/**
 * Keys of tor's configuration that the program writes itself, or that would make a device something else than a client.
 * tor takes the beginning of a key for the key, so those are refused too.
 */
const ownKeys = [
  "Bridge",
  "UseBridges",
  "BridgeRelay",
  "CacheDirectory",
  "ClientOnionAuthDir",
  "ClientOnly",
  "ClientTransportPlugin",
  "ControlPort",
  "ControlPortWriteToFile",
  "ControlSocket",
  "CookieAuthentication",
  "CookieAuthFile",
  "DataDirectory",
  "DirPort",
  "DNSPort",
  "ExtORPort",
  "HashedControlPassword",
  "HiddenServiceDir",
  "HTTPSProxy",
  "HTTPSProxyAuthenticator",
  "HTTPTunnelPort",
  "KeyDirectory",
  "Log",
  "MetricsPort",
  "NATDPort",
  "NoExec",
  "ORPort",
  "PidFile",
  "ReachableAddresses",
  "RunAsDaemon",
  "ServerTransportPlugin",
  "Socks4Proxy",
  "Socks5Proxy",
  "Socks5ProxyPassword",
  "Socks5ProxyUsername",
  "SocksPolicy",
  "SocksPort",
  "TCPProxy",
  "TransPort",
  "User"
].map((key) => key.toLowerCase())

const isOwnKey = (key: string): boolean =>
  key.startsWith("hiddenservice") || ownKeys.some((own) => own.startsWith(key))

/** A line of tor's configuration of the owner's own. */
const OptionLine = plainWords(/^[A-Za-z][A-Za-z0-9]* /).check(
  Schema.makeFilter((line) => {
    const key = line.slice(0, line.indexOf(" "))
    return !isOwnKey(key.toLowerCase()) || `the program writes ${key} itself`
  })
)

const listOf = <S extends Schema.Codec<unknown, unknown>>(line: S) =>
  Schema.Array(line).check(Schema.isMaxLength(Limits.torLines))

/** Keys of the table `tor`, and of the server's `onion`. */
export const torSettings = {
  command: setting(
    Schema.String.check(Schema.isMaxLength(Limits.packagePathLength), Schema.isPattern(/^[^\p{C}]+$/u)),
    "tor",
    { description: "Tor's program: its name in the PATH, or its absolute path.", form: "a name or a path" }
  ),
  control: unsetSetting(Endpoint, {
    description:
      "The control port or socket of a Tor that runs already. Given, none is started; the running one must let this user in by its cookie, its password, or its socket's mode.",
    form: "host:port or unix:/path",
    fallback: "none: a Tor of its own is started where one is needed",
    example: "unix:/run/tor/control"
  }),
  control_password: unsetSetting(
    Schema.RedactedFromValue(Schema.String.check(Schema.isMaxLength(255), Schema.isPattern(/^[^\p{Cc}]+$/u))),
    {
      description: "The password of that control port, where it wants one.",
      form: "a text",
      fallback: "none",
      example: "a long password",
      secret: true
    }
  ),
  bridges: setting(listOf(BridgeLine), [], {
    description:
      "Bridges to enter Tor's network by, for networks that block its public relays. Each is a line as https://bridges.torproject.org hands them out.",
    form: `at most ${Limits.torLines} lines of [transport] address:port [fingerprint] [key=value …]`,
    example: [
      "obfs4 192.0.2.7:443 0123456789ABCDEF0123456789ABCDEF01234567 cert=c2VlIHRoZSBicmlkZ2Uncw iat-mode=0"
    ]
  }),
  transports: setting(listOf(TransportLine), [], {
    description: "Programs that disguise the way to a bridge: pluggable transports, each with its names.",
    form: `at most ${Limits.torLines} lines of name exec /path`,
    example: ["obfs4 exec /usr/bin/obfs4proxy"]
  }),
  reachable_ports: setting(
    Schema.Array(intBetween(1, 65_535)).check(Schema.isMaxLength(16), Schema.isUnique()),
    [],
    {
      description:
        "The only ports that the network lets out; relays on other ports are left alone. Empty: any port.",
      form: "at most 16 different port numbers",
      example: [443]
    }
  ),
  options: setting(listOf(OptionLine), [], {
    description:
      "Further lines of Tor's configuration, for networks of one's own and for researchers. What the program writes itself is refused.",
    form: `at most ${Limits.torLines} lines of a key and its value, without quotes, backslashes and #`,
    example: ["NumEntryGuards 2"]
  })
}

/** A Tor that runs already, by its SOCKS port. */
export const torSocks = unsetSetting(Endpoint, {
  description:
    "The SOCKS port of a Tor that runs already. Given, none is started. With `control` beside it, more can be told of its state, and onion addresses with client authorisation can be used.",
  form: "host:port or unix:/path",
  fallback: "none: a Tor of its own is started where one is needed",
  example: "127.0.0.1:9050"
})

/** Whatever Tor node is to be had, its settings. */
export interface TorSettings {
  readonly command: string
  /** Endpoints of a running tor; see {@link parseEndpoint}. */
  readonly socks?: string | null
  readonly control: string | null
  readonly control_password: (typeof torSettings.control_password)["Type"]
  readonly bridges: ReadonlyArray<string>
  readonly transports: ReadonlyArray<string>
  readonly reachable_ports: ReadonlyArray<number>
  readonly options: ReadonlyArray<string>
}

/** Where a Tor listens. */
export type TorEndpoint = { readonly path: string } | { readonly host: string; readonly port: number }

/** An endpoint of the configuration as what a socket takes. */
export const parseEndpoint = (text: string): TorEndpoint => {
  if (isPath(text)) return { path: text.slice("unix:".length) }
  const cut = text.lastIndexOf(":")
  return { host: text.slice(0, cut).replace(/^\[(.*)\]$/, "$1"), port: Number(text.slice(cut + 1)) }
}

/** The way back: `host:port`, `[address]:port` or `unix:/path`. */
export const endpointText = (endpoint: TorEndpoint): string =>
  "path" in endpoint
    ? `unix:${endpoint.path}`
    : `${endpoint.host.includes(":") ? `[${endpoint.host}]` : endpoint.host}:${endpoint.port}`

/** Letters of a URL's user and password: those that need no escape, and escapes of printable ASCII. */
const credential = "(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[2-7][0-9A-Fa-f])"
const proxyForm = new RegExp(
  `^(http|socks5)://(?:(${credential}{1,200}):(${credential}{1,200})@)?([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\]):([1-9][0-9]{0,4})$`
)

/** A proxy between this machine and the world. */
export interface UpstreamProxy {
  readonly kind: "http" | "socks5"
  readonly host: string
  readonly port: number
  readonly credentials: { readonly user: string; readonly password: string } | null
}

/** Takes a proxy's address apart; undefined where it is none. */
export const parseProxy = (text: string): UpstreamProxy | undefined => {
  const [, kind, user, password, host, port] = proxyForm.exec(text) ?? []
  if (kind === undefined || host === undefined || Number(port) > 65_535) return undefined
  const decoded = [user, password].map((part) => (part === undefined ? "" : decodeURIComponent(part)))
  const [name = "", secret = ""] = decoded
  // The user ends at the first colon in HTTP; 7F is no printable character.
  if (decoded.some((part) => part.includes("\x7f")) || (kind === "http" && name.includes(":")))
    return undefined
  return {
    kind: kind === "http" ? "http" : "socks5",
    host: host.replace(/^\[(.*)\]$/, "$1"),
    port: Number(port),
    credentials: user === undefined ? null : { user: name, password: secret }
  }
}

/** The upstream proxy's key. */
export const proxySetting = unsetSetting(
  Schema.RedactedFromValue(
    Schema.String.check(
      Schema.isMaxLength(Limits.proxyAddressLength),
      Schema.makeFilter((text) => parseProxy(text) !== undefined || "it is no proxy's address")
    )
  ),
  {
    description:
      "A proxy that every connection out of this network has to go through, Tor's own too: HTTP (with CONNECT) or SOCKS 5. Escape what is not a plain letter in user and password as in a URL.",
    form: "http://host:port or socks5://host:port, with user:password@ before the host where the proxy wants them",
    fallback: "none: connections are made directly",
    example: "http://proxy.example:3128",
    secret: true
  }
)
