import { ConfigError, FormatError } from "../errors.ts";
import { type DefaultedSetting, type Setting, preferredName } from "./setting.ts";

/** Where the value of a setting was found. */
export interface Found {
  /** As it was written there: "WALG_S3_PREFIX", "--s3-prefix". */
  readonly name: string;
  /** "the command line", "the environment", or the path of a file. */
  readonly source: string;
  readonly text: string;
}

/** The settings that were given, before they become a Config. */
export class FoundSettings {
  readonly #found: ReadonlyMap<Setting, Found>;
  /** What is wrong with the names and texts themselves; nothing may run while there is any. */
  readonly problems: readonly ConfigError[];

  constructor(found: ReadonlyMap<Setting, Found>, problems: readonly ConfigError[]) {
    this.#found = found;
    this.problems = problems;
  }

  /** The value, the default where none was given, or undefined. Throws ConfigError. */
  get<T>(setting: DefaultedSetting<T>): T;
  get<T>(setting: Setting<T>): T | undefined;
  get<T>(setting: Setting<T>): T | undefined {
    const found = this.#found.get(setting);
    if (found !== undefined) return parseFound(setting, found);
    return setting.default === undefined ? undefined : setting.type.parse(setting.default);
  }

  /** Where the value comes from; undefined for a default and for nothing. */
  origin(setting: Setting): Found | undefined {
    return this.#found.get(setting);
  }

  /** "WALG_S3_PREFIX from the environment", for messages. */
  describe(setting: Setting): string {
    const found = this.#found.get(setting);
    return found === undefined
      ? `${preferredName(setting)} (default)`
      : `${found.name} from ${found.source}`;
  }

  /** Every value that must not be shown. */
  secrets(): readonly string[] {
    return [...this.#found]
      .filter(([setting]) => setting.type.isSecret)
      .map(([, { text }]) => text);
  }
}

/** Reads the text of a setting. The error names the setting and, unless it is secret, the text. */
export function parseFound<T>(setting: Setting<T>, { name, source, text }: Found): T {
  try {
    return setting.type.parse(text);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    const shown = setting.type.isSecret ? "" : ` = ${JSON.stringify(text)}`;
    throw new ConfigError(`${name}${shown} from ${source} ${error.message}`, {
      hint: `It takes ${setting.type.text}.`,
      cause: error,
    });
  }
}
