import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Redacted } from "effect"
import { TestClock } from "effect/testing"
import { hashToken } from "../../../src/adapters/http/ManagementAccess.ts"
import { declaredPath, managementEndpoints } from "../../../src/adapters/http/ManagementEndpoints.ts"
import { endpointRoles } from "../../../src/adapters/http/ManagementRoles.ts"
import { Rates } from "../../../src/adapters/http/Rates.ts"
import type { Role } from "../../../src/schemas/ManagementApi.ts"
import {
  accept,
  acceptedFleet,
  exchange,
  type Fleet,
  manage,
  rootedFleet,
  submit
} from "../../support/fleet.ts"
import { device, engine, orderId, otherDevice } from "../../support/operators.ts"

const base = "/api/management/v1"
const tokenOf = (name: string) => `postern-token-v1.${name.charAt(0).repeat(52)}`
const roles = ["viewer", "operator", "admin"] as const satisfies ReadonlyArray<Role>

const withTokens = (fleet: Fleet) =>
  Effect.gen(function* () {
    for (const role of roles) {
      const hash = hashToken(engine, Redacted.make(tokenOf(role)))
      yield* fleet.store.addToken(role, role, hash, yield* Clock.currentTimeMillis)
    }
    return fleet
  })
const deviceFleet = Effect.flatMap(acceptedFleet, withTokens)
const get = (fleet: Fleet, path: string, role: Role = "admin") =>
  manage(fleet, tokenOf(role), "GET", `${base}${path}`)

/** A path of an endpoint with some value for each parameter. */
const exampleOf = (path: string): string =>
  path
    .replace(":device", device.id)
    .replace(":digest", `sha256:${"7".repeat(64)}`)
    .replace(":name", "nobody")
    .replace("/rollouts/:id", `/rollouts/${orderId(9)}`)
    .replace(":id", orderId(9))

describe("the table of roles", () => {
  it("names every endpoint, and nothing else", () => {
    assert.deepStrictEqual(
      managementEndpoints.map(({ key }) => key).sort(),
      Object.keys(endpointRoles).sort()
    )
    assert.isAbove(managementEndpoints.length, 25)
  })

  for (const { key, method, path } of managementEndpoints) {
    it.effect(`${method} ${path.slice(base.length)} takes the role ${endpointRoles[key]}`, () =>
      Effect.gen(function* () {
        const fleet = yield* deviceFleet
        const needed = roles.indexOf(endpointRoles[key] as Role)
        const body = method === "GET" || method === "DELETE" ? undefined : { nonsense: true }
        for (const role of roles) {
          const reply = yield* manage(fleet, tokenOf(role), method, exampleOf(path), body)
          if (roles.indexOf(role) < needed) {
            assert.strictEqual(reply.status, 403)
            assert.deepInclude(reply.json, { _tag: "Forbidden", code: "forbidden" })
          } else assert.notInclude([401, 403, 500], reply.status, JSON.stringify(reply.json))
        }
        const none = yield* manage(fleet, "", method, exampleOf(path), body)
        assert.strictEqual(none.status, 401)
      })
    )
  }

  it("a request's path leads to the endpoint that is declared for it", () => {
    for (const { method, path } of managementEndpoints) {
      assert.strictEqual(declaredPath(method, exampleOf(path)), path)
    }
    assert.strictEqual(declaredPath("GET", `${base}/jobs/x/y`), null)
  })
})

