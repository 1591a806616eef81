import { NotInArchiveError, RefusedError } from "../errors.ts";
import { Bell } from "../io/bell.ts";
import type { Clock } from "../io/clock.ts";
import type { Log } from "../io/log.ts";
import type { PgControl } from "../postgres/pg-control.ts";
import type { TimelineHistory } from "../postgres/timeline-history.ts";
import type { Storage } from "../storage/storage.ts";
import type { ArchiveQueue } from "./archive-status.ts";
import { readControlFile } from "./control-file.ts";
import { fetchWalAhead } from "./fetch.ts";
import { LandingOrder } from "./landing-order.ts";
import { LineServer } from "./line-server.ts";
import { OpenRecords } from "./open-records.ts";
import { pauseMsAfter, reasonOf } from "./outage.ts";
import { PrefetchDirectory } from "./prefetch-directory.ts";
import {
  afterEnd,
  afterFetch,
  afterStall,
  afterTake,
  FIRST_PACE,
  type Pace,
  reachOf,
  widthOf,
} from "./prefetch-pace.ts";
import { followingSegment, isSegmentName, planPrefetch } from "./prefetch-plan.ts";
import {
  type PrefetchAnswer,
  prefetchLines,
  type PrefetchRequest,
  type PrefetchStatus,
} from "./prefetch-protocol.ts";
import { readTargetHistory, RecoveryWatch } from "./recovery-watch.ts";
import type { Spool } from "./spool-directory.ts";

export interface PrefetchOptions {
  readonly queue: ArchiveQueue;
  readonly spool: Spool;
  /** Called until it succeeds; the storage is kept and closed at the end. */
  readonly openStorage: () => Promise<Storage>;
  readonly codecJobs: number;
  readonly cacheDirectory: string;
  /** Segments that may be ahead of recovery. */
  readonly aheadMax: number;
  /** The same in bytes; one segment may always be. */
  readonly aheadBytesMax: number;
  /** For one fetch. */
  readonly timeoutMs: number;
  /** Ends when recovery took and asked for nothing for so long. */
  readonly idleMs: number;
  /** How often is looked whether all that may end it is as it was. */
  readonly inspectMs: number;
  /** Of the settings; calls with others are declined. */
  readonly settings: string;
  /** Where they come from: a change ends us. */
  readonly configFile?: string | undefined;
  /** The last segment that recovery has. */
  readonly after: string;
  /** As setup's line names the recovery. */
  readonly recovery?: string | undefined;
  readonly log: Log;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

const STATUS_LOG_MS = 60_000;
/** What the server writes meanwhile must find room, too. */
const FREE_SEGMENTS_MIN = 8;
/** A segment that is taken so soon was waited for, by the shell. */
const AT_ONCE_MS = 10;

type Answer = (answer: PrefetchAnswer) => void;

/**
 * Fetches the segments that recovery is going to ask for, until it is over; FETCH.md tells the
 * whole story. Gives why it ended.
 */
export async function prefetch(options: PrefetchOptions): Promise<string> {
  const prefetcher = new Prefetcher(options, await readControlFile(options.queue.dataDirectory));
  const lines = prefetchLines(prefetcher.handle);
  await using server = await LineServer.listen(options.spool.prefetchSocket, lines);
  if (server === undefined) return "another one runs";
  await using directory = await PrefetchDirectory.make(options.spool.prefetch, options.queue);
  return await prefetcher.run(server, directory);
}

class Prefetcher {
  readonly #options: PrefetchOptions;
  readonly #control: PgControl;
  readonly #bell = new Bell();
  /** The bell has rung since the last step. */
  #isDue = true;
  readonly #openRecords: OpenRecords;
  readonly #landings = new LandingOrder();
  readonly #ready = new Set<string>();
  readonly #underWay = new Map<string, { done: Promise<void>; abort: AbortController }>();
  readonly #waiting = new Map<string, Answer[]>();
  /** Until when a segment is not tried again without being asked for. */
  readonly #blockedUntilMs = new Map<string, number>();
  #directory: PrefetchDirectory | undefined;
  #storage: Promise<Storage> | undefined;
  #cursor: string | undefined;
  #history: TimelineHistory | undefined;
  /** Recovery went another way than was foreseen, or may have learned of another one. */
  #isHistoryOld = true;
  #pace: Pace = FIRST_PACE;
  #failures = 0;
  #lastReady = { name: "", atMs: 0 };
  #endReason: string | undefined;
  #fetchedCount = 0;
  #takenCount = 0;
  #failedCount = 0;
  #lastError: string | undefined;
  #activeAtMs: number;

