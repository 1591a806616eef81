import { DatabaseError } from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import {
  type ChangeAnswer,
  ChangedBlocks,
  type TimelineRange,
  timelineRanges,
  type WalRange,
} from "../postgres/changed-blocks.ts";
import { formatLsn, type Lsn, lsn, parseLsn } from "../postgres/lsn.ts";
import { integerColumn, type Row, type Session, textColumn } from "./session.ts";

export interface SummaryOptions {
  readonly clock: Clock;
  /** How long the server may take to summarize up to the range's end. */
  readonly timeoutMs: number;
  /** What was read before the range's end was known. */
  readonly ahead?: SummariesAhead | undefined;
  readonly signal: AbortSignal;
}

/**
 * Summaries that were read before the end of the range was known. They may tell of more than the
 * range; that all of the range is summarized has still to be seen.
 */
export interface SummariesAhead {
  readonly changes: ChangedBlocks;
  /** Those that are in `changes` to their end. */
  readonly names: ReadonlySet<string>;
}

/** The functions came with 17. */
const SINCE_VERSION = 170_000;
const FIRST_POLL_MS = 10;
const MAX_POLL_MS = 500;
/** Rows that are fetched at a time; each has the blocks of one chunk of a relation. */
const FETCH_COUNT = 100;
/** So that a row has 600 KiB at most. */
const CHUNK_BLOCKS = 65_536;

/** Behind all WAL. */
const LAST_LSN = lsn(0xffff_ffff_ffff_ffffn);

interface Summary {
  readonly timeline: number;
  readonly startLsn: Lsn;
  readonly endLsn: Lsn;
}

/**
 * Asks the server for what its WAL summarizer noted of the range. Gives "hole" where the server
 * can't vouch for all of it: before 17, summarize_wal off, summaries that were removed or never
 * made (also those of wal_level=minimal), a role that may not read them, a summarizer that does not
 * get to the range's end in time. Rejects with DatabaseError only when the session has ended.
 *
 * @source PrepareForIncrementalBackup, src/backend/backup/basebackup_incremental.c
 */
export async function readWalSummaries(
  session: Session,
  range: WalRange,
  options: SummaryOptions,
): Promise<ChangeAnswer> {
  try {
    const changes = options.ahead?.changes ?? new ChangedBlocks();
    const reason =
      (await whyUnusable(session, range, options)) ??
      (await collect(session, range, changes, options));
    if (reason !== undefined) return { kind: "hole", source: "wal-summaries", reason };
    return { kind: "changes", source: "wal-summaries", changes };
  } catch (error) {
    options.signal.throwIfAborted();
    if (!(error instanceof DatabaseError) || session.lost.aborted) throw error;
    return { kind: "hole", source: "wal-summaries", reason: error.message };
  }
}

/**
 * Reads the summaries that there are now from `startLsn` on, so that few are left to be read when
 * the end of the range is known. Proves nothing; rejects where summaries can't be read.
 */
export async function readSummariesAhead(
  session: Session,
  { startLsn, history }: Omit<WalRange, "endLsn">,
  { signal }: Pick<SummaryOptions, "signal">,
): Promise<SummariesAhead> {
  const changes = new ChangedBlocks();
  const names = new Set<string>();
  for (const part of timelineRanges({ startLsn, endLsn: LAST_LSN, history })) {
    for (const summary of await listSummaries(session, part, signal)) {
      await addSummary(session, summary, changes, signal);
      names.add(nameOf(summary));
    }
  }
  return { changes, names };
}

function nameOf({ timeline, startLsn, endLsn }: Summary): string {
  return `${timeline} ${startLsn} ${endLsn}`;
}

async function whyUnusable(
  session: Session,
  range: WalRange,
  options: SummaryOptions,
): Promise<string | undefined> {
  const { signal } = options;
  const row = await session.row(
    `SELECT current_setting('server_version_num') AS version,
            current_setting('summarize_wal', true) AS summarize`,
    { signal },
  );
  if (integerColumn(row, "version") < SINCE_VERSION) {
    return "the server keeps no WAL summaries: they came with PostgreSQL 17";
  }
  if (row["summarize"] !== "on") return "summarize_wal is off";
  return await waitForSummarizer(session, range, options);
}