describe("tokens over the API", () => {
  const secretOf = (json: unknown) => (json as { token: string }).token

  it.effect("are made, listed without their secret, rotated and revoked; each is in the audit log", () =>
    Effect.gen(function* () {
      const fleet = yield* deviceFleet
      const post = (path: string, body: unknown) =>
        manage(fleet, tokenOf("admin"), "POST", `${base}${path}`, body)
      const made = yield* post("/tokens", { name: "scraper", role: "viewer", expires_at_ms: null })
      assert.deepInclude(made.json, { name: "scraper", role: "viewer", created_by: "admin" })
      const first = secretOf(made.json)
      assert.strictEqual((yield* manage(fleet, first, "GET", `${base}/status`)).status, 200)
      assert.strictEqual((yield* manage(fleet, first, "GET", `${base}/tokens`)).status, 403)
      assert.deepInclude(
        (yield* post("/tokens", { name: "scraper", role: "admin", expires_at_ms: null })).json,
        { code: "name_taken" }
      )
      const listed = yield* get(fleet, "/tokens")
      const nowMs = yield* Clock.currentTimeMillis
      assert.deepInclude((listed.json as { tokens: ReadonlyArray<unknown> }).tokens[2], {
        name: "scraper",
        last_used_at_ms: nowMs
      })
      assert.notInclude(JSON.stringify(listed.json), first.slice(-20))

      const rotated = secretOf((yield* post("/tokens/scraper/rotation", { expires_at_ms: null })).json)
      assert.strictEqual((yield* manage(fleet, first, "GET", `${base}/status`)).status, 401)
      assert.strictEqual((yield* manage(fleet, rotated, "GET", `${base}/status`)).status, 200)
      assert.strictEqual(
        (yield* manage(fleet, tokenOf("admin"), "DELETE", `${base}/tokens/scraper`)).status,
        200
      )
      assert.strictEqual((yield* manage(fleet, rotated, "GET", `${base}/status`)).status, 401)
      assert.strictEqual((yield* post("/tokens/scraper/rotation", { expires_at_ms: null })).status, 404)
      const audit = yield* get(fleet, "/audit?limit=3&actor=admin")
      assert.deepStrictEqual(
        (audit.json as { entries: ReadonlyArray<{ action: string }> }).entries.map(({ action }) => action),
        ["revoke token", "rotate token", "create token"]
      )
    })
  )

  it.effect("count until they expire, and say so afterwards", () =>
    Effect.gen(function* () {
      const fleet = yield* deviceFleet
      const expiresAtMs = (yield* Clock.currentTimeMillis) + 60_000
      const made = yield* manage(fleet, tokenOf("admin"), "POST", `${base}/tokens`, {
        name: "short",
        role: "viewer",
        expires_at_ms: expiresAtMs
      })
      const ask = manage(fleet, secretOf(made.json), "GET", `${base}/status`)
      assert.strictEqual((yield* ask).status, 200)
      yield* TestClock.adjust("61 seconds")
      const late = yield* ask
      assert.strictEqual(late.status, 401)
      assert.include((late.json as { message: string }).message, "expired")
      const past = { name: "past", role: "viewer", expires_at_ms: expiresAtMs }
      assert.strictEqual((yield* manage(fleet, tokenOf("admin"), "POST", `${base}/tokens`, past)).status, 422)
    })
  )
})

describe("refusals", () => {
  it.effect("have one shape: tag, code, message, help", () =>
    Effect.gen(function* () {
      const fleet = yield* deviceFleet
      const replies = [
        yield* get(fleet, "/jobs?limit=lots"),
        yield* get(fleet, "/jobs?after=nonsense"),
        yield* get(fleet, "/no/such/path"),
        yield* get(fleet, `/jobs/${orderId(77)}`),
        yield* manage(fleet, tokenOf("admin"), "POST", `${base}/tokens`, { name: "Bad Name" }),
        yield* manage(fleet, "nonsense", "GET", `${base}/status`)
      ]
      assert.deepStrictEqual(
        replies.map(({ status }) => status),
        [400, 400, 404, 404, 400, 401]
      )
      for (const { json } of replies) {
        const { _tag, code, help, message } = json as Record<string, unknown>
        for (const part of [_tag, code, message, help]) assert.isString(part)
      }
    })
  )

  it.effect("a token that asks too often is told when to come again, and others are not", () =>
    Effect.gen(function* () {
      const rates = new Rates(60)
      const nowMs = 1_000_000
      for (let count = 0; count < 10; count++) assert.strictEqual(rates.take("a", nowMs), 0)
      const waitMs = rates.take("a", nowMs)
      assert.isAbove(waitMs, 0)
      assert.strictEqual(rates.take("b", nowMs), 0)
      assert.isAbove(rates.take("a", nowMs + waitMs - 1), 0)
      assert.strictEqual(rates.take("a", nowMs + waitMs + 1), 0)

      const fleet = yield* deviceFleet
      // The test's fleet allows 6,000 a minute, so 1,000 at once.
      const first = yield* get(fleet, "/roots?from=99", "viewer")
      assert.strictEqual(first.status, 200)
      let last = first
      for (let count = 0; count < 1_100 && last.status === 200; count++) {
        last = yield* get(fleet, "/roots?from=99", "viewer")
      }
      assert.strictEqual(last.status, 429)
      assert.strictEqual(last.headers["retry-after"], "1")
      assert.deepInclude(last.json, { code: "too_many_requests", retry_after_seconds: 1 })
      assert.strictEqual((yield* get(fleet, "/roots?from=99", "operator")).status, 200)
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* get(fleet, "/roots?from=99", "viewer")).status, 200)
    })
  )
})

