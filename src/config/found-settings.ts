import { ConfigError, FormatError } from "../errors.ts";
import { type DefaultedSetting, type Setting, isSecretText, preferredName } from "./setting.ts";

/** Where the value of a setting was found. */
export interface Found {
  /** As it was written there: "WALG_S3_PREFIX", "--s3-prefix". */
  readonly name: string;
  /** "the command line", "the environment", or the path of a file. */
  readonly source: string;
  readonly text: string;
}

/** What was found beside the settings themselves. */
export interface FoundBeside {
  /** What is wrong with the names and texts; nothing may run while there is any. */
  readonly problems: readonly ConfigError[];
  /** Every secret that was seen, also those that a stronger place overrides. */
  readonly secrets: readonly string[];
  /** The path of the config file that was read. */
  readonly configFile?: string;
  /** Its state (io/file-state.ts) just before it was read. */
  readonly configState?: string | undefined;
  /**
   * Variables of the SDKs that stand in the config file only. As with WAL-G, they count as if
   * they were in the environment.
   */
  readonly sdkVariables: ReadonlyMap<string, string>;
}

/** The settings that were given, before they become a Config. */
export class FoundSettings {
  readonly #found: ReadonlyMap<Setting, Found>;
  readonly beside: FoundBeside;

  constructor(found: ReadonlyMap<Setting, Found>, beside: Partial<FoundBeside> = {}) {
    this.#found = found;
    this.beside = { problems: [], secrets: [], sdkVariables: new Map(), ...beside };
  }

  /** The value, the default where none was given, or undefined. Throws ConfigError. */
  get<T>(setting: DefaultedSetting<T>): T;
  get<T>(setting: Setting<T>): T | undefined;
  get<T>(setting: Setting<T>): T | undefined {
    const found = this.#found.get(setting);
    if (found !== undefined) return parseFound(setting, found);
    return setting.default === undefined ? undefined : setting.type.parse(setting.default);
  }

  /** The settings that were given, and their texts. */
  *given(): Iterable<{ readonly setting: Setting; readonly text: string }> {
    for (const [setting, { text }] of this.#found) yield { setting, text };
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
}

/** Reads the text of a setting. The error names the setting and, unless it is secret, the text. */
export function parseFound<T>(setting: Setting<T>, { name, source, text }: Found): T {
  try {
    return setting.type.parse(text);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    const shown = isSecretText(setting.type, text) ? "" : ` = ${JSON.stringify(text)}`;
    throw new ConfigError(`${name}${shown} from ${source} ${error.message}`, {
      hint: `It takes ${setting.type.text}.`,
      cause: error,
    });
  }
}
