import { expect, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fc from "fast-check"
import type { OverflowPolicy } from "../../src/kernel/ChildSpec.ts"
import { Envelope, Mailbox } from "../../src/kernel/Mailbox.ts"

class Note extends Envelope {
  override expire(): void {
    throw new Error("a note has no deadline")
  }
}

const note = (id: number): Note => new Note(String(id), id, Number.POSITIVE_INFINITY, undefined)

/** The mailbox as one would write it without caring for cost. */
class Model {
  queue: Array<number> = []
  line: Array<number> = []
  readonly capacity: number
  readonly overflow: OverflowPolicy
  constructor(capacity: number, overflow: OverflowPolicy) {
    this.capacity = capacity
    this.overflow = overflow
  }
  offer(id: number): string {
    if (this.queue.length < this.capacity && this.line.length === 0) {
      this.queue.push(id)
      return "accepted"
    }
    if (this.overflow === "wait" && this.line.length < 1_024) {
      this.line.push(id)
      return "waiting"
    }
    return "full"
  }
  admitAll(): Array<number> {
    const moved: Array<number> = []
    if (this.queue.length < Math.ceil(this.capacity / 2)) {
      while (this.line.length > 0 && this.queue.length < this.capacity) {
        const id = this.line.shift() as number
        this.queue.push(id)
        moved.push(id)
      }
    }
    return moved
  }
  remove(id: number): void {
    this.queue = this.queue.filter((other) => other !== id)
    this.line = this.line.filter((other) => other !== id)
  }
}

type Step =
  | { readonly do: "offer" }
  | { readonly do: "shift" }
  | { readonly do: "remove"; readonly which: number }

const steps = fc.array(
  fc.oneof(
    { weight: 6, arbitrary: fc.constant<Step>({ do: "offer" }) },
    { weight: 3, arbitrary: fc.constant<Step>({ do: "shift" }) },
    { weight: 2, arbitrary: fc.nat(200).map((which): Step => ({ do: "remove", which })) }
  ),
  { maxLength: 400 }
)

it("behaves like a list with a bound and a line, whatever is done to it", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 10 }),
      fc.constantFrom<OverflowPolicy>("wait", "reject", "drop-oldest"),
      steps,
      (capacity, overflow, doings) => {
        const mailbox = new Mailbox<Note>(capacity, overflow)
        const model = new Model(capacity, overflow)
        const present: Array<Note> = []
        let next = 0
        const admit = (): void => {
          const moved: Array<number> = []
          for (let letter = mailbox.admit(); letter !== undefined; letter = mailbox.admit()) {
            moved.push(letter.payload as number)
          }
          expect(moved).toEqual(model.admitAll())
        }
        for (const step of doings) {
          if (step.do === "offer") {
            const letter = note(next++)
            const offered = mailbox.offer(letter)
            expect(offered).toBe(model.offer(letter.payload as number))
            if (offered !== "full") {
              present.push(letter)
            }
          } else if (step.do === "shift") {
            const letter = mailbox.shift()
            expect(letter?.payload).toBe(model.queue.shift())
            if (letter !== undefined) {
              present.splice(present.indexOf(letter), 1)
            }
            admit()
          } else if (present.length > 0) {
            const [letter] = present.splice(step.which % present.length, 1)
            mailbox.remove(letter as Note)
            model.remove(letter?.payload as number)
            admit()
          }
          expect(mailbox.depth).toBe(model.queue.length)
          expect(mailbox.waiting).toBe(model.line.length)
          expect(mailbox.depth).toBeLessThanOrEqual(capacity)
        }
        expect(mailbox.drain().map((letter) => letter.payload)).toEqual([...model.queue, ...model.line])
        expect(mailbox.depth + mailbox.waiting).toBe(0)
      }
    ),
    { numRuns: 500 }
  )
})

it("lets the line in at half empty again, after a letting in that filled it", () => {
  const mailbox = new Mailbox<Note>(2, "wait")
  const notes = Array.from({ length: 5 }, (_, id) => note(id))
  for (const letter of notes) mailbox.offer(letter)
  mailbox.shift()
  mailbox.shift()
  expect([mailbox.admit()?.payload, mailbox.admit()?.payload, mailbox.admit()]).toEqual([2, 3, undefined])
  mailbox.remove(notes[2] as Note)
  expect(mailbox.admit()).toBeUndefined()
})

it("removes from the middle at amortised constant cost", () => {
  const work = (size: number): number => {
    const mailbox = new Mailbox<Note>(size, "reject")
    const letters = Array.from({ length: size }, (_, id) => note(id))
    for (const letter of letters) {
      mailbox.offer(letter)
    }
    const before = process.cpuUsage()
    for (let index = letters.length - 1; index > 0; index -= 2) {
      mailbox.remove(letters[index] as Note)
    }
    for (const letter of letters.slice(0, size / 2)) {
      mailbox.offer(note(letter.payload as number))
    }
    const { system, user } = process.cpuUsage(before)
    return (user + system) / 1_000
  }
  work(1_000)
  // A quadratic removal of 200,000 from an array takes seconds of processor time; linear work takes milliseconds.
  expect(work(400_000)).toBeLessThan(2_000)
})

it.effect("an empty mailbox gives nothing and holds nothing", () =>
  Effect.sync(() => {
    const mailbox = new Mailbox<Note>(3, "reject")
    expect(mailbox.shift()).toBeUndefined()
    expect(mailbox.admit()).toBeUndefined()
    expect(mailbox.hasRoom).toBe(true)
    expect(mailbox.drain()).toEqual([])
  })
)
