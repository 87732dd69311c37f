/** Settings become lines of torrc, and never others than those they are. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Redacted, Schema } from "effect"
import * as fc from "fast-check"
import { torInfo } from "../../../src/adapters/tor/TorControl.ts"
import { openTor } from "../../../src/adapters/tor/TorNode.ts"
import { torQuoted, torrcOf } from "../../../src/adapters/tor/Torrc.ts"
import { isOnionOrigin, OnionHost } from "../../../src/schemas/Onion.ts"
import {
  endpointText,
  parseEndpoint,
  parseProxy,
  torSettings,
  torSocks
} from "../../../src/schemas/TorSettings.ts"
import { describeWith } from "../../support/requires.ts"
import { folderOf, settingsOf } from "./support.ts"

const takes = (schema: Schema.Codec<unknown, unknown>, value: unknown): boolean =>
  Schema.decodeUnknownExit(schema)(value)._tag === "Success"
const one = (key: "bridges" | "transports" | "options") => (line: string) =>
  takes(torSettings[key] as never, [line])

const fingerprint = "0123456789ABCDEF0123456789ABCDEF01234567"

describe("settings of Tor", () => {
  it.each([
    "192.0.2.7:443",
    `192.0.2.7:443 ${fingerprint}`,
    `Bridge obfs4 192.0.2.7:443 ${fingerprint} cert=abc+/def iat-mode=0`,
    `obfs4 [2001:db8::1]:443 ${fingerprint} cert=abc iat-mode=1`,
    `snowflake 192.0.2.3:80 ${fingerprint} fingerprint=${fingerprint} url=https://example.net/ fronts=a.example,b.example ice=stun:stun.example:443`
  ])("take the bridge %s", (line) => expect(one("bridges")(line)).toBe(true))

  it.each([
    "192.0.2.7",
    "bridge.example:443",
    "192.0.2.7:443\nSocksPort 9050",
    "192.0.2.7:443 # no",
    "192.0.2.7:443 \\",
    '"192.0.2.7:443"',
    " 192.0.2.7:443",
    "192.0.2.7:443  x=1",
    `obfs4 192.0.2.7:443 ${fingerprint} cert=a${"b".repeat(2_000)}`
  ])("refuse the bridge %j", (line) => expect(one("bridges")(line)).toBe(false))

  it.each([
    ["obfs4 exec /usr/bin/obfs4proxy", true],
    ["obfs4,meek_lite exec /usr/bin/obfs4proxy -logLevel INFO", true],
    ["obfs4 exec obfs4proxy", false],
    ["obfs4 socks5 127.0.0.1:9999", false],
    ['obfs4 exec /bin/sh -c "x"', false]
  ])("judge the transport %j", (line, isGood) => expect(one("transports")(line as string)).toBe(isGood))

  it.each([
    ["TestingTorNetwork 1", true],
    ["DirAuthority a orport=5000 no-v2 v3ident=00 127.0.0.1:5001 0000", true],
    ["NumEntryGuards 2", true],
    ["Sandbox 1", true],
    ["SocksPort 9050", false],
    ["socksport 9050", false],
    // tor takes the beginning of a key for the key.
    ["SocksPor 9050", false],
    ["Sock 9050", false],
    ["HiddenServiceDir /x", false],
    ["HiddenServicePort 80", false],
    ["Log debug stdout", false],
    ["%include /etc/passwd", false],
    ["+DataDirectory /x", false],
    ["__SocksPort 9050", false],
    ["DataDirectory", false],
    ["NumEntryGuards 2\\", false],
    ["NumEntryGuards 2\r\nSocksPort 1", false]
  ])("judge the option %j", (line, isGood) => expect(one("options")(line as string)).toBe(isGood))

  it.each([
    ["127.0.0.1:9050", { host: "127.0.0.1", port: 9050 }],
    ["[::1]:9050", { host: "::1", port: 9050 }],
    ["unix:/run/tor/socks", { path: "/run/tor/socks" }]
  ])("take %s for an endpoint, and write it the same", (text, endpoint) => {
    expect(takes(torSocks, text)).toBe(true)
    expect(parseEndpoint(text as string)).toEqual(endpoint)
    expect(endpointText(parseEndpoint(text as string))).toBe(text)
  })

  it.each(["127.0.0.1", "127.0.0.1:99999", "unix:socks", "127.0.0.1:9050 IsolateDestAddr", "http://x:1"])(
    "do not take %s for one",
    (text) => expect(takes(torSocks, text)).toBe(false)
  )

  it.each([
    ["http://proxy.example:3128", { kind: "http", host: "proxy.example", port: 3128, credentials: null }],
    ["socks5://[::1]:1080", { kind: "socks5", host: "::1", port: 1080, credentials: null }],
    [
      "http://me:p%40ss%20%22word%22@192.0.2.1:80",
      { kind: "http", host: "192.0.2.1", port: 80, credentials: { user: "me", password: 'p@ss "word"' } }
    ]
  ])("take %s for a proxy", (text, proxy) => expect(parseProxy(text as string)).toEqual(proxy))

  it.each([
    "https://proxy.example:3128",
    "http://proxy.example",
    "http://proxy.example:99999",
    "http://me@proxy.example:80",
    "http://me:x%0Ay@proxy.example:80",
    "http://me:x%7Fy@proxy.example:80",
    "http://a%3Ab:x@proxy.example:80",
    "http://proxy.example:80/path",
    "http://pro xy:80"
  ])("do not take %s for one", (text) => expect(parseProxy(text)).toBeUndefined())

  it("tell onion addresses from others", () => {
    const host = `${"a".repeat(55)}d.onion`
    expect(takes(OnionHost, host)).toBe(true)
    expect(takes(OnionHost, `${"a".repeat(56)}.onion`)).toBe(false)
    for (const origin of [`http://${host}`, `http://${host}:80`, "http://short.onion", "http://X.ONION."])
      expect(isOnionOrigin(origin)).toBe(true)
    for (const origin of ["http://onion", "http://x.onion.example", "https://postern.example:443"])
      expect(isOnionOrigin(origin)).toBe(false)
  })
})

describe("the torrc", () => {
  const torrc = (lines: ReadonlyArray<string>, folder = "/x") =>
    torrcOf({ folder, settings: settingsOf(), proxy: null, socks: true, lines })

  it("has no line but those it was given, whatever texts hold", () => {
    const plain = torrc([]).split("\n").length
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        fc.pre(!text.includes("\0"))
        expect(torQuoted(text)).toMatch(/^"(?:[A-Za-z0-9/._-]|\\[0-7]{3})*"$/)
        expect(torrc([`HiddenServiceDir ${torQuoted(text)}`], `/x${text}`).split("\n")).toHaveLength(
          plain + 1
        )
      })
    )
  })

  it.each(["SocksPort 1\nControlPort 2", "A b\r", "A b\\", "A \0"])(
    "is not written with the line %j",
    (line) => {
      expect(() => torrc([line])).toThrow(RangeError)
    }
  )
})

describeWith(["tor"], "what tor reads of it", () => {
  // As tor writes them: quoted where it must.
  const cases = [
    ["http", String.raw`HTTPSProxyAuthenticator "a \\\"#\'b:c%d\\"`],
    ["socks5", "Socks5ProxyPassword c%d\\"]
  ] as const
  it.live.each(cases)("is what was meant, with a %s proxy, strange letters and all", ([kind, line]) =>
    Effect.gen(function* () {
      const folder = `${yield* folderOf("tor rc#")}/tor`
      const settings = settingsOf({ reachable_ports: [443, 80], bridges: [`192.0.2.7:443 ${fingerprint}`] })
      const user = encodeURIComponent(`a \\"#'b`)
      const proxy = Redacted.make(`${kind}://${user}:c%25d%5C@127.0.0.1:3128`)
      const { control } = yield* openTor({
        folder,
        settings,
        proxy,
        socks: true,
        lines: ["LogTimeGranularity 1"]
      })
      if (control === null) throw new Error("a tor of one's own takes commands")
      const lines = (yield* torInfo(control, "config-text")).split("\n")
      expect(lines).toContain(`DataDirectory "${folder}/data"`)
      expect(lines).toContain("ReachableAddresses *:443, *:80")
      expect(lines).toContain(`Bridge 192.0.2.7:443 ${fingerprint}`)
      expect(lines).toContain("NoExec 1")
      expect(lines).toContain("ClientOnly 1")
      expect(lines).toContain("LogTimeGranularity 1")
      expect(lines).toContain(line)
    })
  )
})
