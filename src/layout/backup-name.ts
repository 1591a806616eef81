import { FormatError } from "../errors.ts";

/** What follows `base_` is taken from WAL; sorts as text by timeline and position. */
export type BackupName = string;

const SEGMENT_NAME = /^[0-9A-F]{24}$/;
const BACKUP_NAME = /^base_([0-9A-F]{24})(?:_D_([0-9A-F]{24}))?(?:_([0-9A-F]{8}))?$/;

/** A backup's name taken apart. */
export interface BackupNameParts {
  /** Segment in which the backup starts: 24 hex digits. */
  readonly segment: string;
  /** Increments only: the segment of the direct base. */
  readonly baseSegment?: string;
  /** Backups of WAL-E only: offset in the segment, 8 digits. */
  readonly offset?: string;
}

/** `base_<segment>`, or `base_<segment>_D_<segment of the base>`. */
export function formatBackupName(parts: BackupNameParts): BackupName {
  for (const segment of [parts.segment, parts.baseSegment]) {
    if (segment !== undefined && !SEGMENT_NAME.test(segment)) {
      throw new FormatError(`not the name of a WAL segment: ${JSON.stringify(segment)}`);
    }
  }
  const base = parts.baseSegment === undefined ? "" : `_D_${parts.baseSegment}`;
  const offset = parts.offset === undefined ? "" : `_${parts.offset}`;
  return `base_${parts.segment}${base}${offset}`;
}

/** Reads names of WAL-G, of WAL-E and ours. Throws FormatError for anything else. */
export function parseBackupName(name: string): BackupNameParts {
  const match = BACKUP_NAME.exec(name);
  const segment = match?.[1];
  if (match === null || segment === undefined) {
    throw new FormatError(`not the name of a backup: ${JSON.stringify(name)}`);
  }
  const [, , baseSegment, offset] = match;
  return {
    segment,
    ...(baseSegment === undefined ? {} : { baseSegment }),
    ...(offset === undefined ? {} : { offset }),
  };
}

/** Whether this is the name of an increment. What is no backup's name is none. */
export function isIncrementName(name: string): boolean {
  return BACKUP_NAME.exec(name)?.[2] !== undefined;
}

/** Whether `name` could be a backup's: as `parseBackupName`, without the error. */
export function isBackupName(name: string): boolean {
  return BACKUP_NAME.test(name);
}
