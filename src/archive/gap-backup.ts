import { OperationError } from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import type { Log } from "../io/log.ts";
import { isProcessAlive } from "../io/process-identity.ts";
import { type ArchiveQueue, listReady, serverStart } from "./archive-status.ts";
import {
  FRESH_STATE,
  gapBackupSocket,
  type GapBackupState,
  readGapBackupState,
  removeGapBackupState,
  writeGapBackupState,
} from "./gap-backup-state.ts";
import { listBackupWishes, listLocalGaps, removeBackupWish } from "./gaps.ts";
import { LineServer } from "./line-server.ts";
import { readLocalControl } from "./local-control.ts";
import { reasonOf } from "./outage.ts";
import { isRecovering } from "./recovery-watch.ts";
import type { Spool } from "./spool-directory.ts";

export interface GapBackupOptions {
  readonly queue: ArchiveQueue;
  readonly spool: Spool;
  /** Of the policy "drop": no backup is begun while more waits. */
  readonly dropAboveBytes?: number | undefined;
  /** Those that are given up still, and that no backup was begun behind. */
  readonly findUncovered: (gaps: readonly string[]) => Promise<readonly string[]>;
  /** Describes another backup that is being taken of this server. */
  readonly findRunning: () => Promise<string | undefined>;
  /**
   * Takes a full backup, or has it taken. `onStarted` is told of a process that goes on when we are
   * killed, as `describeProcess` names it.
   */
  readonly takeBackup: (onStarted: (process: string) => Promise<void>) => Promise<void>;
  /** Whether settings are those that we began with. */
  readonly isCurrent?: (() => boolean) | undefined;
  readonly log: Log;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

const FIRST_RETRY_MS = 60_000;
const LONGEST_RETRY_MS = 3_600_000;
const FIRST_LOOK_MS = 500;
const LONGEST_LOOK_MS = 60_000;
/** How often it is seen that the server has ended. */
const SLICE_MS = 2000;

/**
 * Takes the backup that gaps ask for, as soon as it can be taken; GAP.md tells the whole story.
 * Gives why it ended, "another one runs" if there is nothing to do for us at all.
 */
export async function backUpGaps(options: GapBackupOptions): Promise<string> {
  const socket = gapBackupSocket(options.spool);
  await using server = await LineServer.listen(socket, {
    parse: () => undefined,
    unknown: { kind: "listening" },
    handle: () => {},
  });
  if (server === undefined) return "another one runs";
  return await new GapBackup(options, server).run();
}

class GapBackup {
  readonly #options: GapBackupOptions;
  readonly #server: LineServer;
  #start: string | undefined;
  #state: GapBackupState = FRESH_STATE;
  #lookMs = FIRST_LOOK_MS;

  constructor(options: GapBackupOptions, server: LineServer) {
    this.#options = options;
    this.#server = server;
  }

  async run(): Promise<string> {
    const { queue, spool } = this.#options;
    this.#start = await serverStart(queue);
    this.#state = await readGapBackupState(spool);
    for (;;) {
      const end = await this.#endReason();
      if (end !== undefined) return end;
      const wishes = await listBackupWishes(spool.gaps);
      if (wishes.length === 0) {
        await removeGapBackupState(spool);
        return "nothing is wanted any more";
      }
      const obstacle = await this.#advance(wishes);
      if (obstacle === undefined) {
        this.#lookMs = FIRST_LOOK_MS;
        continue;
      }
      await this.#note({ waitingFor: obstacle });
      await this.#pause();
    }
  }

