/** Which cryptographic engine a program uses: a setting of either configuration. */
import { Schema } from "effect"
import { setting } from "./Setting.ts"

/** `auto` and `native`: the system's, where it passes its test; `noble`: JavaScript alone. */
export const EngineChoice = Schema.Literals(["auto", "native", "noble"])
export type EngineChoice = typeof EngineChoice.Type

export const cryptoEngine = setting(EngineChoice, "auto", {
  description:
    "What computes signatures and ciphers: `native` is Node's own OpenSSL, `noble` is JavaScript alone, ten to fifty times slower; both give the same bytes and the same verdicts. `auto` is `native`; where that is missing or fails its test at the start, the program says so and uses `noble`."
})
