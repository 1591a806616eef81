import { DatabaseError, FormatError } from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import { formatLsn, type Lsn, lsn, parseLsn } from "../postgres/lsn.ts";
import {
  type BackendMessage,
  copyDataMessage,
  copyDoneMessage,
  parseComplaint,
  parseRow,
  type RawRow,
  type ServerComplaint,
} from "./backend-message.ts";
import type { MessageSocket } from "./message-socket.ts";

/** A piece of WAL: pieces follow each other without a gap. */
export interface WalPiece {
  readonly startLsn: Lsn;
  /** Belongs to the receiver. */
  readonly bytes: Buffer;
  /** Up to where the server had WAL when it sent this. */
  readonly serverEndLsn: Lsn;
}

/** What a standby tells its primary; 0 for what it does not know. */
export interface StandbyPositions {
  readonly writeLsn: Lsn;
  /** What the server may forget, and what makes waiting commits return. */
  readonly flushLsn: Lsn;
  readonly applyLsn: Lsn;
}

/** Where the server's history leaves the timeline that was streamed. */
export interface TimelineEnd {
  readonly nextTimeline: number;
  readonly switchLsn: Lsn;
}

export interface WalStreamOptions {
  readonly startLsn: Lsn;
  readonly statusIntervalMs: number;
  readonly silenceTimeoutMs: number;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly failure: (complaint: ServerComplaint) => Error;
}

const WAL_DATA = 0x77;
const KEEPALIVE = 0x6b;
const STATUS_UPDATE = 0x72;
/** Type, start, end, time. */
const WAL_HEADER_BYTES = 25;
const KEEPALIVE_BYTES = 18;
const STATUS_BYTES = 34;
/** PostgreSQL counts microseconds from 2000-01-01. */
const POSTGRES_EPOCH_MS = 946_684_800_000;
/** Between two answers that say the same. */
const REPLY_PAUSE_MS = 100;
const NOWHERE = lsn(0n);

/**
 * WAL of one timeline as the server sends it: ends when the timeline has ended, then `end` tells
 * how; rejects with DatabaseError when the server says so, shuts down, or is lost. Tells the server
 * by itself how far we are, regularly and when asked.
 *
 * @source PostgreSQL's documentation, "Streaming Replication Protocol"
 */
export class WalStream implements AsyncIterable<WalPiece>, AsyncDisposable {
  /** Known once the iteration has ended. */
  end: TimelineEnd | undefined;
  /** Called when the server wants to know at once how far we are; after it was answered. */
  onReplyRequested: () => void = () => {};
  readonly #socket: MessageSocket;
  readonly #options: WalStreamOptions;
  readonly #over = new AbortController();
  #positions: StandbyPositions = { writeLsn: NOWHERE, flushLsn: NOWHERE, applyLsn: NOWHERE };
  #toldPositions: StandbyPositions | undefined;
  #toldAtMs = 0;
  #nextLsn: Lsn;
  #serverEndLsn: Lsn;
  #heardAtMs: number;

  /** Made by ReplicationSession, once the server has begun to stream. */
  constructor(socket: MessageSocket, options: WalStreamOptions) {
    this.#socket = socket;
    this.#options = options;
    this.#nextLsn = options.startLsn;
    this.#serverEndLsn = options.startLsn;
    this.#heardAtMs = options.clock.monotonicMs();
    socket.setTap((message) => this.#tap(message));
    void this.#keepInTouch();
  }

  /** Up to where the server had WAL when it last said so. */
  get serverEndLsn(): Lsn {
    return this.#serverEndLsn;
  }

  /** Bytes of messages that came and were not taken yet. */
  get waitingBytes(): number {
    return this.#socket.waitingBytes;
  }

  /** The server is told so when the next status is due. */
  note(positions: StandbyPositions): void {
    this.#positions = positions;
  }

  /** The server is told so at once. */
  confirm(positions: StandbyPositions): void {
    this.#positions = positions;
    this.#sendStatus(false);
  }

  /** Ends the connection: what iterates rejects with `reason`. */
  abandon(reason: Error): void {
    this.#socket.destroy(reason);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<WalPiece, void, undefined> {
    try {
      for (;;) {
        const message = await this.#socket.next(this.#options);
        if (message.type === "d") yield this.#piece(message.body);
        else if (message.type === "c") break;
        else this.#refuse(message);
      }
      this.#stopTalking();
      this.end = await this.#readEnd();
    } finally {
      this.#stopTalking();
    }
  }

  /** The session is of no use any more when the stream was left before its end. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopTalking();
    if (this.end === undefined) this.#socket.destroy(new DatabaseError("the stream was left"));
  }

  #stopTalking(): void {
    this.#over.abort();
    this.#socket.setTap(() => false);
  }

  #piece(body: Buffer): WalPiece {
    if (body[0] !== WAL_DATA || body.length < WAL_HEADER_BYTES) {
      throw new FormatError(
        `the server streams a message that begins with byte ${body[0] ?? "none"}`,
      );
    }
    const startLsn = lsn(body.readBigUInt64BE(1));
    const bytes = body.subarray(WAL_HEADER_BYTES);
    if (startLsn !== this.#nextLsn) {
      throw new DatabaseError(
        `the server sent WAL from ${formatLsn(startLsn)} on, ` +
          `expected was ${formatLsn(this.#nextLsn)}`,
      );
    }
    this.#nextLsn = lsn(startLsn + BigInt(bytes.length));
    return { startLsn, bytes, serverEndLsn: lsn(body.readBigUInt64BE(9)) };
  }

  #refuse({ type, body }: BackendMessage): void {
    if (type === "E") throw this.#options.failure(parseComplaint(body));
    // A walsender's last word when its server shuts down.
    if (type === "C") throw new DatabaseError("the server is shutting down");
    if (type === "N" || type === "S") return;
    throw new FormatError(`the server sent message ${JSON.stringify(type)} while it streams`);
  }

  /** @source the end of StartReplication, src/backend/replication/walsender.c */
  async #readEnd(): Promise<TimelineEnd> {
    this.#socket.write(copyDoneMessage());
    const rows: RawRow[] = [];
    for (;;) {
      const { type, body } = await this.#socket.next(this.#options);
      if (type === "Z") return parseTimelineEnd(rows);
      if (type === "D") rows.push(parseRow(body));
      if (type === "E") throw this.#options.failure(parseComplaint(body));
    }
  }

