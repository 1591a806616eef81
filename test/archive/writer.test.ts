import assert from "node:assert/strict";
import { mkdir, mkdtemp, rename, rm, symlink } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import {
  describeWriter,
  isSameWriter,
  showWriter,
  type Writer,
  writerFingerprint,
} from "../../src/archive/writer.ts";

const one: Writer = {
  name: "",
  host: "pg1",
  dataDirectory: "/data",
  directoryId: "1:77",
  bootId: "boot",
};

const rows: readonly { what: string; other: Partial<Writer>; isSame: boolean }[] = [
  { what: "itself", other: {}, isSame: true },
  { what: "restarted on a disk that was restored", other: { directoryId: "1:9" }, isSame: true },
  { what: "rebooted", other: { bootId: "later", directoryId: "2:77" }, isSame: true },
  { what: "renamed directory", other: { dataDirectory: "/new" }, isSame: true },
  { what: "container made anew on this host", other: { host: "f00d" }, isSame: true },
  {
    what: "copy on this host",
    other: { dataDirectory: "/copy", directoryId: "1:78" },
    isSame: false,
  },
  {
    what: "snapshot of the volume on this host",
    other: { dataDirectory: "/snapshot", directoryId: "3:77" },
    isSame: false,
  },
  { what: "copied machine", other: { host: "pg2", bootId: "other" }, isSame: false },
  { what: "no boot id", other: { host: "pg2", bootId: "" }, isSame: false },
  { what: "other name", other: { name: "b" }, isSame: true },
];
for (const { what, other, isSame } of rows) {
  test(`${what}: ${isSame ? "the same server" : "another server"}`, () => {
    const changed = { ...one, ...other };
    assert.equal(isSameWriter(one, changed), isSame);
    assert.equal(isSameWriter(changed, one), isSame);
  });
}

test("without a boot id on both sides, host names count", () => {
  const lost = { ...one, bootId: "" };
  assert.equal(isSameWriter(lost, { ...lost, host: "pg2" }), false);
});

test("names decide where both have one", () => {
  const named = { ...one, name: "a" };
  assert.equal(isSameWriter(named, { ...named, name: "b" }), false);
  assert.equal(isSameWriter(named, { ...named, host: "x", bootId: "", directoryId: "9:9" }), true);
});

test("a directory is described by its real place, and keeps its inode when it is renamed", async () => {
  const base = await mkdtemp(join(tmpdir(), "walnut-writer-"));
  try {
    await mkdir(join(base, "data"));
    await symlink(join(base, "data"), join(base, "link"));
    const direct = await describeWriter(join(base, "data"), undefined);
    assert.deepEqual(await describeWriter(join(base, "link"), undefined), direct);
    assert.equal(direct.host, hostname());
    assert.equal(showWriter(direct), `${hostname()}:${direct.dataDirectory}`);

    await rename(join(base, "data"), join(base, "renamed"));
    const renamed = await describeWriter(join(base, "renamed"), "db1");
    assert.equal(renamed.directoryId, direct.directoryId);
    assert.notEqual(writerFingerprint(renamed), writerFingerprint(direct));
    assert.match(showWriter(renamed), /^db1 \(.*\/renamed\)$/);
    await assert.rejects(describeWriter(join(base, "data"), undefined), { name: "LocalFileError" });
  } finally {
    await rm(base, { recursive: true });
  }
});
