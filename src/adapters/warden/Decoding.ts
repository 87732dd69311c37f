/**
 * Small strict decoders for what comes through the pipe between warden and client. They stand beside the schemas because
 * the warden must stay small and does not load Effect; a property test holds them against the schemas of a manifest.
 *
 * A decoder gives the value, or throws {@link BadMessage} with the place of what is wrong.
 */

/** What came is not what may come. */
export class BadMessage extends Error {
  override readonly name = "BadMessage"
}

/** Takes an unknown value apart; `at` names its place in messages. */
export type Decoder<A> = (value: unknown, at: string) => A

const bad = (at: string, expected: string): never => {
  throw new BadMessage(`${at} is not ${expected}`)
}

export const integer =
  (minimum: number, maximum: number): Decoder<number> =>
  (value, at) =>
    typeof value === "number" && Number.isSafeInteger(value) && value >= minimum && value <= maximum
      ? value
      : bad(at, `an integer from ${minimum} to ${maximum}`)

export const boolean: Decoder<boolean> = (value, at) =>
  typeof value === "boolean" ? value : bad(at, "true or false")

/** A string of at most `maximum` UTF-16 units that fits the pattern; none holds a NUL. */
export const text =
  (maximum: number, pattern?: RegExp): Decoder<string> =>
  (value, at) =>
    typeof value === "string" &&
    value.length <= maximum &&
    !value.includes("\0") &&
    (pattern === undefined || pattern.test(value))
      ? value
      : bad(at, `a text of at most ${maximum} characters as it should be`)

export const literal =
  <const A extends string>(...allowed: ReadonlyArray<A>): Decoder<A> =>
  (value, at) =>
    allowed.find((one) => one === value) ?? bad(at, `one of ${allowed.join(", ")}`)

export const nullable =
  <A>(inner: Decoder<A>): Decoder<A | null> =>
  (value, at) =>
    value === null ? null : inner(value, at)

export const list =
  <A>(inner: Decoder<A>, minimum: number, maximum: number): Decoder<ReadonlyArray<A>> =>
  (value, at) =>
    Array.isArray(value) && value.length >= minimum && value.length <= maximum
      ? value.map((item, index) => inner(item, `${at}[${index}]`))
      : bad(at, `a list of ${minimum} to ${maximum}`)

/** Like {@link list}; nothing stands in it twice. */
export const set =
  (inner: Decoder<string>, maximum: number): Decoder<ReadonlyArray<string>> =>
  (value, at) => {
    const items = list(inner, 0, maximum)(value, at)
    return new Set(items).size === items.length ? items : bad(at, "without repetition")
  }

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** An object whose member names fit `name`. */
export const dictionary =
  <A>(name: RegExp, inner: Decoder<A>, maximum: number): Decoder<Readonly<Record<string, A>>> =>
  (value, at) => {
    if (!isObject(value)) return bad(at, "an object")
    const entries = Object.entries(value)
    if (entries.length > maximum) return bad(at, `an object of at most ${maximum} members`)
    return Object.fromEntries(
      entries.map(([key, item]) => [
        name.test(key) ? key : bad(`a member of ${at}`, "named as it should be"),
        inner(item, `${at}.${key}`)
      ])
    )
  }

type Members = Readonly<Record<string, Decoder<unknown>>>

/** An object of exactly these members. */
export const struct =
  <M extends Members>(members: M): Decoder<{ readonly [K in keyof M]: ReturnType<M[K]> }> =>
  (value, at) => {
    if (!isObject(value)) return bad(at, "an object")
    const names = Object.keys(members)
    const strange = Object.keys(value).find((key) => !Object.hasOwn(members, key))
    if (strange !== undefined) return bad(at, "without members that nobody knows")
    const missing = names.find((name) => !Object.hasOwn(value, name))
    if (missing !== undefined) return bad(`${at}.${missing}`, "there")
    return Object.fromEntries(
      names.map((name) => [name, (members[name] as Decoder<unknown>)(value[name], `${at}.${name}`)])
    ) as { readonly [K in keyof M]: ReturnType<M[K]> }
  }

/** An object whose member `type` chooses which of the given ones it is. */
export const tagged =
  <M extends Readonly<Record<string, Members>>>(
    kinds: M
  ): Decoder<
    {
      [K in keyof M & string]: { readonly type: K } & { readonly [N in keyof M[K]]: ReturnType<M[K][N]> }
    }[keyof M & string]
  > =>
  (value, at) => {
    const type = isObject(value) ? value["type"] : undefined
    const members = typeof type === "string" && Object.hasOwn(kinds, type) ? kinds[type] : undefined
    if (typeof type !== "string" || members === undefined) return bad(at, "of a known type")
    return struct({ type: literal(type), ...members })(value, at) as never
  }
