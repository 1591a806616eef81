import assert from "node:assert/strict";
import { statSync } from "node:fs";
import { test } from "node:test";
import { ConfigError, systemErrorCode } from "../src/errors.ts";

test("the code of a system error is not that of one of ours", () => {
  assert.throws(
    () => statSync("/no/such/file"),
    (error: unknown) => systemErrorCode(error) === "ENOENT",
  );
  assert.equal(systemErrorCode(new ConfigError("x")), undefined);
  assert.equal(systemErrorCode(new Error("x")), undefined);
  assert.equal(systemErrorCode("ENOENT"), undefined);
});
