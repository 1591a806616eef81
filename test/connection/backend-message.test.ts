import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import {
  type BackendMessage,
  copyDataMessage,
  MessageReader,
  parseComplaint,
  parseRow,
  queryMessage,
} from "../../src/connection/backend-message.ts";

function message(type: string, body: Uint8Array): Buffer {
  const header = Buffer.alloc(5);
  header.write(type, 0, "latin1");
  header.writeUInt32BE(body.length + 4, 1);
  return Buffer.concat([header, body]);
}

function readAll(chunks: readonly Buffer[]): BackendMessage[] {
  const reader = new MessageReader();
  return chunks.flatMap((chunk) => [...reader.push(chunk)]);
}

test("messages are found however the stream is cut", () => {
  const one = fc.record(
    { type: fc.constantFrom("d", "D", "Z", "W"), body: fc.uint8Array({ maxLength: 300 }) },
    { noNullPrototype: true },
  );
  fc.assert(
    fc.property(fc.array(one), fc.array(fc.nat(400)), (messages, cuts) => {
      const stream = Buffer.concat(messages.map(({ type, body }) => message(type, body)));
      const chunks: Buffer[] = [];
      let at = 0;
      for (const size of cuts) {
        chunks.push(Buffer.from(stream.subarray(at, at + size)));
        at = Math.min(stream.length, at + size);
      }
      chunks.push(Buffer.from(stream.subarray(at)));
      assert.deepEqual(
        readAll(chunks).map(({ type, body }) => ({ type, body: Uint8Array.from(body) })),
        messages,
      );
    }),
  );
});

test("a message that came in several chunks is not changed by later ones", () => {
  const reader = new MessageReader();
  const bytes = message("d", Buffer.from("0123456789"));
  assert.deepEqual([...reader.push(bytes.subarray(0, 8))], []);
  const [first] = [...reader.push(bytes.subarray(8))];
  for (const _ of reader.push(message("d", Buffer.from("abcdefghij")))) continue;
  assert.equal(first?.body.toString(), "0123456789");
});

for (const { length, size } of [
  { length: 3, size: -1 },
  { length: 0, size: -4 },
  { length: 0xffffffff, size: 4294967291 },
]) {
  test(`a message of length ${length} is refused`, () => {
    const bytes = Buffer.from("d0000");
    bytes.writeUInt32BE(length, 1);
    assert.throws(() => readAll([bytes]), {
      name: "FormatError",
      message: `message "d" of the server claims a body of ${size} bytes`,
    });
  });
}

test("rows keep their bytes, and tell null from empty", () => {
  const body = Buffer.from("0003ffffffff00000000000000029fff", "hex");
  assert.deepEqual(parseRow(body), [undefined, Buffer.alloc(0), Buffer.from("9fff", "hex")]);
  for (let size = 0; size < body.length; size += 1) {
    assert.throws(() => parseRow(body.subarray(0, size)), {
      name: "FormatError",
      message: `a row of the server ends after ${size} bytes`,
    });
  }
});

test("a complaint has its fields; what it lacks is left empty", () => {
  const body = Buffer.from("SERREUR\0VERROR\0C58P01\0Mno file\0Dabout it\0\0");
  assert.deepEqual(parseComplaint(body), {
    severity: "ERROR",
    sqlState: "58P01",
    message: "no file",
    detail: "about it",
    hint: undefined,
  });
  assert.equal(parseComplaint(Buffer.from("\0")).message, "no message");
  assert.throws(() => parseComplaint(Buffer.from("Mcut")), { name: "FormatError" });
});

test("our own messages have type, length and body", () => {
  assert.equal(queryMessage("SHOW x").toString("latin1"), "Q\0\0\0\x0bSHOW x\0");
  assert.equal(copyDataMessage(Buffer.from("r")).toString("latin1"), "d\0\0\0\x05r");
});
