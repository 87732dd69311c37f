import { describe, expect, it } from "@effect/vitest"
import * as fc from "fast-check"
import {
  afterEnd,
  afterGap,
  goodLifeMs,
  hangs,
  lookMs,
  loopsMs,
  type Signs
} from "../../../src/adapters/warden/Respawn.ts"

const crashed = { code: 1, signal: null, livedMs: 5 }

describe("after the end of a client", () => {
  it("passes on what another start would only repeat", () => {
    for (const code of [0, 2, 64, 78]) {
      expect(afterEnd({ ...crashed, code }, 0, false)).toEqual({ _tag: "Exit", code })
    }
  })

  it("starts it again otherwise, later and later, at most a minute later", () => {
    const delays: Array<number> = []
    let crashes = 0
    for (let round = 0; round < 9; round++) {
      const verdict = afterEnd(crashed, crashes, false)
      if (verdict._tag !== "Respawn") throw new Error("no respawn")
      delays.push(verdict.delayMs)
      crashes = verdict.crashes
    }
    expect(delays).toEqual([1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000])
    expect(afterEnd({ ...crashed, livedMs: goodLifeMs }, crashes, false)).toEqual({
      _tag: "Respawn",
      delayMs: 1_000,
      crashes: 1
    })
    expect(afterEnd({ code: null, signal: "SIGKILL", livedMs: 1 }, 0, false)).toMatchObject({
      _tag: "Respawn"
    })
  })

  it("ends with it when it was told to, with a shell's code for a signal", () => {
    expect(afterEnd(crashed, 3, true)).toEqual({ _tag: "Exit", code: 1 })
    expect(afterEnd({ code: null, signal: "SIGKILL", livedMs: 1 }, 0, true)).toEqual({
      _tag: "Exit",
      code: 137
    })
    expect(afterEnd({ code: null, signal: "SIGTERM", livedMs: 1 }, 0, true)).toEqual({
      _tag: "Exit",
      code: 143
    })
  })

  it("never starts it more than once a second, whatever it does", () => {
    fc.assert(
      fc.property(
        fc.record({ code: fc.option(fc.nat(255)), livedMs: fc.nat(2 * goodLifeMs) }),
        fc.nat(1_000),
        ({ code, livedMs }, crashes) => {
          const verdict = afterEnd(
            { code, signal: code === null ? "SIGSEGV" : null, livedMs },
            crashes,
            false
          )
          return verdict._tag === "Exit" || (verdict.delayMs >= 1_000 && verdict.delayMs <= 60_000)
        }
      )
    )
  })
})

describe("a client is taken for hung", () => {
  const signs: Signs = { startedAt: 0, beatAt: 1_000, aliveAt: 1_000, lookedAt: 1_000 }
  /** Looks every second from the last look on; gives when the client was first said to hang. */
  const firstHang = (from: Signs, hungAfterMs: number, untilMs: number): number | null => {
    let seen = from
    for (let now = from.lookedAt; now <= untilMs; now += lookMs) {
      if (hangs(seen, now, hungAfterMs) !== null) return now
      seen = afterGap(seen, now)
    }
    return null
  }

  it("when its event loop is silent for longer than the bound", () => {
    expect(firstHang(signs, 60_000, 61_000)).toBe(null)
    expect(firstHang(signs, 60_000, 63_000)).toBe(62_000)
  })

  it("when its loops are silent for four minutes, though the event loop turns", () => {
    let seen = signs
    for (let now = 1_000; now < loopsMs + 1_000; now += lookMs) {
      expect(hangs(seen, now, 60_000)).toBe(null)
      seen = { ...afterGap(seen, now), beatAt: now }
    }
    const late = loopsMs + 2_000
    expect(hangs({ ...seen, lookedAt: late - 1, beatAt: late - 1 }, late, 60_000)).toMatch(/loop/)
  })

  it("when it says nothing for two minutes after its start", () => {
    const silent = { startedAt: 0, beatAt: null, aliveAt: null, lookedAt: 0 }
    expect(firstHang(silent, 5_000, 120_000)).toBe(null)
    expect(firstHang(silent, 5_000, 125_000)).toBe(121_000)
  })

  it("but not because the warden itself was stopped for an hour", () => {
    const woken = 3_600_000
    expect(hangs(signs, woken, 5_000)).toBe(null)
    const after = afterGap(signs, woken)
    expect(firstHang(after, 5_000, woken + 5_000)).toBe(null)
    expect(firstHang(after, 5_000, woken + 10_000)).toBe(woken + 6_000)
  })
})
