/** Requests of the device's transport through a real tor: the circuits they take, and what tor says where there is no way. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, Exit, Scope, Stream } from "effect"
import { afterAll, beforeAll, expect, it } from "vitest"
import { httpTransport } from "../../src/adapters/HttpTransport.ts"
import type { Transport, TransportError } from "../../src/adapters/http/Transport.ts"
import { openTor, type TorNode } from "../../src/adapters/tor/TorNode.ts"
import { concatBytes } from "../../src/crypto/Bytes.ts"
import { onionConfig, TestServices } from "../support/onions.ts"
import { waitUntil } from "../support/Program.ts"
import { describeWith } from "../support/requires.ts"
import { sharedTorNetwork } from "../support/torNetwork.ts"

describeWith(["tor", "tor-gencert"], "requests through Tor", () => {
  const scope = Scope.makeUnsafe()
  const folder = mkdtempSync(join(tmpdir(), "routes-"))
  let server: TestServices
  let tor: TorNode
  let transport: Transport

  const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>): Promise<A> =>
    Effect.runPromise(Scope.provide(effect, scope))

  beforeAll(async () => {
    const { options } = await sharedTorNetwork()
    server = new TestServices(onionConfig({ options }))
    await server.openDoors()
    const settings = onionConfig({ options })
    const opened = openTor({
      folder: join(folder, "tor"),
      settings,
      proxy: null,
      socks: true,
      // As a tor has it that runs already.
      lines: [`SocksPort unix:${join(folder, "tor", "plain")}`]
    })
    const [node] = await Promise.all([run(opened), server.open()])
    tor = node
    const { socks } = node
    if (socks === null) throw new Error("it was asked for a way in")
    transport = await run(
      httpTransport({ routes: { to: () => Effect.succeed({ _tag: "Tor", endpoint: socks }) } })
    )
    await server.publishEnrolment(true)
    const isReady = async () => (await run(node.bootstrap)).circuits
    await Promise.all([server.published("enrol"), waitUntil("the way into the network", isReady, 90_000)])
  })
  afterAll(async () => {
    await Effect.runPromise(Scope.close(scope, Exit.void))
    await server?.stop()
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
  })

  const sendBy = (carrier: Transport, origin: string, circuit?: string, connectTimeoutMs = 60_000) =>
    Effect.scoped(
      Effect.gen(function* () {
        const { body } = yield* carrier.send({
          origin,
          method: "GET",
          authority: new URL(origin).host,
          path: "/",
          query: "",
          headers: {},
          body: new Uint8Array(0),
          responseTimeoutMs: 20_000,
          connectTimeoutMs,
          ...(circuit === undefined ? {} : { circuit })
        })
        return new TextDecoder().decode(concatBytes(...(yield* Stream.runCollect(body))))
      })
    )

  const send = (origin: string, circuit?: string, connectTimeoutMs?: number) =>
    sendBy(transport, origin, circuit, connectTimeoutMs)

  /** How tor failed. On the way there a circuit may break, of which tor has no word of its own. */
  const failure = (attempt: () => ReturnType<typeof sendBy>): Promise<TransportError> =>
    waitUntil(
      "tor's word",
      async () => {
        const error = await Effect.runPromise(Effect.flip(attempt()))
        return error.code !== undefined && error
      },
      150_000
    )

  /** All that tor carries or is to carry. */
  const streams = async (): Promise<string> =>
    (await run(tor.control?.send("GETINFO stream-status") ?? Effect.succeed([]))).join("\n")

  /** The circuits of the streams that are open to an onion service. */
  const circuitsTo = async (host: string): Promise<ReadonlyArray<string>> => {
    return (await streams())
      .split("\n")
      .map((line) => line.replace(/^stream-status=/, "").split(" "))
      .filter(([, state, , target]) => state === "SUCCEEDED" && target?.startsWith(host.slice(0, 56)))
      .map(([, , circuit]) => String(circuit))
  }

  it("share a circuit where their tag is the same, and share none where it is another", async () => {
    const { enrol } = server.hosts
    const origin = `http://${enrol}`
    await waitUntil(
      "the service",
      async () => {
        const answer = await Effect.runPromise(Effect.option(send(origin)))
        return answer._tag === "Some" && answer.value === "enrol"
      },
      120_000
    )
    // An attempt that another one has overtaken is gone a little later.
    const circuits = (count: number) =>
      waitUntil(`${count} circuits`, async () => {
        const distinct = new Set(await circuitsTo(enrol))
        return distinct.size === count && distinct
      })
    const [usual] = await circuits(1)
    for (const tag of ["a", "b", "a", undefined, "b"])
      expect(await run(Effect.retry(send(origin, tag), { times: 5 }))).toBe("enrol")
    expect(await circuits(3)).toContain(usual)
  })

  it("say that an onion service is not published, or is none", async () => {
    expect((await failure(() => send(`http://${server.hosts.management}`))).code).toBe("onion_not_found")
    const mistyped = await failure(() => send(`http://${"a".repeat(55)}d.onion`))
    expect(mistyped).toMatchObject({ code: "onion_not_found", reason: expect.stringContaining("mistyped") })
  })

  it("say that tor does not explain it where its SOCKS port has no extended errors", async () => {
    const plain = await run(
      httpTransport({
        routes: {
          to: () => Effect.succeed({ _tag: "Tor", endpoint: { path: join(folder, "tor", "plain") } })
        }
      })
    )
    const lost = await failure(() => sendBy(plain, `http://${server.hosts.management}`))
    expect(lost).toMatchObject({
      code: "onion_unexplained",
      reason: expect.stringContaining("ExtendedErrors")
    })
  })

  it("fail in time where tor finds no way out of its network, and leave nothing waiting in it", async () => {
    const lost = await run(Effect.flip(send("http://clear.example", "clear", 2_000)))
    expect(lost.reason).toBe("no connection stood within 2000 ms")
    await waitUntil("tor to let go of it", async () => !(await streams()).includes("clear.example"))
  })
})
