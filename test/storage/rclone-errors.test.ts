import assert from "node:assert/strict";
import { test } from "node:test";
import { OperationError, StorageError } from "../../src/errors.ts";
import {
  isDirectoryMissing,
  isFolder,
  isMissing,
  rcloneError,
  readRcloneFailure,
} from "../../src/storage/rclone-errors.ts";

const action = { verb: "put", key: "a" };

/** What rclone 1.60 and its providers say, and what we make of it. */
const rows: readonly (readonly [string, string, boolean?])[] = [
  ["googleapi: Error 403: User rate limit, rateLimitExceeded", "StorageError", true],
  ["googleapi: Error 403: The user does not have sufficient rights", "StorageAccessError"],
  ["AccessDenied: Access Denied\n\tstatus code: 403, request id: x", "StorageAccessError"],
  ["couldn't fetch token: invalid_grant: Bad Request", "StorageAccessError"],
  ["open /x/y: permission denied", "StorageAccessError"],
  ["write /x/y: no space left on device", "StorageError", false],
  ["didn't find section in config file", "StorageError", false],
  ['didn\'t find backend called "nope"', "StorageError", false],
  ["object not found", "StorageError", false],
  ["error in ListJSON: directory not found", "StorageError", false],
  ['Post "https://x": dial tcp: lookup x: no such host', "StorageError", true],
  ["unexpected EOF", "StorageError", true],
  ["pacer: low level retry 1/10 (error 503: Service Unavailable)", "StorageError", true],
  ["", "StorageError", true],
];

for (const [text, name, isRetryable] of rows) {
  test(`"${text}" is ${name}${isRetryable === undefined ? "" : `, retryable: ${isRetryable}`}`, () => {
    const failure = readRcloneFailure(500, JSON.stringify({ error: text, status: 500 }));
    const error = rcloneError(failure, action, "rclone:r:p");
    assert.ok(error instanceof OperationError);
    assert.equal(error.name, name);
    assert.match(error.message, /^cannot put a in rclone:r:p: rclone says /);
    assert.ok(!error.message.includes("\n"), error.message);
    if (isRetryable !== undefined) {
      assert.ok(error instanceof StorageError && error.isRetryable === isRetryable);
    }
  });
}

test("what is missing is told by rclone's words, not by its status", () => {
  for (const text of ["object not found", "readdirent /a/b: not a directory"]) {
    assert.ok(isMissing(readRcloneFailure(404, text)), text);
    assert.ok(isMissing(rcloneError(readRcloneFailure(404, text), action, "s")), text);
  }
  for (const text of ["", "<html>404</html>", "bucket not found", "section not found"]) {
    assert.ok(!isMissing(readRcloneFailure(404, text)), text);
  }
  assert.ok(isDirectoryMissing(readRcloneFailure(404, "error in ListJSON: directory not found")));
  assert.ok(!isDirectoryMissing(readRcloneFailure(404, "object not found")));
  assert.ok(isFolder(readRcloneFailure(404, "is a directory not a file")));
});

test("what is no failure of rclone's comes back as it is", () => {
  const error = new TypeError("a bug");
  assert.equal(rcloneError(error, action, "s"), error);
});
