import type { Hasher } from "../io/hash.ts";
import type { ChangedBlocks } from "../postgres/changed-blocks.ts";
import type { Lsn } from "../postgres/lsn.ts";
import { PageChangeTest } from "../postgres/page-change.ts";
import {
  GLOBAL_TABLESPACE_OID,
  parseRelationPath,
  type RelationFile,
} from "../postgres/relation-file.ts";
import type { BaseFile, BaseFiles } from "./known-files.ts";
import type { OpenFile } from "./file-content.ts";
import { incrementBytes, MAX_BLOCKS, PAGE_BYTES } from "./increment-header.ts";
import type { WalkedFile } from "./walk.ts";

/** What an increment stores of a file. */
export type Verdict =
  | { readonly kind: "full" }
  /** `hash` of its whole content where the base knows it. */
  | { readonly kind: "unchanged"; readonly hash?: string | undefined }
  /** These pages, for a file of this size. */
  | {
      readonly kind: "pages";
      readonly fileBytes: number;
      readonly blockNumbers: readonly number[];
    };

/** What is missing for a verdict: to compare the file with the base's hash, or to scan its pages. */
export interface Unread {
  readonly kind: "compare" | "scan";
  readonly base: BaseFile;
}

/** What is told of a file without opening it. */
export type Sight = { readonly kind: "verdict"; readonly verdict: Verdict } | Unread;

/** What is known of the base and of what changed since. */
export interface ChangeKnowledge {
  readonly files: Pick<BaseFiles, "find">;
  readonly startLsn: Lsn;
  /** Databases that are the same as then; files of others are compared as a whole. */
  readonly sameDatabases: Pick<ReadonlySet<number>, "has">;
  /** Absent: every page is looked at. */
  readonly changes?: ChangedBlocks | undefined;
}

/** Reading of one packer's own; not shared with another that reads at the same time. */
export interface JudgeTools {
  /** In the algorithm of the base's hashes. */
  readonly hasher: Hasher;
  readonly buffer: Buffer;
  /** Waits as long as reading so much is limited to. */
  readonly onRead: (sizeBytes: number) => Promise<void>;
  /** Told pages as they are read: all of a main fork, in their order. */
  readonly onPages?: ((pages: Buffer, block: number) => Promise<void>) | undefined;
}

/** In bytes; read at once, without leaving the thread: that takes longer. */
export const SMALL_BYTES = 64 * 1024;

const FULL: Verdict = { kind: "full" };

const FULL_AT_ONCE: Sight = { kind: "verdict", verdict: FULL };

/**
 * Decides what an increment has to hold of one file, by its content: times of files prove nothing.
 * A file that is in the base goes out as changed pages, or not at all, only if
 *
 * - it is a main fork of a database that is the same as then, its pages tell their LSNs, and what
 *   the base's file does not have of it is among the changed pages; or
 * - its whole content has the base's hash and size.
 */
export class FileJudge {
  readonly #knowledge: ChangeKnowledge;
  readonly #pageTest: PageChangeTest;

  constructor(knowledge: ChangeKnowledge) {
    this.#knowledge = knowledge;
    this.#pageTest = new PageChangeTest(knowledge.startLsn, PAGE_BYTES);
  }

  async judge(entry: WalkedFile, file: OpenFile, tools: JudgeTools): Promise<Verdict> {
    const sight = this.look(entry);
    return sight.kind === "verdict"
      ? sight.verdict
      : await this.judgeContent({ entry, file }, sight, tools);
  }

  /** The second half of `judge`. */
  async judgeContent(
    { entry, file }: { readonly entry: WalkedFile; readonly file: OpenFile },
    { kind, base }: Unread,
    tools: JudgeTools,
  ): Promise<Verdict> {
    if (kind === "compare") return await this.#compare(entry, file, { base, tools });
    const changed = await this.#scan(entry, file, tools);
    return changed === undefined ? FULL : pagesOf(entry, base, changed);
  }

  /** Compares a file that the buffer has room for, without a turn for others. */
  compareSmall(
    { entry, file }: { readonly entry: WalkedFile; readonly file: OpenFile },
    base: BaseFile,
    { hasher, buffer }: Pick<JudgeTools, "hasher" | "buffer">,
  ): Verdict {
    const content = buffer.subarray(0, entry.sizeBytes);
    file.readSync(content, 0);
    const hash = hasher.digestOf(content);
    return base.hash === hash ? { kind: "unchanged", hash } : FULL;
  }

