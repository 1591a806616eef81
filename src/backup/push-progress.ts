/** Where a backup stands. */
export interface PushProgressState {
  readonly doneBytes: number;
  /** Absent while it is not known. */
  readonly totalBytes?: number;
}

export type ProgressListener = (state: PushProgressState) => void;

/** The listener is told after this much, not after every small file. */
const TELL_BYTES = 4 * 1024 * 1024;

/** Adds up what was read. */
export class PushProgress {
  readonly #onProgress: ProgressListener;
  #doneBytes = 0;
  #toldBytes = 0;
  #totalBytes: number | undefined;

  constructor(onProgress: ProgressListener) {
    this.#onProgress = onProgress;
  }

  /** An estimate that may come late; a cluster that grows is at 100 % for a while. */
  expect(totalBytes: number): void {
    this.#totalBytes = totalBytes;
  }

  add(sizeBytes: number): void {
    this.#doneBytes += sizeBytes;
    if (this.#doneBytes - this.#toldBytes < TELL_BYTES) return;
    this.#toldBytes = this.#doneBytes;
    const doneBytes = this.#doneBytes;
    const total = this.#totalBytes;
    this.#onProgress(
      total === undefined ? { doneBytes } : { doneBytes, totalBytes: Math.max(total, doneBytes) },
    );
  }
}
