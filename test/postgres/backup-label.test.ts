import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { FormatError } from "../../src/errors.ts";
import {
  type BackupLabel,
  formatBackupHistory,
  formatBackupLabel,
  parseBackupHistory,
  parseBackupLabel,
} from "../../src/postgres/backup-label.ts";
import { lsn, parseLsn } from "../../src/postgres/lsn.ts";
import { postgresFacts, postgresText } from "../support/postgres-fixtures.ts";
import { MAJORS } from "../support/postgres-programs.ts";

for (const major of MAJORS) {
  const { backup } = postgresFacts(major);

  test(`backup_label of PostgreSQL ${major}, with a label of two lines`, () => {
    const text = postgresText(major, "backup_label");
    const label = parseBackupLabel(text);
    assert.equal(label.label, backup.label);
    assert.equal(label.startTimeline, 1);
    assert.equal(label.method, "streamed");
    assert.equal(label.from, major === 13 ? "master" : "primary");
    assert.equal(label.startSegment, backup.history.slice(0, 24));
    assert.ok(label.startLsn < label.checkpointLsn);
    assert.match(label.startTime, /^20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC$/);
    assert.equal(label.incrementalFrom, undefined);
    assert.equal(formatBackupLabel(label), text);
  });

  test(`a .backup file of PostgreSQL ${major} tells where the backup stopped`, () => {
    const text = postgresText(major, backup.history);
    const history = parseBackupHistory(text);
    assert.equal(history.stopLsn, parseLsn(backup.stopLsn));
    assert.equal(history.stopTimeline, 1);
    assert.equal(history.label, backup.label);
    const offset = (history.startLsn & 0xf_ffffn).toString(16).toUpperCase().padStart(8, "0");
    assert.equal(`${history.startSegment}.${offset}.backup`, backup.history);
    assert.equal(formatBackupHistory(history), text);
    const { stopLsn: _, stopSegment: _s, stopTime: _t, stopTimeline: _l, ...label } = history;
    assert.deepEqual(label, parseBackupLabel(postgresText(major, "backup_label")));
  });
}

const good = postgresText(15, "backup_label");
const history = postgresText(15, postgresFacts(15).backup.history);

test("an increment of the server names its base", () => {
  const text = `${good}INCREMENTAL FROM LSN: 16/B374D848\nINCREMENTAL FROM TLI: 3\n`;
  const label = parseBackupLabel(text);
  assert.deepEqual(label.incrementalFrom, { lsn: 0x16_b374_d848n, timeline: 3 });
  assert.equal(formatBackupLabel(label), text);
  const stopped = `${history}INCREMENTAL FROM LSN: 16/B374D848\nINCREMENTAL FROM TLI: 3\n`;
  assert.equal(formatBackupHistory(parseBackupHistory(stopped)), stopped);
});

const bad = [
  { what: "nothing", text: "" },
  { what: "no newline at the end", text: good.slice(0, -1) },
  { what: "cut off", text: good.slice(0, 100) },
  { what: "an unknown line", text: `${good}SOMETHING: else\n` },
  { what: "no LSN", text: good.replace(/LOCATION: \S+/, "LOCATION: here") },
  { what: "no segment", text: good.replace(/file \S+\)/, "file 1)") },
  { what: "another place to back up from", text: good.replace("FROM: primary", "FROM: somewhere") },
  { what: "lines out of order", text: good.split("\n").toReversed().join("\n") },
  { what: "timeline 0", text: good.replace(/TIMELINE: 1\n$/, "TIMELINE: 0\n") },
  { what: "something before", text: `\n${good}` },
];

for (const { what, text } of bad) {
  test(`refuses a backup_label: ${what}`, () => {
    const message = `not a backup_label: ${JSON.stringify(text.slice(0, 100))}`;
    assert.throws(() => parseBackupLabel(text), { name: "FormatError", message });
    assert.throws(() => parseBackupHistory(text), FormatError);
  });
}

test("backup_label and .backup files are not taken for each other", () => {
  assert.throws(
    () => parseBackupLabel(history),
    new FormatError("not a backup_label: it tells where the backup stopped"),
  );
  assert.throws(
    () => parseBackupHistory(good),
    new FormatError("not a .backup file: it does not tell where the backup stopped"),
  );
});

const lines = fc.string().map((text) => text.replaceAll("\n", " "));
const positions = fc.bigInt(0n, (1n << 64n) - 1n).map(lsn);
const timelines = fc.integer({ min: 1, max: 0xffff_ffff });
const segments = fc.constantFrom("000000010000000000000002", "FFFFFFFFFFFFFFFFFFFFFFFF");
const labels: fc.Arbitrary<BackupLabel> = fc.record(
  {
    startLsn: positions,
    startSegment: segments,
    checkpointLsn: positions,
    method: lines,
    from: fc.constantFrom("primary", "master", "standby"),
    startTime: lines,
    label: fc.oneof(fc.string(), fc.constantFrom("x\nSTART TIMELINE: 7", "\n", "STOP TIME: 1\n")),
    startTimeline: timelines,
  },
  { noNullPrototype: true },
);
const base = fc.record({ lsn: positions, timeline: timelines }, { noNullPrototype: true });
const bases = fc.record({ incrementalFrom: base }, { noNullPrototype: true });

test("any label survives its text", () => {
  fc.assert(
    fc.property(labels, fc.option(bases), (label, base) => {
      const whole = { ...label, ...base };
      assert.deepEqual(parseBackupLabel(formatBackupLabel(whole)), whole);
      const stopped = {
        ...whole,
        stopLsn: label.checkpointLsn,
        stopSegment: label.startSegment,
        stopTime: label.startTime,
        stopTimeline: label.startTimeline,
      };
      assert.deepEqual(parseBackupHistory(formatBackupHistory(stopped)), stopped);
    }),
  );
});
