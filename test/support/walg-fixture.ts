import { mkdirSync, mkdtempSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { zstdDecompressSync } from "node:zlib";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { readTar } from "../../src/tar/read.ts";

export const WALG_CASES = ["zstd-full", "brotli-full", "timelines", "lz4-chain"] as const;
export type WalgCase = (typeof WALG_CASES)[number];
/** The same kind of repository, encrypted. */
export const ENCRYPTED_WALG_CASES = ["sodium", "pgp"] as const;
export type EncryptedWalgCase = (typeof ENCRYPTED_WALG_CASES)[number];

/** A restore that is known to work, and what the tables hold after it. */
export interface KnownRestore {
  readonly backup: string;
  /** Key of `digests`. */
  readonly digest: string;
  /** Recovery settings of PostgreSQL. */
  readonly target: Readonly<Record<string, string>>;
}

export interface WalgFixture extends AsyncDisposable {
  /** Holds repo/, expected/ and case.json. */
  readonly directory: string;
  /** A directory store. */
  readonly repository: string;
  /** Settings that reading takes. */
  readonly env: Readonly<Record<string, string>>;
  readonly restores: readonly KnownRestore[];
  /** By name, then by "database.schema.table". */
  readonly digests: Readonly<Record<string, Readonly<Record<string, string>>>>;
  /** A file of expected/ as text. */
  expected(name: string): string;
}

/** Unpacks one of test/fixtures/walg into a temporary directory. */
export async function unpackWalgFixture(name: WalgCase | EncryptedWalgCase): Promise<WalgFixture> {
  const root = mkdtempSync(join(tmpdir(), "walnut-walg-"));
  const packed = join(import.meta.dirname, "..", "fixtures", "walg", `${name}.tar.zst`);
  const tar = zstdDecompressSync(readFileSync(packed));
  for await (const entry of readTar(bytesSource(tar).open())) {
    const path = join(root, entry.name);
    if (entry.kind === "directory") {
      mkdirSync(path, { recursive: true });
      continue;
    }
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, await readAll(entry.content()));
    utimesSync(path, entry.modifiedAtSeconds, entry.modifiedAtSeconds);
  }
  const directory = join(root, name);
  const described: Pick<WalgFixture, "env" | "restores" | "digests"> = JSON.parse(
    readFileSync(join(directory, "case.json"), "utf8"),
  );
  return {
    directory,
    repository: join(directory, "repo"),
    env: Object.fromEntries(
      Object.entries(described.env).map(([key, text]) => [key, text.replace("@CASE@", directory)]),
    ),
    restores: described.restores,
    digests: described.digests,
    expected: (file) => readFileSync(join(directory, "expected", file), "utf8"),
    [Symbol.asyncDispose]: () => rm(root, { recursive: true, force: true }),
  };
}
