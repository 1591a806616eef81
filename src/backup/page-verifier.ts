import type { Clock } from "../io/clock.ts";
import type { CorruptBlocks } from "../layout/files-metadata.ts";
import { RELATION_SEGMENT_BLOCKS } from "../postgres/changed-blocks.ts";
import { isNewDataPage } from "../postgres/data-page.ts";
import { type Lsn, lsn } from "../postgres/lsn.ts";
import type { PageChecksums } from "../postgres/page-checksums.ts";
import { parseRelationPath } from "../postgres/relation-file.ts";
import type { OpenFile } from "./file-content.ts";
import { PAGE_BYTES } from "./increment-header.ts";
import type { WalkedFile } from "./walk.ts";

export interface PageVerifierOptions {
  readonly sums: PageChecksums;
  /** Of the backup: what was changed since is in its WAL, with the whole page. */
  readonly startLsn: Lsn;
  readonly clock: Clock;
  /** Whether every damaged block of a file is listed, not only the first ones. */
  readonly isEveryBlockListed: boolean;
}

/** A file with damaged pages. */
export interface CorruptFile {
  /** Of its tar entry. */
  readonly name: string;
  /** Numbered within the file. */
  readonly blocks: CorruptBlocks;
}

/** A page is read so often before it counts as damaged: it may just be being written. */
const ATTEMPTS = 5;
const RETRY_MS = 100;
/** After so many damaged pages nobody waits for more of them: the disk is bad. */
const MAX_AWAITED = 50;
/** As WAL-G lists them. */
const LISTED_BLOCKS = 10;
/** Pages that are looked at again at the end of the backup. */
const MAX_DOUBTFUL = 10_000;

/**
 * Verifies the checksums of the pages of main forks while they are read for a backup. A page that
 * is being written at that moment may be half old and half new. If it was changed since the backup
 * started, the WAL has it whole; else it is read again, into the backup, too.
 *
 * @source verify_page_checksum, src/backend/backup/basebackup.c
 */
export class PageVerifier {
  readonly #options: PageVerifierOptions;
  readonly #corrupt = new Map<string, Set<number>>();
  readonly #doubtful: { readonly name: string; readonly block: number; readonly lsn: Lsn }[] = [];
  #awaitedCount = 0;

  constructor(options: PageVerifierOptions) {
    this.#options = options;
  }

  /** Undefined for files that have no checksums. */
  open(entry: WalkedFile, file: OpenFile): FileVerification | undefined {
    const relation = parseRelationPath(entry.name.slice(1));
    if (relation === undefined || relation.fork !== "main" || relation.isTemporary)
      return undefined;
    const firstBlock = relation.relationSegment * RELATION_SEGMENT_BLOCKS;
    return {
      check: (pages, block, options) =>
        this.#check({ pages, block, firstBlock, name: entry.name, file, ...options }),
      corrupt: () => this.#corruptBlocks(entry.name),
    };
  }

  /**
   * The files with damaged pages. A page whose LSN lies behind the end of the backup is damaged,
   * too: the server had not written that far.
   */
  finish(stopLsn: Lsn): readonly CorruptFile[] {
    for (const { name, block, lsn: position } of this.#doubtful) {
      if (position > stopLsn) this.#add(name, block);
    }
    this.#doubtful.length = 0;
    return [...this.#corrupt.keys()].flatMap((name) => {
      const blocks = this.#corruptBlocks(name);
      return blocks === undefined ? [] : [{ name, blocks }];
    });
  }

  #corruptBlocks(name: string): CorruptBlocks | undefined {
    const found = this.#corrupt.get(name);
    if (found === undefined) return undefined;
    const all = [...found].toSorted((one, other) => one - other);
    const limit = this.#options.isEveryBlockListed ? all.length : LISTED_BLOCKS;
    return { count: all.length, blockNumbers: all.slice(0, limit) };
  }

  async #check(read: PagesRead): Promise<void> {
    const { pages, block, firstBlock } = read;
    const whole = pages.subarray(0, pages.length - (pages.length % PAGE_BYTES));
    const wrong: number[] = [];
    this.#options.sums.findWrong(whole, firstBlock + block, (index) => wrong.push(index));
    for (const index of wrong) {
      const page = whole.subarray(index * PAGE_BYTES, (index + 1) * PAGE_BYTES);
      await this.#judge(page, block + index, read);
    }
  }

  async #judge(page: Buffer, block: number, read: PagesRead): Promise<void> {
    const { name, file, firstBlock, signal } = read;
    for (let attempt = 1; ; attempt += 1) {
      if (isZero(page) || this.#isRight(page, firstBlock + block)) return;
      const position = lsn((BigInt(page.readUInt32LE(0)) << 32n) | BigInt(page.readUInt32LE(4)));
      const isNew = isNewDataPage(viewOf(page), 0);
      if (!isNew && position >= this.#options.startLsn) {
        if (this.#doubtful.length < MAX_DOUBTFUL) {
          this.#doubtful.push({ name, block, lsn: position });
        }
        return;
      }
      if (attempt === ATTEMPTS || this.#awaitedCount >= MAX_AWAITED) break;
      await this.#options.clock.sleep(RETRY_MS, { signal });
      // The file has been truncated since: what was there is of no use any more.
      if (file.readSync(page, block * PAGE_BYTES) < PAGE_BYTES) return;
    }
    this.#awaitedCount += 1;
    this.#add(name, block);
  }

  #add(name: string, block: number): void {
    const found = this.#corrupt.get(name) ?? new Set();
    this.#corrupt.set(name, found.add(block));
  }

  #isRight(page: Buffer, block: number): boolean {
    let isRight = true;
    this.#options.sums.findWrong(page, block, () => {
      isRight = false;
    });
    return isRight;
  }
}

/** The pages of one file, as they are read. */
export interface FileVerification {
  /**
   * Looks at pages that were read at block `block` of the file; what follows the last whole page is
   * passed over. A page that is right when it is read again is so in `pages`, too.
   */
  check(pages: Buffer, block: number, options: { readonly signal: AbortSignal }): Promise<void>;
  /** Damaged ones so far; undefined for none. */
  corrupt(): CorruptBlocks | undefined;
}

interface PagesRead {
  readonly pages: Buffer;
  readonly block: number;
  /** Of the file in its fork. */
  readonly firstBlock: number;
  readonly name: string;
  readonly file: OpenFile;
  readonly signal: AbortSignal;
}

const ZEROS = Buffer.alloc(PAGE_BYTES);

/** A page that was never written; one with a header of zeros and more behind it is damaged. */
function isZero(page: Buffer): boolean {
  return page.equals(ZEROS);
}

function viewOf(page: Buffer): DataView {
  return new DataView(page.buffer, page.byteOffset, page.byteLength);
}
