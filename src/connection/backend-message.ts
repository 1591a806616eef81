import { FormatError } from "../errors.ts";

/**
 * One message of the server.
 *
 * @source PostgreSQL's documentation, "Message Formats" of the frontend/backend protocol 3.0
 */
export interface BackendMessage {
  /** The type byte as a character: "Z" for ReadyForQuery. */
  readonly type: string;
  /** What follows the length. Belongs to the receiver: it is not written to again. */
  readonly body: Buffer;
}

const HEADER_BYTES = 5;
/** The length that a message tells counts itself. */
const LENGTH_BYTES = 4;
/** WAL comes in messages of at most 128 KiB; rows of replication commands are small. */
const BODY_BYTES_MAX = 64 * 1024 * 1024;

/** Cuts the server's byte stream into messages. */
export class MessageReader {
  readonly #header = Buffer.alloc(HEADER_BYTES);
  #headerFilled = 0;
  #body: Buffer | undefined;
  #bodyFilled = 0;

  /**
   * Gives each message that `chunk` completes. A message within one chunk is a view of it, so the
   * chunk must not be written to afterwards. Throws FormatError for a length that no message has.
   */
  *push(chunk: Buffer): Generator<BackendMessage, void, undefined> {
    let at = 0;
    while (at < chunk.length) {
      if (this.#headerFilled < HEADER_BYTES) {
        at += this.#fillHeader(chunk, at);
        if (this.#headerFilled < HEADER_BYTES) return;
        const sizeBytes = this.#bodyBytes();
        if (chunk.length - at >= sizeBytes) {
          this.#headerFilled = 0;
          yield { type: this.#type(), body: chunk.subarray(at, at + sizeBytes) };
          at += sizeBytes;
          continue;
        }
        this.#body = Buffer.allocUnsafeSlow(sizeBytes);
        this.#bodyFilled = 0;
      }
      const body = this.#body ?? Buffer.alloc(0);
      const taken = chunk.copy(body, this.#bodyFilled, at);
      at += taken;
      this.#bodyFilled += taken;
      if (this.#bodyFilled < body.length) return;
      this.#headerFilled = 0;
      this.#body = undefined;
      yield { type: this.#type(), body };
    }
  }

  #fillHeader(chunk: Buffer, at: number): number {
    const taken = chunk.copy(this.#header, this.#headerFilled, at);
    this.#headerFilled += taken;
    return taken;
  }

  #type(): string {
    return String.fromCharCode(this.#header.readUInt8(0));
  }

  #bodyBytes(): number {
    const sizeBytes = this.#header.readUInt32BE(1) - LENGTH_BYTES;
    if (sizeBytes >= 0 && sizeBytes <= BODY_BYTES_MAX) return sizeBytes;
    throw new FormatError(
      `message ${JSON.stringify(this.#type())} of the server claims a body of ${sizeBytes} bytes`,
    );
  }
}

/** What the server says is wrong. @source "Error and Notice Message Fields" */
export interface ServerComplaint {
  /** "ERROR" or "FATAL", in the server's language where that is all there is. */
  readonly severity: string;
  readonly sqlState: string;
  readonly message: string;
  readonly detail: string | undefined;
  readonly hint: string | undefined;
}

/** Reads the body of ErrorResponse and NoticeResponse. */
export function parseComplaint(body: Buffer): ServerComplaint {
  const fields = new Map<string, string>();
  let at = 0;
  while (at < body.length && body.readUInt8(at) !== 0) {
    const end = body.indexOf(0, at);
    if (end < 0) throw new FormatError("an error of the server ends within a field");
    fields.set(String.fromCharCode(body.readUInt8(at)), body.toString("utf8", at + 1, end));
    at = end + 1;
  }
  return {
    severity: fields.get("V") ?? fields.get("S") ?? "",
    sqlState: fields.get("C") ?? "",
    message: fields.get("M") ?? "no message",
    detail: fields.get("D"),
    hint: fields.get("H"),
  };
}

/** Values of a DataRow as the server sent them; undefined for null. */
export type RawRow = readonly (Buffer | undefined)[];

/** Reads the body of DataRow. Throws FormatError when it breaks off. */
export function parseRow(body: Buffer): RawRow {
  const row: (Buffer | undefined)[] = [];
  const cut = (): never => {
    throw new FormatError(`a row of the server ends after ${body.length} bytes`);
  };
  if (body.length < 2) cut();
  let at = 2;
  for (let left = body.readUInt16BE(0); left > 0; left -= 1) {
    if (body.length - at < LENGTH_BYTES) cut();
    const sizeBytes = body.readInt32BE(at);
    at += LENGTH_BYTES;
    if (sizeBytes < 0) {
      row.push(undefined);
      continue;
    }
    if (body.length - at < sizeBytes) cut();
    row.push(body.subarray(at, at + sizeBytes));
    at += sizeBytes;
  }
  return row;
}

/** A simple query. */
export function queryMessage(sql: string): Buffer {
  return frontendMessage("Q", Buffer.from(`${sql}\0`, "utf8"));
}

/** A piece of a copy in our direction. */
export function copyDataMessage(bytes: Uint8Array): Buffer {
  return frontendMessage("d", bytes);
}

/** The end of a copy in our direction. */
export function copyDoneMessage(): Buffer {
  return frontendMessage("c", Buffer.alloc(0));
}

/** The polite end of a session. */
export function terminateMessage(): Buffer {
  return frontendMessage("X", Buffer.alloc(0));
}

function frontendMessage(type: string, body: Uint8Array): Buffer {
  const message = Buffer.alloc(HEADER_BYTES + body.length);
  message.write(type, 0, "latin1");
  message.writeUInt32BE(LENGTH_BYTES + body.length, 1);
  message.set(body, HEADER_BYTES);
  return message;
}
