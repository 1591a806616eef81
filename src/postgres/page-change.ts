import { isNewDataPage, isPlausibleDataPage } from "./data-page.ts";
import type { Lsn } from "./lsn.ts";

/**
 * What a page's LSN tells of its content since a position: "implausible" where the header is none
 * that the server would accept, so that its LSN can't be relied on.
 */
export type PageChange = "changed" | "unchanged" | "implausible";

/**
 * LSN of pages that initdb wrote, before there was WAL. What is below it is no position in WAL:
 * pages that are written without WAL while wal_level is minimal have 0 or 1.
 *
 * @source XLogInsert, src/backend/access/transam/xloginsert.c (SizeOfXLogLongPHD);
 *   GistBuildLSN, src/include/access/gist.h
 */
const BOOTSTRAP_LSN = 40;

/** Tells changed pages from others by their LSNs, for one position, without allocation. */
export class PageChangeTest {
  readonly #high: number;
  readonly #low: number;
  readonly #pageBytes: number;

  /**
   * `since` is where a backup started: what had changed before was on disk when it read the page.
   */
  constructor(since: Lsn, pageBytes: number) {
    this.#high = Number(since >> 32n);
    this.#low = Number(since & 0xffff_ffffn);
    this.#pageBytes = pageBytes;
  }

  /**
   * Judges the page at `view[at]`. Changes of hint bits alone leave no trace and do not count: the
   * older page is as good. A page of zeros counts as changed: it may stand where there was another.
   *
   * @source PageSetLSN, src/include/storage/bufpage.h; MarkBufferDirtyHint, bufmgr.c
   */
  judge(view: DataView, at: number): PageChange {
    if (isNewDataPage(view, at)) return "changed";
    if (!isPlausibleDataPage(view, at, this.#pageBytes)) return "implausible";
    const high = view.getUint32(at, true);
    const low = view.getUint32(at + 4, true);
    if (high === 0 && low < BOOTSTRAP_LSN) return "changed";
    const isLater = high > this.#high || (high === this.#high && low >= this.#low);
    return isLater ? "changed" : "unchanged";
  }
}
