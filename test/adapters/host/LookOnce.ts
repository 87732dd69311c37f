/** A program for other network namespaces: looks once from where it stands, and prints what it found. */
import { Effect } from "effect"
import { LinuxConnectivity } from "../../../src/adapters/LinuxConnectivity.ts"
import { Connectivity } from "../../../src/ports/Connectivity.ts"

const [references = "", ...servers] = process.argv.slice(2)
const referenceHosts = references === "" ? [] : references.split(",")

Effect.flatMap(Connectivity, ({ look }) => look(servers))
  .pipe(Effect.provide(LinuxConnectivity({ referenceHosts })), Effect.runPromise)
  .then((found) => process.stdout.write(`${JSON.stringify(found)}\n`))
