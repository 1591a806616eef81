import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { archiveCommandLine } from "../../src/archive/setup-lines.ts";
import { spoolCandidates, spoolDirectory } from "../../src/archive/spool-directory.ts";

let directory: string;
before(async () => void (directory = await mkdtemp(join(tmpdir(), "walnut-spool-"))));
after(() => rm(directory, { recursive: true, force: true }));

const base = { cacheDirectory: "/cache" };

function paths(places: Parameters<typeof spoolCandidates>[0]): readonly string[] {
  return spoolCandidates(places).map(({ path }) => path.replace(/-[0-9a-f]{12}$/, "-HASH"));
}

test("the places in their order", () => {
  const plain = { ...base, dataDirectory: "/pg/data", walDirectory: "/pg/data/pg_wal" };
  assert.deepEqual(paths(plain), ["/pg/data.walnut", "/cache/spool/data-HASH"]);
  assert.deepEqual(paths({ ...plain, walDirectory: "/wal/main" }), [
    "/pg/data.walnut",
    "/wal/main.walnut",
    "/cache/spool/data-HASH",
  ]);
  assert.deepEqual(paths({ ...plain, configured: "/spool" }), ["/spool/data-HASH"]);
  assert.deepEqual(paths({ ...plain, configured: "/pg/data/spool" }), []);
});

async function dataDirectory(name: string): Promise<string> {
  const path = join(directory, name);
  await mkdir(join(path, "pg_wal"), { recursive: true });
  return path;
}

test("it is made once, private, and found again under another name of the data directory", async () => {
  const data = await dataDirectory("one");
  const first = await spoolDirectory({ ...base, dataDirectory: data });
  assert.equal(first.path, `${data}.walnut`);
  assert.ok(first.isOnWalFileSystem);
  await symlink(data, join(directory, "link"));
  assert.deepEqual(
    await spoolDirectory({ ...base, dataDirectory: join(directory, "link") }),
    first,
  );
});

test("a place that others may write to, or that is no directory, is not used", async () => {
  const data = await dataDirectory("two");
  const cacheDirectory = join(directory, "cache");
  const first = await spoolDirectory({ cacheDirectory, dataDirectory: data });
  await chmod(first.path, 0o777);
  const second = await spoolDirectory({ cacheDirectory, dataDirectory: data });
  assert.ok(second.path.startsWith(cacheDirectory), second.path);
  await rm(first.path, { recursive: true });
  await writeFile(first.path, "");
  assert.equal((await spoolDirectory({ cacheDirectory, dataDirectory: data })).path, second.path);
});

for (const part of ["notes", "prefetch", "gaps"]) {
  test(`a spool without ${part} gets it back; with a file in its place it is not used`, async () => {
    const data = await dataDirectory(`without-${part}`);
    const cacheDirectory = join(directory, "cache");
    const first = await spoolDirectory({ cacheDirectory, dataDirectory: data });
    await rm(join(first.path, part), { recursive: true });
    assert.deepEqual(await spoolDirectory({ cacheDirectory, dataDirectory: data }), first);
    assert.ok((await stat(join(first.path, part))).isDirectory());
    await rm(join(first.path, part), { recursive: true });
    await writeFile(join(first.path, part), "");
    const second = await spoolDirectory({ cacheDirectory, dataDirectory: data });
    assert.ok(second.path.startsWith(cacheDirectory), second.path);
  });
}

test("setup's line quotes what the shell and PostgreSQL would read", async () => {
  const spool = {
    path: "/a b%",
    notes: "/a b%/it's",
    prefetch: "",
    gaps: "",
    socket: "",
    prefetchSocket: "",
    renameProgram: "",
    isOnWalFileSystem: true,
  };
  const line = archiveCommandLine(["/opt/wal nut"], {
    spool,
    configFile: "/it's.json",
    isServerLinked: true,
  });
  assert.equal(
    line,
    `archive_command = 'n=''/a b%%/it''\\\\''''s''/"$PPID"-c5726c25/%f; ` +
      `[ "$n" -nt "%p" ] && [ "$n" -nt postmaster.pid ] && [ "$n" -nt ''/it''\\\\''''s.json'' ] ` +
      `&& [ ''/a b%%/it''\\\\''''s''/server -ef postmaster.pid ] ` +
      `|| exec ''/opt/wal nut'' wal-push --archiver "$PPID"-c5726c25 "%p"'`,
  );
  const plain = { configFile: undefined, isServerLinked: false };
  const other = archiveCommandLine(["/opt/wal nut", "--x"], { ...plain, spool });
  assert.match(other, /"\$PPID"-(?!c5726c25)[0-9a-f]{8}\/.* postmaster\.pid \] \|\| exec /);
  const elsewhere = { ...spool, isOnWalFileSystem: false };
  const far = archiveCommandLine(["/w"], { ...plain, spool: elsewhere });
  assert.equal(far, `archive_command = 'exec /w wal-push "%p"'`);
});
