/**
 * The jail's seccomp filter: a classic BPF program, assembled here so that no library or helper binary is needed.
 *
 * The kernel runs it on every system call of a job over `struct seccomp_data { int nr; u32 arch; u64 ip; u64 args[6] }`.
 * What it decides: a call of another architecture kills the process (32-bit calls on a 64-bit kernel have other
 * numbers); calls of x64's x32 side and {@link absentSyscalls} do not exist; {@link deniedSyscalls}, `clone` with a new
 * namespace and pushing input into a terminal are forbidden; sockets are Unix sockets only. All else is allowed.
 */
import type { SyscallNumbers } from "./jail/SyscallTable.ts"
import { absentSyscalls, deniedSyscalls, filteredSyscalls } from "./jail/SyscallTable.ts"

/** The architectures there is a filter for, by Node's names. */
export type SeccompArchitecture = "x64" | "arm64" | "arm"

export const isSeccompArchitecture = (name: string): name is SeccompArchitecture =>
  name === "x64" || name === "arm64" || name === "arm"

/** One BPF instruction: opcode, relative jumps where true and false, constant. */
export interface BpfInstruction {
  readonly code: number
  readonly jt: number
  readonly jf: number
  readonly k: number
}

/** Opcodes: load a word at an offset, jump where equal / greater or equal / any bit set, return. */
export const Bpf = {
  load: 0x20,
  jumpEqual: 0x15,
  jumpGreaterOrEqual: 0x35,
  jumpSet: 0x45,
  return: 0x06
} as const

/** What a filter returns; the low 16 bits of `errno` carry the error number. */
export const SeccompAction = { allow: 0x7fff0000, killProcess: 0x80000000, errno: 0x00050000 } as const

/** Error numbers, equal on all three architectures. */
export const Errno = { EPERM: 1, ENOSYS: 38, EAFNOSUPPORT: 97 } as const

const auditArchitecture = { x64: 0xc000003e, arm64: 0xc00000b7, arm: 0x40000028 } as const
const column = { x64: 0, arm64: 1, arm: 2 } as const
const x32Bit = 0x40000000

/** Where things lie in seccomp_data. All three are little-endian, so an argument's low half comes first. */
const offset = { number: 0, architecture: 4, argument0: 16, argument1: 24 } as const

/** CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. NEWTIME cannot be asked for through clone. */
const newNamespaces = 0x7e020000
const AF_UNIX = 1
/** TIOCSTI and TIOCLINUX put characters into a terminal's input queue, from where the shell outside would read them. */
const terminalInputs = [0x5412, 0x541c]

const verdicts = {
  allow: SeccompAction.allow,
  kill: SeccompAction.killProcess,
  forbidden: SeccompAction.errno | Errno.EPERM,
  absent: SeccompAction.errno | Errno.ENOSYS,
  noSuchFamily: SeccompAction.errno | Errno.EAFNOSUPPORT
} as const
type Verdict = keyof typeof verdicts

/** A jump names the verdict it leads to where it holds; where not, the next instruction is run. */
type Line =
  | { readonly _tag: "load"; readonly at: number }
  | {
      readonly _tag: "jump"
      readonly code: number
      readonly k: number
      readonly to: Verdict | "next"
      readonly otherwise?: Verdict
    }
  | { readonly _tag: "skip"; readonly unless: number; readonly count: number }

const when = (code: number, k: number, to: Verdict | "next", otherwise?: Verdict): Line =>
  otherwise === undefined ? { _tag: "jump", code, k, to } : { _tag: "jump", code, k, to, otherwise }

const present = (
  calls: Record<string, SyscallNumbers>,
  architecture: SeccompArchitecture
): ReadonlyArray<number> =>
  Object.values(calls)
    .map((numbers) => numbers[column[architecture]])
    .filter((number) => number !== null)

/** Lines run only for the call `number`; they must all end in a verdict, since the accumulator is no longer the number. */
const onlyFor = (number: number, lines: ReadonlyArray<Line>): ReadonlyArray<Line> => [
  { _tag: "skip", unless: number, count: lines.length },
  ...lines
]

const program = (architecture: SeccompArchitecture): ReadonlyArray<Line> => {
  const number = (name: keyof typeof filteredSyscalls) => filteredSyscalls[name][column[architecture]]
  const unixOnly: ReadonlyArray<Line> = [
    { _tag: "load", at: offset.argument0 },
    when(Bpf.jumpEqual, AF_UNIX, "allow", "noSuchFamily")
  ]
  return [
    { _tag: "load", at: offset.architecture },
    when(Bpf.jumpEqual, auditArchitecture[architecture], "next", "kill"),
    { _tag: "load", at: offset.number },
    ...(architecture === "x64" ? [when(Bpf.jumpGreaterOrEqual, x32Bit, "absent")] : []),
    ...present(absentSyscalls, architecture).map((call) => when(Bpf.jumpEqual, call, "absent")),
    ...present(deniedSyscalls, architecture).map((call) => when(Bpf.jumpEqual, call, "forbidden")),
    ...onlyFor(number("clone"), [
      { _tag: "load", at: offset.argument0 },
      when(Bpf.jumpSet, newNamespaces, "forbidden", "allow")
    ]),
    ...onlyFor(number("ioctl"), [
      { _tag: "load", at: offset.argument1 },
      ...terminalInputs.map((request, index) =>
        index === terminalInputs.length - 1
          ? when(Bpf.jumpEqual, request, "forbidden", "allow")
          : when(Bpf.jumpEqual, request, "forbidden")
      )
    ]),
    ...onlyFor(number("socket"), unixOnly),
    ...onlyFor(number("socketpair"), unixOnly)
  ]
}

/** The filter as instructions. The verdicts stand at the end, `allow` first, so that falling through allows. */
export const seccompInstructions = (architecture: SeccompArchitecture): ReadonlyArray<BpfInstruction> => {
  const lines = program(architecture)
  const order = Object.keys(verdicts) as ReadonlyArray<Verdict>
  const distance = (from: number, to: Verdict | "next" | undefined): number => {
    if (to === undefined || to === "next") return 0
    const steps = lines.length + order.indexOf(to) - from - 1
    if (steps > 255)
      throw new RangeError(`The seccomp filter is too long: a jump of ${steps} does not fit into a byte.`)
    return steps
  }
  const body = lines.map((line, index): BpfInstruction => {
    switch (line._tag) {
      case "load":
        return { code: Bpf.load, jt: 0, jf: 0, k: line.at }
      case "skip":
        return { code: Bpf.jumpEqual, jt: 0, jf: line.count, k: line.unless }
      case "jump":
        return {
          code: line.code,
          jt: distance(index, line.to),
          jf: distance(index, line.otherwise),
          k: line.k
        }
    }
  })
  return [
    ...body,
    ...order.map((verdict): BpfInstruction => ({ code: Bpf.return, jt: 0, jf: 0, k: verdicts[verdict] }))
  ]
}

/** The filter as the kernel's `struct sock_filter[]`, 8 bytes each: what bubblewrap's `--seccomp` reads. */
export const seccompProgram = (architecture: SeccompArchitecture): Uint8Array => {
  const instructions = seccompInstructions(architecture)
  const bytes = new Uint8Array(instructions.length * 8)
  const view = new DataView(bytes.buffer)
  instructions.forEach(({ code, jt, jf, k }, index) => {
    view.setUint16(index * 8, code, true)
    view.setUint8(index * 8 + 2, jt)
    view.setUint8(index * 8 + 3, jf)
    view.setUint32(index * 8 + 4, k, true)
  })
  return bytes
}
