/**
 * Modules of the runtime that are slow to load, for programs that may end without them: wal-push
 * runs for every segment. The times are Bun's, of an executable that was just started.
 */

/** 3 to 4 ms. */
export function zlib() {
  return process.getBuiltinModule("node:zlib");
}

/** 2 to 3 ms. */
export function nodeCrypto() {
  return process.getBuiltinModule("node:crypto");
}

/** 2 ms. */
export function childProcess() {
  return process.getBuiltinModule("node:child_process");
}

/** 2 ms. */
export function util() {
  return process.getBuiltinModule("node:util");
}
