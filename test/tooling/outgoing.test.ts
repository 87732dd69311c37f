/**
 * Whoever opens connections or looks up names stands in this list, with the reason why that keeps to the device's routes
 * (src/adapters/net/Routes.ts): where all is to go through Tor, nothing else may leave.
 */
import { join } from "node:path"
import { describe, expect, it } from "vitest"
import { dottedName, type Node, parse, type Source, walk } from "./tidy/Source.ts"
import { readTree } from "./tidy/Tidy.ts"

const allowed: Readonly<Record<string, string>> = {
  "src/adapters/HttpTransport.ts": "the one way of requests: its agents take the line of a route",
  "src/adapters/net/Lines.ts":
    "the agents themselves; a direct line is Node's own, and a route of its own kind",
  "src/adapters/net/Connections.ts": "long connections, by the route that each address has",
  "src/adapters/mqtt/BrokerDial.ts": "a WebSocket on a connection that Connections made",
  "src/adapters/mqtt/MqttBus.ts": "MQTT on a stream that BrokerDial made",
  "src/adapters/net/Wire.ts": "connects to proxies and to a tor's SOCKS port",
  "src/adapters/connectivity/Answers.ts": "the look at the network: only at what the routes reach directly",
  "src/adapters/connectivity/Targets.ts":
    "looks up what that look may speak to, and nothing where all goes through Tor",
  "src/adapters/connectivity/Below.ts":
    "asks the kernel for routes: a datagram socket that is connected sends nothing",
  "src/adapters/doctor/ReachChecks.ts": "looks up names of direct routes only",
  "src/adapters/operator/ManagementClient.ts":
    "the operator's, without a proxy and for no onion address; a device has none",
  "src/adapters/ControlSocket.ts": "a socket of this machine, in the state folder",
  "src/adapters/agent/RemoteDesk.ts": "the agent's socket of this machine, in the state folder",
  "src/adapters/tor/TorControl.ts": "a tor's control port or socket",
  "src/adapters/tor/TorNode.ts": "a tor's SOCKS port or socket, to see whether it is there",
  "src/adapters/warden/WardenLink.ts": "a socket inherited from the warden",
  "src/adapters/jail/Output.ts": "a job's pipes",
  "src/adapters/mosquitto/Line.ts": "the server's, to the Mosquitto that its owner names",
  "src/adapters/mqtt/EmbeddedBroker.ts": "the server's: takes WebSockets that its HTTP doors hand over",
  "src/programs/server/Tracing.ts": "the server's traces, to a collector that its owner names",
  "src/programs/demo/TorStory.ts": "the demo, by loopback"
}

const networkModules = /^node:(net|tls|http|https|http2|dns|dns\/promises|dgram|inspector)$/
/** What cannot reach out: whole numbers and names, listeners. */
const harmless = new Set([
  "isIP",
  "isIPv4",
  "isIPv6",
  "createServer",
  "checkServerIdentity",
  "ServerResponse",
  "STATUS_CODES"
])
const outwardPackages =
  /^(undici|mqtt(\/.*)?|ws|socks|socks-proxy-agent|@effect\/platform-node\/Node(Http|Socket|Redis).*)$/
const outwardGlobals = new Set([
  "fetch",
  "globalThis.fetch",
  "WebSocket",
  "EventSource",
  "globalThis.WebSocket"
])

const isTypeOnly = (node: Node): boolean => node["importKind"] === "type" || node["exportKind"] === "type"

const nameOf = (specifier: Node): string =>
  specifier.type === "ImportSpecifier" ? String((specifier["imported"] as Node)["name"]) : "*"

