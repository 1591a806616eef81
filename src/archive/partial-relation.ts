/** How a stored `.partial` relates to another copy of its segment. */
export type PartialRelation =
  /** The contents are the same. */
  | "same"
  /** All its valid records are in the other copy: it may be replaced by that. */
  | "covered"
  /** It has more records than the other copy. */
  | "ahead"
  /** It has other records. */
  | "different";

/** What a comparison of a stored `.partial` with another copy has found. */
export interface PartialDifference {
  /** Offset of the first byte that differs; undefined if none does. */
  readonly differsAt: number | undefined;
  /** Where the stored one's valid records end. */
  readonly storedEnd: number;
  /** Up to where the other copy means anything: its received bytes, or the end of its records. */
  readonly otherEnd: number;
}

/** Whether a stored `.partial` may be replaced: no valid record may get lost. */
export function relatePartial({
  differsAt,
  storedEnd,
  otherEnd,
}: PartialDifference): PartialRelation {
  if (differsAt === undefined) return "same";
  if (differsAt >= storedEnd) return "covered";
  return differsAt >= otherEnd ? "ahead" : "different";
}
