import { type OperationError, NotInArchiveError, RefusedError } from "../errors.ts";
import { formatLsn, type Lsn } from "../postgres/lsn.ts";
import { READ_AHEAD_HINT } from "./stored-gaps.ts";

/** What recovery is about to be given. */
export interface NewBeginning {
  readonly name: string;
  readonly startLsn: Lsn;
  readonly place: string;
  /** Where the recovery that asks begins; undefined where nothing tells. */
  readonly recoveryStart: Lsn | undefined;
  /** Whether nobody has asked for it yet. */
  readonly isAhead: boolean;
  readonly canEndAtHole: boolean;
}

/**
 * Of a segment with which pg_resetwal began the WAL anew: why it must not be given, or undefined.
 * Recovery that comes from before takes its first record for the end of the WAL, and would open the
 * database without the commits behind it; one that begins in it, or later, needs it.
 */
export function judgeNewBeginning(beginning: NewBeginning): OperationError | undefined {
  const { name, startLsn, place, recoveryStart, isAhead, canEndAtHole } = beginning;
  if (canEndAtHole) return undefined;
  // Whether it may be given is known when it is asked for.
  if (isAhead) return new NotInArchiveError(`WAL segment ${name} begins the WAL anew`);
  if (recoveryStart === undefined || recoveryStart >= startLsn) return undefined;
  return new RefusedError(
    `WAL segment ${name} in the archive ${place} begins the WAL anew, as pg_resetwal does: no ` +
      `recovery from ${formatLsn(recoveryStart)} gets past ${formatLsn(startLsn)}`,
    {
      hint:
        "Recovery would end here and open the database without the commits behind it. Restore a " +
        "backup that was taken after pg_resetwal; a standby has to be made anew from one. To open the " +
        `database as it was before it, set WALNUT_FETCH_END_AT_HOLE=true. ${READ_AHEAD_HINT}`,
    },
  );
}
