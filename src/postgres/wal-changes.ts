import { FormatError } from "../errors.ts";
import { ChangedBlocks } from "./changed-blocks.ts";
import { neededBytes, noteRecord } from "./record-changes.ts";
import { RecordDecoder } from "./record-decoder.ts";
import type { RecordSink } from "./wal-record-scan.ts";

export interface ChangeSinkOptions {
  /** Added to; a new one unless told. */
  readonly changes?: ChangedBlocks;
  /** Of a record whose beginning is not known; a longer one makes a hole. */
  readonly restBytesMax?: number;
}

/**
 * Notes what the records of WAL change, of any number of segments of one release that are walked
 * one after the other.
 */
export class ChangeSink implements RecordSink {
  readonly changes: ChangedBlocks;
  /** Why `changes` do not tell all; "" while they do. */
  holeReason = "";

  readonly #decoder: RecordDecoder;
  readonly #majorVersion: number;
  readonly #restBytesMax: number;
  readonly #rest: Uint8Array[] = [];
  #restLength = 0;

  constructor(majorVersion: number, options: ChangeSinkOptions = {}) {
    const { changes = new ChangedBlocks(), restBytesMax = Number.POSITIVE_INFINITY } = options;
    this.changes = changes;
    this.#majorVersion = majorVersion;
    this.#restBytesMax = restBytesMax;
    this.#decoder = new RecordDecoder({ majorVersion });
  }

  /** Bytes of a record that began before the first segment. */
  get restBytes(): Uint8Array {
    const rest = new Uint8Array(this.#restLength);
    let at = 0;
    for (const part of this.#rest) {
      rest.set(part, at);
      at += part.length;
    }
    return rest;
  }

  record(view: DataView, at: number): void {
    if (this.holeReason !== "") return;
    try {
      this.#decoder.decode(view, at);
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      this.holeReason = error.message;
      return;
    }
    this.holeReason = noteRecord(this.#decoder, this.#majorVersion, this.changes) ?? "";
  }

  keptBytes(head: DataView): number {
    return neededBytes(head);
  }

  rest(view: DataView, from: number, to: number): void {
    this.#restLength += to - from;
    if (this.#restLength > this.#restBytesMax) {
      this.#rest.length = 0;
      this.holeReason = `an earlier record that goes on for more than ${this.#restBytesMax} bytes`;
      return;
    }
    this.#rest.push(new Uint8Array(view.buffer, view.byteOffset + from, to - from).slice());
  }
}
