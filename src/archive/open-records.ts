import { formatSegmentName, segmentOfEnd } from "../postgres/wal-file.ts";
import type { OpenRecord } from "../postgres/wal-record-scan.ts";
import type { SegmentHeader } from "../postgres/wal-segment.ts";
import type { CallOptions } from "../storage/storage.ts";
import type { LandingOrder } from "./landing-order.ts";
import { readOpenRecord } from "./local-wal.ts";

/** More than are ever under way. */
const KEPT = 64;

interface Pending {
  readonly promise: Promise<OpenRecord | undefined>;
  readonly resolve: (openRecord: OpenRecord | undefined) => void;
  openRecord: OpenRecord | undefined;
}

/**
 * The records with which segments end that were fetched a moment ago, so that the segment behind
 * can be checked from its first byte on without reading them again.
 */
export class OpenRecords {
  readonly #walDirectory: string;
  readonly #landings: LandingOrder;
  readonly #bySegment = new Map<string, Pending>();

  /** `walDirectory` holds what recovery has taken. */
  constructor(walDirectory: string, landings: LandingOrder) {
    this.#walDirectory = walDirectory;
    this.#landings = landings;
  }

  /** A segment is being read; `end` must be called, whatever comes of it. */
  begin(name: string): void {
    this.#landings.begin(name);
    this.#bySegment.delete(name);
    const { promise, resolve } = Promise.withResolvers<OpenRecord | undefined>();
    this.#bySegment.set(name, { promise, resolve, openRecord: undefined });
    if (this.#bySegment.size <= KEPT) return;
    const [oldest] = this.#bySegment.keys();
    if (oldest === undefined) return;
    this.end(oldest);
    this.#bySegment.delete(oldest);
  }

  /** What a segment leaves open; only its last reading counts. */
  note(name: string, openRecord: OpenRecord | undefined): void {
    const pending = this.#bySegment.get(name);
    if (pending === undefined) return;
    pending.openRecord = openRecord;
    pending.resolve(openRecord);
  }

  /** Its reading has ended; without a note nothing is known. */
  end(name: string): void {
    this.#landings.end(name);
    const pending = this.#bySegment.get(name);
    pending?.resolve(pending.openRecord);
  }

  /**
   * What the segment before `name`, which lands, leaves open. With `isProof` it is waited for, and
   * looked for on the disk; without, only what is known counts.
   */
  async before(
    name: string,
    header: SegmentHeader,
    { isProof, ...options }: CallOptions & { readonly isProof: boolean },
  ): Promise<OpenRecord | undefined> {
    const { continuationBytes, startLsn, segmentBytes, timeline } = header;
    if (continuationBytes === 0 || startLsn === 0n) return undefined;
    const previous = formatSegmentName(
      timeline,
      segmentOfEnd(startLsn, segmentBytes),
      segmentBytes,
    );
    const pending = this.#bySegment.get(previous);
    if (!isProof) return pending?.openRecord;
    const known = await this.#landings.aside(name, async () => await pending?.promise, options);
    return known ?? (await readOpenRecord(this.#walDirectory, header, options));
  }
}
