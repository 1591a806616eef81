import type { Clock } from "../io/clock.ts";
import type { FileIdentity } from "./push-note.ts";

const BATCH_FILES = 24;
/** Of what may be ahead: the rest is for what is stored while the archiver takes a batch. */
const BATCH_SHARE = 0.75;
/** With fewer left to do nothing is put off. */
const LEFT_FILES = 4;
const LONGEST_MS = 500;

/** A file that the store has acknowledged. */
export interface StoredFile {
  readonly name: string;
  /** Taken before it was pushed. */
  readonly identity: FileIdentity;
  /** The push's. */
  readonly outcome: string;
}

/**
 * Files that are stored and have no note yet: notes are made for many at a time, because an
 * archiver that finds one starts a process for the next one. DRAIN.md has the rule.
 */
export class UntoldFiles {
  readonly #clock: Clock;
  readonly #enough: number;
  readonly #names = new Set<string>();
  #held: StoredFile[] = [];
  #untilMs = 0;

  /** `aheadMax` is how many files may be stored before they are asked for. */
  constructor(aheadMax: number, clock: Clock) {
    this.#enough = Math.min(BATCH_FILES, aheadMax * BATCH_SHARE);
    this.#clock = clock;
  }

  has(name: string): boolean {
    return this.#names.has(name);
  }

  add(file: StoredFile): void {
    if (this.#held.length === 0) this.#untilMs = this.#clock.monotonicMs() + LONGEST_MS;
    this.#names.add(file.name);
    this.#held.push(file);
  }

  /** How long those that are not taken may be put off; undefined if there are none. */
  get leftMs(): number | undefined {
    if (this.#held.length === 0) return undefined;
    return Math.max(this.#untilMs - this.#clock.monotonicMs(), 0);
  }

  /**
   * All of them, to be told now; none if there are not yet enough files `ahead`, told ones too, and
   * more `left` to do.
   */
  take({ ahead, left }: { readonly ahead: number; readonly left: number }): readonly StoredFile[] {
    const isWorthWaiting = ahead < this.#enough && left >= LEFT_FILES;
    if (isWorthWaiting && this.leftMs !== 0) return [];
    const held = this.#held;
    this.#held = [];
    return held;
  }

  /** This one has its note, or will have none. */
  told(name: string): void {
    this.#names.delete(name);
  }
}
