import { join } from "node:path";
import { ConflictError, RefusedError, ServerStopsError } from "../errors.ts";
import { Bell } from "../io/bell.ts";
import { parseWalFileName } from "../postgres/wal-file.ts";
import type { Storage } from "../storage/storage.ts";
import { DoneMarks, isReady, listReady, serverStart, watchMarks } from "./archive-status.ts";
import { DrainLevel } from "./drain-level.ts";
import type { DrainOptions } from "./drain-options.ts";
import { planDrain } from "./drain-plan.ts";
import { DrainWidth } from "./drain-width.ts";
import {
  drainLines,
  type DrainRequest,
  type DrainStatus,
  failureAnswer,
} from "./drain-protocol.ts";
import { forgetGap } from "./gaps.ts";
import { tendGaps } from "./gap-shipping.ts";
import { LineServer } from "./line-server.ts";
import { NoteReaders } from "./note-readers.ts";
import { isTemporary, LONGEST_PAUSE_MS, pauseMsAfter, reasonOf } from "./outage.ts";
import { type PushOptions, pushWal } from "./push.ts";
import { PushNotes, readSettledIdentity } from "./push-note.ts";
import { linkServer } from "./server-link.ts";
import { type StoredFile, UntoldFiles } from "./untold-files.ts";
import { type Answer, WaitingCalls } from "./waiting-calls.ts";
import { WalPacker } from "./wal-packer.ts";

const RESCAN_MS = 1000;
const STATUS_LOG_MS = 60_000;
const EXCEPT_MS = 5000;
/** Without a call for so long, archive_command may not be ours any more; the next starts us anew. */
const UNHEARD_MS = 300_000;

/**
 * Pushes what is ready in a data directory until there is nothing more to do; DRAIN.md tells the
 * whole story. Gives why it ended, "another one runs" if there is nothing to do for us at all.
 */
export async function drain(options: DrainOptions): Promise<string> {
  const drainer = new Drainer(options);
  await using server = await LineServer.listen(options.spool.socket, drainLines(drainer.handle));
  if (server === undefined) return "another one runs";
  return await drainer.run(server);
}

class Drainer {
  readonly #options: DrainOptions;
  readonly #notes: PushNotes;
  readonly #readers: NoteReaders;
  readonly #packer: WalPacker;
  readonly #doneMarks: DoneMarks;
  readonly #width: DrainWidth;
  readonly #level: DrainLevel;
  readonly #bell = new Bell();
  /** Marked ready, and not acknowledged. */
  readonly #ready = new Set<string>();
  readonly #underWay = new Map<string, Promise<void>>();
  /** Acknowledged, and marked ready still. */
  readonly #ahead = new Set<string>();
  /** Of `#ahead`, those without a note. */
  readonly #untold: UntoldFiles;
  #telling = Promise.resolve();
  readonly #calls = new WaitingCalls();
  /** When a file that failed may be tried again without being asked for. */
  readonly #notBeforeMs = new Map<string, number>();
  /** Collided, or may: somebody else pushes it. */
  readonly #conflicts = new Set<string>();
  #isHistoryReady = false;
  #storage: Storage | undefined;
  #failures = 0;
  #pausedUntilMs = 0;
  /** Until the first success, one file at a time finds out whose repository it is. */
  #isProved = false;
  #endReason: string | undefined;
  /** Aborted when nothing may be done with these settings any more. */
  readonly #over = new AbortController();
  readonly #signal: AbortSignal;
  #isOwn = async (): Promise<boolean> => true;
  #storedCount = 0;
  #failedCount = 0;
  #lastError: string | undefined;
  #activeAtMs: number;
  #heardAtMs: number;

