import { resolve } from "node:path";
import type { Config } from "../config/config.ts";
import type { FoundSettings } from "../config/found-settings.ts";
import { fileState } from "../io/file-state.ts";
import { sha256Hex } from "../io/runtime.ts";

/** What the meaning of a configuration depends on besides its text. */
export interface SettingPlaces {
  readonly config: Config;
  readonly found: FoundSettings;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Where relative paths begin. */
  readonly workingDirectory: string;
}

/** Variables that libraries read by themselves. */
const LIBRARY_VARIABLE = /^(AWS|AZURE|GOOGLE)_/;

/**
 * Equal for two processes that have the same settings, the same content in the files that settings
 * name (keys, certificates), and the same variables for libraries. It tells nothing of secrets.
 */
export function settingsFingerprint(versionText: string, places: SettingPlaces): string {
  const { config, found, environment } = places;
  const variables = Object.entries({
    ...environment,
    ...Object.fromEntries(found.beside.sdkVariables),
  }).filter(([name]) => LIBRARY_VARIABLE.test(name));
  const sorted = variables.toSorted(([one], [other]) => (one < other ? -1 : 1));
  return sha256Hex(JSON.stringify([versionText, config, sorted, namedStates(places)]));
}

/**
 * Tells, whenever it is asked, whether the config file is as it was read, and the files that
 * settings name as they are now.
 */
export function settingsWatch(places: SettingPlaces): () => boolean {
  const { configFile, configState } = places.found.beside;
  const states = new Map<string, string | undefined>(namedStates(places));
  if (configFile !== undefined) {
    states.set(resolve(places.workingDirectory, configFile), configState);
  }
  return () => [...states].every(([path, state]) => fileState(path) === state);
}

/** Of every file that any setting may mean: few of the texts are paths, and a look is cheap. */
function namedStates({
  config,
  workingDirectory,
}: SettingPlaces): readonly (readonly [path: string, state: string])[] {
  return [...texts(config)].flatMap((text) => {
    const path = resolve(workingDirectory, text);
    const state = fileState(path);
    return state === undefined ? [] : [[path, state] as const];
  });
}

const PATH_CHARACTERS_MAX = 4096;

function* texts(value: unknown): Iterable<string> {
  if (typeof value === "string") {
    if (value !== "" && value.length <= PATH_CHARACTERS_MAX && !value.includes("\0")) yield value;
  } else if (typeof value === "object" && value !== null) {
    for (const member of Object.values(value)) yield* texts(member);
  }
}
