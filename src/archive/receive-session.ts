import { parseSizeParameter, parseTimeParameter } from "../connection/parameter.ts";
import {
  connectReplication,
  type ReplicationSession,
  type SystemIdentity,
} from "../connection/replication.ts";
import type { ConnectionSettings } from "../connection/target.ts";
import { type TimelineEnd, type WalPiece, WalStream } from "../connection/wal-stream.ts";
import { DatabaseError, LocalFileError, RefusedError, WrongClusterError } from "../errors.ts";
import { formatLsn, type Lsn, lsn } from "../postgres/lsn.ts";
import type { TimelineHistory } from "../postgres/timeline-history.ts";
import { segmentNumberOf, segmentStart } from "../postgres/wal-file.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";
import { type DeadlineScope, withinDeadline } from "./deadline.ts";
import type { HistoryFiles } from "./history-files.ts";
import { ensureRepositoryIdentity } from "./identity.ts";
import { findNewestStored } from "./newest-stored.ts";
import { type OwnWal, planContinuation, type ReceiveStart, startAt } from "./receive-plan.ts";
import { ensureSlot } from "./receive-slot.ts";
import { ShutdownWatch } from "./shutdown-watch.ts";
import { listForks } from "./timeline-forks.ts";
import type { ShipOptions, WalShipper } from "./wal-shipper.ts";
import { WalSpool } from "./wal-spool.ts";

export interface ReceiveOptions extends ShipOptions, CallOptions {
  readonly settings: ConnectionSettings;
  readonly slot: string;
}

/** What is known from one session to the next. */
export interface ReceiveState {
  system: { readonly systemId: bigint; readonly segmentBytes: number } | undefined;
  /** Stored, or complete and with the shipper. */
  own: OwnWal | undefined;
  /** WAL before it is given up: the server does not have it any more. */
  skipTo: Lsn | undefined;
  /** What the slot promises, if more than that was asked for. */
  promisedLsn: Lsn | undefined;
  /** Whether the server has ever sent anything. */
  hasReceived: boolean;
  /** Where a local file took no more; WAL before it comes again, and shows nothing. */
  blockedLsn: Lsn | undefined;
}

export interface ReceiveParts {
  readonly state: ReceiveState;
  readonly shipper: WalShipper;
  /** For segments on their way. */
  readonly directory: string;
  readonly histories: HistoryFiles;
  /** Called when WAL comes in, and there is room for it. */
  readonly onReceiving: () => void;
}

const STATUS_INTERVAL_MS = 10_000;
/** Several statuses fit into the time after which the server gives us up. */
const STATUSES_PER_TIMEOUT = 3;
const SILENCE_TIMEOUT_MS = 60_000;
/** We don't replay. */
const NOWHERE = lsn(0n);

interface Server {
  readonly identity: SystemIdentity;
  readonly history: TimelineHistory;
  readonly segmentBytes: number;
}

/** One connection, from the greeting until it is lost. */
export class ReceiveSession {
  readonly #storage: Storage;
  readonly #options: ReceiveOptions;
  readonly #parts: ReceiveParts;
  #statusIntervalMs = STATUS_INTERVAL_MS;
  #spool: WalSpool | undefined;
  #receivedLsn = NOWHERE;
  /** Whether a segment of this timeline was begun in this session. */
  #hasBegun = false;

  constructor(storage: Storage, options: ReceiveOptions, parts: ReceiveParts) {
    this.#storage = storage;
    this.#options = options;
    this.#parts = parts;
  }

  /** Ends only with an error. */
  async run({ signal }: CallOptions): Promise<never> {
    const { settings, clock, timeoutMs } = this.#options;
    await using session = await withinDeadline({ timeoutMs, signal }, async (scope) => {
      scope.begin("connecting to PostgreSQL");
      return await connectReplication(settings, { clock, signal: scope.signal });
    });
    let start = await withinDeadline({ timeoutMs, signal }, (scope) =>
      this.#prepare(session, scope),
    );
    for (;;) {
      const end = await this.#streamTimeline(session, start, signal);
      start = await withinDeadline({ timeoutMs, signal }, (scope) =>
        this.#follow(session, { start, end }, scope),
      );
    }
  }

  /** Takes note of how far this session came; what is not complete is received again. */
  async end(options: CallOptions): Promise<void> {
    const { shipper, state } = this.#parts;
    await shipper.drop(options);
    if (state.own === undefined || state.own.endLsn >= shipper.storedLsn) return;
    state.own = { ...state.own, endLsn: shipper.storedLsn };
  }

