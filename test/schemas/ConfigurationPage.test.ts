import { readFileSync } from "node:fs"
import { join } from "node:path"
import { expect, it } from "vitest"
import { configurationPage } from "../../scripts/lib/configuration-page.ts"
import { ClientConfig } from "../../src/schemas/ClientConfig.ts"
import { ServerConfig } from "../../src/schemas/ServerConfig.ts"
import { settingsOf } from "../../src/schemas/Setting.ts"

it("the page on configuration is what the schemas say: else run node scripts/configuration.ts", () => {
  const page = readFileSync(join(import.meta.dirname, "../../docs/configuration.md"), "utf8")
  expect(page).toBe(configurationPage())
  for (const { environment, isTable, key } of [...settingsOf(ClientConfig), ...settingsOf(ServerConfig)]) {
    expect(page).toContain(isTable ? `[${key}]` : `**\`${key}\`** · \`${environment}\``)
  }
})
