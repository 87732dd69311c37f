import { dottedName, type Finding, type Node, type Source, walk } from "./Source.ts"

const FILE_LINES_MAXIMUM = 400
const FUNCTION_LINES_MAXIMUM = 70

type Rule = (source: Source) => ReadonlyArray<Finding>

const finding = (source: Source, rule: string, at: number, message: string): Finding => ({
  path: source.path,
  line: source.lineOf(at),
  rule,
  message
})

const isProduct = (path: string): boolean => /^(src|bench|scripts|web)\//.test(path)
const isTest = (path: string): boolean => /^test\/.*\.test\.ts$/.test(path)

const fileLength: Rule = (source) => {
  const lines = source.text.replace(/\n$/, "").split("\n").length
  if (!isProduct(source.path) || lines <= FILE_LINES_MAXIMUM) return []
  return [finding(source, "file-length", 0, `${lines} lines, more than ${FILE_LINES_MAXIMUM}`)]
}

const FUNCTIONS = new Set(["FunctionDeclaration", "FunctionExpression", "ArrowFunctionExpression"])

const functionLength: Rule = (source) => {
  const found: Array<Finding> = []
  if (!isProduct(source.path)) return found
  let reportedUpTo = 0
  walk(source.program, (node) => {
    // Inside a function that is too long already, its inner ones are no news.
    if (!FUNCTIONS.has(node.type) || node.end <= reportedUpTo) return
    const lines = source.lineOf(node.end) - source.lineOf(node.start) + 1
    if (lines <= FUNCTION_LINES_MAXIMUM) return
    reportedUpTo = node.end
    found.push(
      finding(source, "function-length", node.start, `${lines} lines, more than ${FUNCTION_LINES_MAXIMUM}`)
    )
  })
  return found
}

interface Ban {
  /** What the expression spells: exactly, or up to a dot where it ends in one. */
  readonly name: string
  readonly construct?: boolean
  /** The rooms where it may stand. */
  readonly rooms: RegExp
  readonly instead: string
}

const OUTSIDE = /^src\/(adapters|programs)\//
const ADAPTERS = /^src\/adapters\//

