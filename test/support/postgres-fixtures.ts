/** Bytes that real servers wrote: test/fixtures/postgres, made by scripts/make-fixtures.ts. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { zstdDecompressSync } from "node:zlib";
import { type Major } from "./postgres-programs.ts";

const root = join(import.meta.dirname, "..", "fixtures", "postgres");

/** What the server said about its files; LSNs as text. */
export interface PostgresFacts {
  readonly serverVersion: number;
  readonly segments: {
    /** Rows, then the start of a record of 2 MiB. */
    readonly first: string;
    /** Nothing but that record. */
    readonly middle: string;
    /** Its end, rows and a switch. */
    readonly last: string;
    readonly start: string;
    readonly messageEnd: string;
    readonly switchEnd: string;
    /** Null before 15. Neither counts the switch record. */
    readonly walinspect: { readonly all: Count | null; readonly last: Count | null };
    /** 15 only. */
    readonly waldump: {
      readonly first: { readonly records: number; readonly last: string } | null;
      readonly last: { readonly records: number; readonly last: string } | null;
    };
  };
  readonly control: {
    readonly system: {
      readonly pg_control_version: number;
      readonly catalog_version_no: number;
      readonly system_identifier: string;
    };
    readonly checkpoint: {
      readonly checkpoint_lsn: string;
      readonly redo_lsn: string;
      readonly timeline_id: number;
      readonly prev_timeline_id: number;
      readonly full_page_writes: boolean;
      readonly seconds: number;
    };
    readonly init: {
      readonly database_block_size: number;
      readonly blocks_per_segment: number;
      readonly wal_block_size: number;
      readonly bytes_per_wal_segment: number;
      readonly data_page_checksum_version: number;
    };
  };
  readonly pages: readonly { readonly file: string; readonly block: number }[];
  readonly relations: readonly {
    readonly relname: string;
    readonly relpersistence: "p" | "u" | "t";
    readonly path: string;
    readonly database: number;
    readonly tablespace: number;
  }[];
  readonly names: readonly string[];
  readonly backup: { readonly label: string; readonly history: string; readonly stopLsn: string };
  readonly tablespaces: {
    readonly list: readonly { readonly oid: number; readonly path: string }[];
  };
  readonly overwrites: {
    /** The page in the middle of a segment says that the record before it was lost. */
    readonly inside: { readonly name: string; readonly switchEnd: string };
    /** The first page of a segment says it. */
    readonly start: { readonly name: string; readonly switchEnd: string };
  };
  /** The segment in which timeline 2 began. */
  readonly timelines: { readonly first: string; readonly switchEnd: string };
}

interface Count {
  readonly records: number;
  readonly first: string;
  readonly end: string;
}

export function postgresFacts(major: Major): PostgresFacts {
  const facts: PostgresFacts = JSON.parse(postgresText(major, "expected.json"));
  return facts;
}

/** A file that is stored as it is. */
export function postgresText(major: Major, name: string): string {
  return readFileSync(join(root, String(major), name), "utf8");
}

/** A file that is stored compressed; a new copy each time. */
export function postgresBytes(major: Major, name: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(
    zstdDecompressSync(readFileSync(join(root, String(major), `${name}.zst`))),
  );
}
