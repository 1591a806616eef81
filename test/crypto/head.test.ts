import assert from "node:assert/strict";
import { test } from "node:test";
import { withHead } from "../../src/crypto/head.ts";
import type { ByteStream } from "../../src/io/bytes.ts";

/** Each chunk stands where the one before did. */
async function* reusing(text: string, chunkBytes: number): ByteStream {
  const memory = Buffer.alloc(chunkBytes);
  for (let at = 0; at < text.length; at += chunkBytes) {
    const length = memory.write(text.slice(at, at + chunkBytes));
    yield memory.subarray(0, length);
  }
}

const TEXT = "0123456789abcdef";

for (const chunkBytes of [1, 3, 5, 8, 16, 20]) {
  test(`a head of 5 bytes from chunks of ${chunkBytes}, and the whole stream`, async () => {
    let seen = "";
    const passed = withHead(reusing(TEXT, chunkBytes), 5, (head, whole) => {
      seen = head.toString();
      return whole;
    });
    const parts: string[] = [];
    for await (const chunk of passed) parts.push(Buffer.from(chunk).toString());
    assert.equal(seen, "01234");
    assert.equal(parts.join(""), TEXT);
  });
}

test("a stream that is shorter than the head is the head", async () => {
  const heads: string[] = [];
  const passed = withHead(reusing("012", 2), 5, (head, whole) => {
    heads.push(head.toString());
    return whole;
  });
  const parts: string[] = [];
  for await (const chunk of passed) parts.push(Buffer.from(chunk).toString());
  assert.deepEqual([heads, parts.join("")], [["012"], "012"]);
});
