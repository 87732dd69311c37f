/**
 * Who the machine is, as far as it tells: its boot, board, serial number, system.
 *
 * @module
 */
import { createHash } from "node:crypto"
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { Effect } from "effect"
import type { HostFigures } from "../../ports/HostProbe.ts"
import { label, orNull, textOf } from "./Reading.ts"

export interface MachinePlaces {
  readonly proc: string
  readonly sys: string
  readonly etc: string
}

const firstOf = async (maximum: number, ...paths: ReadonlyArray<string>): Promise<string | null> => {
  for (const path of paths) {
    const text = await textOf(path, maximum)
    if (text !== null) return text
  }
  return null
}

/** The machine's id is meant to stay on it: what leaves is a digest that serves no other purpose. */
const machineDigest = async (etc: string): Promise<string | null> => {
  const id = await textOf(join(etc, "machine-id"), 64)
  return id === null
    ? null
    : `sha256:${createHash("sha256").update(`postern/machine/v1\n${id}`).digest("hex")}`
}

/** Boards of the Pi's kind tell a device tree, others SMBIOS, whose serial number only root may read. */
export const machineOf = ({ etc, proc, sys }: MachinePlaces): Effect.Effect<HostFigures["machine"]> =>
  Effect.all(
    {
      machine_digest: orNull(() => machineDigest(etc)),
      boot: orNull(() => textOf(join(proc, "sys/kernel/random/boot_id"), 64)),
      model: orNull(() =>
        firstOf(128, join(proc, "device-tree/model"), join(sys, "class/dmi/id/product_name"))
      ),
      serial: orNull(() =>
        firstOf(128, join(proc, "device-tree/serial-number"), join(sys, "class/dmi/id/product_serial"))
      )
    },
    { concurrency: "unbounded" }
  )

/** The system's own name for people, such as `Debian GNU/Linux 12 (bookworm)`. */
export const systemOf = ({ etc }: MachinePlaces): Effect.Effect<string | null> =>
  orNull(async () => {
    const name = /^PRETTY_NAME="?([^"\n]+)"?$/m.exec(await readFile(join(etc, "os-release"), "utf8"))?.[1]
    return name === undefined ? null : label(name, 128)
  })
