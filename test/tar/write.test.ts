import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, readlinkSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { readTar } from "../../src/tar/read.ts";
import { formatTarHeader, packTar, tarPaddingBytes, type TarMember } from "../../src/tar/write.ts";

const plain: TarMember = {
  kind: "file",
  name: "/base/5/1259",
  mode: 0o600,
  sizeBytes: 0,
  modifiedAtSeconds: 1_700_000_000,
  uid: 101,
  gid: 104,
};

/** What system tar prints for an archive: `tar tvf`. */
function list(archive: Uint8Array): string[] {
  const result = spawnSync(
    "tar",
    [
      "--list",
      "--verbose",
      "--numeric-owner",
      "--absolute-names",
      "--utc",
      "--full-time",
      "--quoting-style=literal",
    ],
    { input: archive, env: { PATH: process.env["PATH"], LC_ALL: "C.UTF-8" } },
  );
  assert.equal(result.stderr.toString(), "");
  assert.equal(result.status, 0);
  return result.stdout.toString().split("\n").slice(0, -1);
}

function archiveOf(...members: TarMember[]): Buffer {
  return packTar(members.map((member) => ({ member, content: Buffer.alloc(member.sizeBytes, 7) })));
}

test("system tar reads names, kinds, modes, sizes and times", () => {
  const archive = archiveOf(
    { ...plain, kind: "directory", name: "/", mode: 0o40700 },
    { ...plain, kind: "directory", name: "/base", mode: 0o700 },
    { ...plain, sizeBytes: 513 },
    {
      ...plain,
      kind: "symlink",
      name: "/postgresql.conf",
      linkName: "/etc/pg/my.conf",
      mode: 0o777,
    },
    { ...plain, name: "backup_label", modifiedAtSeconds: 0 },
    { ...plain, name: "/suid", mode: 0o4755 },
  );
  assert.deepEqual(list(archive), [
    "drwx------ 101/104           0 2023-11-14 22:13:20 /",
    "drwx------ 101/104           0 2023-11-14 22:13:20 /base",
    "-rw------- 101/104         513 2023-11-14 22:13:20 /base/5/1259",
    "lrwxrwxrwx 101/104           0 2023-11-14 22:13:20 /postgresql.conf -> /etc/pg/my.conf",
    "-rw------- 101/104           0 1970-01-01 00:00:00 backup_label",
    "-rwsr-xr-x 101/104           0 2023-11-14 22:13:20 /suid",
  ]);
});

test("an entry that fits has one block and no extended header", () => {
  assert.equal(formatTarHeader(plain).length, 512);
  const name = `/${"d".repeat(150)}/${"f".repeat(100)}`;
  assert.equal(formatTarHeader({ ...plain, name }).length, 512);
  assert.ok(list(archiveOf({ ...plain, name }))[0]?.endsWith(name));
});

const extended = [
  { what: "a long component", change: { name: `/${"x".repeat(200)}` } },
  { what: "a long path", change: { name: `/${"dir/".repeat(80)}file` } },
  { what: "other characters than ASCII", change: { name: "/base/ärger/文件" } },
  { what: "a long link target", change: { kind: "symlink", linkName: `/${"t".repeat(300)}` } },
  { what: "a link target beyond ASCII", change: { kind: "symlink", linkName: "/größe" } },
  { what: "a large uid", change: { uid: 4_000_000_000 } },
  { what: "a large gid", change: { gid: 4_000_000_000 } },
  { what: "a time before 1970", change: { modifiedAtSeconds: -1 } },
] as const;

for (const { what, change } of extended) {
  test(`system tar reads ${what}`, () => {
    const member: TarMember = { ...plain, ...change };
    assert.ok(formatTarHeader(member).length > 512);
    const [line = "nothing"] = list(archiveOf(member));
    assert.ok(line.includes(`${member.uid}/${member.gid}`), line);
    const target = member.kind === "symlink" ? ` -> ${member.linkName}` : "";
    assert.ok(line.endsWith(`${member.name}${target}`), line);
    if (member.modifiedAtSeconds < 0) assert.match(line, /1969-12-31 23:59:59/);
  });
}