  /** Sees messages as they come, so that the server is answered while we are busy. */
  #tap({ type, body }: BackendMessage): boolean {
    this.#heardAtMs = this.#options.clock.monotonicMs();
    if (type !== "d") return false;
    const kind = body[0];
    if (kind === WAL_DATA && body.length >= WAL_HEADER_BYTES) {
      this.#serverEndLsn = lsn(body.readBigUInt64BE(9));
      return false;
    }
    if (kind !== KEEPALIVE || body.length < KEEPALIVE_BYTES) return false;
    this.#serverEndLsn = lsn(body.readBigUInt64BE(1));
    if (body.readUInt8(17) !== 0) {
      void this.#reply();
      this.onReplyRequested();
    }
    return true;
  }

  /**
   * A server that shuts down asks again as soon as it was answered, until all is confirmed: with no
   * news for it, the answer takes its time.
   */
  async #reply(): Promise<void> {
    const { clock } = this.#options;
    const hasNews = this.#positions !== this.#toldPositions;
    const sinceToldMs = clock.monotonicMs() - this.#toldAtMs;
    if (!hasNews && sinceToldMs < REPLY_PAUSE_MS) {
      const told = this.#toldAtMs;
      try {
        await clock.sleep(REPLY_PAUSE_MS - sinceToldMs, { signal: this.#over.signal });
      } catch {
        return;
      }
      if (this.#toldAtMs !== told) return;
    }
    this.#sendStatus(false);
  }

  async #keepInTouch(): Promise<void> {
    const { clock, statusIntervalMs, silenceTimeoutMs } = this.#options;
    const { signal } = this.#over;
    while (!signal.aborted && !this.#socket.isClosed) {
      try {
        await clock.sleep(statusIntervalMs, { signal });
      } catch {
        return;
      }
      // While we hold the server up, its answers wait behind the WAL.
      if (this.#socket.isHoldingUp) this.#heardAtMs = clock.monotonicMs();
      const silentMs = clock.monotonicMs() - this.#heardAtMs;
      if (silentMs >= silenceTimeoutMs) {
        const seconds = Math.round(silentMs / 1000);
        this.#socket.destroy(new DatabaseError(`the server has said nothing for ${seconds} s`));
      }
      this.#sendStatus(true);
    }
  }

  /** @source StandbyReplyMessage: ProcessStandbyReplyMessage, walsender.c */
  #sendStatus(isReplyRequested: boolean): void {
    this.#toldPositions = this.#positions;
    this.#toldAtMs = this.#options.clock.monotonicMs();
    const { writeLsn, flushLsn, applyLsn } = this.#positions;
    const body = Buffer.alloc(STATUS_BYTES);
    body.writeUInt8(STATUS_UPDATE, 0);
    body.writeBigUInt64BE(writeLsn, 1);
    body.writeBigUInt64BE(flushLsn, 9);
    body.writeBigUInt64BE(applyLsn, 17);
    const sinceEpochMs = Math.round(this.#options.clock.now()) - POSTGRES_EPOCH_MS;
    body.writeBigInt64BE(BigInt(sinceEpochMs) * 1000n, 25);
    body.writeUInt8(isReplyRequested ? 1 : 0, 33);
    this.#socket.write(copyDataMessage(body));
  }
}

/** Reads the row that follows a timeline's end. */
export function parseTimelineEnd(rows: readonly RawRow[]): TimelineEnd {
  const [timeline, position] = rows[0] ?? [];
  if (timeline === undefined || position === undefined) {
    throw new DatabaseError("the server ended the stream without telling the next timeline");
  }
  return {
    nextTimeline: Number(timeline.toString("latin1")),
    switchLsn: parseLsn(position.toString("latin1")),
  };
}
