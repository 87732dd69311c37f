/** Temporary folders that are gone afterwards, also when the bench is told to end. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

/** Runs `work` with a fresh folder, which is removed in the end, whatever that is. */
export const withFolder = async <A>(name: string, work: (folder: string) => Promise<A>): Promise<A> => {
  const folder = mkdtempSync(join(tmpdir(), `postern-bench-${name}-`))
  const remove = () => rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
  const leave = () => process.exit(130)
  process.once("exit", remove)
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, leave)
  try {
    return await work(folder)
  } finally {
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.off(signal, leave)
    process.off("exit", remove)
    remove()
  }
}
