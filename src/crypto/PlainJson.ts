/**
 * The canonical form (RFC 8785) of plain values, quickly: what is signed and what is read are nearly always plain. Anything
 * else is left to others, which also say what is wrong with it.
 *
 * @module
 */

const isSorted = (keys: ReadonlyArray<string>): boolean => {
  for (let index = 1; index < keys.length; index++)
    if ((keys[index - 1] as string) > (keys[index] as string)) return false
  return true
}

const stringText = (text: string): string | undefined =>
  text.isWellFormed() ? JSON.stringify(text) : undefined

const numberText = (value: number): string | undefined =>
  Number.isSafeInteger(value) || (Number.isFinite(value) && !Number.isInteger(value))
    ? JSON.stringify(value)
    : undefined

const arrayText = (items: ReadonlyArray<unknown>, depth: number): string | undefined => {
  let text = "["
  for (let index = 0; index < items.length; index++) {
    const item = plainText(items[index], depth)
    if (item === undefined) return undefined
    text += index === 0 ? item : `,${item}`
  }
  return `${text}]`
}

const objectText = (value: object, depth: number): string | undefined => {
  const prototype = Object.getPrototypeOf(value)
  if ((prototype !== Object.prototype && prototype !== null) || "toJSON" in value) return undefined
  const keys = Object.keys(value)
  if (!isSorted(keys)) keys.sort()
  let text = "{"
  for (const key of keys) {
    const member = (value as Record<string, unknown>)[key]
    if (member === undefined) continue
    const [name, content] = [stringText(key), plainText(member, depth)]
    if (name === undefined || content === undefined) return undefined
    text += text.length === 1 ? `${name}:${content}` : `,${name}:${content}`
  }
  return `${text}}`
}

/**
 * The canonical text of a value made of null, booleans, well-formed strings, numbers that can be held exactly, arrays and
 * plain objects, nested no deeper than `depth`; `undefined` for anything else. Members that are `undefined` are left out.
 */
export const plainText = (value: unknown, depth: number): string | undefined => {
  if (typeof value === "string") return stringText(value)
  if (typeof value === "number") return numberText(value)
  if (typeof value === "boolean") return value ? "true" : "false"
  if (value === null) return "null"
  if (typeof value !== "object" || depth === 0) return undefined
  return Array.isArray(value) ? arrayText(value, depth - 1) : objectText(value, depth - 1)
}
