import { lstatSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import {
  isRebuiltByRecovery,
  parseRelationPath,
  unloggedRelations,
} from "../../src/postgres/relation-file.ts";

const PAGE = 8192;
const LSN_BYTES = 8;

/**
 * The files of two stopped clusters that differ in a page, in words; main forks and init forks,
 * page by page, masked as the server masks them when it checks its own replay. LSNs count.
 *
 * Files of `live` may have more pages if those are zeros: from 16 on the server makes room for many
 * rows at once, and the WAL tells of a page when it is used.
 */
export function comparePages(live: string, replayed: string): string[] {
  const files = [relationFiles(live), relationFiles(replayed)] as const;
  const differences: string[] = [];
  for (const path of new Set(files.flatMap((found) => [...found.keys()])).values()) {
    const [whole, right] = files.map((found) => {
      const absolute = found.get(path);
      return absolute === undefined ? Buffer.alloc(0) : readFileSync(absolute);
    });
    if (whole === undefined || right === undefined) continue;
    const left = withoutRoom(whole, right.length);
    if (left.length !== right.length) {
      differences.push(`${path}: ${left.length} bytes, ${right.length} bytes`);
      continue;
    }
    for (let at = 0; at < left.length; at += PAGE) {
      const [first, second] = [left, right].map((bytes) => bytes.subarray(at, at + PAGE));
      if (first === undefined || second === undefined || first.equals(second)) continue;
      const what = pageDifference(first, second, { hasLsn: !path.endsWith("_init") });
      if (what !== undefined) differences.push(`${path} block ${at / PAGE}: ${what}`);
    }
  }
  return differences;
}

/** Without the pages of zeros behind `end`, if there are no others. */
function withoutRoom(bytes: Buffer, end: number): Buffer {
  const isRoom = end > 0 && bytes.subarray(end).every((byte) => byte === 0);
  return isRoom ? bytes.subarray(0, end) : bytes;
}

function relationFiles(root: string): Map<string, string> {
  const found = new Map<string, string>();
  const walk = (directory: string, prefix: string): void => {
    const names = readdirSync(directory);
    const parsed = names.map((name) => parseRelationPath(`${prefix}${name}`));
    const unlogged = unloggedRelations(parsed.flatMap((file) => file ?? []));
    for (const [index, name] of names.entries()) {
      const path = `${prefix}${name}`;
      const absolute = join(directory, name);
      const relation = parsed[index];
      const isWanted =
        relation !== undefined &&
        (relation.fork === "main" || relation.fork === "init") &&
        !isRebuiltByRecovery(relation, unlogged);
      if (isWanted) found.set(path, absolute);
      else if (/^(base|global|pg_tblspc)/.test(path) && isDirectory(absolute)) {
        walk(absolute, `${path}/`);
      }
    }
  };
  walk(root, "");
  return found;
}

/** Follows the links of tablespaces. */
function isDirectory(path: string): boolean {
  const stats = lstatSync(path);
  return stats.isDirectory() || stats.isSymbolicLink();
}

/**
 * Up to 14, init forks of indexes are written before they are logged, so that only replay gives
 * their pages an LSN. @source btbuildempty, src/backend/access/nbtree/nbtree.c
 */
function pageDifference(
  one: Buffer,
  other: Buffer,
  { hasLsn }: { readonly hasLsn: boolean },
): string | undefined {
  const [oneLsn, otherLsn] = [one, other].map(lsnText);
  if (hasLsn && oneLsn !== otherLsn) return `LSN ${oneLsn}, ${otherLsn}`;
  if (isSequence(one)) return undefined;
  const masked = [one, other].map(maskPage);
  const [left, right] = masked;
  if (left === undefined || right === undefined || left.equals(right)) return undefined;
  const at = left.findIndex((byte, index) => byte !== right[index]);
  return `byte ${at} is ${left[at]}, ${right[at]}`;
}

function lsnText(page: Buffer): string {
  return `${page.readUInt32LE(0).toString(16)}/${page.readUInt32LE(4).toString(16)}`;
}

/** nextval writes ahead of itself: replay gives other values. @source seq_redo, sequence.c */
function isSequence(page: Buffer): boolean {
  return page.readUInt16LE(16) === PAGE - 8 && page.readUInt32LE(PAGE - 8) === 0x1717;
}

const PAGE_HINTS = 0x0001 | 0x0002 | 0x0004;
const HEAP_XMIN_FROZEN = 0x0300;
const HEAP_XACT_MASK = 0xfff0;
const HEAP_XMAX_HINTS = 0x0400 | 0x0800;
const LP_NORMAL = 1;
const BTP_LEAF = 1;
const BTP_DELETED = 4;
const BTP_HINTS = 0x20 | 0x40;

/**
 * @source src/backend/access/common/bufmask.c, heap_mask, btree_mask, hash_mask; of a deleted page
 *   of a B-tree mask_page_content and btree_xlog_unlink_page
 */
function maskPage(original: Buffer): Buffer {
  const page = Buffer.from(original);
  page.fill(0, 0, LSN_BYTES + 2);
  page.writeUInt16LE(page.readUInt16LE(10) & ~PAGE_HINTS, 10);
  page.writeUInt32LE(0, 20);
  const [lower, upper, special] = [12, 14, 16].map((at) => page.readUInt16LE(at));
  if (lower === undefined || upper === undefined || special === undefined) return page;
  if (lower >= 24 && lower <= upper && upper <= PAGE) page.fill(0, lower, upper);
  const id = page.readUInt16LE(PAGE - 2);
  if (special === PAGE) maskHeap(page, lower);
  else if (special === PAGE - 16 && id <= 0xff7f) maskBtree(page, lower, special);
  else if (special === PAGE - 16 && id === 0xff80) {
    maskLines(page, lower);
    page.writeUInt16LE(page.readUInt16LE(PAGE - 4) & ~0x80, PAGE - 4);
  }
  return page;
}

function maskHeap(page: Buffer, lower: number): void {
  for (let at = 24; at + 4 <= lower; at += 4) {
    const line = page.readUInt32LE(at);
    const [offset, flags, length] = [line & 0x7fff, (line >>> 15) & 3, line >>> 17];
    if (flags !== LP_NORMAL || offset + length > PAGE) continue;
    const infomask = page.readUInt16LE(offset + 20);
    const isFrozen = (infomask & HEAP_XMIN_FROZEN) === HEAP_XMIN_FROZEN;
    page.writeUInt16LE(infomask & ~(isFrozen ? HEAP_XMAX_HINTS : HEAP_XACT_MASK), offset + 20);
    page.fill(0, offset + 8, offset + 12);
    page.fill(0, offset + length, Math.min(PAGE, (offset + length + 7) & ~7));
  }
}

function maskBtree(page: Buffer, lower: number, special: number): void {
  const flags = page.readUInt16LE(special + 12);
  const isDeleted = (flags & BTP_DELETED) !== 0;
  if (isDeleted) {
    // Replay makes it anew: up to 13 without the line that is left on it, and without its kind.
    page.fill(0, 12, 16);
    page.fill(0, 24, special);
  } else if ((flags & BTP_LEAF) !== 0) maskLines(page, lower);
  page.writeUInt16LE(flags & ~(isDeleted ? BTP_HINTS | BTP_LEAF : BTP_HINTS), special + 12);
  page.writeUInt16LE(0, special + 14);
}

/** Line pointers that a scan may mark as dead. */
function maskLines(page: Buffer, lower: number): void {
  for (let at = 24; at + 4 <= lower; at += 4) {
    page.writeUInt32LE((page.readUInt32LE(at) & ~(3 << 15)) >>> 0, at);
  }
}
