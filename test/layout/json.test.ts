import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { formatJson, parseJson } from "../../src/layout/json.ts";
import { JsonReader, readJsonValues } from "../../src/layout/json-reader.ts";
import {
  isJsonEqual,
  JsonDecimal,
  jsonObject,
  type JsonValue,
  objectMember,
} from "../../src/layout/json-value.ts";

test("numbers keep all their digits", () => {
  const text =
    '{"id":18446744073709551615,"min":-9223372036854775808,"a":1.50,"b":1e400,"c":-0,"d":0.1E-5}';
  assert.equal(formatJson(parseJson(text)), text);
  assert.equal(objectMember(parseJson(text), "id"), 18446744073709551615n);
  assert.ok(objectMember(parseJson(text), "a") instanceof JsonDecimal);
});

test("keys keep their order, also those that look like numbers", () => {
  const text = '{"b":1,"16385":2,"a":{"2":[],"1":{}}}';
  assert.equal(formatJson(parseJson(text)), text);
});

test("of a repeated key the last value counts", () => {
  assert.equal(formatJson(parseJson('{"a":1,"b":2,"a":3}')), '{"a":3,"b":2}');
});

test("members are found in any case, an exact one first", () => {
  assert.equal(objectMember(parseJson('{"spec":1,"SPEC":2}'), "Spec"), 2n);
  assert.equal(objectMember(parseJson('{"Spec":1,"spec":2}'), "Spec"), 1n);
  assert.equal(objectMember(parseJson('{"a":1}'), "b"), undefined);
  assert.equal(objectMember(parseJson("[1]"), "0"), undefined);
});

test("Go escapes what HTML would take for markup", () => {
  const value = '<a href="x">&\u2028\u2029\u0007\n\t';
  const escaped = String.raw`"\u003ca href=\"x\"\u003e\u0026\u2028\u2029\u0007\n\t"`;
  assert.equal(formatJson(value, { escape: "go" }), escaped);
  assert.equal(
    formatJson(jsonObject([["<", null]]), { escape: "go" }),
    String.raw`{"\u003c":null}`,
  );
  assert.equal(formatJson("<&>"), '"<&>"');
  assert.equal(parseJson(escaped), value);
});

const wrong = [
  ["", /ends too early/],
  ["{", /ends too early/],
  ["[1", /ends too early/],
  ['"abc', /ends too early/],
  ['{"a"', /ends too early/],
  ["nul", /no value: nul/],
  ["nulls", /no value: nulls/],
  ["undefined", /no value/],
  ["01", /no number: 01/],
  ["1.", /no number: 1\./],
  [".5", /"\." where value is expected/],
  ["+1", /"\+" where value is expected/],
  ["1e", /no number/],
  ["--1", /no number/],
  ["-", /no number/],
  ["[1,]", /\] where value is expected/],
  ["[,1]", /"," where value or end/],
  ["[1 2]", /a value where comma or end/],
  ["[1}", /} where comma or end/],
  ["{1:2}", /a value where name or end/],
  ['{"a" 1}', /a value where colon/],
  ['{"a":}', /} where value/],
  ['{"a":1,}', /} where name/],
  ['{"a":1 "b":2}', /a value where comma or end/],
  ['{"a":1]', /\] where comma or end/],
  ["1 2", /text after the end/],
  ["{}x", /text after the end/],
  ["'a'", /"'" where value/],
  ['"a\nb"', /control character/],
  [String.raw`"\x"`, /unknown escape/],
  [String.raw`"\u12"`, /unknown escape/],
  ["[".repeat(201), /deeper than 200 levels/],
  ["NaN", /"N" where value/],
] as const;

for (const [text, message] of wrong) {
  test(`refuses ${text.slice(0, 20) || "nothing"}`, () => {
    assert.throws(
      () => parseJson(text),
      (error: unknown) => {
        assert.ok(error instanceof Error);
        assert.match(error.name, /^(FormatError|TruncatedError)$/);
        assert.match(error.message, message);
        return true;
      },
    );
  });
}

