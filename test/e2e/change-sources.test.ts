import assert from "node:assert/strict";
import { chmod, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, suite, test } from "node:test";
import { readArchivedChanges } from "../../src/archive/change-source.ts";
import { connectPostgres } from "../../src/connection/connect.ts";
import { readSummariesAhead, readWalSummaries } from "../../src/connection/wal-summaries.ts";
import { systemClock } from "../../src/io/clock.ts";
import {
  type ChangeAnswer,
  type ChangedBlocks,
  type WalRange,
} from "../../src/postgres/changed-blocks.ts";
import { type Lsn, lsn, parseLsn } from "../../src/postgres/lsn.ts";
import { parseRelationPath, type RelationFile } from "../../src/postgres/relation-file.ts";
import { parseTimelineHistory, type TimelineHistory } from "../../src/postgres/timeline-history.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { type Cluster, type Major, startCluster } from "../support/postgres.ts";
import { seededRandom } from "../support/random.ts";
import { RandomHistory } from "../support/random-history.ts";
import { silentLog } from "../../src/io/log.ts";

const IS_LONG = process.env["WALNUT_LONG"] === "1";
const TESTED: readonly Major[] = IS_LONG ? [13, 14, 15, 16, 17, 18] : [13, 18];
const PHASES = IS_LONG ? 12 : 4;
const CHANGES = IS_LONG ? 60 : 30;
const SEGMENT_BYTES = 1024 * 1024;
const signal = AbortSignal.timeout(600_000);

/** LSN of each page of each main fork, 0 for pages of zeros. */
type Pages = ReadonlyMap<string, { readonly file: RelationFile; readonly lsns: BigUint64Array }>;

interface Moment {
  readonly redoLsn: Lsn;
  readonly pages: Pages;
}

for (const major of TESTED) {
  suite(`what PostgreSQL ${major} changed`, () => {
    const random = seededRandom();
    const moments: Moment[] = [];
    const all: { cluster?: Cluster } = {};

    before(async () => {
      const cluster = await startCluster({ major, segmentMiB: 1, settings: settingsOf(major) });
      all.cluster = cluster;
      const history = new RandomHistory(cluster, random);
      await history.begin();
      for (let phase = 0; phase < PHASES; phase += 1) {
        moments.push(await takeMoment(cluster));
        await history.change(CHANGES);
        if (phase === 1) await crash(cluster);
        if (phase === 2) await beginTimeline(cluster);
      }
      moments.push(await takeMoment(cluster));
    });

    after(async () => {
      await all.cluster?.[Symbol.asyncDispose]();
    });

    test("is found in its WAL, page by page", async () => {
      const cluster = required(all.cluster);
      for (const [from, to] of pairs(moments)) {
        const changes = changesOf(await fromWal(cluster, await rangeOf(cluster, from, to)));
        requireAllChanges(from, to, changes, `WAL, seed ${random.seed}`);
      }
    });

    if (major < 17) {
      test("is in no summaries of this server", async () => {
        const cluster = required(all.cluster);
        const reason = await holeOf(cluster, await wholeRange(cluster, moments));
        assert.equal(reason, "the server keeps no WAL summaries: they came with PostgreSQL 17");
      });
      return;
    }

    test("is in the server's summaries as in the WAL", async () => {
      const cluster = required(all.cluster);
      await using session = await connectPostgres(
        { ...connection(cluster), applicationName: "walnut-test" },
        { signal },
      );
      const options = { clock: systemClock, timeoutMs: 60_000, signal };
      for (const [from, to] of pairs(moments)) {
        const range = await rangeOf(cluster, from, to);
        const summarized = changesOf(await readWalSummaries(session, range, options));
        requireAllChanges(from, to, summarized, `summaries, seed ${random.seed}`);
        const read = changesOf(await fromWal(cluster, range));
        assert.deepEqual(describe(summarized), describe(read), `seed ${random.seed}`);
      }
    });
  });
}

const SUMMARY_HOLES: readonly {
  readonly name: string;
  readonly change?: (range: WalRange) => WalRange;
  readonly prepare?: readonly string[];
  readonly user?: string;
  /** Long enough for any server unless told. */
  readonly timeoutMs?: number;
  readonly reason: RegExp;
}[] = [
  {
    name: "the range begins before the first of them",
    change: (range) => ({ ...range, startLsn: lsn(40n) }),
    reason: /^the server has no WAL summary of timeline 1 from 0\/28 on, needed up to /,
  },
  {
    name: "the range ends where the server has not got to",
    change: (range) => ({ ...range, endLsn: parseLsn("FFFF/0") }),
    timeoutMs: 300,
    reason: /^the server has summarized WAL up to .* only, not to FFFF\/0, after 300 ms$/,
  },
  {
    name: "the range is on a timeline without any",
    change: (range) => ({ ...range, history: { timeline: 77, ancestors: [] } }),
    reason: /^the server has no WAL summary of timeline 77 from /,
  },
  {
    name: "the role may not read them",
    prepare: [
      "CREATE ROLE reader LOGIN",
      "REVOKE EXECUTE ON FUNCTION pg_wal_summary_contents FROM public",
    ],
    user: "reader",
    reason: /^query failed: permission denied for function .* \(SQLSTATE 42501\)$/,
  },
  {
    name: "the server makes none",
    prepare: ["ALTER SYSTEM SET summarize_wal = off", "SELECT pg_reload_conf()"],
    reason: /^summarize_wal is off$/,
  },
];

