import { join } from "node:path";
import { ConfigError } from "../errors.ts";
import type { MirrorConfig } from "../storage/mirror-open.ts";
import type { StorageConfig } from "../storage/open.ts";
import { DEFAULT_STORAGE } from "./failover-settings.ts";
import type { FoundSettings } from "./found-settings.ts";
import { mirror } from "./mirror-settings.ts";
import { preferredName } from "./setting.ts";
import { type NamedStore, readStoreMap, requireDifferent } from "./store-map.ts";

interface Surroundings {
  readonly homeDirectory?: string | undefined;
  readonly primary: StorageConfig | undefined;
  /** Stores that stand in for the primary. */
  readonly others: readonly NamedStore[];
}

/** The mirrors; undefined where there are none. Throws ConfigError. */
export function readMirrorConfig(
  found: FoundSettings,
  { homeDirectory, primary, others }: Surroundings,
): MirrorConfig | undefined {
  const stores = readStoreMap(found, mirror.stores, { primary, purpose: "mirrors" });
  if (primary === undefined || stores.length === 0) return undefined;
  requireDifferent(
    [{ name: DEFAULT_STORAGE, config: primary }, ...others, ...stores],
    "A copy of an object has to be somewhere else.",
  );
  return {
    stores,
    policy: found.get(mirror.policy),
    queueDirectory: found.get(mirror.queueDirectory) ?? defaultDirectory(homeDirectory),
    notesMax: found.get(mirror.queueMax),
  };
}

function defaultDirectory(homeDirectory: string | undefined): string {
  if (homeDirectory !== undefined) return join(homeDirectory, ".local/state/walnut/mirror");
  throw new ConfigError("there is no place for the notes of what a mirror lacks", {
    hint: `This user has no home directory: set ${preferredName(mirror.queueDirectory)}.`,
  });
}
