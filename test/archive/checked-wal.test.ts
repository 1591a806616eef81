import assert from "node:assert/strict";
import { test } from "node:test";
import { checkedWal, RecordFollower, type WalExpectation } from "../../src/archive/checked-wal.ts";
import { writeWal } from "../support/wal-writer.ts";

// Enough for its records to go on in the next one.
const records = Array.from({ length: 1300 }, () => ({ dataBytes: 900 }));
const [segment] = writeWal({ records }).segments;
const { name = "", bytes = Buffer.of() } = segment ?? {};

/** In chunks of these lengths, the last one again and again. */
async function* cut(content: Uint8Array, lengths: readonly number[]) {
  let at = 0;
  for (let index = 0; at < content.length; index += 1) {
    const length = lengths[Math.min(index, lengths.length - 1)] ?? content.length;
    yield content.subarray(at, at + length);
    at += length;
  }
}

/** Takes the content as a writer does that works alongside; `handOver` gets each piece. */
async function taken(
  content: AsyncGenerator<Uint8Array>,
  handOver: (records: RecordFollower, piece: Uint8Array) => void,
): Promise<Buffer> {
  const records = new RecordFollower();
  const expectation: WalExpectation = {
    name,
    systemId: undefined,
    mustCheckRecords: true,
    records,
  };
  const pieces: Uint8Array[] = [];
  for await (const piece of checkedWal(content, expectation)) {
    handOver(records, piece);
    pieces.push(Buffer.from(piece));
  }
  return Buffer.concat(pieces);
}

const follow = (records: RecordFollower, piece: Uint8Array): void => {
  const middle = piece.length >> 1;
  records.follow(piece.subarray(0, middle));
  records.follow(piece.subarray(middle));
};

const LENGTHS = [[bytes.length], [10, 20, 65_536], [40, 8192], [39, 1, 100_000], [999]];
for (const lengths of LENGTHS) {
  test(`whoever takes chunks of ${lengths.join()} bytes can have the records followed`, async () => {
    assert.ok((await taken(cut(bytes, lengths), follow)).equals(bytes));

    const damaged = Buffer.from(bytes);
    damaged.writeUInt8(damaged.readUInt8(20_000) ^ 1, 20_000);
    await assert.rejects(taken(cut(damaged, lengths), follow), {
      name: "FormatError",
      message: /break off after byte \d+: record with a wrong CRC/,
    });
  });
}

test("content of which not every byte was handed over is refused", async () => {
  await assert.rejects(
    taken(cut(bytes, [65_536]), () => {}),
    /its header alone needs 40/,
  );
  let count = 0;
  const allButOne = (records: RecordFollower, piece: Uint8Array): void => {
    count += 1;
    if (count !== 3) follow(records, piece);
  };
  await assert.rejects(taken(cut(bytes, [65_536]), allButOne), {
    name: "FormatError",
    message: /break off/,
  });
});
