import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { indentJson } from "../../src/commands/indented-json.ts";

test("is laid out as everybody lays it out", () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.constantFrom("    ", "\t"), (value, indent) => {
      const text = JSON.stringify(value);
      assert.equal(indentJson(text, indent), JSON.stringify(JSON.parse(text), undefined, indent));
    }),
  );
});

test("numbers keep their digits, texts their signs", () => {
  assert.equal(
    indentJson('{"a":18446744073709551615,"b":"{\\"x\\":[1,2]}","c":1.50}', "  "),
    '{\n  "a": 18446744073709551615,\n  "b": "{\\"x\\":[1,2]}",\n  "c": 1.50\n}',
  );
});
