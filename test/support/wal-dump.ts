/** What PostgreSQL's own pg_waldump tells of WAL, record by record. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ChangedBlocks, type ForkPlace } from "../../src/postgres/changed-blocks.ts";
import { clientProgram, type Major } from "./postgres-programs.ts";
import type { RealWal } from "./real-wal.ts";

export interface DumpedRecord {
  readonly rmgr: string;
  readonly lengthBytes: number;
  readonly xid: number;
  /** "0/008021E8" */
  readonly lsn: string;
  readonly description: string;
  /** Each as `formatReference` of the tests writes it. */
  readonly references: readonly string[];
}

const RECORD =
  /^rmgr: (\S+) +len \(rec\/tot\): +\d+\/ *(\d+), tx: +(\d+), lsn: (\S+), prev \S+ desc: ?(.*)$/;

/** pg_waldump of exactly this release, if the machine has it. */
export function waldumpProgram(major: Major): string | undefined {
  const program = clientProgram(major, "pg_waldump");
  return program?.includes(`postgresql-${major}/`) === true ||
    program?.includes(`postgresql/${major}/`) === true
    ? program
    : undefined;
}

/** All records of consecutive segments. */
export function dumpWal(program: string, wal: RealWal): readonly DumpedRecord[] {
  const directory = mkdtempSync(join(tmpdir(), "walnut-waldump-"));
  try {
    for (const [name, content] of wal.files) writeFileSync(join(directory, name), content);
    const [first = ""] = wal.segments;
    const words = ["--bkp-details", "--path", directory, first, wal.segments.at(-1) ?? first];
    const dump = spawnSync(program, words, { encoding: "utf8", maxBuffer: 2 ** 30 });
    // It ends with 1 where the records end, which they do: behind the last segment there is none.
    return parseDump(dump.stdout);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

function parseDump(text: string): readonly DumpedRecord[] {
  const records: (DumpedRecord & { readonly references: string[] })[] = [];
  for (const line of text.split("\n")) {
    if (line === "") continue;
    const reference = /^\tblkref (.*)$/.exec(line)?.[1];
    if (reference !== undefined) {
      records.at(-1)?.references.push(reference);
      continue;
    }
    const match = RECORD.exec(line.replace(/, prev (\S+), desc:/, ", prev $1 desc:"));
    if (match === null) throw new Error(`pg_waldump said: ${line}`);
    const [, rmgr = "", lengthBytes, xid, lsn = "", description = ""] = match;
    records.push({
      rmgr,
      lengthBytes: Number(lengthBytes),
      xid: Number(xid),
      lsn,
      description,
      references: [],
    });
  }
  return records;
}

/** What the dump says has changed, by rules of its own: it names files by their paths. */
export function dumpedChanges(records: readonly DumpedRecord[]): ChangedBlocks {
  const changes = new ChangedBlocks();
  for (const { rmgr, description, references } of records) {
    for (const reference of references) {
      const match = /rel (\d+)\/(\d+)\/(\d+) fork (\w+) blk (\d+)/.exec(reference);
      if (match?.[4] !== "main") continue;
      const [tablespaceOid = 0, databaseOid = 0, relfilenode = 0] = match.slice(1, 4).map(Number);
      const place = { tablespaceOid, databaseOid, relfilenode, fork: "main" } as const;
      changes.addBlock(place, Number(match[5]));
    }
    if (rmgr === "Storage") noteStorage(changes, description);
    if (rmgr === "Database") noteDatabase(changes, description);
    const removed = rmgr === "Transaction" ? /; rels: ([^;]*)/.exec(description)?.[1] : undefined;
    for (const path of removed?.trim().split(" ") ?? []) changes.cutFork(placeOf(path), 0);
  }
  return changes;
}

function noteStorage(changes: ChangedBlocks, description: string): void {
  const [, verb, path = "", count] =
    /^(CREATE|TRUNCATE) (\S+)(?: to (\d+) blocks flags \d+)?$/.exec(description) ?? [];
  if (verb === undefined) throw new Error(`unknown: ${description}`);
  if (!/_(fsm|vm|init)$/.test(path)) changes.cutFork(placeOf(path), Number(count ?? 0));
}

function noteDatabase(changes: ChangedBlocks, description: string): void {
  const places = description.startsWith("DROP")
    ? [...description.matchAll(/(\d+)\/(\d+)/g)]
    : [...description.matchAll(/(\d+)\/(\d+)$/g)];
  if (places.length === 0) throw new Error(`unknown: ${description}`);
  for (const [, tablespaceOid, databaseOid] of places) {
    changes.replaceDatabase(Number(tablespaceOid), Number(databaseOid));
  }
}

function placeOf(path: string): ForkPlace {
  const numbers = path.split("/").filter((part) => /^\d+$/.test(part));
  const relfilenode = Number(numbers.at(-1));
  if (path.startsWith("global/")) {
    return { tablespaceOid: 1664, databaseOid: 0, relfilenode, fork: "main" };
  }
  const databaseOid = Number(numbers.at(-2));
  const tablespaceOid = path.startsWith("base/") ? 1663 : Number(numbers[0]);
  return { tablespaceOid, databaseOid, relfilenode, fork: "main" };
}