  /** The first half of `judge`: what can be told without opening the file. */
  look(entry: WalkedFile): Sight {
    const base = this.#knowledge.files.find(entry.name);
    if (base === undefined) return FULL_AT_ONCE;
    const relation = parseRelationPath(entry.name.slice(1));
    if (relation === undefined || !this.#isPaged(relation, entry, base)) {
      const isComparable = base.hash !== undefined && base.sizeBytes === entry.sizeBytes;
      return isComparable ? { kind: "compare", base } : FULL_AT_ONCE;
    }
    const { changes } = this.#knowledge;
    if (changes === undefined) return { kind: "scan", base };
    const found = blocksOf(changes, relation, entry.sizeBytes / PAGE_BYTES);
    if (found === undefined) return FULL_AT_ONCE;
    return { kind: "verdict", verdict: pagesOf(entry, base, found) };
  }

  /**
   * Whether increments of the file can be made. WAL-G takes no file in "global" for one of pages
   * when it restores in reverse, and would lose the base's.
   */
  #isPaged(relation: RelationFile, entry: WalkedFile, base: BaseFile): boolean {
    return (
      relation.fork === "main" &&
      !relation.isTemporary &&
      relation.tablespaceOid !== GLOBAL_TABLESPACE_OID &&
      this.#knowledge.sameDatabases.has(relation.databaseOid) &&
      isPages(entry.sizeBytes) &&
      isPages(base.sizeBytes)
    );
  }

  async #compare(
    entry: WalkedFile,
    file: OpenFile,
    { base, tools }: { readonly base: BaseFile; readonly tools: JudgeTools },
  ): Promise<Verdict> {
    const { hasher } = tools;
    if (entry.sizeBytes <= Math.min(SMALL_BYTES, tools.buffer.length)) {
      await tools.onRead(entry.sizeBytes);
      return this.compareSmall({ entry, file }, base, tools);
    }
    await readPieces(file, entry.sizeBytes, tools, (piece) => {
      hasher.update(piece);
      return true;
    });
    const hash = hasher.digest();
    return base.hash === hash ? { kind: "unchanged", hash } : FULL;
  }

  /** Changed pages by their LSNs; undefined where one has a header that tells nothing. */
  async #scan(entry: WalkedFile, file: OpenFile, tools: JudgeTools): Promise<number[] | undefined> {
    const changed: number[] = [];
    let isReliable = true;
    let block = 0;
    await readPieces(file, entry.sizeBytes, tools, async (piece) => {
      await tools.onPages?.(piece, block);
      const view = new DataView(piece.buffer, piece.byteOffset, piece.byteLength);
      for (let at = 0; at < piece.length; at += PAGE_BYTES) {
        const change = this.#pageTest.judge(view, at);
        if (change === "implausible") isReliable = false;
        else if (change === "changed") changed.push(block);
        block += 1;
      }
      return isReliable;
    });
    return isReliable ? changed : undefined;
  }
}

/** The verdict on a file of which these pages changed, as far as the base has them. */
function pagesOf({ sizeBytes }: WalkedFile, base: BaseFile, changed: readonly number[]): Verdict {
  const baseBlocks = base.sizeBytes / PAGE_BYTES;
  const blockNumbers = changed.filter((block) => block < baseBlocks);
  for (let block = baseBlocks; block < sizeBytes / PAGE_BYTES; block += 1) blockNumbers.push(block);
  if (blockNumbers.length === 0 && sizeBytes === base.sizeBytes) {
    return { kind: "unchanged", hash: base.hash };
  }
  if (incrementBytes(blockNumbers.length) >= sizeBytes) return FULL;
  return { kind: "pages", fileBytes: sizeBytes, blockNumbers };
}

function isPages(sizeBytes: number): boolean {
  return sizeBytes > 0 && sizeBytes % PAGE_BYTES === 0 && sizeBytes <= MAX_BLOCKS * PAGE_BYTES;
}

function blocksOf(
  changes: ChangedBlocks,
  relation: RelationFile,
  blockCount: number,
): number[] | undefined {
  const found = changes.inFile(relation, blockCount);
  if (found.kind === "all") return undefined;
  const blocks: number[] = [];
  if (found.kind === "none") return blocks;
  for (const { start, end } of found.ranges) {
    for (let block = start; block < end; block += 1) blocks.push(block);
  }
  return blocks;
}

/**
 * Gives the file in pieces of the buffer's size, as long as `take` wants more; zeros where it has
 * become shorter. No generator: it would leave more to the collector than a small file has.
 */
async function readPieces(
  file: OpenFile,
  sizeBytes: number,
  { buffer, onRead }: JudgeTools,
  take: (piece: Buffer) => boolean | Promise<boolean>,
): Promise<void> {
  for (let at = 0; at < sizeBytes; at += buffer.length) {
    const piece = buffer.subarray(0, Math.min(buffer.length, sizeBytes - at));
    await onRead(piece.length);
    if (piece.length <= SMALL_BYTES) file.readSync(piece, at);
    else await file.read(piece, at);
    if (!(await take(piece))) return;
  }
}
