import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { type DaemonMessage, formatMessage, MessageReader } from "../../src/daemon/protocol.ts";
import { FormatError } from "../../src/errors.ts";

const SEGMENT = "000000010000000000000002";
const hex = (text: string) => Buffer.from(text).toString("hex");

/** What WAL-G's clients send, and what it means. */
const vectors: readonly (readonly [string, DaemonMessage])[] = [
  ["430008434845434b", { kind: "check" }],
  [`46001b${hex(SEGMENT)}`, { kind: "push", name: SEGMENT }],
  [`460013${hex("00000002.history")}`, { kind: "push", name: "00000002.history" }],
  [
    `66003302 0018${hex(SEGMENT)} 0013${hex("pg_wal/RECOVERYXLOG")}`,
    { kind: "fetch", name: SEGMENT, destination: "pg_wal/RECOVERYXLOG" },
  ],
  [
    `66002e02 0010${hex("00000002.history")} 0016${hex("pg_wal/RECOVERYHISTORY")}`,
    { kind: "fetch", name: "00000002.history", destination: "pg_wal/RECOVERYHISTORY" },
  ],
];

const bytesOf = (text: string) => Buffer.from(text.replaceAll(" ", ""), "hex");

function read(...pieces: readonly Uint8Array[]): readonly DaemonMessage[] {
  const reader = new MessageReader();
  const messages: DaemonMessage[] = [];
  for (const piece of pieces) {
    reader.push(piece);
    for (let next = reader.next(); next !== undefined; next = reader.next()) messages.push(next);
  }
  return messages;
}

test("reads and writes WAL-G's bytes", () => {
  for (const [text, message] of vectors) {
    assert.deepEqual(read(bytesOf(text)), [message]);
    assert.equal(formatMessage(message).toString("hex"), bytesOf(text).toString("hex"));
  }
});

test("a check may say whose server asks", () => {
  const check = { kind: "check", dataDirectory: "64769:123456" } as const;
  assert.deepEqual(read(formatMessage(check)), [check]);
  for (const body of ["CHECK 1", "CHECK 1:2 ", "CHECK /data", "check 1:2"]) {
    const message = Buffer.concat([Buffer.from([0x43, 0, 3 + body.length]), Buffer.from(body)]);
    assert.deepEqual(read(message), [{ kind: "check" }]);
  }
});

test("what a check says does not matter", () => {
  for (const text of ["430003", "430004ff", `43ffff${"00".repeat(0xffff - 3)}`]) {
    assert.deepEqual(read(bytesOf(text)), [{ kind: "check" }]);
  }
});

/** Ways to be wrong, each with its error. */
const wrong: readonly (readonly [string, RegExp])[] = [
  ["580008434845434b", /unknown type 88/],
  ["000003", /unknown type 0/],
  ["0a4300", /unknown type 10/],
  ["430000", /type 67 has a length of 0 bytes/],
  ["430002", /type 67 has a length of 2 bytes/],
  ["460103", /type 70 has a length of 259 bytes/],
  ["66ffff", /type 102 has a length of 65535 bytes/],
  ["460003", /"" is no name/],
  [`460005${hex("..")}`, /"\.\." is no name/],
  [`46000c${hex("pg_wal/X1")}`, /"pg_wal\/X1" is no name/],
  [`46000a${hex("../a\0bc")}`, /holds a byte of zero/],
  ["460005c328", /is not in UTF-8/],
  ["660003", /fetch has 2 arguments, or an empty one/],
  ["66000400", /fetch has 2 arguments, or an empty one/],
  ["66000401", /end within a length/],
  ["6600050100", /end within a length/],
  [`66000801 0004${hex("ab")}`, /end within one of them/],
  [`66000801 0002${hex("ab")}`, /fetch has 2 arguments, or an empty one/],
  [`66000a02 0002${hex("ab")} 0000`, /fetch has 2 arguments, or an empty one/],
  [`66000e03 0002${hex("ab")} 0001${hex("c")} 0001${hex("d")}`, /fetch has 3 arguments/],
  [`66000c02 0002${hex("ab")} 0001${hex("c")} 00`, /1 bytes follow the last argument/],
  [`66000c02 0003${hex("a/b")} 0001${hex("c")}`, /"a\/b" is no name/],
];

test("says what is wrong", () => {
  for (const [text, expected] of wrong) {
    assert.throws(() => read(bytesOf(text)), { name: "FormatError", message: expected }, text);
  }
});

test("refuses to write what can't be read", () => {
  const messages: readonly DaemonMessage[] = [
    { kind: "push", name: "a/b" },
    { kind: "push", name: "" },
    { kind: "push", name: "x".repeat(256) },
    { kind: "push", name: "a\0" },
    { kind: "fetch", name: "ab", destination: "x".repeat(5000) },
    { kind: "fetch", name: "ab", destination: "\ud800" },
  ];
  for (const message of messages) assert.throws(() => formatMessage(message), FormatError);
});

const name = fc.stringMatching(/^[0-9A-Za-z._é]{1,60}$/).filter((one) => !/^\.{1,2}$/.test(one));
const message: fc.Arbitrary<DaemonMessage> = fc.oneof(
  fc.constant({ kind: "check" } as const),
  name.map((one) => ({ kind: "push", name: one }) as const),
  fc
    .tuple(name, fc.stringMatching(/^[^\0]{1,60}$/))
    .filter(([, path]) => path.isWellFormed())
    .map(([one, destination]) => ({ kind: "fetch", name: one, destination }) as const),
);

test("messages are the same wherever the pieces end", () => {
  const cuts = fc.array(fc.nat(400), { maxLength: 12 });
  fc.assert(
    fc.property(fc.array(message, { minLength: 1, maxLength: 5 }), cuts, (messages, places) => {
      const bytes = Buffer.concat(messages.map(formatMessage));
      const edges = [0, ...places.filter((one) => one < bytes.length), bytes.length];
      const sorted = edges.toSorted((one, other) => one - other);
      const pieces = sorted.slice(1).map((end, index) => bytes.subarray(sorted[index], end));
      assert.deepEqual(read(...pieces), messages);
      assert.deepEqual(read(...[...bytes].map((byte) => Buffer.from([byte]))), messages);
    }),
  );
});

test("changed bytes are messages, an error or the beginning of one, and nothing else", () => {
  const change = fc.record({ at: fc.nat(60), to: fc.integer({ min: 0, max: 255 }) });
  const vector = fc.constantFrom(...vectors.map(([text]) => bytesOf(text)));
  fc.assert(
    fc.property(vector, fc.array(change, { minLength: 1, maxLength: 3 }), (original, changes) => {
      const bytes = Buffer.from(original);
      for (const { at, to } of changes) bytes[at % bytes.length] = to;
      try {
        for (const one of read(bytes)) {
          if (one.kind === "check") continue;
          assert.ok(!one.name.includes("/") && one.name !== "" && !one.name.includes("\0"));
        }
      } catch (error) {
        if (!(error instanceof FormatError)) throw error;
      }
    }),
  );
});