  /** Gives what stands in the way, if something does. */
  async #advance(wishes: readonly string[]): Promise<string | undefined> {
    const { findUncovered, findRunning, signal } = this.#options;
    try {
      const here = await this.#localObstacle();
      if (here !== undefined) return here;
      const uncovered = await findUncovered(wishes);
      await this.#forgetCovered(wishes, uncovered);
      const [first] = uncovered;
      if (first === undefined) return undefined;
      if (uncovered.every((name) => this.#state.asked.includes(name))) {
        return "the backup that the command has ordered";
      }
      const running = await findRunning();
      if (running !== undefined) return `another backup to end: ${running}`;
      if ((await this.#endReason()) !== undefined) return undefined;
      await this.#attempt(uncovered);
      return undefined;
    } catch (error) {
      signal.throwIfAborted();
      return `what can't be found out: ${reasonOf(error)}`;
    }
  }

  async #localObstacle(): Promise<string | undefined> {
    const { queue, spool, dropAboveBytes, clock } = this.#options;
    const { commandProcess, notBeforeMs } = this.#state;
    if (commandProcess !== undefined && isProcessAlive(commandProcess)) return "the command to end";
    if ((await listLocalGaps(spool.gaps)).length > 0) return "the store to take WAL again";
    const control = await readLocalControl(queue.dataDirectory);
    if (isRecovering(queue) || control?.state !== "in production") {
      return "this server to be a primary: take the backup where the WAL is made";
    }
    const waitingBytes = (await listReady(queue)).size * control.walSegmentBytes;
    if (dropAboveBytes !== undefined && waitingBytes > dropAboveBytes) {
      return "the queue to be below WALNUT_ARCHIVE_QUEUE_MAX";
    }
    const leftMs = notBeforeMs - clock.now();
    // Further away only if the clock was set back.
    if (leftMs > 0 && leftMs <= LONGEST_RETRY_MS) return "the next attempt";
    return undefined;
  }

  async #forgetCovered(wishes: readonly string[], uncovered: readonly string[]): Promise<void> {
    const { spool, log } = this.#options;
    const covered = wishes.filter((name) => !uncovered.includes(name));
    for (const name of covered) await removeBackupWish(spool.gaps, name);
    if (covered.length === 0) return;
    const facts = { first: covered[0], count: covered.length };
    log.info("gaps need no backup any more: there is one behind them, or they were filled", facts);
  }

  async #attempt(gaps: readonly string[]): Promise<void> {
    const { takeBackup, log, clock, signal } = this.#options;
    const attempts = this.#state.attempts + 1;
    const pauseMs = Math.min(FIRST_RETRY_MS * 2 ** (attempts - 1), LONGEST_RETRY_MS);
    const notBeforeMs = clock.now() + pauseMs;
    await this.#note({ attempts, notBeforeMs, waitingFor: undefined, commandProcess: undefined });
    log.warning("WAL was given up: a full backup is begun, without which nothing gets past it", {
      first: gaps[0],
      count: gaps.length,
      attempt: attempts,
    });
    try {
      await takeBackup(async (commandProcess) => await this.#note({ commandProcess }));
      const asked = [...new Set([...this.#state.asked, ...gaps])];
      await this.#note({ asked, notBeforeMs: 0, lastError: undefined, commandProcess: undefined });
    } catch (error) {
      signal.throwIfAborted();
      // It may have run for longer than the pause.
      const again = { notBeforeMs: Math.max(notBeforeMs, clock.now() + FIRST_RETRY_MS) };
      await this.#note({ ...again, lastError: reasonOf(error), commandProcess: undefined });
      log.error("the backup that a gap asks for failed; it is tried again", {
        reason: reasonOf(error),
        hint: error instanceof OperationError ? error.hint : undefined,
        minutes: Math.ceil((again.notBeforeMs - clock.now()) / 60_000),
      });
    }
  }

  async #endReason(): Promise<string | undefined> {
    const { queue, isCurrent, signal } = this.#options;
    signal.throwIfAborted();
    if (!(await this.#server.isOwn())) return "another one took over";
    if (isCurrent?.() === false) return "the settings have changed";
    const start = await serverStart(queue);
    return start === undefined || start !== this.#start ? "the server has ended" : undefined;
  }

  async #note(changes: Partial<GapBackupState>): Promise<void> {
    const { spool, log, signal } = this.#options;
    const { waitingFor } = this.#state;
    this.#state = { ...this.#state, ...changes };
    const isSame = Object.keys(changes).length === 1 && changes.waitingFor === waitingFor;
    if (isSame && waitingFor !== undefined) return;
    await writeGapBackupState(spool, this.#state, { signal });
    if (changes.waitingFor !== undefined) {
      log.info("the backup that a gap asks for waits", { for: changes.waitingFor });
    }
  }

  async #pause(): Promise<void> {
    const { clock, signal } = this.#options;
    const untilMs = clock.monotonicMs() + this.#lookMs;
    this.#lookMs = Math.min(this.#lookMs * 2, LONGEST_LOOK_MS);
    for (;;) {
      const leftMs = untilMs - clock.monotonicMs();
      if (leftMs <= 0 || (await this.#endReason()) !== undefined) return;
      await clock.sleep(Math.min(leftMs, SLICE_MS), { signal });
    }
  }
}