  async #prepare(session: ReplicationSession, scope: DeadlineScope): Promise<ReceiveStart> {
    scope.begin("asking PostgreSQL what it is");
    const identity = await session.identifySystem(scope);
    const segmentBytes = parseSizeParameter(await session.show("wal_segment_size", scope));
    const timeoutMs = parseTimeParameter(await session.show("wal_sender_timeout", scope));
    if (timeoutMs > 0) {
      this.#statusIntervalMs = Math.min(STATUS_INTERVAL_MS, timeoutMs / STATUSES_PER_TIMEOUT);
    }
    await this.#requireOwnSystem({ systemId: identity.systemId, segmentBytes }, scope);
    const history = await this.#parts.histories.bring(session, identity.timeline, scope);
    await this.#requireNewest(identity, scope);
    const start = await this.#plan(session, { identity, history, segmentBytes }, scope);
    // Before any segment of its own.
    const startHistory = await this.#parts.histories.bring(session, start.timeline, scope);
    this.#parts.state.own = { history: startHistory, endLsn: start.positionLsn };
    return start;
  }

  async #requireOwnSystem(
    system: { readonly systemId: bigint; readonly segmentBytes: number },
    scope: DeadlineScope,
  ): Promise<void> {
    const { state } = this.#parts;
    const known = state.system;
    if (known === undefined) {
      scope.begin(`asking ${this.#storage.name} which cluster it belongs to`);
      await ensureRepositoryIdentity(this.#storage, system.systemId, scope);
      state.system = system;
      return;
    }
    if (known.systemId === system.systemId && known.segmentBytes === system.segmentBytes) return;
    throw new WrongClusterError(
      `the server is now cluster ${system.systemId} with segments of ${system.segmentBytes} bytes, ` +
        `it was cluster ${known.systemId} with segments of ${known.segmentBytes} bytes`,
      {
        hint:
          "Another server answers at this address: check PGHOST and PGPORT. One made anew by initdb " +
          "or pg_upgrade needs a prefix of its own, and a base backup there.",
      },
    );
  }

  /**
   * A server whose timeline was left behind by another one writes what no recovery will look for.
   */
  async #requireNewest({ timeline, flushLsn }: SystemIdentity, scope: DeadlineScope) {
    const { isSynchronous, log } = this.#options;
    scope.begin(`listing timelines in ${this.#storage.name}`);
    const forks = await listForks(this.#storage, timeline, scope);
    const fork = forks.find(({ switchLsn }) => switchLsn <= flushLsn);
    if (fork === undefined) return;
    const what =
      `the archive has timeline ${fork.timeline}, which left the server's timeline ${timeline} at ` +
      `${formatLsn(fork.switchLsn)}: recovery to the latest timeline won't find what this server writes`;
    const hint =
      "Is this an old primary after a failover? Then stop it. If it is the right one, remove the " +
      `history file of timeline ${fork.timeline} from the archive.`;
    if (isSynchronous) throw new RefusedError(what, { hint });
    log.error(what, { hint });
  }

  async #plan(
    session: ReplicationSession,
    server: Server,
    scope: DeadlineScope,
  ): Promise<ReceiveStart> {
    const { settings, slot: name, log } = this.#options;
    const { state } = this.#parts;
    scope.begin(`looking up replication slot ${name}`);
    const slot = await ensureSlot(session, { settings, slot: name, log, signal: scope.signal });
    const { segmentBytes } = server;
    const promisedLsn = slot.restartLsn ?? server.identity.flushLsn;
    const start =
      state.own === undefined
        ? await this.#firstStart(server, { promisedLsn, isNew: slot.isNew }, scope)
        : await this.#continueFrom(state.own, server, scope);
    state.skipTo = undefined;
    const promisedSegment = segmentNumberOf(promisedLsn, segmentBytes);
    const isMore = segmentNumberOf(start.startLsn, segmentBytes) < promisedSegment;
    // A slot that may have been invalidated promises nothing.
    state.promisedLsn = isMore && !slot.mayBeLost ? promisedLsn : undefined;
    return start;
  }

  async #firstStart(
    { history, segmentBytes }: Server,
    { promisedLsn, isNew }: { readonly promisedLsn: Lsn; readonly isNew: boolean },
    scope: DeadlineScope,
  ): Promise<ReceiveStart> {
    const { skipTo } = this.#parts.state;
    if (skipTo !== undefined || !isNew) {
      return startAt(history, skipTo ?? promisedLsn, segmentBytes);
    }
    // After a failover the slot is new, but the archive is not: no gap, if the server can help it.
    scope.begin(`looking for the newest segment in ${this.#storage.name}`);
    const query = { history, beforeLsn: promisedLsn, segmentBytes };
    const newest = await findNewestStored(this.#storage, query, scope);
    return startAt(history, newest ?? promisedLsn, segmentBytes);
  }

  async #continueFrom(own: OwnWal, server: Server, scope: DeadlineScope): Promise<ReceiveStart> {
    const { log } = this.#options;
    const ownTimeline = own.history.timeline;
    const { timeline } = server.identity;
    const plan = planContinuation(server.history, own, server.segmentBytes);
    if (plan.kind === "stale") {
      throw new DatabaseError(
        `the server is on timeline ${timeline}, but WAL of timeline ${ownTimeline} has been received`,
        { hint: "This looks like the old primary after a failover. Point PGHOST to the new one." },
      );
    }
    if (plan.kind === "forked") {
      log.error("the server does not have all of the WAL that was stored before", {
        timeline,
        leftTimeline: ownTimeline,
        from: formatLsn(plan.start.positionLsn),
        to: formatLsn(own.endLsn),
        hint:
          "Commits between these positions were stored but are not on the server's timeline: the " +
          "standby that was promoted did not have them. The archive still has them, on the old one.",
      });
      await this.#parts.shipper.settle(plan.start.positionLsn, scope);
    }
    return plan.start;
  }

  async #streamTimeline(
    session: ReplicationSession,
    { timeline, startLsn }: ReceiveStart,
    signal: AbortSignal,
  ): Promise<TimelineEnd> {
    const { slot, isSynchronous, log } = this.#options;
    const { shipper } = this.#parts;
    const started = await session.startPhysical({
      slot,
      startLsn,
      timeline,
      statusIntervalMs: this.#statusIntervalMs,
      silenceTimeoutMs: SILENCE_TIMEOUT_MS,
      signal,
    });
    if (!(started instanceof WalStream)) return started;
    await using stream = started;
    log.info("receiving WAL", { slot, timeline, from: formatLsn(startLsn) });
    this.#receivedLsn = startLsn;
    const watch = new ShutdownWatch(stream, this.#options);
    shipper.onStored = () => stream.confirm(this.#positions());
    stream.onReplyRequested = () => {
      shipper.hurry();
      watch.askedFor(shipper.outageMs, { signal });
    };
    try {
      for await (const piece of stream) {
        await this.#take(piece, timeline, signal);
        if (isSynchronous) stream.confirm(this.#positions());
        else stream.note(this.#positions());
      }
    } finally {
      shipper.onStored = () => {};
    }
    await shipper.finishTimeline({ signal });
    this.#spool = undefined;
    if (stream.end === undefined) throw new DatabaseError("the stream ended without a reason");
    return stream.end;
  }

  async #take({ bytes }: WalPiece, timeline: number, signal: AbortSignal): Promise<void> {
    const { shipper, state, onReceiving } = this.#parts;
    state.hasReceived = true;
    for (let at = 0; at < bytes.length;) {
      let spool: WalSpool;
      try {
        spool = this.#spool ??= await this.#beginSegment(timeline, signal);
        at += await spool.append(bytes.subarray(at));
      } catch (error) {
        const { blockedLsn = NOWHERE } = state;
        const isFarther = this.#receivedLsn > blockedLsn;
        if (error instanceof LocalFileError && isFarther) state.blockedLsn = this.#receivedLsn;
        throw error;
      }
      this.#receivedLsn = spool.receivedLsn;
      if (state.blockedLsn === undefined || this.#receivedLsn > state.blockedLsn) {
        state.blockedLsn = undefined;
        onReceiving();
      }
      if (spool.isComplete) {
        this.#spool = undefined;
        if (state.own !== undefined) state.own = { ...state.own, endLsn: this.#receivedLsn };
      }
      shipper.grown();
    }
  }

  async #beginSegment(timeline: number, signal: AbortSignal): Promise<WalSpool> {
    const { shipper, directory, state } = this.#parts;
    if (state.system === undefined) throw new Error("a segment of an unknown system");
    const { segmentBytes } = state.system;
    await shipper.room({ signal });
    const segmentNumber = segmentNumberOf(this.#receivedLsn, segmentBytes);
    const spool = await WalSpool.create({ directory, timeline, segmentNumber, segmentBytes });
    // Of all but the first of a stream we know that nobody has begun them before us.
    shipper.begin(spool, { isResumed: !this.#hasBegun });
    this.#hasBegun = true;
    return spool;
  }

  #positions() {
    const { storedLsn } = this.#parts.shipper;
    const writeLsn = this.#receivedLsn > storedLsn ? this.#receivedLsn : storedLsn;
    return { writeLsn, flushLsn: storedLsn, applyLsn: NOWHERE };
  }

  async #follow(
    session: ReplicationSession,
    { start, end }: { readonly start: ReceiveStart; readonly end: TimelineEnd },
    scope: DeadlineScope,
  ): Promise<ReceiveStart> {
    const { log } = this.#options;
    const { nextTimeline, switchLsn } = end;
    const { state, histories } = this.#parts;
    if (state.system === undefined) throw new Error("a timeline of an unknown system");
    const { segmentBytes } = state.system;
    log.info("the timeline has ended", {
      timeline: start.timeline,
      at: formatLsn(switchLsn),
      next: nextTimeline,
    });
    const history = await histories.bring(session, nextTimeline, scope);
    state.own = { history, endLsn: switchLsn };
    this.#hasBegun = false;
    const startLsn = segmentStart(segmentNumberOf(switchLsn, segmentBytes), segmentBytes);
    return { timeline: nextTimeline, startLsn, positionLsn: switchLsn };
  }
}
