import assert from "node:assert/strict";
import { mkdtemp, readdir, realpath, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { removeStaleTemporaries, resolveDestination } from "../../src/archive/destination.ts";

const directory = await realpath(await mkdtemp(join(tmpdir(), "walnut-destination-")));
after(() => rm(directory, { recursive: true, force: true }));

test("a destination that does not exist is taken as it is", async () => {
  assert.equal(await resolveDestination(join(directory, "none")), join(directory, "none"));
});

test("a symbolic link is followed", async () => {
  await writeFile(join(directory, "file"), "");
  await symlink(join(directory, "file"), join(directory, "link"));
  assert.equal(await resolveDestination(join(directory, "link")), join(directory, "file"));
});

test("a loop of links is a local error", async () => {
  await symlink("loop", join(directory, "loop"));
  await assert.rejects(resolveDestination(join(directory, "loop")), { name: "LocalFileError" });
});

test("only the temporary files of this destination go away", async () => {
  const place = await mkdtemp(join(directory, "stale-"));
  const kept = [
    "RECOVERYXLOG",
    "RECOVERYXLOG.tmp-0123456789abcde",
    "RECOVERYXLOG.tmp-0123456789abcdef0",
    "RECOVERYXLOG.tmp-0123456789ABCDEF",
    "RECOVERYHISTORY.tmp-0123456789abcdef",
    "XRECOVERYXLOG.tmp-0123456789abcdef",
  ];
  const stale = ["RECOVERYXLOG.tmp-0123456789abcdef", "RECOVERYXLOG.tmp-fedcba9876543210"];
  for (const name of [...kept, ...stale]) await writeFile(join(place, name), "x");
  await removeStaleTemporaries(join(place, "RECOVERYXLOG"));
  assert.deepEqual((await readdir(place)).toSorted(), kept.toSorted());
});

test("a directory that is not there needs no cleaning", async () => {
  await removeStaleTemporaries(join(directory, "none", "RECOVERYXLOG"));
});
