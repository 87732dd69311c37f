/**
 * Devices behind firewalls: a world with a server and an operator, and behind gates of their own, each with its rules,
 * the devices. All of them are machines made of namespaces; nothing leaves these. Needs root and nftables.
 */
import { copyFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { type Link, type LinkSettings, startLink } from "./Link.ts"
import { Machine } from "./Machines.ts"
import { type Ended, waitUntil } from "./Program.ts"
import { onionSettings, ownTorNetwork, torSettings } from "./torNetwork.ts"

const dist = join(import.meta.dirname, "../../dist")

/** Where the world's server is: TLS at 443, and plain HTTP at another port, which firewalls know nothing of. */
export const worldAddress = "203.0.113.1"
export const plainPort = 8470
/** Where a gate's proxy listens, on its inner side. */
const proxyPort = 3128
/** Where the world's Tor relays are, all at port 443. */
const relayAddresses = [11, 12, 13, 14].map((last) => `203.0.113.${last}`)
/** The addresses of every inner network: the gate's, the device's at first, the one it may move to. */
export const inner = { gate: "10.0.0.1", device: "10.0.0.2", later: "10.0.0.77" }
const proxyUser = { name: "warehouse", password: "roof-and-rain" }
/** A gate's proxy, as a device's configuration names it. */
export const proxyUrl = `http://${proxyUser.name}:${proxyUser.password}@${inner.gate}:${proxyPort}`

/** Several devices at once bring their tor up, on few processors. */
const patienceMs = 180_000

/** Takes TLS connections to the server's own port. */
const terminator = `
const { readFileSync } = require("node:fs")
const { connect } = require("node:net")
const { createServer } = require("node:tls")
createServer({ key: readFileSync("key.pem"), cert: readFileSync("certificate.pem") }, (outer) => {
  const inner = connect(${plainPort}, "127.0.0.1")
  for (const [from, to] of [[outer, inner], [inner, outer]]) {
    from.on("error", () => to.destroy())
    from.on("close", () => to.destroy())
    from.pipe(to)
  }
}).listen(443, "${worldAddress}", () => console.log("listens"))
`

const certificate = [
  "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2",
  `-keyout key.pem -out certificate.pem -subj /CN=world -addext subjectAltName=IP:${worldAddress}`
].join(" ")

/** Tries to connect and says what came of it: `open`, `refused`, or nothing that ends before its patience does. */
const knock = `
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3])).close()
    print("open")
except ConnectionRefusedError: print("refused")
except OSError: print("silent")
`

/** How a gate stands between its device and the world. */
export interface GateOptions {
  /** What devices may open outwards, as a condition of nftables; everything ("") or nothing (null) else. */
  readonly outgoing: string | null
  /** Whether the gate runs an HTTP proxy that its devices may use, for CONNECT to these ports. */
  readonly proxy?: ReadonlyArray<number>
  /** How good the line from the gate to the world is; perfect without. */
  readonly line?: LinkSettings
}

/** Packets of a gate by what its rules made of them. */
export interface GateFigures {
  /** Connections that a device opened to the world. */
  readonly letOut: number
  /** Packets of a device that were not let through. */
  readonly keptIn: number
  /** Packets of the world that were not let through. */
  readonly keptOut: number
  /** Connections of a device to the gate's proxy. */
  readonly toProxy: number
}

const rules = ({ outgoing, proxy }: GateOptions): string => `
table ip gate {
  counter let_out {}
  counter kept_in {}
  counter kept_out {}
  counter to_proxy {}
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    ct state invalid drop
    ${outgoing === null ? "" : `iifname "inside" oifname "outside" ${outgoing} counter name let_out accept`}
    iifname "inside" counter name kept_in drop
    iifname "outside" counter name kept_out drop
  }
  chain input {
    type filter hook input priority filter; policy drop;
    iifname "lo" accept
    ct state established,related accept
    ${proxy === undefined ? "" : `iifname "inside" tcp dport ${proxyPort} counter name to_proxy accept`}
    iifname "inside" counter name kept_in drop
    iifname "outside" counter name kept_out drop
  }
  chain postrouting {
    type nat hook postrouting priority srcnat;
    oifname "outside" masquerade
  }
}
`

const proxySettings = (ports: ReadonlyArray<number>): string =>
  [
    `Port ${proxyPort}`,
    `Listen ${inner.gate}`,
    "Allow 10.0.0.0/24",
    `BasicAuth ${proxyUser.name} ${proxyUser.password}`,
    ...ports.map((port) => `ConnectPort ${port}`),
    "LogLevel Connect",
    ""
  ].join("\n")

const done = async (machine: Machine, script: string): Promise<string> => {
  const ended = await machine.run(script)
  if (ended.code !== 0) throw new Error(`${script}: ${ended.code}\n${ended.stdout}${ended.stderr}`)
  return ended.stdout
}

/** A device and the gate it sits behind. */
export class Behind {
  readonly name: string
  readonly gate: Machine
  readonly device: Machine
  /** The only address of all this that the world sees. */
  readonly outside: string
  /** The line to the world, where it is not a perfect one. */
  readonly link: Link | undefined
  private readonly world: Machine
  private bytes = 0

  constructor(parts: Pick<Behind, "name" | "gate" | "device" | "outside" | "link">, world: Machine) {
    this.name = parts.name
    this.gate = parts.gate
    this.device = parts.device
    this.outside = parts.outside
    this.link = parts.link
    this.world = world
  }

  /** Bytes that the line has carried from the world so far. */
  async came(): Promise<number> {
    const [fromWorld] = (await this.link?.figures()) ?? []
    this.bytes += fromWorld?.bytes ?? 0
    return this.bytes
  }

  /** Starts the device with an invitation and waits until it is let in. `settings` are lines of its configuration. */
  async enrol(settings: ReadonlyArray<string> = []): Promise<void> {
    const invite = `node cli.js invite --name ${this.name} --preauthorise --json`
    const { invitation } = JSON.parse(await done(this.world, invite))
    const config = [`name = "${this.name}"`, "sleep_minimum_ms = 200", ...settings, ""].join("\n")
    writeFileSync(join(this.device.home, "client.toml"), config)
    const authority = await this.device.run("test -e /etc/world.pem")
    const variables = `POSTERN_INVITATION=${invitation}${authority.code === 0 ? " NODE_EXTRA_CA_CERTS=/etc/world.pem" : ""}`
    await this.device.leaveRunning(`${variables} node client.js --config client.toml`, "client.log")
    const isLetIn = () => this.device.log("client.log").includes("an operator's decision: accept")
    await waitUntil(`${this.name} to be let in`, isLetIn, patienceMs, () => this.log())
  }

  /** What the device's client has said, and the server. */
  log(): string {
    const [client, server] = [this.device.log("client.log"), this.world.log("server.log")]
    return `${client.slice(-6_000)}\nThe server:\n${server.slice(-6_000)}`
  }

  /** A job that carries a payload of so many bytes, whose digest the device works out; ends when its receipt is verified. */
  async run(payloadBytes: number, timeoutMs = patienceMs): Promise<{ readonly digestFits: boolean }> {
    const file = `${this.name}.bin`
    const expected = await done(
      this.world,
      `head -c ${payloadBytes} /dev/urandom >${file}; sha256sum <${file}`
    )
    const command = `node cli.js run ${this.name} --file ${file} -- sha256sum /package/${file}`
    const ended: Ended = await this.world
      .run(command, timeoutMs)
      .catch((error: unknown) => Promise.reject(new Error(`${error}\n${this.log()}`)))
    if (ended.code !== 0 || !/verified: succeeded on /.test(ended.stderr + ended.stdout))
      throw new Error(`${command}: ${ended.code}\n${ended.stdout}${ended.stderr}\n${this.log()}`)
    return { digestFits: ended.stdout.split(" ")[0] === expected.split(" ")[0] }
  }

  /** What the gate has done so far. */
  async figures(): Promise<GateFigures> {
    const { nftables } = JSON.parse(await done(this.gate, "nft -j list counters"))
    const packets = (name: string): number =>
      nftables.find((each: { counter?: { name: string } }) => each.counter?.name === name)?.counter.packets
    return {
      letOut: packets("let_out"),
      keptIn: packets("kept_in"),
      keptOut: packets("kept_out"),
      toProxy: packets("to_proxy")
    }
  }

  /**
   * The gate gets another address outside, as from a provider at night: it forgets all connections, and drops silently
   * what still comes of them.
   */
  async renumber(): Promise<void> {
    const other = this.outside.replace(/\.2$/, ".99")
    const back = this.outside.replace(/\.2$/, ".1")
    await done(
      this.gate,
      `echo 0 >/proc/sys/net/netfilter/nf_conntrack_tcp_loose
       ip address del ${this.outside}/24 dev outside && ip address add ${other}/24 dev outside
       ip route replace default via ${back}`
    )
  }

  /** The device gets another address, and loses the one it had. */
  async move(): Promise<void> {
    await done(
      this.device,
      `ip address del ${inner.device}/24 dev eth0 && ip address add ${inner.later}/24 dev eth0 &&
       ip route replace default via ${inner.gate}`
    )
  }

  /** Tries a connection from the device. */
  knock(host: string, port: number): Promise<"open" | "refused" | "silent"> {
    return knockFrom(this.device, host, port)
  }
}

/** Tries a connection: it is open, refused, or nothing is heard. */
export const knockFrom = async (
  machine: Machine,
  host: string,
  port: number,
  patienceSeconds = 0.5
): Promise<"open" | "refused" | "silent"> => {
  writeFileSync(join(machine.home, "knock.py"), knock)
  const heard = await done(machine, `python3 knock.py ${host} ${port} ${patienceSeconds}`)
  return heard.trim() as "open" | "refused" | "silent"
}

/** What the world is like. */
export interface WorldOptions {
  /** Whether the server is an onion service alone, in a private Tor network; else it is reached directly alone. */
  readonly tor?: boolean
  /** With `tor`: further addresses that the server says it has, before the onion. */
  readonly addresses?: ReadonlyArray<string>
}

/** The world, and what stands behind its gates. */
export class Firewalls {
  readonly world: Machine
  /** Lines of a device's configuration with which it takes the world's Tor network; none where there is no such network. */
  viaTor: ReadonlyArray<string> = []
  private readonly machines: Array<Machine>
  /** Ends what is no machine. */
  private readonly endings: Array<() => Promise<void>> = []
  private gates = 0

  private constructor(world: Machine) {
    this.world = world
    this.machines = [world]
  }

  /** A world whose server runs and whose operator has keys. */
  static async open(options: WorldOptions = {}): Promise<Firewalls> {
    const made = new Firewalls(await Machine.start("world"))
    try {
      await (options.tor === true ? made.startHiddenServer(options.addresses) : made.startOpenServer())
      return made
    } catch (error) {
      await made.close()
      throw error
    }
  }

  /** A server with an address that everybody knows. */
  private async startOpenServer(): Promise<void> {
    const { world } = this
    writeFileSync(join(world.home, "terminator.cjs"), terminator)
    await done(world, `ip address add ${worldAddress}/32 dev lo; ${certificate} 2>/dev/null`)
    await world.leaveRunning("node terminator.cjs", "terminator.log")
    await this.says("terminator.log", /listens/)
    const origins = [`https://${worldAddress}`, `http://${worldAddress}:${plainPort}`]
    await this.startServer(['host = "0.0.0.0"', `addresses = ${JSON.stringify(origins)}`])
  }

  /** A server that listens to nobody outside, and relays that do. */
  private async startHiddenServer(addresses: ReadonlyArray<string> = []): Promise<void> {
    const { world } = this
    await done(world, relayAddresses.map((address) => `ip address add ${address}/32 dev lo`).join(" && "))
    const { network, stop } = await ownTorNetwork({
      addresses: relayAddresses,
      orPort: 443,
      via: ["nsenter", `--net=${world.namespace}`]
    })
    this.endings.push(stop)
    this.viaTor = torSettings(network, "always")
    await this.startServer([`addresses = ${JSON.stringify(addresses)}`, ...onionSettings(network)])
  }

  private async startServer(settings: ReadonlyArray<string>): Promise<void> {
    const { world } = this
    for (const name of ["server.js", "cli.js"]) copyFileSync(join(dist, name), join(world.home, name))
    writeFileSync(join(world.home, "server.toml"), [`port = ${plainPort}`, ...settings, ""].join("\n"))
    await world.leaveRunning("node server.js --state server --config server.toml", "server.log")
    await this.says("server.log", /listens on http/)
    await done(
      world,
      [
        "node server.js token create operator --role admin --state server >token",
        `id=$(node server.js identity --state server | sed -n 's/^  "server": "\\(.*\\)",/\\1/p')`,
        `node cli.js keys init --server http://127.0.0.1:${plainPort} --server-id $id --no-passphrase --token-file token --json`
      ].join(" && ")
    )
  }

  private async says(log: string, words: RegExp): Promise<void> {
    const { world } = this
    await waitUntil(
      log,
      () => words.test(world.log(log)),
      patienceMs,
      () => world.log(log)
    )
  }

  /** A device behind a gate. */
  async behind(name: string, options: GateOptions): Promise<Behind> {
    const { world } = this
    const number = ++this.gates
    const outside = [`198.18.${number}.1`, `198.18.${number}.2`] as const
    const gate = await Machine.start(`${name}-gate`)
    this.machines.push(gate)
    const device = await Machine.start(name)
    this.machines.push(device)
    let link: Link | undefined
    if (options.line === undefined)
      Machine.connect(world, outside[0], gate, outside[1], [`gate${number}`, "outside"])
    else {
      const ends = [
        { namespace: world.namespace, name: `gate${number}`, address: `${outside[0]}/24` },
        { namespace: gate.namespace, name: "outside", address: `${outside[1]}/24` }
      ]
      link = await startLink({ ...options.line, ends })
      this.endings.push(link.stop)
    }
    Machine.connect(gate, inner.gate, device, inner.device, ["inside", "eth0"])
    writeFileSync(join(gate.home, "rules.nft"), rules(options))
    await done(
      gate,
      `nft -f rules.nft && echo 1 >/proc/sys/net/ipv4/ip_forward && ip route add default via ${outside[0]}`
    )
    if (options.proxy !== undefined) {
      writeFileSync(join(gate.home, "tinyproxy.conf"), proxySettings(options.proxy))
      await gate.leaveRunning("tinyproxy -d -c tinyproxy.conf", "proxy.log")
      await waitUntil("the proxy", async () => (await knockFrom(gate, inner.gate, proxyPort)) === "open")
    }
    copyFileSync(join(dist, "client.js"), join(device.home, "client.js"))
    await done(device, `ip route add default via ${inner.gate}`)
    if (this.viaTor.length === 0) {
      // Where the user that the client becomes can read it.
      copyFileSync(join(world.home, "certificate.pem"), join(device.home, "world.pem"))
      await done(device, "install -m 0644 world.pem /etc/world.pem")
    }
    return new Behind({ name, gate, device, outside: outside[1], link }, world)
  }

  /** Ends and removes everything. */
  async close(): Promise<void> {
    await Promise.all(this.endings.map((end) => end()))
    await Promise.all(this.machines.map((machine) => machine.stop()))
  }
}