test("summaries that were read ahead are taken with those that came later, and prove nothing", async () => {
  const { cluster, range } = await summarized();
  await using session = await connectPostgres(
    { ...connection(cluster), applicationName: "walnut-test" },
    { signal },
  );
  const options = { clock: systemClock, timeoutMs: 60_000, signal };
  changesOf(await readWalSummaries(session, range, options));
  const ahead = await readSummariesAhead(session, range, { signal });
  assert.ok(ahead.names.size > 0);

  await cluster.query("CREATE TABLE later (id int)");
  const later = await summarized();
  const whole = { ...later.range, startLsn: range.startLsn };
  const plain = changesOf(await readWalSummaries(session, whole, options));
  const early = describe(ahead.changes);
  const taken = changesOf(await readWalSummaries(session, whole, { ...options, ahead }));
  assert.deepEqual(describe(taken), describe(plain));
  assert.notDeepEqual(early, describe(plain), "nothing came later");

  const before = { ...whole, startLsn: lsn(40n) };
  const answer = await readWalSummaries(session, before, { ...options, ahead });
  assert.equal(answer.kind, "hole");
});

for (const { name, change, prepare = [], user, timeoutMs, reason } of SUMMARY_HOLES) {
  test(`the server's summaries are not believed where ${name}`, async () => {
    const { cluster, range } = await summarized();
    for (const sql of prepare) await cluster.query(sql);
    const wanted = change === undefined ? range : change(range);
    assert.match(await holeOf(cluster, wanted, { user, timeoutMs }), reason);
  });
}

const small: { cluster?: Promise<Cluster> } = {};

after(async () => {
  const cluster = await small.cluster;
  await cluster?.[Symbol.asyncDispose]();
});

/** One server for all of the cases, and a range that it has summarized. */
async function summarized(): Promise<{ cluster: Cluster; range: WalRange }> {
  small.cluster ??= startCluster({ major: 18, segmentMiB: 1, settings: settingsOf(18) });
  const cluster = await small.cluster;
  const from = await takeMoment(cluster);
  await cluster.query("CREATE TABLE IF NOT EXISTS noted (id int)");
  const to = await takeMoment(cluster);
  return { cluster, range: await rangeOf(cluster, from, to) };
}

async function wholeRange(cluster: Cluster, moments: readonly Moment[]): Promise<WalRange> {
  return await rangeOf(cluster, required(moments[0]), required(moments.at(-1)));
}

async function holeOf(
  cluster: Cluster,
  range: WalRange,
  how: { readonly user?: string | undefined; readonly timeoutMs?: number | undefined } = {},
): Promise<string> {
  const { user = "postgres", timeoutMs = 60_000 } = how;
  await using session = await connectPostgres(
    { ...connection(cluster), user, applicationName: "walnut-test" },
    { signal },
  );
  const options = { clock: systemClock, timeoutMs, signal };
  const answer = await readWalSummaries(session, range, options);
  // The session is of use afterwards.
  await session.row("SELECT 1 AS one", { signal });
  return answer.kind === "hole" ? answer.reason : "";
}

function settingsOf(major: Major): Readonly<Record<string, string>> {
  return {
    autovacuum: "off",
    wal_keep_size: "1GB",
    max_wal_size: "4GB",
    checkpoint_timeout: "1h",
    ...(major >= 17 ? { summarize_wal: "on" } : {}),
  };
}

function connection(cluster: Cluster) {
  return { host: "127.0.0.1", port: cluster.port, user: "postgres", database: "postgres" };
}

/** A redo position at the start of a segment, as backups have it. */
async function takeMoment(cluster: Cluster): Promise<Moment> {
  await cluster.switchWal();
  await cluster.query("CHECKPOINT");
  const redo = await cluster.value("SELECT redo_lsn FROM pg_control_checkpoint()");
  return { redoLsn: parseLsn(redo), pages: await readPages(cluster.dataDirectory) };
}

async function crash(cluster: Cluster): Promise<void> {
  await cluster.stop("immediate");
  await cluster.start();
}

/** Recovery that ends at once. */
async function beginTimeline(cluster: Cluster): Promise<void> {
  await cluster.configure({ restore_command: "false" });
  await cluster.stop();
  const path = join(cluster.dataDirectory, "recovery.signal");
  await writeFile(path, "");
  await chmod(path, 0o666);
  await cluster.start();
  await cluster.waitFor("SELECT NOT pg_is_in_recovery()");
  await cluster.query("CHECKPOINT");
}

