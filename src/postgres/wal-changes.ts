import { FormatError } from "../errors.ts";
import { ChangedBlocks } from "./changed-blocks.ts";
import { neededBytes, noteRecord } from "./record-changes.ts";
import { RecordDecoder } from "./record-decoder.ts";
import type { RecordSink } from "./wal-record-scan.ts";

/** Of records whose beginning is elsewhere. Longer ones are not worth their place. */
const REST_BYTES_MAX = 4 * 1024 * 1024;

/**
 * Notes what the records of WAL change, of any number of segments of one release that are walked
 * one after the other.
 */
export class ChangeSink implements RecordSink {
  readonly changes: ChangedBlocks;
  /** Why `changes` do not tell all; "" while they do. */
  holeReason = "";
  /** Bytes of a record that began before the first segment; `rest()` has the first of them. */
  restBytes = 0;

  readonly #decoder: RecordDecoder;
  readonly #majorVersion: number;
  readonly #rest: Uint8Array[] = [];

  constructor(majorVersion: number, changes: ChangedBlocks = new ChangedBlocks()) {
    this.changes = changes;
    this.#majorVersion = majorVersion;
    this.#decoder = new RecordDecoder({ majorVersion });
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
    if (this.restBytes + to - from <= REST_BYTES_MAX) {
      this.#rest.push(new Uint8Array(view.buffer, view.byteOffset + from, to - from).slice());
    }
    this.restBytes += to - from;
  }

  /** Undefined when they were too many to keep. */
  collectedRest(): Uint8Array | undefined {
    if (this.restBytes > REST_BYTES_MAX) return undefined;
    const rest = new Uint8Array(this.restBytes);
    let at = 0;
    for (const part of this.#rest) {
      rest.set(part, at);
      at += part.length;
    }
    return rest;
  }
}
