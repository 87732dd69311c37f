// The beginning of every file in dist/, written for the oldest Node that may be asked to run it: the program
// itself is text until this has looked at the version, so that no Node trips over syntax that it cannot parse.
// It runs as CommonJS (the file alone, or in dist/) and as an ES module (copied below a package.json of that type).
var version = process.versions.node.split(".")
if (+version[0] < 22 || (+version[0] === 22 && +version[1] < 19)) {
  console.error(
    "__NAME__ needs Node 22.19 or newer, and this is Node " + process.versions.node + ": " + process.execPath
  )
  process.exit(78)
}
// Node 22 calls its SQLite experimental in a warning. We know, and say nothing of it; other warnings pass.
var emitWarning = process.emitWarning
process.emitWarning = function (warning, type) {
  var name = type !== null && typeof type === "object" ? type.type : type
  if (name === "ExperimentalWarning" && String(warning).indexOf("SQLite is an experimental feature") === 0)
    return
  return emitWarning.apply(process, arguments)
}
var Module = process.getBuiltinModule("node:module")
var self =
  typeof module === "object"
    ? module
    : new Module(Module.createRequire(process.argv[1]).resolve(process.argv[1]))
if (typeof module !== "object") {
  self.filename = self.id
  self.paths = []
}
// A part of the program, which stands compressed in a line of its own further down.
function run(name) {
  var text = process.getBuiltinModule("node:fs").readFileSync(self.filename, "latin1")
  var start = text.indexOf("\n//" + name + " ") + name.length + 4
  var end = text.indexOf("\n", start)
  var packed = Buffer.from(text.slice(start, end < 0 ? text.length : end), "base64")
  self._compile(
    process.getBuiltinModule("node:zlib").brotliDecompressSync(packed).toString("latin1"),
    self.filename
  )
}
function isMainThread() {
  return process.getBuiltinModule("node:worker_threads").isMainThread
}
__START__