const valueOf: fc.Arbitrary<JsonValue> = fc.letrec<{ value: JsonValue }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.constantFrom(null, true, false),
    fc.bigInt(),
    fc.string({ unit: "binary" }),
    fc.constantFrom("1.5", "-0", "1e3", "2.50E-7").map((text) => new JsonDecimal(text)),
    fc.array(tie("value"), { maxLength: 5 }),
    fc
      .array(fc.tuple(fc.string(), tie("value")), { maxLength: 5 })
      .map((members) => jsonObject(members)),
  ),
})).value;

test("every value is read back, whatever the pieces it comes in", () => {
  fc.assert(
    fc.property(valueOf, fc.boolean(), fc.integer({ min: 1, max: 7 }), (value, isGo, step) => {
      const text = formatJson(value, { escape: isGo ? "go" : "plain" });
      assert.deepEqual(parseJson(text), value);
      const found: JsonValue[] = [];
      const reader = new JsonReader({
        isEntered: () => false,
        onValue: (_path, member) => found.push(member),
      });
      for (let at = 0; at < text.length; at += step) reader.write(text.slice(at, at + step));
      reader.end();
      assert.deepEqual(found, [value]);
      assert.ok(isJsonEqual(value, parseJson(text)));
    }),
  );
});

test("our reader and JavaScript's take and refuse the same texts", () => {
  const alphabet = fc.constantFrom(...'{}[],:"\\u0019.eE+-tfn alsr\n'.split(""));
  fc.assert(
    fc.property(fc.string({ unit: alphabet, maxLength: 12 }), (text) => {
      assert.equal(
        accepts(() => parseJson(text)),
        accepts(() => JSON.parse(text)),
      );
    }),
    { numRuns: 5000 },
  );
});

function accepts(parse: () => unknown): boolean {
  try {
    parse();
    return true;
  } catch {
    return false;
  }
}

test("what is entered is told member by member", async () => {
  const text = '{"Files":{"/a":{"x":1},"/b":[2]},"Sets":{"p":["/","/a"]},"rest":{"deep":{}}}';
  const seen: [string, string][] = [];
  const bytes = (async function* () {
    for (const byte of Buffer.from(text)) yield Uint8Array.of(byte);
  })();
  for await (const { path, value } of readJsonValues(bytes, isMemberWise)) {
    seen.push([path.join("."), formatJson(value)]);
  }
  assert.deepEqual(seen, [
    ["Files./a", '{"x":1}'],
    ["Files./b", "[2]"],
    ["Sets.p.", '"/"'],
    ["Sets.p.", '"/a"'],
    ["rest", '{"deep":{}}'],
  ]);
});

function isMemberWise(path: readonly string[]): boolean {
  return path.length === 0 || path[0] === "Sets" || (path[0] === "Files" && path.length === 1);
}

test("bytes that are not UTF-8 are refused", async () => {
  const bytes = (async function* () {
    yield Buffer.from([0x22, 0xff, 0x22]);
  })();
  const read = Array.fromAsync(readJsonValues(bytes, () => false));
  await assert.rejects(read, { name: "FormatError", message: "JSON text is not UTF-8" });
});

const pairs = [
  ['{"a":1,"b":2}', '{"b":2,"a":1}', true],
  ["1", "1.0", true],
  ["100", "1e2", true],
  ["1", '"1"', false],
  ["12345678901234567890", "12345678901234567891", false],
  ["[1,2]", "[2,1]", false],
  ["[1]", "[1,2]", false],
  ['{"a":1}', '{"a":1,"b":null}', false],
  ["null", "false", false],
  ["{}", "[]", false],
] as const;

for (const [left, right, isEqual] of pairs) {
  test(`${left} and ${right} mean ${isEqual ? "the same" : "different things"}`, () => {
    assert.equal(isJsonEqual(parseJson(left), parseJson(right)), isEqual);
    assert.equal(isJsonEqual(parseJson(right), parseJson(left)), isEqual);
  });
}
