/** The built programs as a fleet of their own, for benches: server and one accepted device on loopback. */
import { type BuiltDevice, BuiltFleet } from "../test/support/BuiltFleet.ts"

export interface BenchFleet {
  readonly fleet: BuiltFleet
  readonly device: BuiltDevice
}

/**
 * Starts a fleet, lends it to `work`, and ends and removes it, also when this process is told to end: its programs run
 * in process groups of their own and would stay behind.
 */
export const withFleet = async <A>(work: (lent: BenchFleet) => Promise<A>): Promise<A> => {
  const fleet = await BuiltFleet.withServer()
  const leave = (): void => {
    void fleet.close().finally(() => process.exit(130))
  }
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, leave)
  try {
    return await work({ fleet, device: await fleet.acceptedDevice("bench-device") })
  } finally {
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.off(signal, leave)
    await fleet.close()
  }
}