async function rangeOf(cluster: Cluster, from: Moment, to: Moment): Promise<WalRange> {
  // The history of the timeline on which `to` was: forks behind it do not count.
  const history = await historyOf(cluster);
  const ancestors = history.ancestors.filter(({ endLsn }) => endLsn <= to.redoLsn);
  const left = history.ancestors[ancestors.length]?.timeline ?? history.timeline;
  return {
    startLsn: from.redoLsn,
    endLsn: to.redoLsn,
    history: { timeline: left, ancestors },
  };
}

async function historyOf(cluster: Cluster): Promise<TimelineHistory> {
  const timeline = Number(await cluster.value("SELECT timeline_id FROM pg_control_checkpoint()"));
  if (timeline === 1) return { timeline, ancestors: [] };
  const name = `${timeline.toString(16).toUpperCase().padStart(8, "0")}.history`;
  const text = await readFile(join(cluster.dataDirectory, "pg_wal", name), "utf8");
  return parseTimelineHistory(text, timeline);
}

async function fromWal(cluster: Cluster, range: WalRange): Promise<ChangeAnswer> {
  const systemId = await cluster.value("SELECT system_identifier FROM pg_control_system()");
  return await readArchivedChanges(new MemoryStorage(), range, {
    systemId: BigInt(systemId),
    segmentBytes: SEGMENT_BYTES,
    codecJobs: 1,
    walDirectory: join(cluster.dataDirectory, "pg_wal"),
    segmentsToReadMax: 10_000,
    log: silentLog,
    signal,
  });
}

function changesOf(answer: ChangeAnswer): ChangedBlocks {
  if (answer.kind === "hole") throw new Error(`${answer.source}: ${answer.reason}`);
  return answer.changes;
}

async function readPages(dataDirectory: string): Promise<Pages> {
  const pages = new Map<string, { file: RelationFile; lsns: BigUint64Array }>();
  const directories = [dataDirectory, join(dataDirectory, "pg_tblspc")];
  const paths = (await readdir(dataDirectory, { recursive: true })).map((path) => path);
  for (const tablespace of await readdir(join(directories[1] ?? ""))) {
    const inside = join("pg_tblspc", tablespace);
    for (const path of await readdir(join(dataDirectory, inside), { recursive: true })) {
      paths.push(join(inside, path));
    }
  }
  for (const path of new Set(paths)) {
    const file = parseRelationPath(path);
    if (file?.fork !== "main" || file.isTemporary) continue;
    const content = await readFile(join(dataDirectory, path));
    const lsns = new BigUint64Array(Math.floor(content.length / 8192));
    for (const block of lsns.keys()) {
      const at = block * 8192;
      const high = BigInt(content.readUInt32LE(at));
      lsns[block] = (high << 32n) | BigInt(content.readUInt32LE(at + 4));
    }
    pages.set(path, { file, lsns });
  }
  return pages;
}

/**
 * Every block that both moments have and that is another one now, and every page that was written
 * in between, has to be among the changes.
 */
function requireAllChanges(from: Moment, to: Moment, changes: ChangedBlocks, what: string): void {
  let changedCount = 0;
  for (const [path, { file, lsns }] of to.pages) {
    const change = changes.inFile(file, lsns.length);
    const has = (block: number): boolean =>
      change.kind === "all" ||
      (change.kind === "blocks" &&
        change.ranges.some(({ start, end }) => block >= start && block < end));
    const before = from.pages.get(path)?.lsns;
    for (const [block, lsn] of lsns.entries()) {
      const isWritten = lsn > from.redoLsn && lsn <= to.redoLsn;
      const isOther = before !== undefined && block < before.length && before[block] !== lsn;
      if (!isWritten && !isOther) continue;
      changedCount += 1;
      assert.ok(has(block), `${what}: ${path} block ${block} at ${lsn.toString(16)}`);
    }
  }
  assert.ok(changedCount > 0);
}

/** What an increment would take: behind a cut the noted blocks make no difference. */
function describe(changes: ChangedBlocks) {
  const entries = [...changes.entries()];
  const replaced = new Set(
    entries
      .filter(({ relfilenode }) => relfilenode === 0)
      .map(({ tablespaceOid, databaseOid }) => `${tablespaceOid}/${databaseOid}`),
  );
  return entries
    .filter(
      ({ relfilenode, tablespaceOid, databaseOid }) =>
        relfilenode === 0 || !replaced.has(`${tablespaceOid}/${databaseOid}`),
    )
    .map(({ blocks, ...noted }) => ({
      ...noted,
      ranges: [...blocks.ranges(0, noted.changedFrom)],
    }));
}

function pairs<T>(items: readonly T[]): readonly (readonly [T, T])[] {
  return items.flatMap((first, index) =>
    items.slice(index + 1).map((second) => [first, second] as const),
  );
}

function required<T>(value: T | undefined): T {
  if (value === undefined) throw new Error("not made");
  return value;
}
