import { FormatError } from "../errors.ts";

/** One major release of PostgreSQL, and the numbers by which its files tell that they are of it. */
export interface PostgresRelease {
  readonly majorVersion: number;
  /** CATALOG_VERSION_NO, src/include/catalog/catversion.h */
  readonly catalogVersion: number;
  /** PG_CONTROL_VERSION, src/include/catalog/pg_control.h */
  readonly controlVersion: number;
}

/** What walnut backs up and restores, oldest first. */
export const RELEASES: readonly PostgresRelease[] = [
  { majorVersion: 13, catalogVersion: 202007201, controlVersion: 1300 },
  { majorVersion: 14, catalogVersion: 202107181, controlVersion: 1300 },
  { majorVersion: 15, catalogVersion: 202209061, controlVersion: 1300 },
  { majorVersion: 16, catalogVersion: 202307071, controlVersion: 1300 },
  { majorVersion: 17, catalogVersion: 202406281, controlVersion: 1700 },
  { majorVersion: 18, catalogVersion: 202506291, controlVersion: 1800 },
];

/** For messages and help. */
export const RELEASE_RANGE = "13 to 18";

/** A server's release as it tells it: 15.4, or 15.0 for a beta. */
export interface ServerVersion {
  readonly majorVersion: number;
  readonly minorVersion: number;
}

/** Undefined for a release that we do not know. */
export function findRelease(majorVersion: number): PostgresRelease | undefined {
  return RELEASES.find((release) => release.majorVersion === majorVersion);
}

/**
 * Reads the setting server_version_num (150004). Throws FormatError for anything before 10, where
 * the number was built differently.
 *
 * @source PG_VERSION_NUM, configure.ac
 */
export function parseServerVersion(versionNumber: number): ServerVersion {
  const majorVersion = Math.trunc(versionNumber / 10_000);
  const minorVersion = versionNumber % 10_000;
  if (!Number.isInteger(versionNumber) || majorVersion < 10 || majorVersion > 999) {
    throw new FormatError(`not a server_version_num of PostgreSQL 10 or later: ${versionNumber}`);
  }
  return { majorVersion, minorVersion };
}

/**
 * Reads the file PG_VERSION of a data directory or database: the major version and a newline.
 *
 * @source ValidatePgVersion, src/backend/utils/init/miscinit.c
 */
export function parseVersionFile(text: string): number {
  const match = /^([1-9][0-9]{0,2})\n?$/.exec(text);
  if (match === null) throw new FormatError(`not a PG_VERSION file: ${JSON.stringify(text)}`);
  return Number(match[1]);
}

/**
 * The directory that a release makes in each tablespace: "PG_15_202209061".
 *
 * @source TABLESPACE_VERSION_DIRECTORY, src/include/common/relpath.h
 */
export function formatTablespaceDirectory(release: PostgresRelease): string {
  return `PG_${release.majorVersion}_${release.catalogVersion}`;
}