const bans: ReadonlyArray<Ban> = [
  { name: "Date.now", rooms: ADAPTERS, instead: "Effect's Clock" },
  { name: "Date", construct: true, rooms: ADAPTERS, instead: "Effect's Clock and DateTime" },
  { name: "performance.now", rooms: ADAPTERS, instead: "Effect's Clock" },
  { name: "Math.random", rooms: /^$/, instead: "the Entropy port, or Effect's Random for jitter" },
  { name: "crypto.", rooms: OUTSIDE, instead: "the Entropy port and the engine" },
  { name: "globalThis.crypto.", rooms: OUTSIDE, instead: "the Entropy port and the engine" },
  { name: "Effect.die", rooms: /^src\/kernel\//, instead: "a typed error" },
  { name: "Queue.unbounded", rooms: /^$/, instead: "a bounded queue" },
  { name: "PubSub.unbounded", rooms: /^$/, instead: "a bounded hub" },
  { name: "console.", rooms: OUTSIDE, instead: "Effect's loggers" }
]

const matches = (ban: Ban, name: string): boolean =>
  ban.name.endsWith(".") ? name.startsWith(ban.name) : name === ban.name

/** Names that a file gives to values of its own, which are then not Node's. */
const ownNames = (source: Source): ReadonlySet<string> => {
  const names = new Set<string>()
  walk(source.program, (node) => {
    const id = node.type === "VariableDeclarator" ? (node["id"] as Node) : undefined
    if (id?.type === "Identifier") names.add(String(id["name"]))
  })
  return names
}

/** Only src: tests, benchmarks and scripts may look at the clock and print. */
const bannedCalls: Rule = (source) => {
  const found: Array<Finding> = []
  if (!source.path.startsWith("src/")) return found
  const own = ownNames(source)
  walk(source.program, (node) => {
    const constructs = node.type === "NewExpression"
    if (!constructs && node.type !== "MemberExpression") return
    const name = dottedName(constructs ? node["callee"] : node)
    if (name === undefined || own.has(name.split(".")[0] as string)) return
    const ban = bans.find((one) => (one.construct === true) === constructs && matches(one, name))
    if (ban === undefined || ban.rooms.test(source.path)) return
    found.push(
      finding(source, "banned-call", node.start, `${name} stands outside its room: use ${ban.instead}`)
    )
  })
  return found
}

/** Ports are types: what they take from crypto exists at compile time only. */
const portsTakeTypes: Rule = (source) =>
  source.path.startsWith("src/ports/")
    ? source.imports
        .filter((one) => one.specifier.includes("/crypto/") && !one.isType)
        .map((one) => finding(source, "ports-take-types", one.start, "ports import only types from crypto"))
    : []

/** `MainLoop.ts`, or `makeNode.ts` where that is the very function it exports; `index.ts` is a room's public face. */
const moduleNames: Rule = (source) => {
  const name = (source.path.split("/").at(-1) ?? "").replace(/\.d?\.?ts$/, "")
  if (!source.path.startsWith("src/") || source.path.startsWith("src/programs/")) return []
  if (/^[A-Z][A-Za-z0-9]*$/.test(name) || name === "index" || source.exports.includes(name)) return []
  return [finding(source, "module-name", 0, "modules are named after what they export, in PascalCase")]
}

const TEST_FUNCTIONS = /^(it|test|describe|suite)\b/
const UNWELCOME = /\.(only|skip|todo|fails)\b/

const focusedOrSkipped: Rule = (source) => {
  const found: Array<Finding> = []
  if (!isTest(source.path)) return found
  walk(source.program, (node) => {
    if (node.type !== "MemberExpression") return
    const name = dottedName(node)
    if (name === undefined || !TEST_FUNCTIONS.test(name) || !UNWELCOME.test(name)) return
    found.push(finding(source, "focused-or-skipped", node.start, `${name} leaves tests out`))
  })
  return found
}

const isAssertion = (name: string): boolean => /^(expect|assert)\b/.test(name)

const namesCalled = (node: Node): ReadonlySet<string> => {
  const names = new Set<string>()
  walk(node, (inner) => {
    if (inner.type === "Identifier") names.add(String(inner["name"]))
  })
  return names
}

const importedNames = (source: Source): ReadonlyArray<string> => {
  const names: Array<string> = []
  walk(source.program, (node) => {
    if (node.type !== "ImportDeclaration") return
    const from = String((node["source"] as Node)["value"])
    if (!from.startsWith(".") || /\/(src|scripts)\//.test(from)) return
    for (const specifier of node["specifiers"] as ReadonlyArray<Node>) {
      names.push(String((specifier["local"] as Node)["name"]))
    }
  })
  return names
}

/** Names in a test file that assert: `expect`, `assert`, what test support exports, and helpers that use these. */
const assertingNames = (source: Source): ReadonlySet<string> => {
  const asserting = new Set(importedNames(source))
  const helpers = new Map<string, ReadonlySet<string>>()
  walk(source.program, (node) => {
    const body =
      node.type === "VariableDeclarator" ? node["init"] : node.type === "FunctionDeclaration" ? node : null
    const id = node["id"] as Node | null | undefined
    if (body != null && id?.type === "Identifier") helpers.set(String(id["name"]), namesCalled(body as Node))
  })
  for (let before = -1; before !== asserting.size; ) {
    before = asserting.size
    for (const [name, called] of helpers) {
      if ([...called].some((one) => isAssertion(one) || asserting.has(one))) asserting.add(name)
    }
  }
  return asserting
}

const TEST = /^(it|test)(\.(effect|live|prop|each|for|skipIf|runIf|concurrent|sequential))*$/
const TABLE = /\.(each|for|skipIf|runIf)$/

const assertsSomething: Rule = (source) => {
  const found: Array<Finding> = []
  if (!isTest(source.path)) return found
  const asserting = assertingNames(source)
  walk(source.program, (node) => {
    if (node.type !== "CallExpression") return
    const name = dottedName(node["callee"])
    if (name === undefined || !TEST.test(name)) return
    // it.each(table) is not yet the test; the call of what it returns is.
    if (TABLE.test(name) && (node["callee"] as Node).type !== "CallExpression") return
    const called = (node["arguments"] as ReadonlyArray<Node>).map(namesCalled)
    if (called.some((names) => [...names].some((one) => isAssertion(one) || asserting.has(one)))) return
    found.push(finding(source, "asserts-nothing", node.start, "a test that asserts nothing cannot fail"))
  })
  return found
}

const swallowedErrors: Rule = (source) => {
  const found: Array<Finding> = []
  walk(source.program, (node) => {
    if (node.type !== "CatchClause") return
    const body = node["body"] as Node
    const commented = source.comments.some(({ start }) => start > body.start && start < body.end)
    if ((body["body"] as ReadonlyArray<Node>).length > 0 || commented) return
    found.push(
      finding(source, "swallowed-error", node.start, "an empty catch swallows errors: say why, or handle it")
    )
  })
  return found
}

const openEnds: Rule = (source) =>
  source.comments
    .filter(({ value }) => /\b(TODO|FIXME|XXX|HACK)\b/.test(value))
    .map(({ start }) =>
      finding(source, "open-end", start, "finish it, or write it down where work is planned")
    )

/** Every rule that looks at one source file. */
export const sourceRules: ReadonlyArray<Rule> = [
  fileLength,
  functionLength,
  bannedCalls,
  portsTakeTypes,
  moduleNames,
  focusedOrSkipped,
  assertsSomething,
  swallowedErrors,
  openEnds
]
