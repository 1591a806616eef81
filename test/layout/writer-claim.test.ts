import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { formatWriterClaim, parseWriterClaim } from "../../src/layout/writer-claim.ts";

const claim = {
  systemId: 7412345678901234567n,
  timeline: 2,
  name: "",
  host: "pg1",
  dataDirectory: "/data",
  directoryId: "1:2",
  bootId: "",
  extension: "zst",
};

test("what is written is read again", () => {
  const claims = fc.record({
    systemId: fc.bigInt({ min: 1n, max: (1n << 64n) - 1n }),
    timeline: fc.integer({ min: 1, max: 2 ** 32 - 1 }),
    name: fc.string(),
    host: fc.string(),
    dataDirectory: fc.string(),
    directoryId: fc.string(),
    bootId: fc.string(),
    extension: fc.constantFrom("", "zst", "lz4"),
  });
  fc.assert(
    fc.property(claims, (one) =>
      assert.deepEqual(parseWriterClaim(formatWriterClaim(one)), { ...one }),
    ),
  );
});

const bad = [
  { name: "no JSON", text: "{", message: /./ },
  { name: "a list", text: "[]", message: /no system_identifier/ },
  { name: "text for a number", change: ['"timeline":2', '"timeline":"2"'], message: /no timeline/ },
  { name: "no host", change: ['"host":"pg1",', ""], message: /^a writer's claim has no host$/ },
  { name: "a path for an extension", change: ['"zst"', '"../x"'], message: /extension "\.\.\/x"$/ },
];
for (const { name, text, change, message } of bad) {
  test(`refuses a claim: ${name}`, () => {
    const [from = "", to = ""] = change ?? [];
    const wrong = text ?? formatWriterClaim(claim).replace(from, to);
    assert.throws(() => parseWriterClaim(wrong), { name: /FormatError|TruncatedError/, message });
  });
}
