import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { createMask } from "../../src/io/mask.ts";

const cases: readonly (readonly [readonly string[], string, string])[] = [
  [[], "nothing to hide", "nothing to hide"],
  [[""], "an empty secret", "an empty secret"],
  [["geheim"], "a geheim and geheimer", "a *** and ***er"],
  [["a.c*"], "abc a.c* x", "abc *** x"],
  [["abcd", "abcdef"], "abcdef abcd", "*** ***"],
  [["no"], "no nonsense, no.", "*** nonsense, ***."],
  [["a"], "a backup at a=a", "*** backup at ***=***"],
  [["p/w"], "%70 p%2Fw p/w", "%70 *** ***"],
  [["two\nlines"], 'two\nlines "two\\nlines"', '*** "***"'],
  [[], "https://user:pw@host/x and s3://bucket/x", "https://***@host/x and s3://bucket/x"],
];

for (const [secrets, text, expected] of cases) {
  test(`masks ${JSON.stringify(secrets)} in ${JSON.stringify(text)}`, () => {
    assert.equal(createMask(secrets)(text), expected);
  });
}

test("no secret of some length survives, wherever it stands", () => {
  fc.assert(
    fc.property(
      fc.array(fc.string({ minLength: 6 }), { minLength: 1, maxLength: 4 }),
      fc.string(),
      fc.string(),
      (secrets, before, after) => {
        const mask = createMask(secrets);
        for (const secret of secrets) {
          // A mask may come to stand beside text that looks like a secret of asterisks.
          fc.pre(!secret.includes("*"));
          assert.ok(!mask(`${before}${secret}${after}`).includes(secret));
        }
      },
    ),
  );
});