  constructor(options: DrainOptions) {
    this.#options = options;
    this.#signal = AbortSignal.any([options.signal, this.#over.signal]);
    const { spool, queue } = options;
    this.#notes = new PushNotes(spool.notes, queue.walDirectory, spool.repository);
    this.#readers = new NoteReaders(this.#notes, {
      ...options,
      check: () => this.#checkNotes(),
      isOver: () => this.#endReason !== undefined,
    });
    this.#packer = new WalPacker({ codec: options.codec, jobs: options.codecJobs });
    this.#level = new DrainLevel(options);
    this.#width = new DrainWidth(options, () => this.#underWay.size);
    this.#doneMarks = new DoneMarks(queue, options.isMarkingDone ? options.aheadMax : 0);
    this.#untold = new UntoldFiles(options.isMarkingDone ? 0 : options.aheadMax, options.clock);
    this.#activeAtMs = this.#heardAtMs = this.#now();
    if (options.except !== undefined) {
      this.#notBeforeMs.set(options.except, this.#activeAtMs + EXCEPT_MS);
      this.#conflicts.add(options.except);
    }
  }

  readonly handle = (request: DrainRequest, answer: Answer): void => {
    if (request.kind === "status") return answer({ kind: "status", status: this.#status() });
    const { name, settings, archiver, caller } = request;
    const decline = (reason: string) => answer({ kind: "declined", reason });
    if (settings !== this.#options.settings) this.#outdated("a call had other settings");
    if (this.#endReason !== undefined) {
      this.#bell.ring();
      return decline(this.#endReason);
    }
    if (parseWalFileName(name) === undefined) return decline("no WAL file");
    answer({ kind: "taken" });
    this.#doneMarks.heard();
    this.#readers.heard([archiver, caller]);
    this.#activeAtMs = this.#heardAtMs = this.#now();
    void this.#take(name, answer);
  };

  async run(server: LineServer): Promise<string> {
    const { queue, signal, log } = this.#options;
    const start = await serverStart(queue);
    this.#isOwn = () => server.isOwn();
    await this.#readers.forget();
    if (!(await linkServer(queue, this.#options.spool.notes)))
      log.info("no hard link to postmaster.pid: a line of setup with -ef finds no note");
    await this.#checkNotes();
    const watcher = watchMarks(queue, (name) => this.#look(name));
    let lookedAtMs = Number.NEGATIVE_INFINITY;
    let toldAtMs = this.#now();
    try {
      while (this.#endReason === undefined) {
        signal.throwIfAborted();
        if (this.#now() - lookedAtMs >= RESCAN_MS) {
          lookedAtMs = this.#now();
          await this.#rescan();
          await this.#readers.doubt();
          await this.#isWanted();
          if ((await serverStart(queue)) !== start) this.#endReason ??= "the server has ended";
        }
        if (this.#now() - toldAtMs >= STATUS_LOG_MS) {
          toldAtMs = this.#now();
          log.info("draining", { ...this.#status() });
          void this.#tendGaps();
        }
        this.#announce();
        if (this.#endReason === undefined) this.#begin();
        this.#endIfIdle();
        if (this.#endReason === undefined) await this.#pause();
      }
      return this.#endReason;
    } finally {
      this.#announce({ left: 0 });
      await this.#telling;
      this.#endReason ??= "it was stopped";
      watcher?.close();
      if (this.#over.signal.aborted) await this.#readers.forget();
      await Promise.all(this.#underWay.values());
      await this.#telling;
      log.info("drainer ends", { reason: this.#endReason, ...this.#status() });
      await this.#storage?.[Symbol.asyncDispose]();
    }
  }

  async #take(name: string, answer: Answer): Promise<void> {
    if (this.#untold.has(name)) return this.#calls.add(name, answer);
    if (this.#ahead.has(name) && (await this.#notes.isTrue(name))) {
      return answer({ kind: "stored", outcome: "archived ahead" });
    }
    this.#ahead.delete(name);
    this.#calls.add(name, answer);
    this.#found(name);
    this.#notBeforeMs.clear();
    this.#pausedUntilMs = 0;
    this.#bell.ring();
  }

  /** What is left of earlier runs: true notes of ready files count, all others go. */
  async #checkNotes(): Promise<void> {
    for (const name of await this.#notes.list()) {
      if (!isReady(this.#options.queue, name)) await this.#notes.remove(name);
      else if (await this.#notes.isTrue(name)) this.#ahead.add(name);
      else this.#ahead.delete(name);
    }
  }

  /** Ends at once: what is under way would be for somebody else. */
  #outdated(reason: string): void {
    this.#endReason ??= reason;
    this.#over.abort(new RefusedError(reason));
  }

  /** Whether a note that is made now is one for who will look at it. */
  async #isWanted(): Promise<boolean> {
    if (!(await this.#isOwn())) this.#endReason ??= "another one took over";
    this.#checkSettings();
    return this.#endReason === undefined;
  }

  #checkSettings(): void {
    if (this.#options.isCurrent?.() === false) this.#outdated("the settings have changed");
  }

  #look(name: string): void {
    if (isReady(this.#options.queue, name)) this.#found(name);
    else this.#gone(name);
    this.#checkSettings();
    this.#bell.ring();
  }

  #found(name: string): void {
    if (this.#underWay.has(name) || this.#ahead.has(name)) return;
    this.#ready.add(name);
    this.#isHistoryReady ||= name.endsWith(".history");
  }

  #gone(name: string): void {
    if (this.#calls.has(name)) return;
    this.#ready.delete(name);
    this.#conflicts.delete(name);
    if (this.#ahead.delete(name)) void this.#notes.remove(name).catch(() => {});
  }

  async #rescan(): Promise<void> {
    const marked = await listReady(this.#options.queue);
    const known = [...this.#ready, ...this.#ahead, ...this.#conflicts];
    for (const name of known) if (!marked.has(name)) this.#gone(name);
    for (const name of marked) this.#found(name);
  }

  #begin(): void {
    const nowMs = this.#now();
    if (nowMs < this.#pausedUntilMs) return;
    const isCareful = !this.#isProved || this.#failures > 0;
    const concurrency = isCareful ? 1 : this.#width.current;
    const limits = { ahead: this.#options.aheadMax, concurrency };
    if (this.#underWay.size >= limits.concurrency && !this.#isHistoryReady) return;
    this.#isHistoryReady = false;
    const state = {
      ready: this.#ready,
      underWay: new Set(this.#underWay.keys()),
      wanted: new Set(this.#calls.names),
      isResting: (name: string) => (this.#notBeforeMs.get(name) ?? 0) > nowMs,
      conflicts: this.#conflicts,
      aheadCount: this.#ahead.size,
    };
    for (const name of planDrain(state, limits)) {
      this.#ready.delete(name);
      this.#underWay.set(name, this.#push(name));
    }
  }

  /** Never rejects. */
  async #push(name: string): Promise<void> {
    try {
      const file = await this.#store(name);
      this.#ahead.add(name);
      this.#untold.add(file);
      this.#succeeded(name);
    } catch (error) {
      this.#failed(name, error);
      this.#options.log.debug("push failed", { wal: name, reason: reasonOf(error) });
    } finally {
      this.#underWay.delete(name);
      this.#activeAtMs = this.#now();
      this.#announce();
      this.#bell.ring();
    }
  }

  async #store(name: string): Promise<StoredFile> {
    const { queue, spool } = this.#options;
    const path = join(queue.walDirectory, name);
    const identity = await readSettledIdentity(path, this.#options);
    const storage = (this.#storage ??= await this.#options.openStorage());
    const level = this.#level.current;
    const pushOptions: PushOptions = {
      ...this.#options,
      signal: this.#signal,
      level,
      pack: (local, options) => this.#packer.pack(local, level, options),
    };
    const outcome = await this.#width.learn(() => pushWal(storage, { path, name }, pushOptions));
    await forgetGap(spool.gaps, name);
    return { name, identity, outcome };
  }

  /** Makes the notes of what is stored, and tells who waits, when it is time to. */
  #announce({ left = this.#ready.size } = {}): void {
    const isStuck = this.#endReason !== undefined || this.#failures > 0;
    const files = this.#untold.take({ ahead: this.#ahead.size, left: isStuck ? 0 : left });
    if (files.length > 0) this.#telling = this.#tellAll(files, this.#telling);
  }

  /** All notes first: who is told goes on with the next file at once. */
  async #tellAll(files: readonly StoredFile[], before: Promise<void>): Promise<void> {
    await before;
    const noted = new Set<string>();
    for (const file of files) if (await this.#note(file)) noted.add(file.name);
    for (const file of files) this.#tell(file, noted.has(file.name));
    this.#bell.ring();
  }

  /** Gives whether there is a note, and so the file still the one that was stored. Never rejects. */
  async #note({ name, identity }: StoredFile): Promise<boolean> {
    try {
      const isNoted = await this.#notes.add(name, identity, () => this.#isWanted());
      if (isNoted && this.#readers.areTrusted) await this.#doneMarks.add(name);
      return isNoted;
    } catch (error) {
      this.#options.log.error("no note", { wal: name, reason: reasonOf(error) });
      return false;
    }
  }

  #tell({ name, outcome }: StoredFile, isNoted: boolean): void {
    this.#untold.told(name);
    const isDone = isNoted || !isReady(this.#options.queue, name);
    if (isDone) return this.#calls.tell(name, { kind: "stored", outcome });
    this.#ahead.delete(name);
    this.#ready.add(name);
    this.#notBeforeMs.set(name, this.#now() + LONGEST_PAUSE_MS);
    this.#calls.tell(name, { kind: "declined", reason: "the file, or who asks, has changed" });
  }

  #succeeded(name: string): void {
    this.#storedCount += 1;
    this.#conflicts.delete(name);
    const wasAway = !this.#isProved || this.#failures > 0;
    this.#isProved = true;
    this.#failures = 0;
    this.#lastError = undefined;
    if (wasAway && this.#endReason === undefined) void this.#tendGaps();
    this.#level.stored(this.#ready.size);
  }

  #failed(name: string, error: unknown): void {
    const { queue, log } = this.#options;
    if (this.#signal.aborted) return;
    this.#failedCount += 1;
    const reason = reasonOf(error);
    if (reason !== this.#lastError) log.error("push failed", { wal: name, reason });
    this.#lastError = reason;
    this.#conflicts[error instanceof ConflictError ? "add" : "delete"](name);
    // What waits behind them would wait for ever, or for as long as they did.
    const isLast = error instanceof ServerStopsError;
    const isBlocking = isLast || name.endsWith(".history") || this.#conflicts.has(name);
    const isSafe = (one: string) => this.#underWay.has(one) || this.#untold.has(one);
    const blocked = this.#calls.names.filter((one) => !isSafe(one));
    for (const one of isBlocking ? [name, ...blocked] : [name]) {
      this.#calls.tell(one, failureAnswer(error));
    }
    if (isTemporary(error)) {
      this.#failures += 1;
      this.#pausedUntilMs = this.#now() + pauseMsAfter(this.#failures);
    } else {
      this.#notBeforeMs.set(name, this.#now() + LONGEST_PAUSE_MS);
    }
    if (isReady(queue, name)) this.#ready.add(name);
  }

  async #tendGaps(): Promise<void> {
    if (this.#storage !== undefined) await tendGaps(this.#storage, this.#options);
  }

  #endIfIdle(): void {
    if (this.#now() - this.#heardAtMs >= UNHEARD_MS) this.#endReason ??= "nobody called any more";
    const isBusy = this.#ready.size + this.#underWay.size + this.#calls.names.length > 0;
    // A store that is away keeps us only as long as somebody asks.
    if (isBusy && this.#failures === 0) this.#activeAtMs = this.#now();
    if (this.#underWay.size > 0) return;
    if (this.#now() - this.#activeAtMs >= this.#options.idleMs) this.#endReason ??= "nothing to do";
  }

  async #pause(): Promise<void> {
    const pausedMs = this.#pausedUntilMs - this.#now();
    const restMs = pausedMs > 0 ? Math.min(pausedMs, RESCAN_MS) : RESCAN_MS;
    await this.#bell.rungWithin(Math.min(restMs, this.#untold.leftMs ?? restMs), this.#options);
  }

  #status(): DrainStatus {
    return {
      ready: this.#ready.size,
      underWay: this.#underWay.size,
      ahead: this.#ahead.size,
      storedCount: this.#storedCount,
      failedCount: this.#failedCount,
      ...this.#level.byNeed,
      ...(this.#lastError === undefined ? {} : { lastError: this.#lastError }),
    };
  }

  #now(): number {
    return this.#options.clock.monotonicMs();
  }
}
