import { spawnSync } from "node:child_process"
import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "fast-check"
import type { SyscallNumbers } from "../../src/adapters/jail/SyscallTable.ts"
import { absentSyscalls, deniedSyscalls, filteredSyscalls } from "../../src/adapters/jail/SyscallTable.ts"
import { Errno, SeccompAction, seccompInstructions, seccompProgram } from "../../src/adapters/Seccomp.ts"
import { disassemble, interpret } from "../support/BpfInterpreter.ts"
import { describeWith } from "../support/requires.ts"

/** The kernel's AUDIT_ARCH_* words, and the names libseccomp has for them. */
const architectures = [
  { name: "x64", column: 0, audit: 0xc000003e, resolver: "x86_64" },
  { name: "arm64", column: 1, audit: 0xc00000b7, resolver: "aarch64" },
  { name: "arm", column: 2, audit: 0x40000028, resolver: "arm" }
] as const

const errno = (number: number) => SeccompAction.errno | number
const allCalls: Record<string, SyscallNumbers> = { ...deniedSyscalls, ...absentSyscalls, ...filteredSyscalls }

for (const { audit, column, name } of architectures) {
  const program = seccompInstructions(name)
  const judge = (number: number, ...args: ReadonlyArray<bigint>) =>
    interpret(program, { number, architecture: audit, args }).verdict
  const numberOf = (call: keyof typeof filteredSyscalls) => filteredSyscalls[call][column]

  describe(`the seccomp filter for ${name}`, () => {
    it("kills calls of every other architecture", () => {
      for (const other of [...architectures.map((entry) => entry.audit), 0x40000003, 0, 0xffffffff]) {
        if (other === audit) continue
        expect(interpret(program, { number: 0, architecture: other }).verdict).toBe(SeccompAction.killProcess)
      }
    })

    it("forbids what is to be forbidden and hides what is to be absent", () => {
      for (const [call, numbers] of Object.entries(deniedSyscalls)) {
        const number = numbers[column]
        if (number !== null) expect([call, judge(number)]).toEqual([call, errno(Errno.EPERM)])
      }
      for (const [call, numbers] of Object.entries(absentSyscalls)) {
        const number = numbers[column]
        if (number !== null) expect([call, judge(number)]).toEqual([call, errno(Errno.ENOSYS)])
      }
    })

    it("allows every other number, whatever the arguments", () => {
      const known = new Set(Object.values(allCalls).map((numbers) => numbers[column]))
      FastCheck.assert(
        FastCheck.property(
          FastCheck.integer({ min: 0, max: 1_000 }).filter((number) => !known.has(number)),
          FastCheck.array(FastCheck.bigInt({ min: 0n, max: 2n ** 64n - 1n }), { minLength: 6, maxLength: 6 }),
          (number, args) => judge(number, ...args) === SeccompAction.allow
        )
      )
    })

    it("lets clone make threads and processes, but no namespace", () => {
      const threads = 0x7d0f00n
      for (const flags of [17n, threads]) expect(judge(numberOf("clone"), flags)).toBe(SeccompAction.allow)
      const namespaces = [0x20000n, 0x2000000n, 0x4000000n, 0x8000000n, 0x10000000n, 0x20000000n, 0x40000000n]
      for (const flag of namespaces) {
        expect(judge(numberOf("clone"), flag | 17n)).toBe(errno(Errno.EPERM))
        expect(judge(numberOf("clone"), flag | threads | (0xffffffffn << 32n))).toBe(errno(Errno.EPERM))
      }
    })

    it("lets ioctl do all but put input into a terminal, also when the upper half is set", () => {
      expect(judge(numberOf("ioctl"), 0n, 0x5401n)).toBe(SeccompAction.allow)
      for (const request of [0x5412n, 0x541cn, 0x5412n | (1n << 32n), 0x5412n | (0xffffffffn << 32n)]) {
        expect(judge(numberOf("ioctl"), 0n, request)).toBe(errno(Errno.EPERM))
      }
    })

    it("lets sockets be Unix sockets only, judged by the 32 bits the kernel takes", () => {
      for (const call of ["socket", "socketpair"] as const) {
        expect(judge(numberOf(call), 1n, 1n)).toBe(SeccompAction.allow)
        for (const family of [0n, 2n, 10n, 16n, 17n, 38n, 40n, 2n | (1n << 32n), 0xffffffffffffffffn]) {
          expect(judge(numberOf(call), family)).toBe(errno(Errno.EAFNOSUPPORT))
        }
        expect(judge(numberOf(call), 1n | (1n << 32n))).toBe(SeccompAction.allow)
      }
    })

    it("is the same in the kernel's bytes, and ends within its own length for any call", () => {
      expect(disassemble(seccompProgram(name))).toEqual(program)
      expect(program.length).toBeLessThan(256)
      for (let number = 0; number < 600; number += 1) {
        expect(interpret(program, { number, architecture: audit }).steps).toBeLessThanOrEqual(program.length)
      }
    })
  })
}

describe("the seccomp filter for x64", () => {
  it("hides the x32 calls", () => {
    const program = seccompInstructions("x64")
    for (const number of [0x40000000, 0x40000000 + 165, 0xffffffff]) {
      expect(interpret(program, { number, architecture: 0xc000003e }).verdict).toBe(errno(Errno.ENOSYS))
    }
  })
})

describeWith(["scmp_sys_resolver"], "the table of system calls", () => {
  const ask = (architecture: string, call: string): number =>
    Number(
      spawnSync("scmp_sys_resolver", ["-a", architecture, call], { encoding: "utf8", timeout: 10_000 }).stdout
    )

  for (const { column, name, resolver } of architectures) {
    it(`agrees with libseccomp for ${name}`, () => {
      const wrong = Object.entries(allCalls).flatMap(([call, numbers]) => {
        const answer = ask(resolver, call)
        // -1: a call newer than this libseccomp. Other negative numbers: known, but not on this architecture.
        if (answer === -1) return []
        const theirs = answer < 0 ? null : answer
        return theirs === numbers[column] ? [] : [`${call}: ${numbers[column]}, libseccomp says ${theirs}`]
      })
      expect(wrong).toEqual([])
    })
  }
})
