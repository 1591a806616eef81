import assert from "node:assert/strict";
import { chmodSync, mkdirSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { ownTemporaryDirectory, ownUserId } from "../../src/io/own-user.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";

test("a directory of our own is made for us alone, and found again", () => {
  using directory = scratchDirectory();
  const path = join(directory.path, `one-${ownUserId()}`);
  assert.equal(ownTemporaryDirectory("one", directory.path), path);
  assert.equal(statSync(path).mode & 0o777, 0o700);
  assert.equal(ownTemporaryDirectory("one", directory.path), path);
});

const foreign: readonly { what: string; make: (path: string) => void }[] = [
  { what: "a link", make: (path) => symlinkSync(tmpdir(), path) },
  { what: "a file", make: (path) => writeFileSync(path, "") },
  {
    what: "a directory that others may look into",
    make: (path) => {
      mkdirSync(path);
      chmodSync(path, 0o750);
    },
  },
];
for (const { what, make } of foreign) {
  test(`${what} in its place is none of ours`, () => {
    using directory = scratchDirectory();
    make(join(directory.path, `one-${ownUserId()}`));
    assert.equal(ownTemporaryDirectory("one", directory.path), undefined);
  });
}

test("where none can be made there is none", () => {
  assert.equal(ownTemporaryDirectory("one", "/proc/self"), undefined);
});
