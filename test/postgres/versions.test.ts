import assert from "node:assert/strict";
import { test } from "node:test";
import {
  findRelease,
  formatTablespaceDirectory,
  parseServerVersion,
  parseVersionFile,
  RELEASE_RANGE,
  RELEASES,
} from "../../src/postgres/versions.ts";
import { postgresFacts } from "../support/postgres-fixtures.ts";
import { MAJORS } from "../support/postgres-programs.ts";

for (const major of MAJORS) {
  test(`PostgreSQL ${major} tells the numbers that we know it by`, () => {
    const { control, relations, serverVersion } = postgresFacts(major);
    const release = findRelease(major);
    assert.deepEqual(release, {
      majorVersion: major,
      catalogVersion: control.system.catalog_version_no,
      controlVersion: control.system.pg_control_version,
    });
    assert.equal(parseServerVersion(serverVersion).majorVersion, major);
    const moved = relations.find(({ relname }) => relname === "moved");
    if (release === undefined) throw new Error("no release");
    assert.equal(moved?.path.split("/")[2], formatTablespaceDirectory(release));
  });
}

test("the range in messages is the table's", () => {
  assert.deepEqual(
    RELEASES.map(({ majorVersion }) => majorVersion),
    [...MAJORS],
  );
  assert.equal(RELEASE_RANGE, `${MAJORS.at(0)} to ${MAJORS.at(-1)}`);
  assert.equal(findRelease(12), undefined);
});

test("server_version_num holds major and minor", () => {
  assert.deepEqual(parseServerVersion(150_018), { majorVersion: 15, minorVersion: 18 });
  assert.deepEqual(parseServerVersion(190_000), { majorVersion: 19, minorVersion: 0 });
});

for (const number of [90_624, 0, -150_000, 150_000.5, Number.NaN, 10_000_000]) {
  test(`${number} is no server_version_num`, () => {
    const message = `not a server_version_num of PostgreSQL 10 or later: ${number}`;
    assert.throws(() => parseServerVersion(number), { name: "FormatError", message });
  });
}

test("PG_VERSION holds the major version", () => {
  assert.equal(parseVersionFile("15\n"), 15);
  assert.equal(parseVersionFile("9"), 9);
  for (const text of ["", "\n", "15\n\n", "9.6\n", "015", "x", "1500"]) {
    const message = `not a PG_VERSION file: ${JSON.stringify(text)}`;
    assert.throws(() => parseVersionFile(text), { name: "FormatError", message });
  }
});
