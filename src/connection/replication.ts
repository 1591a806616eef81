import type { Client } from "pg";
import { DatabaseError, FormatError } from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import { formatLsn, type Lsn, parseLsn } from "../postgres/lsn.ts";
import type { ByteStream } from "../io/bytes.ts";
import {
  type BackendMessage,
  copyDataMessage,
  copyDoneMessage,
  parseComplaint,
  parseRow,
  queryMessage,
  type RawRow,
  type ServerComplaint,
  terminateMessage,
} from "./backend-message.ts";
import { BaseBackup, type BaseBackupRequest, formatBaseBackup } from "./backup-stream.ts";
import { connectClient } from "./connect.ts";
import { hintOfServer } from "./failure.ts";
import { MessageSocket } from "./message-socket.ts";
import type { ConnectionSettings } from "./target.ts";
import { parseTimelineEnd, type TimelineEnd, WalStream } from "./wal-stream.ts";

/** What a walsender answered with an error. */
export class ReplicationError extends DatabaseError {
  /** Five characters: "58P01" for a file that the server does not have. */
  readonly sqlState: string;

  constructor(command: string, complaint: ServerComplaint) {
    const { sqlState, message, detail, hint } = complaint;
    const more = detail === undefined ? "" : ` (${detail})`;
    const known = hintOfServer(sqlState, message) ?? hint;
    const details = known === undefined ? {} : { hint: known };
    super(`${command}: ${message}${more}, SQLSTATE ${sqlState}`, details);
    this.sqlState = sqlState;
  }
}

export interface ReplicationCallOptions {
  /** Bounds the whole command; a command has no time limit of its own. */
  readonly signal: AbortSignal;
}

/** Answer to IDENTIFY_SYSTEM. */
export interface SystemIdentity {
  readonly systemId: bigint;
  /** The one that the server writes on, or as a standby replays. */
  readonly timeline: number;
  /** Up to where the server could send now. */
  readonly flushLsn: Lsn;
}

/** A physical slot as READ_REPLICATION_SLOT tells it. */
export interface SlotPosition {
  /**
   * The server keeps WAL from here on; undefined: none was reserved, or the slot was invalidated.
   */
  readonly restartLsn: Lsn | undefined;
}

/** First release with READ_REPLICATION_SLOT. */
export const READ_SLOT_SINCE = 15;

const SLOT_NAME = /^[a-z0-9_]{1,63}$/;

/** Whether PostgreSQL takes this as the name of a slot. @source ReplicationSlotValidateName */
export function isSlotName(name: string): boolean {
  return SLOT_NAME.test(name);
}

