import { RefusedError } from "../errors.ts";
import type { IncrementBase } from "../layout/sentinel.ts";
import { parseRelationPath } from "../postgres/relation-file.ts";
import { formatLsn, type Lsn } from "../postgres/lsn.ts";
import { FileJudge } from "./file-judge.ts";
import { MAX_BLOCKS, PAGE_BYTES } from "./increment-header.ts";
import type { Reading } from "./push-increment.ts";
import type { Walked } from "./walk.ts";

/** Files of its own that a server keeps when it is caught up. */
const OWN_FILES = new Set(["/pg_hba.conf", "/postgresql.conf", "/postgresql.auto.conf"]);

/**
 * Judges for a backup that is to be put over a copy of the cluster that has all pages up to
 * `fromLsn`: of a relation file the pages from there on go out, of any other file everything.
 */
function catchUpJudge(fromLsn: Lsn): FileJudge {
  // The copy has a file of each name, of whatever length: only the pages' own LSNs tell.
  const any = { sizeBytes: MAX_BLOCKS * PAGE_BYTES };
  const find = (name: string) => (parseRelationPath(name.slice(1)) === undefined ? undefined : any);
  return new FileJudge({ files: { find }, startLsn: fromLsn, sameDatabases: { has: () => true } });
}

/**
 * Throws RefusedError for a position that a primary has not reached: no standby of its stands
 * there.
 */
export function requireReached(fromLsn: Lsn, currentLsn: Lsn): void {
  if (fromLsn <= currentLsn) return;
  throw new RefusedError(
    `--from-lsn ${formatLsn(fromLsn)} lies behind the server's position ${formatLsn(currentLsn)}`,
    {
      hint:
        "Give the standby's last checkpoint: SELECT checkpoint_lsn FROM pg_control_checkpoint() " +
        "there. If it says this, the standby does not belong to this server's history.",
    },
  );
}

/** The same reading for a catch-up backup; unchanged without a position. */
export function catchUpReading(reading: Reading, fromLsn: Lsn | undefined): Reading {
  if (fromLsn === undefined) return reading;
  return { ...reading, judge: catchUpJudge(fromLsn), changeSource: "page-scan" };
}

/** What the sentinel of a catch-up backup says of its base: WAL-G's empty names. */
export function catchUpBase(fromLsn: Lsn | undefined): Required<IncrementBase> | undefined {
  if (fromLsn === undefined) return undefined;
  return { name: "", fullName: "", startLsn: fromLsn, stepCount: 1 };
}

/** All but the files that a server keeps. */
export function* withoutOwnFiles(entries: Iterable<Walked>): Generator<Walked> {
  for (const entry of entries) if (!OWN_FILES.has(entry.name)) yield entry;
}
