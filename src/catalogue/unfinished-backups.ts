import { parseRunClaim } from "../layout/keys.ts";
import type { Catalogue, UnfinishedBackup } from "./catalogue.ts";

/** What is to be said of each folder without sentinel, also whether it can be gone on with. */
export function describeUnfinished({
  backups,
  unfinished,
}: Pick<Catalogue, "backups" | "unfinished">): readonly string[] {
  const others = [...backups, ...unfinished.filter(isNoted)];
  return unfinished.map((folder) => {
    // As RESUME.md has it: the newest of all, and what its parts hold is noted.
    const isNewest = others.every((other) => other === folder || isEarlier(other, folder));
    return isNoted(folder) && isNewest
      ? `${folder.name} is being taken, or was interrupted: backup-push --full --resume may go on with it`
      : `${folder.name} is being taken, or was given up`;
  });
}

function isNoted({ folder }: UnfinishedBackup): boolean {
  for (const key of folder.relativeKeys()) if (parseRunClaim(key) !== undefined) return true;
  return false;
}

type Position = Pick<UnfinishedBackup, "high" | "low">;

/** On whatever timeline. */
function isEarlier(one: Position, other: Position): boolean {
  return one.high < other.high || (one.high === other.high && one.low < other.low);
}
