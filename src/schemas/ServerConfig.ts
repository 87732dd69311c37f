/** The server's configuration. Every key has a default that works. */
import { Schema } from "effect"
import { intBetween } from "./Ids.ts"
import { Limits } from "./Limits.ts"
import { configuration, programSetting, setting } from "./Setting.ts"
import { ServerAddress } from "./TrustRoot.ts"

export const ServerConfig = configuration({
  state_folder: programSetting(Schema.String, {
    description: "Where the server keeps its keys, its databases and the ciphertext it carries. Mode 0700.",
    form: "a folder's path",
    fallback: "/var/lib/postern-server for root, else ~/.local/state/postern-server",
    example: "/var/lib/postern-server",
    flag: "--state",
    alias: "POSTERN_STATE"
  }),
  host: setting(Schema.String, "127.0.0.1", {
    description:
      "The address to listen on. Loopback by default: put a proxy with TLS before it, or name the address of an interface (0.0.0.0 for all) where plain HTTP will do. SECURITY.md says what plain HTTP shows.",
    flag: "--host"
  }),
  port: setting(intBetween(0, 65_535), 8470, {
    description: "The port to listen on. 0 takes a free one and says which.",
    flag: "--port"
  }),
  addresses: setting(Schema.Array(ServerAddress).check(Schema.isMaxLength(Limits.serverAddresses)), [], {
    description:
      "Origins under which devices reach the server, best first; `postern keys init` puts them into the trust root. Without any, the address it listens on.",
    form: `at most ${Limits.serverAddresses} addresses of scheme, host and port alone, such as https://postern.example`,
    example: ["https://postern.example"]
  }),
  poll_sleep_ms: setting(intBetween(Limits.pollSleepMinimumMs, Limits.pollSleepMaximumMs), 60_000, {
    description: "The sleep told to devices that do not hold their polls open."
  }),
  maximum_requests: setting(intBetween(1, 1_000_000), 20_000, {
    description:
      "How many requests may be in work at once. Above it, devices are told to come later (503 with Retry-After)."
  }),
  maximum_devices: setting(intBetween(1, 1_000_000), 100_000, {
    description: "How many devices the server knows at the most."
  })
})
export type ServerConfig = typeof ServerConfig.Type
