/** A small interpreter of the part of classic BPF that seccomp filters use, so that every architecture can be tested here. */
import type { BpfInstruction } from "../../src/adapters/Seccomp.ts"
import { Bpf } from "../../src/adapters/Seccomp.ts"

/** What the kernel shows a filter of one system call. */
export interface SeccompData {
  readonly number: number
  readonly architecture: number
  readonly args?: ReadonlyArray<bigint>
}

const dataOf = ({ architecture, args = [], number }: SeccompData): DataView => {
  const view = new DataView(new ArrayBuffer(64))
  view.setUint32(0, number, true)
  view.setUint32(4, architecture, true)
  args.forEach((value, index) => view.setBigUint64(16 + index * 8, value, true))
  return view
}

/** Runs the filter; answers what it returns and how many instructions it took. Throws on anything the kernel would refuse. */
export const interpret = (program: ReadonlyArray<BpfInstruction>, call: SeccompData) => {
  const data = dataOf(call)
  let accumulator = 0
  let steps = 0
  for (let at = 0; ; ) {
    const instruction = program[at]
    if (instruction === undefined) throw new RangeError(`the program runs past its end at ${at}`)
    steps += 1
    const { code, jf, jt, k } = instruction
    const jump = (holds: boolean) => at + 1 + (holds ? jt : jf)
    switch (code) {
      case Bpf.load:
        if (k % 4 !== 0 || k > 60) throw new RangeError(`no word at ${k}`)
        accumulator = data.getUint32(k, true)
        at += 1
        break
      case Bpf.jumpEqual:
        at = jump(accumulator === k)
        break
      case Bpf.jumpGreaterOrEqual:
        at = jump(accumulator >= k)
        break
      case Bpf.jumpSet:
        at = jump((accumulator & k) !== 0)
        break
      case Bpf.return:
        return { verdict: k, steps }
      default:
        throw new RangeError(`unknown opcode ${code} at ${at}`)
    }
  }
}

/** The instructions of a filter in the kernel's byte form. */
export const disassemble = (bytes: Uint8Array): ReadonlyArray<BpfInstruction> => {
  if (bytes.length % 8 !== 0) throw new RangeError("not a whole number of instructions")
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  return Array.from({ length: bytes.length / 8 }, (_, index) => ({
    code: view.getUint16(index * 8, true),
    jt: view.getUint8(index * 8 + 2),
    jf: view.getUint8(index * 8 + 3),
    k: view.getUint32(index * 8 + 4, true)
  }))
}
