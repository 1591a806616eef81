import assert from "node:assert/strict";
import { test } from "node:test";
import { type StoredFile, UntoldFiles } from "../../src/archive/untold-files.ts";
import { systemClock } from "../../src/io/clock.ts";

const MANY = { ahead: 0, left: 500 };

function stored(name: string): StoredFile {
  const hashes = { firstHash: "1", lastHash: "2", systemId: "3" };
  const identity = { inode: "1", sizeBytes: "2", mtimeNs: "3", ctimeNs: "4", ...hashes };
  return { name, identity, outcome: "archived" };
}

function untold({ aheadMax = 32 } = {}) {
  const time = { nowMs: 1000 };
  return {
    time,
    files: new UntoldFiles(aheadMax, { ...systemClock, monotonicMs: () => time.nowMs }),
  };
}

for (const [what, { aheadMax, ahead, left, isTold }] of Object.entries({
  "few stored, some left": { aheadMax: 32, ahead: 1, left: 4, isTold: false },
  "nearly enough stored, many left": { aheadMax: 32, ahead: 23, left: 500, isTold: false },
  "enough stored": { aheadMax: 32, ahead: 24, left: 500, isTold: true },
  "few stored, few left": { aheadMax: 32, ahead: 1, left: 3, isTold: true },
  "enough stored of many that may be ahead": { aheadMax: 99, ahead: 24, left: 500, isTold: true },
  "less than enough of few that may be ahead": { aheadMax: 8, ahead: 5, left: 500, isTold: false },
  "enough of few that may be ahead": { aheadMax: 8, ahead: 6, left: 500, isTold: true },
  "nothing is stored ahead": { aheadMax: 0, ahead: 0, left: 500, isTold: true },
})) {
  test(`${what}: a stored file is told ${isTold ? "now" : "later"}`, () => {
    const { files } = untold({ aheadMax });
    files.add(stored("a"));
    assert.deepEqual(files.take({ ahead, left }), isTold ? [stored("a")] : []);
    assert.equal(files.leftMs, isTold ? undefined : 500);
  });
}

test("half a second after the first of them all are told, once", () => {
  const { files, time } = untold();
  assert.equal(files.leftMs, undefined);
  files.add(stored("a"));
  time.nowMs += 400;
  files.add(stored("b"));
  assert.equal(files.leftMs, 100);
  time.nowMs += 99;
  assert.deepEqual(files.take(MANY), []);
  time.nowMs += 1;
  assert.deepEqual(files.take(MANY), [stored("a"), stored("b")]);
  assert.deepEqual(files.take({ ahead: 24, left: 0 }), []);
});

test("the half second begins with the first file after those that were taken", () => {
  const { files, time } = untold();
  files.add(stored("a"));
  files.take({ ahead: 24, left: 500 });
  time.nowMs += 5000;
  files.add(stored("b"));
  assert.equal(files.leftMs, 500);
  assert.deepEqual(files.take(MANY), []);
});

test("one that was taken is untold until it has its note", () => {
  const { files } = untold();
  files.add(stored("a"));
  files.take({ ahead: 24, left: 500 });
  assert.ok(files.has("a"));
  files.told("a");
  assert.ok(!files.has("a"));
});