/** What of a module a file takes in that can reach out. */
const outwardImports = ({ program }: Source): ReadonlyArray<string> => {
  const found: Array<string> = []
  walk(program, (node) => {
    if (node.type === "ImportExpression" || (node.type === "ExportAllDeclaration" && !isTypeOnly(node))) {
      const from = String((node["source"] as Node)["value"])
      if (networkModules.test(from) || outwardPackages.test(from)) found.push(from)
    }
    if (node.type !== "ImportDeclaration" || isTypeOnly(node)) return
    const from = String((node["source"] as Node)["value"])
    const taken = (node["specifiers"] as ReadonlyArray<Node>).filter((one) => !isTypeOnly(one)).map(nameOf)
    if (outwardPackages.test(from)) found.push(from)
    if (networkModules.test(from))
      found.push(...taken.filter((name) => !harmless.has(name)).map((name) => `${from} ${name}`))
    if (from === "effect/http" && taken.includes("FetchHttpClient")) found.push("effect/http FetchHttpClient")
  })
  return found
}

/** Uses of what Node has without an import. A name that the file itself declares is another. */
const outwardUses = ({ program }: Source): ReadonlyArray<string> => {
  const found = new Set<string>()
  const declared = new Set<string>()
  walk(program, (node) => {
    if (node.type === "VariableDeclarator") declared.add(String((node["id"] as Node)["name"]))
    if (node.type === "CallExpression" || node.type === "NewExpression") {
      const name = dottedName(node["callee"])
      if (name !== undefined && outwardGlobals.has(name)) found.add(name)
      if (name?.endsWith("getBuiltinModule")) {
        const [wanted] = node["arguments"] as ReadonlyArray<Node>
        if (networkModules.test(String(wanted?.["value"]))) found.add(`${name} ${wanted?.["value"]}`)
      }
      for (const argument of node["arguments"] as ReadonlyArray<Node>)
        if (argument.type === "Identifier" && outwardGlobals.has(String(argument["name"])))
          found.add(String(argument["name"]))
    }
  })
  return [...found].filter((name) => !declared.has(name))
}

const outward = (path: string, text: string): ReadonlyArray<string> => {
  const source = parse(path, text)
  return [...outwardImports(source), ...outwardUses(source)]
}

describe("what reaches out of this machine", () => {
  const tree = readTree(join(import.meta.dirname, "../.."))
  const sources = [...tree].filter(([path]) => /^src\/.*\.ts$/.test(path))

  it("stands in the list", () => {
    const others = sources.flatMap(([path, text]) =>
      path in allowed ? [] : outward(path, text).map((what) => `${path}: ${what}`)
    )
    expect(others).toEqual([])
  })

  it("is all that stands in the list", () => {
    const idle = Object.keys(allowed).filter((path) => outward(path, tree.get(path) ?? "").length === 0)
    expect(idle).toEqual([])
  })

  const cases: ReadonlyArray<readonly [string, string]> = [
    ["a connection", 'import { connect } from "node:net"\n'],
    ["a connection beside types", 'import { type Socket, connect } from "node:tls"\n'],
    ["a whole module", 'import * as dns from "node:dns"\n'],
    ["a lookup", 'import { lookup } from "node:dns/promises"\n'],
    ["a late import", 'const net = await import("node:net")\n'],
    ["a module of Node's", 'const net = process.getBuiltinModule("node:net")\n'],
    ["fetch", 'await fetch("http://postern.example")\n'],
    ["fetch handed on", "use(fetch)\n"],
    ["a web socket", 'new WebSocket("ws://postern.example")\n'],
    ["Effect's own", 'import { FetchHttpClient } from "effect/http"\n'],
    ["a package", 'import { request } from "undici"\n']
  ]
  it.each(cases)("is found: %s", (_, text) => {
    expect(outward("src/adapters/Some.ts", text)).not.toEqual([])
  })

  it("is not what only listens or names types", () => {
    const text =
      'import { type Socket, createServer, isIP } from "node:net"\nimport type { Agent } from "node:http"\n'
    expect(outward("src/adapters/Some.ts", `${text}const fetch = () => 1\nfetch()\n`)).toEqual([])
  })
})
