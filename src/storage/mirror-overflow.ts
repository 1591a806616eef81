import { readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { systemErrorCode } from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import { createFileDurably, writeFileDurably } from "../io/durable.ts";
import { describeProcess, isProcessAlive } from "../io/process-identity.ts";
import { randomHex } from "../io/random.ts";
import { localFileError } from "../io/system-error.ts";
import type { CallOptions } from "./storage.ts";

const OVERFLOW = "overflow";
const COMPARING = "overflow.comparing";
const ENTRY = /^unnoted-(\d{14})-[0-9a-f]{16}\.(begun|unsure)$/;

/** How long a request may still be on its way whose sender was killed or got no answer. */
export const UNSURE_MS = 60_000;

/** A put without a note of its own. */
interface Entry {
  readonly name: string;
  readonly beganAt: number;
  /** Its process is at it. */
  readonly isBegun: boolean;
}

/**
 * Puts for which there was no room in a queue: that there were any, and those that may still reach
 * the primary, which a comparison made now could pass too early. See MIRROR.md.
 */
export class MirrorOverflow {
  readonly #directory: string;
  readonly #clock: Clock;

  constructor(directory: string, clock: Clock) {
    this.#directory = directory;
    this.#clock = clock;
  }

  /** Durable once it is resolved; it may be done then. Rejects with LocalFileError. */
  async begin(options: CallOptions) {
    const beganAt = String(Math.max(0, Math.trunc(this.#clock.now()))).padStart(14, "0");
    const stem = `unnoted-${beganAt}-${randomHex(8)}`;
    const path = join(this.#directory, `${stem}.begun`);
    const content = JSON.stringify({ version: 1, process: describeProcess() ?? null });
    await writeFileDurably(path, Buffer.from(`${content}\n`), options);
    return {
      acknowledge: async (): Promise<void> => {
        const mark = join(this.#directory, OVERFLOW);
        if (!(await this.#has(OVERFLOW))) await createFileDurably(mark, Buffer.alloc(0), options);
        await rm(path, { force: true });
      },
      doubt: async (): Promise<void> => {
        try {
          await rename(path, join(this.#directory, `${stem}.unsure`));
        } catch (error) {
          // As "begun" it counts once we have ended.
          if (systemErrorCode(error) === undefined) throw error;
        }
      },
      withdraw: async (): Promise<void> => await rm(path, { force: true }),
    };
  }

  /** Whether the stores have to be compared, now or as soon as what is begun has ended. */
  async isThere(): Promise<boolean> {
    const names = await this.#names();
    return names.some((name) => name === OVERFLOW || name === COMPARING || ENTRY.test(name));
  }

  /** Undefined when there is nothing to compare for; else to be called when it is done. */
  async beginComparison(): Promise<(() => Promise<void>) | undefined> {
    const nowMs = this.#clock.now();
    const unsure = (await this.#entries()).filter(({ isBegun }) => !isBegun);
    try {
      await rename(join(this.#directory, OVERFLOW), join(this.#directory, COMPARING));
    } catch (error) {
      if (systemErrorCode(error) !== "ENOENT") throw localFileError("rename", OVERFLOW, error);
      if (!(await this.#has(COMPARING)) && unsure.length === 0) return undefined;
    }
    return async () => {
      const settled = unsure.filter(({ beganAt }) => nowMs - beganAt > UNSURE_MS);
      for (const name of [COMPARING, ...settled.map((entry) => entry.name)]) {
        await rm(join(this.#directory, name), { force: true });
      }
    };
  }

  async #entries(): Promise<readonly Entry[]> {
    const entries: Entry[] = [];
    for (const name of await this.#names()) {
      const [, beganAt, state] = ENTRY.exec(name) ?? [];
      if (beganAt === undefined) continue;
      const isBegun = state === "begun" && isProcessAlive((await this.#processOf(name)) ?? "");
      entries.push({ name, beganAt: Number(beganAt), isBegun });
    }
    return entries;
  }

  async #processOf(name: string): Promise<string | undefined> {
    try {
      const text = await readFile(join(this.#directory, name), "utf8");
      return /"process":"([^"]+)"/.exec(text)?.[1];
    } catch (error) {
      if (systemErrorCode(error) === undefined) throw error;
      return undefined;
    }
  }

  async #has(name: string): Promise<boolean> {
    return (await this.#names()).includes(name);
  }

  async #names(): Promise<readonly string[]> {
    try {
      return await readdir(this.#directory);
    } catch (error) {
      if (systemErrorCode(error) === "ENOENT") return [];
      throw localFileError("read", this.#directory, error);
    }
  }
}
