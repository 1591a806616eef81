import { StorageError } from "../../src/errors.ts";
import type { Upkeep } from "../../src/storage/storage.ts";

/** "away" fails; "none" has no versions; the others are answers. */
export type VersionKeeping = "none" | "away" | "untold" | "yes" | "no";

/** What several stores say together, whichever of them says what. */
export const VERSION_ANSWERS: readonly (readonly [
  first: VersionKeeping,
  second: VersionKeeping,
  together: boolean | undefined,
])[] = [
  ["yes", "no", true],
  ["no", "yes", true],
  ["none", "yes", true],
  ["away", "yes", true],
  ["untold", "yes", true],
  ["no", "no", false],
  ["none", "no", false],
  ["untold", "no", undefined],
  ["no", "away", undefined],
];

/** A store's upkeep that can say only this. */
export function versionUpkeep(keeping: VersionKeeping): Upkeep {
  const answer = async (): Promise<boolean | undefined> => {
    if (keeping === "away") throw new StorageError("refused", { isRetryable: false });
    return keeping === "untold" ? undefined : keeping === "yes";
  };
  return {
    async *listUnfinished() {},
    removeUnfinished: async () => {},
    ...(keeping === "none" ? {} : { keepsVersions: answer }),
  };
}
