import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import {
  deriveKeys,
  formatGreeting,
  FrameOpener,
  FrameSealer,
  MAX_PAYLOAD_BYTES,
  NONCE_BYTES,
  readGreeting,
} from "../../src/backup/catch-up-frames.ts";
import { ByteCursor } from "../../src/io/byte-cursor.ts";
import { bytesSource } from "../../src/io/bytes.ts";

const NONCES = { sender: randomBytes(NONCE_BYTES), receiver: randomBytes(NONCE_BYTES) };
const KEYS = deriveKeys("the secret of this test", NONCES);

function opener(bytes: Uint8Array, key = KEYS.sender): FrameOpener {
  return new FrameOpener(new ByteCursor(bytesSource(bytes).open(), "the stream"), key);
}

function sealed(...texts: readonly string[]): Buffer[] {
  const sealer = new FrameSealer(KEYS.sender);
  return texts.map((text) => sealer.seal("data", Buffer.from(text)));
}

test("frames come out as they went in, in their order", async () => {
  const payload = fc.uint8Array({ maxLength: 300 });
  await fc.assert(
    fc.asyncProperty(fc.array(payload, { maxLength: 5 }), async (payloads) => {
      const sealer = new FrameSealer(KEYS.receiver);
      const frames = payloads.map((one) => sealer.seal("entry", one));
      const reading = opener(Buffer.concat(frames), KEYS.receiver);
      for (const one of payloads) {
        const { type, payload: found } = await reading.read();
        assert.equal(type, "entry");
        assert.deepEqual(new Uint8Array(found), one);
      }
    }),
    { numRuns: 50 },
  );
});

const [first = Buffer.of(), second = Buffer.of()] = sealed("one", "two");
const empty = Buffer.alloc(0);
const WRONG: readonly (readonly [what: string, bytes: Buffer, message: RegExp])[] = [
  ["nothing", empty, /ends at byte 0/],
  ["a cut length", first.subarray(0, 3), /ends at byte 3/],
  ["a cut frame", first.subarray(0, -1), /at least 1 too early/],
  ["a length of 0", Buffer.alloc(30), /announces 0 bytes/],
  ["a length beyond all", Buffer.alloc(30, 0xff), /announces 4294967295 bytes/],
  ["a frame too large by one", lengthOf(MAX_PAYLOAD_BYTES + 2), /announces 1048578 bytes/],
  ["the second frame first", second, /another secret/],
];
for (const [what, bytes, message] of WRONG) {
  test(`${what} is no frame`, async () => {
    await assert.rejects(opener(bytes).read(), { message });
  });
}

function lengthOf(count: number): Buffer {
  const bytes = Buffer.alloc(30);
  bytes.writeUInt32BE(count);
  return bytes;
}

for (const [what, frames, message] of [
  ["repeated", [first, first], /changed on its way, or one is missing/],
  ["lost", [first, sealed("one", "two", "three")[2] ?? empty], /one is missing/],
  ["from the other direction", [first, other("two")], /changed on its way/],
] as const) {
  test(`a frame that is ${what} does not open`, async () => {
    const reading = opener(Buffer.concat(frames));
    await reading.read();
    await assert.rejects(reading.read(), { message });
  });
}

function other(text: string): Buffer {
  const sealer = new FrameSealer(KEYS.receiver);
  sealer.seal("data", empty);
  return sealer.seal("data", Buffer.from(text));
}

test("no bit of a frame can be changed", async () => {
  const bytes = Buffer.concat(sealed("what is sent", "and more"));
  for (let bit = 0; bit < bytes.length * 8; bit += 1) {
    const changed = Buffer.from(bytes);
    changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    const reading = opener(changed);
    const texts = async (): Promise<string[]> => {
      const one = await reading.read();
      const two = await reading.read();
      return [one.payload.toString(), two.payload.toString()];
    };
    await assert.rejects(texts(), `bit ${bit}`);
  }
});

test("who has another secret, or other nonces, opens nothing", async () => {
  for (const keys of [
    deriveKeys("the secret of this tesT", NONCES),
    deriveKeys("the secret of this test", { ...NONCES, sender: randomBytes(NONCE_BYTES) }),
  ]) {
    await assert.rejects(opener(first, keys.sender).read(), {
      name: "WrongKeyError",
      message: /another secret/,
    });
  }
});

test("a payload too large is not sealed", () => {
  const sealer = new FrameSealer(KEYS.sender);
  assert.throws(() => sealer.seal("data", Buffer.alloc(MAX_PAYLOAD_BYTES + 1)), RangeError);
});

function greetingIn(bytes: Buffer): Promise<Buffer> {
  return readGreeting(new ByteCursor(bytesSource(bytes).open(), "it"));
}

test("something else than walnut is told from it", async () => {
  const nonce = randomBytes(NONCE_BYTES);
  assert.deepEqual(await greetingIn(formatGreeting(nonce)), nonce);
  const next = Buffer.from(formatGreeting(nonce).toString("latin1").replace(" 1\n", " 2\n"));
  await assert.rejects(greetingIn(next), { message: /catch-up protocol, version 1/ });
  await assert.rejects(greetingIn(Buffer.from("GET / HTTP/1.1\r\nHost: x\r\n\r\n")), {
    name: "FormatError",
  });
  await assert.rejects(greetingIn(formatGreeting(nonce.subarray(1))), { name: "TruncatedError" });
});