/** @source WaitForWalSummarization, src/backend/postmaster/walsummarizer.c */
async function waitForSummarizer(
  session: Session,
  { endLsn }: WalRange,
  { clock, timeoutMs, signal }: SummaryOptions,
): Promise<string | undefined> {
  const startMs = clock.monotonicMs();
  for (let pollMs = FIRST_POLL_MS; ; pollMs = Math.min(2 * pollMs, MAX_POLL_MS)) {
    const row = await session.row("SELECT summarized_lsn FROM pg_get_wal_summarizer_state()", {
      signal,
    });
    const summarizedLsn = parseLsn(textColumn(row, "summarized_lsn"));
    if (summarizedLsn >= endLsn) return undefined;
    if (clock.monotonicMs() - startMs >= timeoutMs) {
      return (
        `the server has summarized WAL up to ${formatLsn(summarizedLsn)} only, ` +
        `not to ${formatLsn(endLsn)}, after ${timeoutMs} ms`
      );
    }
    await clock.sleep(pollMs, { signal });
  }
}

async function collect(
  session: Session,
  range: WalRange,
  changes: ChangedBlocks,
  { ahead, signal }: SummaryOptions,
): Promise<string | undefined> {
  for (const part of timelineRanges(range)) {
    const summaries = await listSummaries(session, part, signal);
    const reason = whyIncomplete(summaries, part);
    if (reason !== undefined) return reason;
    for (const summary of summaries) {
      if (ahead?.names.has(nameOf(summary)) === true) continue;
      await addSummary(session, summary, changes, signal);
    }
  }
  return undefined;
}

async function listSummaries(
  session: Session,
  { timeline, startLsn, endLsn }: TimelineRange,
  signal: AbortSignal,
): Promise<readonly Summary[]> {
  const rows = await session.query(
    `SELECT start_lsn, end_lsn FROM pg_available_wal_summaries()
      WHERE tli = $1 AND start_lsn < $3::pg_lsn AND end_lsn > $2::pg_lsn
      ORDER BY start_lsn, end_lsn`,
    { signal, values: [timeline, formatLsn(startLsn), formatLsn(endLsn)] },
  );
  return rows.map((row) => ({
    timeline,
    startLsn: parseLsn(textColumn(row, "start_lsn")),
    endLsn: parseLsn(textColumn(row, "end_lsn")),
  }));
}

/** @source WalSummariesAreComplete, src/backend/backup/walsummary.c */
function whyIncomplete(summaries: readonly Summary[], part: TimelineRange): string | undefined {
  let reached = part.startLsn;
  for (const { startLsn, endLsn } of summaries) {
    if (startLsn > reached) break;
    if (endLsn > reached) reached = endLsn;
  }
  if (reached >= part.endLsn) return undefined;
  return (
    `the server has no WAL summary of timeline ${part.timeline} from ${formatLsn(reached)} on, ` +
    `needed up to ${formatLsn(part.endLsn)}`
  );
}

/** A row has the blocks of one chunk as text, or the lowest length that a relation was cut to. */
const CONTENTS = `
  SELECT reltablespace, reldatabase, relfilenode, is_limit_block,
         string_agg(relblocknumber::text, ',') AS blocks
    FROM pg_wal_summary_contents($1, $2::pg_lsn, $3::pg_lsn)
   WHERE relforknumber = 0
   GROUP BY reltablespace, reldatabase, relfilenode, is_limit_block,
            relblocknumber / ${CHUNK_BLOCKS}`;

async function addSummary(
  session: Session,
  { timeline, startLsn, endLsn }: Summary,
  changes: ChangedBlocks,
  signal: AbortSignal,
): Promise<void> {
  const values = [timeline, formatLsn(startLsn), formatLsn(endLsn)];
  await session.query("BEGIN READ ONLY", { signal });
  try {
    await session.query(`DECLARE contents NO SCROLL CURSOR FOR ${CONTENTS}`, { signal, values });
    for (;;) {
      const rows = await session.query(`FETCH ${FETCH_COUNT} FROM contents`, { signal });
      for (const row of rows) addRow(row, changes);
      if (rows.length < FETCH_COUNT) return;
    }
  } finally {
    // Also ends a transaction that failed; a session that is gone has none.
    if (!session.lost.aborted && !signal.aborted) await session.query("ROLLBACK", { signal });
  }
}

function addRow(row: Row, changes: ChangedBlocks): void {
  const place = {
    tablespaceOid: integerColumn(row, "reltablespace"),
    databaseOid: integerColumn(row, "reldatabase"),
    relfilenode: integerColumn(row, "relfilenode"),
    fork: "main",
  } as const;
  const blocks = textColumn(row, "blocks").split(",");
  const isLimit = textColumn(row, "is_limit_block") === "t";
  for (const text of blocks) {
    const block = Number(text);
    if (!Number.isInteger(block) || block < 0 || block > 0xffff_ffff) {
      throw new DatabaseError(`no block number in a WAL summary: ${text}`);
    }
    // Relation 0 stands for all of a database that was made or removed.
    if (place.relfilenode === 0) changes.replaceDatabase(place.tablespaceOid, place.databaseOid);
    else if (isLimit) changes.cutFork(place, block);
    else changes.addBlock(place, block);
  }
}