  constructor(options: PrefetchOptions, control: PgControl) {
    this.#options = options;
    this.#control = control;
    this.#openRecords = new OpenRecords(options.queue.walDirectory, this.#landings);
    this.#activeAtMs = options.clock.monotonicMs();
  }

  readonly handle = (request: PrefetchRequest, answer: Answer): void => {
    if (request.kind === "status") return answer({ kind: "status", status: this.#status() });
    const { name, settings, recovery, caller } = request;
    if (settings !== this.#options.settings) this.#endReason ??= "a call had other settings";
    const directory = this.#directory;
    if (this.#endReason !== undefined || directory === undefined) {
      this.#wake();
      return answer({ kind: "declined", reason: this.#endReason ?? "it begins or ends" });
    }
    if (!this.#isSegment(name)) return answer({ kind: "declined", reason: "no WAL segment" });
    this.#activeAtMs = this.#now();
    for (const reader of [recovery, caller]) void this.#openTo(directory, reader);
    if (request.isAgain !== true || this.#ready.has(name)) this.#ask(name, directory, answer);
    else if (this.#waiting.has(name)) this.#await(name, answer);
    else answer({ kind: "declined", reason: "it did not come" });
  };

  async run(server: LineServer, directory: PrefetchDirectory): Promise<string> {
    const { queue, configFile, inspectMs, signal, clock, log, after, recovery } = this.#options;
    const recoveryWatch = await RecoveryWatch.begin(queue, configFile);
    if (this.#isSegment(after)) this.#history = await readTargetHistory(queue, timelineOf(after));
    this.#cursor ??= this.#isSegment(after) ? this.#following(after) : undefined;
    await this.#openTo(directory, recovery);
    // Looking every second finds it, too, where this does not.
    using _watch = directory.watch((name) => {
      if (this.#ready.has(name) && !directory.holds(name)) this.#taken(name);
    });
    this.#directory = directory;
    let inspectedAtMs = Number.NEGATIVE_INFINITY;
    let toldAtMs = this.#now();
    log.info("fetching ahead", { after, ...this.#status() });
    try {
      while (this.#endReason === undefined) {
        signal.throwIfAborted();
        if (this.#now() - inspectedAtMs >= inspectMs) {
          inspectedAtMs = this.#now();
          this.#lookForTaken(directory);
          if (!(await server.isOwn())) this.#endReason = "another one took over";
          else if (!directory.holds()) this.#endReason = "its directory is gone";
          else this.#endReason ??= this.#idleReason() ?? (await recoveryWatch.endReason());
        }
        if (this.#now() - toldAtMs >= STATUS_LOG_MS) {
          toldAtMs = this.#now();
          log.info("fetching ahead", { ...this.#status() });
        }
        if (this.#endReason !== undefined) break;
        if (!this.#isDue) await this.#bell.rungWithin(inspectMs, { clock, signal });
        this.#isDue = false;
        await this.#step(directory);
      }
      return this.#endReason;
    } finally {
      this.#endReason ??= "it was stopped";
      this.#directory = undefined;
      for (const { abort } of this.#underWay.values()) abort.abort(new RefusedError("it ends"));
      await Promise.all([...this.#underWay.values()].map(({ done }) => done));
      log.info("prefetcher ends", { reason: this.#endReason, ...this.#status() });
      const storage = await this.#storage?.catch(() => undefined);
      await storage?.[Symbol.asyncDispose]();
    }
  }

  #ask(name: string, directory: PrefetchDirectory, answer: Answer): void {
    if (name !== this.#cursor) this.#isHistoryOld = true;
    // What was absent or failed may be there now; that it is asked for is news, too.
    this.#blockedUntilMs.clear();
    this.#cursor = name;
    if (this.#ready.has(name) && directory.holds(name)) {
      return answer({ kind: "ready", path: directory.pathOf(name) });
    }
    this.#ready.delete(name);
    this.#await(name, answer);
    this.#wake();
  }

  #await(name: string, answer: Answer): void {
    answer({ kind: "taken" });
    this.#waiting.set(name, [...(this.#waiting.get(name) ?? []), answer]);
  }

  #lookForTaken(directory: PrefetchDirectory): void {
    for (const name of [...this.#ready].toSorted()) {
      if (!directory.holds(name)) this.#taken(name);
    }
  }

  #taken(name: string): void {
    this.#ready.delete(name);
    this.#takenCount += 1;
    this.#activeAtMs = this.#now();
    this.#pace = afterTake(this.#pace, this.#now());
    const isAtOnce = this.#now() - this.#lastReady.atMs < AT_ONCE_MS;
    if (isAtOnce && name === this.#lastReady.name) this.#pace = afterStall(this.#pace);
    // One that is waited for is where recovery is; others may be missed late, behind newer ones.
    if (this.#waiting.size === 0 && name >= (this.#cursor ?? "")) {
      this.#cursor = this.#following(name);
    }
    this.#wake();
  }

  async #step(directory: PrefetchDirectory): Promise<void> {
    if (this.#isHistoryOld && this.#cursor !== undefined) {
      this.#isHistoryOld = false;
      this.#history = await readTargetHistory(this.#options.queue, timelineOf(this.#cursor));
    }
    const nowMs = this.#now();
    const ahead = this.#aheadMax();
    const isAwaited = this.#waiting.has(this.#cursor ?? "");
    const isBehind = isAwaited && !this.#underWay.has(this.#cursor ?? "");
    const plan = planPrefetch(
      {
        cursor: this.#cursor,
        ready: this.#ready,
        underWay: new Set(this.#underWay.keys()),
        isBlocked: (name) => (this.#blockedUntilMs.get(name) ?? 0) > nowMs,
      },
      {
        reach: reachOf(this.#pace, { ahead }),
        keep: ahead,
        concurrency: isBehind ? this.#underWay.size + 1 : widthOf(this.#pace),
      },
      (name) => this.#following(name),
    );
    for (const name of plan.cancel) {
      this.#underWay.get(name)?.abort.abort(new RefusedError("not asked for any more"));
      this.#answer(name, { kind: "declined", reason: "another segment was asked for" });
    }
    for (const name of plan.drop) {
      this.#ready.delete(name);
      await directory.remove(name);
    }
    if (plan.begin.length > 0 && (isAwaited || (await this.#hasRoom(directory)))) {
      for (const name of plan.begin) this.#begin(name, directory);
    }
  }

  #begin(name: string, directory: PrefetchDirectory): void {
    const abort = new AbortController();
    const signal = AbortSignal.any([this.#options.signal, abort.signal]);
    const done = this.#fetch(name, directory, signal);
    this.#underWay.set(name, { done, abort });
  }

  /** Never rejects. */
  async #fetch(name: string, directory: PrefetchDirectory, signal: AbortSignal): Promise<void> {
    const startedAtMs = this.#now();
    this.#openRecords.begin(name);
    try {
      await directory.setComing(name, true);
      await fetchWalAhead(await this.#openStorage(), name, directory.pathOf(name), {
        ...this.#options,
        signal,
        systemId: this.#control.systemId,
        temporaryPath: directory.temporaryPathOf(name),
        findOpenRecord: (header, isProof) =>
          this.#openRecords.before(name, header, { isProof, signal }),
        onOpenRecord: (openRecord) => this.#openRecords.note(name, openRecord),
        waitForTurn: (options) => this.#landings.turn(name, options),
        onLanded: () => this.#landings.end(name),
      });
      const isAwaited = this.#waiting.has(name);
      this.#ready.add(name);
      this.#lastReady = { name, atMs: this.#now() };
      this.#fetchedCount += 1;
      this.#failures = 0;
      this.#lastError = undefined;
      this.#pace = afterFetch(this.#pace, this.#now() - startedAtMs, { ahead: this.#aheadMax() });
      if (isAwaited) this.#pace = afterStall(this.#pace);
      this.#answer(name, { kind: "ready", path: directory.pathOf(name) });
      // The shell may have been faster.
      if (!directory.holds(name)) this.#taken(name);
    } catch (error) {
      if (!signal.aborted) this.#failed(name, error);
      this.#answer(name, { kind: "declined", reason: reasonOf(error) });
    } finally {
      this.#openRecords.end(name);
      this.#underWay.delete(name);
      await directory.setComing(name, false);
      this.#wake();
    }
  }

  #failed(name: string, error: unknown): void {
    this.#pace = afterEnd(this.#pace);
    if (error instanceof NotInArchiveError) {
      this.#blockedUntilMs.set(name, Number.POSITIVE_INFINITY);
      return;
    }
    this.#failedCount += 1;
    const reason = reasonOf(error);
    // Whoever asks for it is told; here it is only a delay.
    if (reason !== this.#lastError) this.#options.log.warning("not fetched", { wal: name, reason });
    this.#lastError = reason;
    this.#failures += 1;
    this.#blockedUntilMs.set(name, this.#now() + pauseMsAfter(this.#failures));
  }

  #openStorage(): Promise<Storage> {
    const opening = (this.#storage ??= this.#options.openStorage());
    opening.catch(() => {
      if (this.#storage === opening) this.#storage = undefined;
    });
    return opening;
  }

  async #openTo(directory: PrefetchDirectory, reader: string | undefined): Promise<void> {
    try {
      if (reader !== undefined) await directory.openTo(reader);
    } catch (error) {
      // It finds nothing then.
      this.#options.log.debug("no link for a reader", { reason: reasonOf(error) });
    }
  }

  #answer(name: string, answer: PrefetchAnswer): void {
    for (const one of this.#waiting.get(name) ?? []) one(answer);
    this.#waiting.delete(name);
  }

  #following(name: string): string | undefined {
    const { walSegmentBytes: segmentBytes } = this.#control;
    return followingSegment(name, { segmentBytes, history: this.#history });
  }

  #isSegment(name: string): boolean {
    return isSegmentName(name, this.#control.walSegmentBytes);
  }

  #aheadMax(): number {
    const { aheadMax, aheadBytesMax } = this.#options;
    const inBytes = Math.floor(aheadBytesMax / this.#control.walSegmentBytes);
    return Math.max(1, Math.min(aheadMax, inBytes));
  }

  async #hasRoom(directory: PrefetchDirectory): Promise<boolean> {
    return (await directory.freeBytes()) >= FREE_SEGMENTS_MIN * this.#control.walSegmentBytes;
  }

  #idleReason(): string | undefined {
    const isIdle = this.#now() - this.#activeAtMs >= this.#options.idleMs;
    return isIdle && this.#waiting.size === 0 ? "nothing was asked for" : undefined;
  }

  #wake(): void {
    this.#isDue = true;
    this.#bell.ring();
  }

  #status(): PrefetchStatus {
    const { fetchMs, replayMs, concurrency } = this.#pace;
    return {
      next: this.#cursor ?? "",
      ready: this.#ready.size,
      underWay: this.#underWay.size,
      reach: reachOf(this.#pace, { ahead: this.#aheadMax() }),
      concurrency,
      fetchedCount: this.#fetchedCount,
      takenCount: this.#takenCount,
      failedCount: this.#failedCount,
      fetchMs: Math.round(fetchMs ?? 0),
      replayMs: Math.round(replayMs ?? 0),
      ...(this.#lastError === undefined ? {} : { lastError: this.#lastError }),
    };
  }

  #now(): number {
    return this.#options.clock.monotonicMs();
  }
}

function timelineOf(name: string): number {
  return Number.parseInt(name.slice(0, 8), 16);
}
