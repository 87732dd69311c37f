/** docs/management-api.md holds: every endpoint stands in it, and its examples work as they stand there. */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { managementEndpoints } from "../../src/adapters/http/ManagementEndpoints.ts"
import { endpointRoles } from "../../src/adapters/http/ManagementRoles.ts"
import { managementApiPath } from "../../src/schemas/ManagementApi.ts"
import { BuiltFleet } from "../support/BuiltFleet.ts"
import { runToEnd } from "../support/Program.ts"
import { requires } from "../support/requires.ts"

const page = readFileSync(join(import.meta.dirname, "../../docs/management-api.md"), "utf8")
const examples = [...page.matchAll(/^ {4}(curl .*)$/gm)].map(([, command]) => command as string)

describe("the page about the management API", () => {
  it("lists every endpoint with its role, and no other", () => {
    const listed = [...page.matchAll(/^\| `((?:GET|POST|PUT|DELETE) [^`]+)` \| (\w+) \| .+ \|$/gm)]
    const declared = managementEndpoints.map(({ key, method, path }) => [
      `${method} ${path.slice(managementApiPath.length)}`,
      endpointRoles[key]
    ])
    expect(listed.map(([, endpoint, role]) => [endpoint, role])).toEqual(declared)
  })

  describe("its examples", () => {
    let fleet: BuiltFleet
    let environment: Record<string, string>
    beforeAll(async () => {
      fleet = await BuiltFleet.withServer()
      const token = readFileSync(await fleet.token("reader", "viewer"), "utf8").trim()
      environment = { PATH: process.env["PATH"] ?? "", SERVER: fleet.address, TOKEN: token }
    }, 90_000)
    afterAll(() => fleet.close(), 60_000)

    it.skipIf(!requires("curl"))(
      "answer",
      async () => {
        expect(examples.length).toBeGreaterThan(6)
        for (const example of examples) {
          const command = example.replace("curl -sS", "curl -sS --fail")
          const ended = await runToEnd(["sh", "-c", command], { cwd: fleet.folder, environment })
          expect(ended, example).toMatchObject({ code: 0, stderr: "" })
          expect(ended.stdout, example).not.toBe("")
        }
      },
      60_000
    )

    it("the description is one of OpenAPI 3.1 with every path", async () => {
      const answer = await fetch(`${fleet.address}/openapi.json`)
      const description = (await answer.json()) as {
        readonly openapi: string
        readonly paths: Readonly<
          Record<
            string,
            Readonly<Record<string, { readonly operationId: string; readonly responses: object }>>
          >
        >
        readonly components: { readonly securitySchemes: object }
      }
      expect(description.openapi).toMatch(/^3\.1\./)
      expect(Object.keys(description.components.securitySchemes)).toEqual(["bearer"])
      const operations = Object.values(description.paths).flatMap((path) => Object.values(path))
      expect(new Set(operations.map(({ operationId }) => operationId)).size).toBe(managementEndpoints.length)
      for (const { method, path } of managementEndpoints) {
        const template = path.replace(/:([a-z_]+)/g, "{$1}")
        const operation = description.paths[template]?.[method.toLowerCase()]
        expect(Object.keys(operation?.responses ?? {}), `${method} ${path}`).toEqual(
          expect.arrayContaining(["200", "400", "401", "403", "429", "503"])
        )
      }
      // Every reference within it leads somewhere.
      const text = JSON.stringify(description)
      for (const [, name] of text.matchAll(/"#\/components\/schemas\/([^"]+)"/g)) {
        expect(text).toContain(`"${name}":`)
      }
    }, 60_000)
  })
})
