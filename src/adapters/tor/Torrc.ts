/**
 * tor's configuration, written from settings. Nothing that comes from outside can begin another line: texts are written as
 * quoted strings in which all but plain letters are escaped, lines of the owner's own have passed their schema, and the
 * whole is looked through once more before it is written.
 *
 * @module
 */
import { join } from "node:path"
import { parseEndpoint, type TorSettings, type UpstreamProxy } from "../../schemas/TorSettings.ts"

/** Where a tor of our own has its files. */
export const torPaths = (folder: string) => ({
  torrc: join(folder, "torrc"),
  /** In place of the system's defaults, which are another tor's. */
  defaults: join(folder, "defaults"),
  /** A file without content: which country has which address is nothing we need. */
  empty: join(folder, "empty"),
  data: join(folder, "data"),
  control: join(folder, "control"),
  socks: join(folder, "socks"),
  pid: join(folder, "pid")
})

/** What the kernel takes as the address of a Unix socket. */
const socketPathBytes = 107

/** Why a folder cannot hold tor's sockets; undefined where it can. */
export const folderObstacle = (folder: string): string | undefined =>
  Buffer.byteLength(torPaths(folder).control) > socketPathBytes
    ? `its control socket would have a path of more than ${socketPathBytes} bytes`
    : undefined

/** A text as tor's quoted string: all bytes but plain letters as octal escapes. */
export const torQuoted = (text: string): string => {
  if (text.includes("\0")) throw new RangeError("tor's configuration cannot hold a NUL")
  const escaped = [...Buffer.from(text)].map((byte) => {
    const letter = String.fromCharCode(byte)
    return /[A-Za-z0-9/._-]/.test(letter) ? letter : `\\${byte.toString(8).padStart(3, "0")}`
  })
  return `"${escaped.join("")}"`
}

/** A Unix socket as tor's port options take it. */
export const torUnixAddress = (path: string): string => `unix:${torQuoted(path)}`

export interface TorrcOptions {
  readonly folder: string
  readonly settings: TorSettings
  readonly proxy: UpstreamProxy | null
  /** Whether it serves as the way into Tor's network for this program. */
  readonly socks: boolean
  /** The program's own further lines, last of all: onion services. */
  readonly lines: ReadonlyArray<string>
}

const hostPort = ({ host, port }: UpstreamProxy): string =>
  `${host.includes(":") ? `[${host}]` : host}:${port}`

const proxyLines = (proxy: UpstreamProxy | null): ReadonlyArray<string> => {
  if (proxy === null) return []
  const { credentials, kind } = proxy
  if (kind === "http") {
    const authenticator = credentials === null ? [] : [`${credentials.user}:${credentials.password}`]
    return [
      `HTTPSProxy ${hostPort(proxy)}`,
      ...authenticator.map((text) => `HTTPSProxyAuthenticator ${torQuoted(text)}`)
    ]
  }
  return [
    `Socks5Proxy ${hostPort(proxy)}`,
    ...(credentials === null
      ? []
      : [
          `Socks5ProxyUsername ${torQuoted(credentials.user)}`,
          `Socks5ProxyPassword ${torQuoted(credentials.password)}`
        ])
  ]
}

const reachLines = ({ bridges, reachable_ports, transports }: TorSettings): ReadonlyArray<string> => [
  ...transports.map((line) => `ClientTransportPlugin ${line}`),
  ...(bridges.length === 0 ? [] : ["UseBridges 1"]),
  ...bridges.map((line) => `Bridge ${line.replace(/^Bridge /, "")}`),
  ...(reachable_ports.length === 0
    ? []
    : [`ReachableAddresses ${reachable_ports.map((port) => `*:${port}`).join(", ")}`])
]

const whole = (lines: ReadonlyArray<string>): string => {
  const bad = lines.find((line) => /[\p{Cc}]|\\$/u.test(line))
  if (bad !== undefined)
    throw new RangeError(`a line of tor's configuration would be two: ${JSON.stringify(bad)}`)
  return `${lines.join("\n")}\n`
}

/**
 * What holds unless the owner's own lines say otherwise.
 *
 * - `AvoidDiskWrites` spares cards; `DormantCanceledByStartup` lets tor begin at once after a long silence.
 * - The tables of countries serve only those who choose relays by them, and take a third of the time of a start.
 */
export const torDefaults = (folder: string): string =>
  whole([
    "AvoidDiskWrites 1",
    "DormantCanceledByStartup 1",
    `GeoIPFile ${torQuoted(torPaths(folder).empty)}`,
    `GeoIPv6File ${torQuoted(torPaths(folder).empty)}`
  ])

/**
 * The torrc, which is the same at every start with the same settings. Control and SOCKS are Unix sockets in a folder of the program's own: no other user of the machine can use this
 * tor, nor the device's keys with it. tor may start no other program, but for transports.
 *
 * @throws RangeError where something would become a second line, which schemas keep from happening
 */
export const torrcOf = (options: TorrcOptions): string => {
  const { folder, lines, proxy, settings, socks } = options
  const paths = torPaths(folder)
  return whole([
    `DataDirectory ${torQuoted(paths.data)}`,
    `ControlPort ${torUnixAddress(paths.control)}`,
    socks ? `SocksPort ${torUnixAddress(paths.socks)} ExtendedErrors` : "SocksPort 0",
    "Log notice stdout",
    "ClientOnly 1",
    `NoExec ${settings.transports.length === 0 ? 1 : 0}`,
    ...proxyLines(proxy),
    ...reachLines(settings),
    ...settings.options,
    ...lines
  ])
}

/** Which tor is to be used, if one runs already. */
export const runningTor = ({ control, socks }: TorSettings) => ({
  control: control === null ? null : parseEndpoint(control),
  socks: socks === null || socks === undefined ? null : parseEndpoint(socks)
})
