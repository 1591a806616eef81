import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { parseJsonObject } from "../../src/config/json-file.ts";

test("reads members as text", () => {
  const source = `\uFEFF{
    "text": "a\\n\\u00e9 \\"quoted\\"", "number": 16, "exact": 12345678901234567890.10,
    "yes": true, "no": false, "nothing": null, "nested": {"a": [1, 2.50, {"b": null}]}, "list": []
  }`;
  assert.deepEqual(Object.fromEntries(parseJsonObject(source)), {
    text: 'a\né "quoted"',
    number: "16",
    exact: "12345678901234567890.10",
    yes: "true",
    no: "false",
    nested: '{"a": [1, 2.50, {"b": null}]}',
    list: "[]",
  });
});

test("of equal keys the last one counts", () => {
  const members = parseJsonObject('{"a": 1, "b": 2, "a": "3"}');
  assert.deepEqual(Object.fromEntries(members), { a: "3", b: "2" });
  assert.deepEqual([...parseJsonObject('{"a": 1, "a": null}')], []);
});

test("takes an empty object", () => assert.equal(parseJsonObject(" {} \n").size, 0));

const bad: readonly (readonly [string, string])[] = [
  ["", "line 1, column 1: expected {"],
  ["[]", "line 1, column 1: expected {"],
  ['{"a": 1', "line 1, column 8: expected , or }"],
  ['{\n  "a": 1,\n}', "line 3, column 1: expected a key in double quotes"],
  ['{\n  "a": 1\n  "b": 2\n}', "line 3, column 3: expected , or }"],
  ["{'a': 1}", "line 1, column 2: expected a key in double quotes"],
  ['{"a" 1}', "line 1, column 6: expected :"],
  ['{"a": }', "line 1, column 7: expected a value"],
  ['{"a": 01}', "line 1, column 8: expected , or }"],
  ['{"a": .5}', "line 1, column 7: expected a value"],
  ['{"a": "b}', "line 1, column 7: string has no closing quote on its line"],
  ['{"a": "b\n"}', "line 1, column 7: string has no closing quote on its line"],
  ['{"a": "\\x"}', "line 1, column 7: string has a wrong escape or a control character"],
  ['{"a": "\t"}', "line 1, column 7: string has a wrong escape or a control character"],
  ['{"a": 1} x', "line 1, column 10: expected the end of the file"],
  ['{"a": 1} // end', "line 1, column 10: expected the end of the file"],
  ['{"a": [1,]}', "line 1, column 10: expected a value"],
  ['{"a": tru}', "line 1, column 7: expected a value"],
  [`{"a": ${"[".repeat(200)}`, "line 1, column 106: nested too deeply"],
];

for (const [source, message] of bad) {
  test(`refuses ${JSON.stringify(source.slice(0, 20))}`, () => {
    assert.throws(() => parseJsonObject(source), { name: "FormatError", message });
  });
}

test("agrees with the runtime on every object", () => {
  fc.assert(
    fc.property(
      fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 4 })),
      fc.constantFrom(0, 1, 4),
      (object, indent) => {
        const members = parseJsonObject(JSON.stringify(object, undefined, indent));
        const expected = Object.entries(object).filter(([, value]) => value !== null);
        assert.equal(members.size, expected.length);
        for (const [key, value] of expected) {
          const text = members.get(key) ?? "";
          if (typeof value === "string") assert.equal(text, value);
          else assert.deepEqual(JSON.parse(text), JSON.parse(JSON.stringify(value)));
        }
      },
    ),
  );
});

test("accepts and refuses what the runtime does, after any one change", () => {
  const source = '{"key": [1.5e3, "te\\"xt", {"a": true}], "b": null, "c": "\\u0041"}';
  fc.assert(
    fc.property(
      fc.nat(source.length - 1),
      fc.constantFrom("", ...Array.from('{}[]",:\\ 0-e.tn\n')),
      (position, replacement) => {
        const changed = source.slice(0, position) + replacement + source.slice(position + 1);
        assert.equal(isTaken(parseJsonObject, changed), isTaken(JSON.parse, changed), changed);
      },
    ),
    { numRuns: 1000 },
  );
});

function isTaken(parse: (source: string) => unknown, source: string): boolean {
  try {
    parse(source);
    return true;
  } catch {
    return false;
  }
}
