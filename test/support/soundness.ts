import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { pageChecksum } from "../../src/postgres/data-page.ts";
import type { Cluster, Major } from "./postgres.ts";
import { clientProgram } from "./postgres-programs.ts";

const PAGE_BYTES = 8192;
const BLOCKS_PER_SEGMENT = 131_072;

/** amcheck over every table and index: pg_amcheck where it knows the release, and its functions. */
export async function checkHeaps(cluster: Cluster): Promise<void> {
  const databases = await cluster.query("select datname from pg_database where datallowconn");
  for (const { datname } of databases) {
    const database = String(datname);
    await cluster.query("create extension if not exists amcheck", database);
    await cluster.query(
      `select bt_index_check(c.oid, c.relpersistence = 'p')
         from pg_class c join pg_am a on a.oid = c.relam
        where c.relkind = 'i' and a.amname = 'btree'`,
      database,
    );
    if (cluster.major < 14) continue;
    const rows = await cluster.query(
      `select c.relname, v.* from pg_class c, lateral verify_heapam(c.oid) v
        where c.relkind in ('r', 't', 'm') and c.relpersistence = 'p'`,
      database,
    );
    assert.deepEqual(rows, []);
  }
  const program = cluster.major >= 14 ? clientProgram(cluster.major, "pg_amcheck") : undefined;
  if (program === undefined) return;
  execFileSync(program, ["--all"], {
    env: { ...process.env, ...cluster.connection },
    stdio: "pipe",
  });
}

/** pg_checksums knows the tablespaces of its own release only; the pages were checked anyway. */
function checksumsProgram(major: Major): string | undefined {
  const program = clientProgram(major, "pg_checksums");
  return program?.includes(`${major}/bin`) === true ? program : undefined;
}

/** Every page of every main fork of a stopped cluster; tablespaces named by their folders. */
export async function checkPageChecksums(
  cluster: Cluster,
  tablespaces: readonly string[],
): Promise<void> {
  let pages = 0;
  const roots = [join(cluster.dataDirectory, "base"), join(cluster.dataDirectory, "global")];
  for (const root of [...roots, ...tablespaces]) {
    for (const entry of await readdir(root, { recursive: true, withFileTypes: true })) {
      const [, segment] = /^\d+(?:\.(\d+))?$/.exec(entry.name) ?? [undefined, undefined];
      if (!entry.isFile() || !/^\d+(\.\d+)?$/.test(entry.name)) continue;
      const bytes = await readFile(join(entry.parentPath, entry.name));
      const firstBlock = Number(segment ?? 0) * BLOCKS_PER_SEGMENT;
      for (let at = 0; at + PAGE_BYTES <= bytes.length; at += PAGE_BYTES) {
        const page = bytes.subarray(at, at + PAGE_BYTES);
        if (page.readUInt16LE(14) === 0) continue;
        const expected = pageChecksum(page, firstBlock + at / PAGE_BYTES);
        assert.equal(page.readUInt16LE(8), expected, `${entry.name} at ${at}`);
        pages += 1;
      }
    }
  }
  assert.ok(pages > 100, `${pages} pages were checked`);

  const program = checksumsProgram(cluster.major);
  if (program === undefined) return;
  execFileSync(program, ["--check", "-D", cluster.dataDirectory], {
    stdio: "pipe",
    ...cluster.user,
  });
}
