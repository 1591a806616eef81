import type { Clock } from "../io/clock.ts";
import type { Log } from "../io/log.ts";
import { reasonOf } from "./outage.ts";
import type { NoteReader, PushNotes } from "./push-note.ts";

/**
 * Without a call for so long, files are no longer done by their notes alone: the next one tells us
 * whether it has our settings still, wherever those come from.
 */
const UNPROVED_MS = 10_000;

export interface NoteReadersOptions {
  readonly clock: Clock;
  readonly log: Log;
  /** Makes sure that every note that is there is true. */
  readonly check: () => Promise<void>;
  /** Nothing may be done with these settings any more. */
  readonly isOver: () => boolean;
}

/** Who believes the notes of one drainer without asking it. */
export class NoteReaders {
  readonly #notes: PushNotes;
  readonly #options: NoteReadersOptions;
  #heardAtMs: number;
  #areTrusted = true;

  constructor(notes: PushNotes, options: NoteReadersOptions) {
    this.#notes = notes;
    this.#options = options;
    this.#heardAtMs = options.clock.monotonicMs();
  }

  /** Somebody with the drainer's settings has called of late. */
  get areTrusted(): boolean {
    return this.#areTrusted;
  }

  /** They have called, with the drainer's settings. */
  heard(readers: readonly (NoteReader | undefined)[]): void {
    this.#heardAtMs = this.#options.clock.monotonicMs();
    this.#areTrusted = true;
    for (const reader of readers) {
      if (reader !== undefined && !this.#notes.isVouchedFor(reader)) void this.#vouch(reader);
    }
  }

  /** Forgets them when none has called for long. */
  async doubt(): Promise<void> {
    const silentMs = this.#options.clock.monotonicMs() - this.#heardAtMs;
    if (!this.#areTrusted || silentMs < UNPROVED_MS) return;
    this.#areTrusted = false;
    await this.forget();
  }

  /** From now on all have to ask. */
  async forget(): Promise<void> {
    await this.#notes.forgetReaders();
  }

  /** Never rejects. */
  async #vouch(reader: NoteReader): Promise<void> {
    const { check, isOver, log } = this.#options;
    try {
      await check();
      await this.#notes.vouchFor(reader);
      if (isOver()) await this.forget();
    } catch (error) {
      // It finds no note then.
      log.debug("no link for a reader", { reason: reasonOf(error) });
    }
  }
}