describe("answers that the caller has", () => {
  const conditionally = (fleet: Fleet, path: string, tag: string) =>
    exchange(fleet.management, {
      method: "GET",
      authority: "127.0.0.1:8470",
      path: `${base}${path}`,
      query: "",
      headers: { authorization: `Bearer ${tokenOf("viewer")}`, "if-none-match": tag },
      body: new Uint8Array(0)
    })

  it.effect("are 304 without a body, until something changed", () =>
    Effect.gen(function* () {
      const fleet = yield* deviceFleet
      const { id } = (yield* submit(fleet, 1)).order
      for (const path of ["/jobs", `/jobs/${id}`, "/devices", `/devices/${device.id}`]) {
        const first = yield* get(fleet, path, "viewer")
        const tag = first.headers["etag"] ?? ""
        assert.match(tag, /^W\/"[\w-]{22}"$/)
        const again = yield* conditionally(fleet, path, `"other", ${tag}`)
        assert.deepStrictEqual([again.status, again.octets.length], [304, 0])
        assert.strictEqual(again.headers["etag"], tag)
        assert.strictEqual((yield* conditionally(fleet, path, '"other"')).status, 200)
      }
      const before = (yield* get(fleet, `/jobs/${id}`, "viewer")).headers["etag"] ?? ""
      yield* manage(fleet, tokenOf("operator"), "POST", `${base}/jobs/${id}/stop`)
      const after = yield* conditionally(fleet, `/jobs/${id}`, before)
      assert.strictEqual(after.status, 200)
      assert.notStrictEqual(after.headers["etag"], before)
      assert.notProperty((yield* get(fleet, "/status", "viewer")).headers, "etag")
    })
  )
})

describe("lists", () => {
  it.effect("go page by page to their end, each item once", () =>
    Effect.gen(function* () {
      const fleet = yield* deviceFleet
      for (let counter = 1; counter <= 7; counter++) yield* submit(fleet, counter)
      const seen: Array<string> = []
      let after = ""
      for (let pages = 0; pages < 10; pages++) {
        const { json } = yield* get(fleet, `/jobs?limit=3${after}`)
        const page = json as { jobs: ReadonlyArray<{ id: string }>; next: string | null }
        seen.push(...page.jobs.map(({ id }) => id))
        if (page.next === null) break
        after = `&after=${page.next}`
      }
      assert.strictEqual(seen.length, 7)
      assert.strictEqual(new Set(seen).size, 7)
      const audit = (yield* get(fleet, "/audit?limit=2")).json as {
        next: number
        entries: ReadonlyArray<unknown>
      }
      const older = (yield* get(fleet, `/audit?limit=2&before=${audit.next}`)).json as typeof audit
      assert.strictEqual(older.entries.length, 2)
      assert.notDeepEqual(older.entries, audit.entries)
    })
  )

  it.effect("jobs by state, time and device; devices by name and presence", () =>
    Effect.gen(function* () {
      const fleet = yield* withTokens(yield* rootedFleet)
      yield* accept(fleet)
      yield* accept(fleet, otherDevice, "kiosk-1")
      const first = (yield* submit(fleet, 1)).order.id
      yield* TestClock.adjust("1 hour")
      const hourMs = yield* Clock.currentTimeMillis
      const second = (yield* submit(fleet, 2)).order.id
      const idsOf = (query: string) =>
        Effect.map(get(fleet, `/jobs?${query}`), ({ json }) =>
          (json as { jobs: ReadonlyArray<{ id: string }> }).jobs.map(({ id }) => id)
        )
      assert.deepStrictEqual(yield* idsOf(`since_ms=${hourMs}`), [second])
      assert.deepStrictEqual(yield* idsOf(`until_ms=${hourMs}`), [first])
      assert.deepStrictEqual(yield* idsOf("state=queued"), [second, first])
      assert.deepStrictEqual(yield* idsOf("state=running"), [])
      assert.deepStrictEqual(yield* idsOf(`device=${otherDevice.id}`), [])
      const namesOf = (query: string) =>
        Effect.map(get(fleet, `/devices?${query}`), ({ json }) =>
          (json as { devices: ReadonlyArray<{ name: string }> }).devices.map(({ name }) => name)
        )
      assert.deepStrictEqual(yield* namesOf("name_prefix=kiosk"), ["kiosk-1"])
      assert.deepStrictEqual(yield* namesOf("online=true"), [])
      assert.strictEqual((yield* namesOf("online=false&status=accepted")).length, 2)
    })
  )
})