test("a size from 8 GiB on stands in an extended header", async () => {
  const sizeBytes = 8 * 1024 ** 3;
  assert.equal(formatTarHeader({ ...plain, sizeBytes: sizeBytes - 1 }).length, 512);
  const header = formatTarHeader({ ...plain, sizeBytes });
  assert.equal(header.length, 1536);
  for await (const entry of readTar(bytesSource(header).open())) {
    assert.equal(entry.sizeBytes, sizeBytes);
    break;
  }
});

test("system tar extracts the content", () => {
  const directory = mkdtempSync(join(tmpdir(), "walnut-tar-"));
  try {
    const content = Buffer.from(Array.from({ length: 1025 }, (_, index) => index % 256));
    const archive = packTar([
      {
        member: { ...plain, kind: "directory", name: "/d", mode: 0o700 },
        content: Buffer.alloc(0),
      },
      { member: { ...plain, name: "/d/file", sizeBytes: content.length }, content },
      {
        member: { ...plain, kind: "symlink", name: "/d/l", linkName: "file" },
        content: Buffer.alloc(0),
      },
    ]);
    const result = spawnSync("tar", ["--extract", "--no-same-owner", "-C", directory], {
      input: archive,
    });
    assert.equal(result.status, 0, result.stderr.toString());
    assert.deepEqual(readFileSync(join(directory, "d/file")), content);
    assert.equal(statSync(join(directory, "d/file")).mode & 0o7777, 0o600);
    assert.equal(statSync(join(directory, "d/file")).mtimeMs, 1_700_000_000_000);
    assert.equal(readlinkSync(join(directory, "d/l")), "file");
  } finally {
    rmSync(directory, { recursive: true });
  }
});

for (const name of ["", "a\0b"]) {
  test(`refuses the name ${JSON.stringify(name)}`, () => {
    assert.throws(() => formatTarHeader({ ...plain, name }), { name: "FormatError" });
  });
}

const nameOf = fc
  .array(fc.string({ unit: "grapheme", minLength: 1, maxLength: 60 }), {
    minLength: 1,
    maxLength: 12,
  })
  .map((parts) => `/${parts.join("/").replaceAll("\0", "0")}`)
  .filter((name) => !name.endsWith("/") && name.isWellFormed());

const memberOf = fc.record({
  kind: fc.constantFrom("file", "directory", "symlink"),
  name: nameOf,
  linkName: nameOf,
  mode: fc.integer({ min: 0, max: 0o7777 }),
  content: fc.uint8Array({ maxLength: 2000 }),
  modifiedAtSeconds: fc.integer({ min: -(2 ** 31), max: 2 ** 40 }),
  uid: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  gid: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
});

test("what was packed is read back", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(memberOf, { maxLength: 6 }), async (cases) => {
      const members = cases.map(({ content, linkName, ...rest }) => {
        const isFile = rest.kind === "file";
        const bytes = isFile ? content : new Uint8Array(0);
        const link = rest.kind === "symlink" ? { linkName } : {};
        return { member: { ...rest, ...link, sizeBytes: bytes.length }, content: bytes };
      });
      const read = [];
      for await (const entry of readTar(bytesSource(packTar(members)).open())) {
        read.push({
          kind: entry.kind,
          name: entry.name,
          linkName: entry.linkName,
          mode: entry.mode,
          modifiedAtSeconds: entry.modifiedAtSeconds,
          content: Uint8Array.from(await readAll(entry.content())),
        });
      }
      const expected = members.map(({ member, content }) => ({
        kind: member.kind,
        name: member.name,
        linkName: member.linkName ?? "",
        mode: member.mode,
        modifiedAtSeconds: member.modifiedAtSeconds,
        content: Uint8Array.from(content),
      }));
      assert.deepEqual(read, expected);
    }),
  );
});

test("padding fills a block", () => {
  assert.deepEqual([0, 1, 511, 512, 513].map(tarPaddingBytes), [0, 511, 1, 0, 511]);
});
