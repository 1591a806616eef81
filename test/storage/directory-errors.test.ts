import assert from "node:assert/strict";
import { test } from "node:test";
import { LocalFileError, StorageError, UsageError } from "../../src/errors.ts";
import { localFileError } from "../../src/io/system-error.ts";
import { directoryError, isMissing } from "../../src/storage/directory-errors.ts";

function systemError(code: string): Error {
  return Object.assign(new Error(`${code}: as the system says it`), { code, errno: -1 });
}

const rows: readonly [string, string, string, RegExp | undefined, boolean?][] = [
  ["ENOSPC", "StorageError", "no space left on the device (ENOSPC)", /^Free space there/, false],
  ["EDQUOT", "StorageError", "the disk quota is used up (EDQUOT)", /^Free space there/, false],
  ["EIO", "StorageError", "input/output error (EIO)", /kernel's log/, false],
  ["EACCES", "StorageAccessError", "permission denied (EACCES)", /read and write permission/],
  ["EPERM", "StorageAccessError", "operation not permitted (EPERM)", /read and write permission/],
  ["EROFS", "StorageAccessError", "the file system is mounted read-only (EROFS)", /for writing/],
  ["ESTALE", "StorageError", "stale NFS file handle (ESTALE)", undefined, true],
  ["EMFILE", "StorageError", "too many open files (EMFILE)", /ulimit -n/, true],
  ["EBUSY", "StorageError", "EBUSY: as the system says it", undefined, true],
  ["EXOTIC", "StorageError", "EXOTIC: as the system says it", undefined, false],
];

for (const [code, name, text, hint, isRetryable] of rows) {
  test(`${code} becomes ${name} with path, cause and a way out`, () => {
    const cause = systemError(code);
    for (const error of [cause, localFileError("write", "/r/a", cause)]) {
      const found = directoryError("write", "/r/wal_005/a", error);
      assert.ok(found instanceof Error && "hint" in found);
      assert.equal(found.name, name);
      assert.equal(found.message, `cannot write /r/wal_005/a: ${text}`);
      if (hint === undefined) assert.equal(found.hint, undefined);
      else assert.match(String(found.hint), hint);
      assert.equal(found.cause, cause);
      if (found instanceof StorageError) assert.equal(found.isRetryable, isRetryable);
    }
  });
}

test("what is no system error stays what it is", () => {
  const others = [
    new TypeError("a bug"),
    new UsageError("ours, with a code too"),
    Object.assign(new Error("a library's"), { code: "ERR_INVALID_ARG_TYPE" }),
    "text",
  ];
  for (const error of others) {
    assert.equal(directoryError("write", "/r/a", error), error);
    assert.equal(localFileError("write", "/r/a", error), error);
  }
});

test("missing is what is not there, or lies below a file", () => {
  assert.ok(isMissing(systemError("ENOENT")) && isMissing(systemError("ENOTDIR")));
  assert.ok(isMissing(localFileError("open", "/r/a", systemError("ENOENT"))));
  assert.ok(!isMissing(systemError("EACCES")) && !isMissing(new LocalFileError("bare")));
});
