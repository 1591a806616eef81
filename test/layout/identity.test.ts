import assert from "node:assert/strict";
import { test } from "node:test";
import { formatIdentity, parseIdentity } from "../../src/layout/identity.ts";

test("the identity is written and read without loss", () => {
  for (const systemId of [1n, 7710483330612974385n, 2n ** 64n - 1n]) {
    assert.equal(formatIdentity(systemId), `{"system_identifier":${systemId}}`);
    assert.equal(parseIdentity(formatIdentity(systemId)), systemId);
  }
});

for (const text of [
  "",
  "{}",
  "[]",
  "7",
  '{"System_identifier":7}',
  '{"system_identifier":0}',
  '{"system_identifier":-1}',
  '{"system_identifier":18446744073709551616}',
  '{"system_identifier":"7"}',
  '{"system_identifier":7.0}',
  '{"system_identifier":7',
]) {
  test(`refuses ${JSON.stringify(text)}`, () => {
    assert.throws(() => parseIdentity(text), { name: /^(FormatError|TruncatedError)$/ });
  });
}
