import { FormatError } from "../errors.ts";

/**
 * WAL-G's socket protocol. A client sends messages: one byte of type, two bytes of length (big
 * endian, all three included), the body. Each is answered by one byte; after a push or a fetch, and
 * after anything that is wrong, the daemon closes the connection.
 */
export type DaemonMessage =
  | {
      readonly kind: "check";
      /**
       * Where the client's server has its data, as directoryIdentity says it; ours alone, WAL-G's
       * daemon reads nothing of a check.
       */
      readonly dataDirectory?: string;
    }
  /** A file of pg_wal, by its name. */
  | { readonly kind: "push"; readonly name: string }
  /** `destination`: relative to the data directory, or absolute. */
  | { readonly kind: "fetch"; readonly name: string; readonly destination: string };

/**
 * "done", "not in the archive" (of a fetch) or "another data directory is served" (of a check), or
 * an error.
 */
export type DaemonReply = "O" | "N" | "E";

/** The type bytes. */
const CHECK = 0x43;
const PUSH = 0x46;
const FETCH = 0x66;

const HEADER_BYTES = 3;
const MESSAGE_BYTES_MAX = 0xffff;
/** @source NAME_MAX and PATH_MAX, linux/limits.h */
const NAME_BYTES_MAX = 255;
const PATH_BYTES_MAX = 4095;

/** The longest message of each type that can mean anything. */
const LONGEST: ReadonlyMap<number, number> = new Map([
  [CHECK, MESSAGE_BYTES_MAX],
  [PUSH, HEADER_BYTES + NAME_BYTES_MAX],
  [FETCH, HEADER_BYTES + 1 + 2 + NAME_BYTES_MAX + 2 + PATH_BYTES_MAX],
]);

/** Throws FormatError for a name or a path that no message can hold. */
export function formatMessage(message: DaemonMessage): Buffer {
  switch (message.kind) {
    case "check":
      return framed(CHECK, Buffer.from(["CHECK", message.dataDirectory ?? []].flat().join(" ")));
    case "push":
      return framed(PUSH, wordBytes(requireName(message.name)));
    case "fetch":
      return framed(FETCH, formatWords([requireName(message.name), message.destination]));
  }
  return message satisfies never;
}

/**
 * Cuts what a client sends into messages, wherever the pieces begin and end. Holds at most one
 * message that is not complete.
 */
export class MessageReader {
  #pieces: Uint8Array[] = [];
  #heldBytes = 0;
  /** Nothing can be said before so many are there. */
  #wantedBytes = HEADER_BYTES;

  /** Whether a message has begun and is not complete. */
  get isInside(): boolean {
    return this.#heldBytes > 0;
  }

  /** Takes a piece; `next` must have given undefined before. */
  push(piece: Uint8Array): void {
    this.#pieces.push(piece);
    this.#heldBytes += piece.length;
  }

  /** The next complete message; undefined until there is one. Throws FormatError. */
  next(): DaemonMessage | undefined {
    if (this.#heldBytes < this.#wantedBytes) return undefined;
    const held = Buffer.concat(this.#pieces);
    const type = held.readUInt8(0);
    const length = held.readUInt16BE(1);
    const longest = LONGEST.get(type);
    if (longest === undefined) throw new FormatError(`message of unknown type ${type}`);
    if (length < HEADER_BYTES || length > longest) {
      throw new FormatError(`message of type ${type} has a length of ${length} bytes`);
    }
    const isWhole = held.length >= length;
    const rest = isWhole ? held.subarray(length) : held;
    this.#pieces = rest.length === 0 ? [] : [rest];
    this.#heldBytes = rest.length;
    this.#wantedBytes = isWhole ? HEADER_BYTES : length;
    return isWhole ? parseBody(type, held.subarray(HEADER_BYTES, length)) : undefined;
  }
}

function parseBody(type: number, body: Buffer): DaemonMessage {
  if (type === CHECK) {
    const [, dataDirectory] = /^CHECK (\d+:\d+)$/.exec(body.toString("latin1")) ?? [];
    return { kind: "check", ...(dataDirectory === undefined ? {} : { dataDirectory }) };
  }
  if (type === PUSH) return { kind: "push", name: requireName(parseWord(body)) };
  const [name = "", destination = "", ...surplus] = parseWords(body);
  if (destination === "" || surplus.length > 0) {
    throw new FormatError(`fetch has ${surplus.length + 2} arguments, or an empty one`);
  }
  return { kind: "fetch", name: requireName(name), destination };
}

function framed(type: number, body: Buffer): Buffer {
  const message = Buffer.alloc(HEADER_BYTES + body.length);
  if (message.length > (LONGEST.get(type) ?? 0)) {
    throw new FormatError(`message of ${message.length} bytes is too long`);
  }
  message.writeUInt8(type, 0);
  message.writeUInt16BE(message.length, 1);
  message.set(body, HEADER_BYTES);
  return message;
}

/** A count, then each word behind its length. */
function formatWords(words: readonly string[]): Buffer {
  const parts = words.flatMap((word) => {
    const bytes = wordBytes(word);
    const length = Buffer.alloc(2);
    length.writeUInt16BE(bytes.length);
    return [length, bytes];
  });
  return Buffer.concat([Buffer.from([words.length]), ...parts]);
}

function parseWords(block: Buffer): readonly string[] {
  const words: string[] = [];
  let position = 1;
  for (let left = block.length === 0 ? 0 : block.readUInt8(0); left > 0; left -= 1) {
    if (position + 2 > block.length) throw new FormatError("arguments end within a length");
    const start = position + 2;
    position = start + block.readUInt16BE(position);
    if (position > block.length) throw new FormatError("arguments end within one of them");
    words.push(parseWord(block.subarray(start, position)));
  }
  if (position < block.length) {
    throw new FormatError(`${block.length - position} bytes follow the last argument`);
  }
  return words;
}

function wordBytes(word: string): Buffer {
  if (!word.isWellFormed()) throw new FormatError("argument is no text");
  const bytes = Buffer.from(word);
  parseWord(bytes);
  return bytes;
}

function parseWord(bytes: Buffer): string {
  const word = bytes.toString("utf8");
  if (!Buffer.from(word).equals(bytes)) throw new FormatError("argument is not in UTF-8");
  if (word.includes("\0")) throw new FormatError("argument holds a byte of zero");
  return word;
}

/** A file's name and nothing that leads out of its directory. */
function requireName(name: string): string {
  const isName = name !== "" && name !== "." && name !== ".." && !name.includes("/");
  if (!isName || Buffer.byteLength(name) > NAME_BYTES_MAX) {
    throw new FormatError(`${JSON.stringify(name.slice(0, 80))} is no name of a WAL file`);
  }
  return name;
}