/** Connects to a walsender as libpq would; rejects like connectPostgres. */
export async function connectReplication(
  settings: ConnectionSettings,
  options: ReplicationCallOptions & { readonly clock: Clock },
): Promise<ReplicationSession> {
  const { signal } = options;
  const { client, socket } = await connectClient(settings, { signal, use: "replication" });
  try {
    return await ReplicationSession.over(client, options);
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

/** A physical walsender's session: one command at a time. */
export class ReplicationSession implements AsyncDisposable {
  readonly #socket: MessageSocket;
  readonly #clock: Clock;

  /**
   * `client` must be connected with `replication` "true" and idle; from then on it is ours. The
   * caller of pg's `connect` has bounded that; `signal` bounds only this call.
   */
  static async over(
    client: Client,
    { clock, signal }: ReplicationCallOptions & { readonly clock: Clock },
  ): Promise<ReplicationSession> {
    return new ReplicationSession(await MessageSocket.takeOver(client, { signal }), clock);
  }

  private constructor(socket: MessageSocket, clock: Clock) {
    this.#socket = socket;
    this.#clock = clock;
  }

  async identifySystem(options: ReplicationCallOptions): Promise<SystemIdentity> {
    const row = await this.#oneRow("IDENTIFY_SYSTEM", options);
    return {
      systemId: BigInt(textOf(row, 0)),
      timeline: Number(textOf(row, 1)),
      flushLsn: parseLsn(textOf(row, 2)),
    };
  }

  /** The value of a parameter as SHOW gives it: "16MB". `name` is letters and underscores. */
  async show(name: string, options: ReplicationCallOptions): Promise<string> {
    if (!/^[a-z_]+$/.test(name)) throw new RangeError(`not a parameter: ${name}`);
    return textOf(await this.#oneRow(`SHOW ${name}`, options), 0);
  }

  /**
   * Makes a physical slot; with `isReserved` the server keeps WAL from its last checkpoint on at
   * once, else from the first confirmed position on. Rejects with SQLSTATE 42710 if the name is
   * taken.
   */
  async createPhysicalSlot(
    slot: string,
    { isReserved, signal }: ReplicationCallOptions & { readonly isReserved: boolean },
  ): Promise<void> {
    const reserve = isReserved ? " RESERVE_WAL" : "";
    await this.#command(`CREATE_REPLICATION_SLOT ${quoted(slot)} PHYSICAL${reserve}`, { signal });
  }

  /**
   * Undefined if there is no such slot. Servers from READ_SLOT_SINCE on; rejects for a logical one.
   */
  async readSlot(slot: string, options: ReplicationCallOptions): Promise<SlotPosition | undefined> {
    const row = await this.#oneRow(`READ_REPLICATION_SLOT ${quoted(slot)}`, options);
    if (row[0] === undefined) return undefined;
    return { restartLsn: row[1] === undefined ? undefined : parseLsn(textOf(row, 1)) };
  }

  /**
   * The history file of a timeline, byte for byte; undefined if the server does not have it.
   *
   * @source SendTimeLineHistory, src/backend/replication/walsender.c
   */
  async timelineHistory(
    timeline: number,
    options: ReplicationCallOptions,
  ): Promise<Buffer | undefined> {
    try {
      const row = await this.#oneRow(`TIMELINE_HISTORY ${timeline}`, options);
      return row[1] ?? Buffer.alloc(0);
    } catch (error) {
      if (error instanceof ReplicationError && error.sqlState === "58P01") return undefined;
      throw error;
    }
  }

  /**
   * Streams WAL of one timeline from `startLsn` on. Until it has ended the session takes no other
   * command. Gives how the timeline ended when the server has nothing of it after `startLsn`.
   */
  async startPhysical(options: {
    readonly slot: string | undefined;
    readonly startLsn: Lsn;
    readonly timeline: number;
    /** How often we tell how far we are and ask whether the server is there. */
    readonly statusIntervalMs: number;
    /** The server is given up when it has said nothing for so long. */
    readonly silenceTimeoutMs: number;
    readonly signal: AbortSignal;
  }): Promise<WalStream | TimelineEnd> {
    const slot = options.slot === undefined ? "" : `SLOT ${quoted(options.slot)} `;
    const at = formatLsn(options.startLsn);
    const command = `START_REPLICATION ${slot}PHYSICAL ${at} TIMELINE ${options.timeline}`;
    this.#socket.write(queryMessage(command));
    const first = await this.#nextAnswer(options);
    if (first.type === "W") {
      return new WalStream(this.#socket, {
        ...options,
        clock: this.#clock,
        failure: (complaint) => new ReplicationError("START_REPLICATION", complaint),
      });
    }
    const rows = await this.#readRows("START_REPLICATION", options, first);
    return parseTimelineEnd(rows);
  }

  /**
   * Begins a base backup; takes as long as a checkpoint. Until all of it is read the session takes
   * no other command.
   */
  async startBaseBackup(
    request: BaseBackupRequest,
    options: ReplicationCallOptions & {
      readonly onNotice: (complaint: ServerComplaint) => void;
    },
  ): Promise<BaseBackup> {
    this.#socket.write(queryMessage(formatBaseBackup(request)));
    const fail = (message: BackendMessage, call: ReplicationCallOptions) =>
      this.#throwComplaint("BASE_BACKUP", message, call);
    return await BaseBackup.begin(this.#socket, request, { ...options, fail });
  }

  /** Tells a server from 17 on of the backup that the next one is to be an increment of. */
  async uploadManifest(manifest: ByteStream, options: ReplicationCallOptions): Promise<void> {
    const command = "UPLOAD_MANIFEST";
    this.#socket.write(queryMessage(command));
    const first = await this.#nextAnswer(options);
    if (first.type === "E") await this.#throwComplaint(command, first, options);
    if (first.type !== "G") {
      throw new FormatError(`${command} was answered with ${JSON.stringify(first.type)}`);
    }
    for await (const bytes of manifest) {
      await this.#socket.writeGently(copyDataMessage(bytes), options);
    }
    this.#socket.write(copyDoneMessage());
    await this.#readRows(command, options, await this.#nextAnswer(options));
  }

  /** Ends the session; the server is told, not waited for. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.write(terminateMessage());
    await this.#socket[Symbol.asyncDispose]();
  }

  async #oneRow(command: string, options: ReplicationCallOptions): Promise<RawRow> {
    const [row, ...surplus] = await this.#command(command, options);
    if (row === undefined || surplus.length > 0) {
      throw new FormatError(`${command} was answered with ${surplus.length} rows instead of one`);
    }
    return row;
  }

  async #command(command: string, options: ReplicationCallOptions): Promise<readonly RawRow[]> {
    this.#socket.write(queryMessage(command));
    return await this.#readRows(command, options, await this.#nextAnswer(options));
  }

  /** Reads up to ReadyForQuery. */
  async #readRows(
    command: string,
    options: ReplicationCallOptions,
    first: BackendMessage,
  ): Promise<readonly RawRow[]> {
    const rows: RawRow[] = [];
    let message = first;
    while (message.type !== "Z") {
      if (message.type === "D") rows.push(parseRow(message.body));
      if (message.type === "E") await this.#throwComplaint(command, message, options);
      message = await this.#nextAnswer(options);
    }
    return rows;
  }

  /** The session can be used again afterwards, unless the server ended it. */
  async #throwComplaint(
    command: string,
    { body }: BackendMessage,
    options: ReplicationCallOptions,
  ): Promise<never> {
    const complaint = parseComplaint(body);
    const isSessionOver = complaint.severity === "FATAL" || complaint.severity === "PANIC";
    if (!isSessionOver) {
      while ((await this.#nextAnswer(options)).type !== "Z");
    }
    throw new ReplicationError(command, complaint);
  }

  /** Passes over what may come at any time: notices and changed parameters. */
  async #nextAnswer(options: ReplicationCallOptions): Promise<BackendMessage> {
    for (;;) {
      const message = await this.#socket.next(options);
      if (message.type !== "N" && message.type !== "S") return message;
    }
  }
}

function quoted(slot: string): string {
  if (!isSlotName(slot)) throw new RangeError(`not the name of a slot: ${JSON.stringify(slot)}`);
  return `"${slot}"`;
}

function textOf(row: RawRow, index: number): string {
  const value = row[index];
  if (value === undefined) throw new FormatError(`column ${index + 1} of the answer is missing`);
  return value.toString("utf8");
}
