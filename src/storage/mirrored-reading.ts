import { DeadlineError, ObjectNotFoundError, StorageAccessError, StorageError } from "../errors.ts";
import type { GetOptions, ObjectKey, OpenedObject } from "./storage.ts";

/** What a call is answered that no store could serve: what the primary said, as far as it did. */
export class Verdict {
  /** The primary has answered, and has no such object. */
  isMissing = false;
  #primary: unknown;
  #other: unknown;

  add(index: number, error: unknown): void {
    if (index === 0) {
      this.#primary = error;
      this.isMissing = error instanceof ObjectNotFoundError;
    } else {
      this.#other ??= error;
    }
  }

  get error(): unknown {
    return this.#primary ?? this.#other;
  }
}

/** Where a `get` stands that may go on in another store. */
export class MirroredReading {
  readonly #key: ObjectKey;
  readonly #options: GetOptions;
  #opened: (OpenedObject & { readonly index: number }) | undefined;
  #receivedBytes = 0;

  constructor(key: ObjectKey, options: GetOptions) {
    this.#key = key;
    this.#options = options;
  }

  advance(sizeBytes: number): void {
    this.#receivedBytes += sizeBytes;
  }

  isComplete(): boolean {
    if (this.#opened === undefined || this.#receivedBytes === 0) return false;
    const { sizeBytes } = this.#opened;
    return this.#start() >= Math.min(sizeBytes, this.#options.range?.end ?? sizeBytes);
  }

  optionsFor(index: number): GetOptions {
    const { range, ifVersion, onOpened: _, ...rest } = this.#options;
    const isBegun = this.#receivedBytes > 0;
    const wanted = isBegun ? { ...range, start: this.#start() } : range;
    const begun = isBegun && this.#opened?.index === index ? this.#opened.version : undefined;
    const version = begun ?? ifVersion?.slice(ifVersion.indexOf(":") + 1);
    return {
      ...rest,
      ...(wanted === undefined ? {} : { range: wanted }),
      ...(version === undefined ? {} : { ifVersion: version }),
      onOpened: (object) => this.#open(index, object),
    };
  }

  #start(): number {
    return (this.#options.range?.start ?? 0) + this.#receivedBytes;
  }

  #open(index: number, object: OpenedObject): void {
    const { sizeBytes, version } = object;
    if (this.#opened === undefined) {
      const told = version === undefined ? {} : { version: `${index}:${version}` };
      this.#options.onOpened?.({ sizeBytes, ...told });
    } else if (this.#receivedBytes > 0 && sizeBytes !== this.#opened.sizeBytes) {
      throw new StorageError(
        `object ${this.#key} broke off, and has another size elsewhere: ` +
          `${this.#opened.sizeBytes} and ${sizeBytes} bytes`,
        { isRetryable: true },
      );
    }
    if (this.#receivedBytes === 0) this.#opened = { ...object, index };
  }
}

/** The place of the store whose version it is. */
export function versionIndex(version: string): number {
  return Number(version.slice(0, version.indexOf(":")));
}

/** What another store may help against. */
export function isPassing(error: unknown): boolean {
  return (
    error instanceof ObjectNotFoundError ||
    error instanceof StorageError ||
    error instanceof StorageAccessError ||
    error instanceof DeadlineError
  );
}
