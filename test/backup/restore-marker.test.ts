import assert from "node:assert/strict";
import { test } from "node:test";
import {
  CONTROL_FILE_BYTES,
  formatRestoreMarker,
  parseRestoreMarker,
  readRestoreMarker,
  type RestoreMarker,
} from "../../src/backup/restore-marker.ts";

const marker: RestoreMarker = {
  id: "0123456789abcdef0123456789abcdef",
  backup: "base_000000010000000000000002",
  process: "12:3456:boot",
  locations: ["/mnt/one", "/mnt/with \n break"],
};

test("what is written is read back", () => {
  assert.deepEqual(parseRestoreMarker(formatRestoreMarker(marker)), marker);
  const { process: _, ...without } = marker;
  const read = parseRestoreMarker(formatRestoreMarker(without));
  assert.equal(read.process, undefined);
});

test("a marker that became the control file is told by its size and beginning", () => {
  const control = Buffer.alloc(CONTROL_FILE_BYTES, "{");
  assert.deepEqual(readRestoreMarker(control), { kind: "finishing" });
  assert.deepEqual(readRestoreMarker(Buffer.from(formatRestoreMarker(marker))), {
    kind: "under way",
    marker,
  });
  const locations = [`/${"x".repeat(CONTROL_FILE_BYTES - 145)}`];
  const large = Buffer.from(formatRestoreMarker({ ...marker, locations }));
  assert.equal(large.length, CONTROL_FILE_BYTES);
  assert.equal(readRestoreMarker(large).kind, "under way");
});

const bad: readonly (readonly [what: string, text: string, message: RegExp])[] = [
  ["empty", "", /^JSON ends too early/],
  ["cut off", formatRestoreMarker(marker).slice(0, 40), /^JSON ends too early/],
  ["no marker", "{}", /^restore marker has not the version 1 that we know$/],
  ["version", '{"walnut_restore":2}', /^restore marker has not the version 1 that we know$/],
  [
    "no backup",
    '{"walnut_restore":1}',
    /^restore marker has no backup$|^restore marker has no id$/,
  ],
  ["id", '{"walnut_restore":1,"id":"x","backup":"b"}', /^restore marker has a wrong id: x$/],
  [
    "no locations",
    `{"walnut_restore":1,"id":"${marker.id}","backup":"b"}`,
    /^restore marker has no locations$/,
  ],
];

for (const [what, text, message] of bad) {
  test(`refuses a marker: ${what}`, () => {
    assert.throws(
      () => readRestoreMarker(Buffer.from(text)),
      (error: Error) => {
        assert.match(error.message, message);
        return true;
      },
    );
  });
}
