import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { OperationError, StorageError } from "../../src/errors.ts";
import { connectionError, failedAction } from "../../src/storage/request-errors.ts";

const hints = { endpoint: "Check the endpoint.", certificate: "Trust the authority." };
const action = { verb: "list", key: "", storage: "s3://b" };

test("an action on the whole store names the store alone", () => {
  assert.equal(failedAction(action), "cannot list s3://b");
  assert.equal(failedAction({ ...action, verb: "put", key: "a" }), "cannot put a in s3://b");
});

/** What the system says, in what words it is told, and the way out. */
const rows: readonly (readonly [code: string, says: string, told: string, hint: string])[] = [
  [
    "ENOTFOUND",
    "getaddrinfo ENOTFOUND no.host",
    "no such host (getaddrinfo ENOTFOUND no.host)",
    hints.endpoint,
  ],
  [
    "ECONNREFUSED",
    "connect ECONNREFUSED 127.0.0.1:1",
    "nothing listens there (connect ECONNREFUSED 127.0.0.1:1)",
    hints.endpoint,
  ],
  [
    "EAI_AGAIN",
    "getaddrinfo EAI_AGAIN a.host",
    "the name server does not answer (getaddrinfo EAI_AGAIN a.host)",
    "",
  ],
  ["ECONNRESET", "read ECONNRESET", "read ECONNRESET", ""],
  [
    "ECONNRESET",
    "socket hang up",
    "socket hang up",
    "The server ended the connection without an answer. If it goes on: an endpoint with http:// " +
      "may have to be https://.",
  ],
  [
    "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
    "unable to verify the first certificate",
    "unable to verify the first certificate",
    hints.certificate,
  ],
  [
    "CERT_HAS_EXPIRED",
    "certificate has expired",
    "certificate has expired",
    "The server's certificate has expired, or the clock of this machine is wrong.",
  ],
];

describe("a connection that failed", () => {
  for (const [code, says, told, hint] of rows) {
    test(`${code}: ${says}`, () => {
      const error = Object.assign(new Error(says), { code });
      const found = connectionError(error, action, hints);
      assert.ok(found instanceof StorageError);
      assert.equal(found.message, `cannot list s3://b: ${told}`);
      assert.equal(found.hint ?? "", hint);
      assert.equal(found.isRetryable, !/CERT|VERIFY/.test(code));
      assert.equal(found.cause, error);
    });
  }

  test("what is no failure of a connection stays what it is", () => {
    const bug = new TypeError("a bug");
    assert.equal(connectionError(bug, action, hints), bug);
    const ours = new StorageError("ours", { isRetryable: false });
    assert.ok(ours instanceof OperationError);
    assert.equal(connectionError(ours, action, hints), ours);
  });
});
