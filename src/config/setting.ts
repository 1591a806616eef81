/** What the text of a setting must be, and the value that it stands for. */
export interface SettingType<T> {
  /** For the documentation: "duration". */
  readonly name: string;
  /** Which texts are taken, as a clause: "a duration such as 30s or 1h30m". */
  readonly text: string;
  /** Never shown, not even in errors. */
  readonly isSecret: boolean;
  /** Whether a text that should be no secret looks like one, put here by mistake. */
  readonly looksSecret?: (text: string) => boolean;
  /** As a flag it may stand without a value. */
  readonly isSwitch: boolean;
  /** Throws FormatError with the reason, without the text itself. */
  parse(text: string): T;
}

/** Whether this text of a setting must never be shown. */
export function isSecretText(type: SettingType<unknown>, text: string): boolean {
  return type.isSecret || type.looksSecret?.(text) === true;
}

/**
 * What happens when the setting is given:
 *
 * - "used": what its text says;
 * - "none": nothing; it is known so that WAL-G's configurations work;
 * - "warning": nothing, but the user may expect otherwise, so every backup and restore says so;
 * - "refused": to go on without it would break a promise, so no command touches a store.
 */
export type Effect =
  | { readonly kind: "used" }
  | {
      readonly kind: "none" | "warning" | "refused";
      /** Why, as a clause without full stop. */
      readonly reason: string;
      /** Values that ask for nothing, such as "false": they change nothing and say nothing. */
      readonly harmlessText?: RegExp;
    };

/**
 * Which names a setting has in the environment and in files:
 *
 * - "own": WALNUT_NAME, for what only walnut has;
 * - "prefixed": WALNUT_NAME, WALG_NAME, WALE_NAME;
 * - "any": WALNUT_NAME, NAME, WALG_NAME, WALE_NAME, as WAL-G reads the settings of its stores;
 * - "plain": WALNUT_NAME, NAME;
 * - "foreign": NAME, for what belongs to libpq or another program.
 */
export type NameForm = "own" | "prefixed" | "any" | "plain" | "foreign";

/** One setting. Its place among the others is one of the tables beside settings.ts. */
export interface Setting<T = unknown> {
  /** Without prefix: "S3_PREFIX". */
  readonly name: string;
  readonly form: NameForm;
  /** Other names of it, after its own: with the same prefixes for "any", else as they are. */
  readonly aliases: readonly string[];
  readonly type: SettingType<T>;
  readonly default: string | undefined;
  /** Of a number without unit: "bytes", "seconds". */
  readonly unit: string | undefined;
  readonly text: string;
  readonly effect: Effect;
}

/** A setting that always has a value. */
export interface DefaultedSetting<T> extends Setting<T> {
  readonly default: string;
}

interface SettingOptions {
  readonly form?: NameForm;
  readonly aliases?: readonly string[];
  readonly unit?: string;
  readonly effect?: Effect;
}

const USED: Effect = { kind: "used" };

/** A setting that may be absent. */
export function setting<T>(
  name: string,
  type: SettingType<T>,
  text: string,
  options: SettingOptions = {},
): Setting<T> {
  return {
    name,
    type,
    text,
    form: options.form ?? "prefixed",
    aliases: options.aliases ?? [],
    default: undefined,
    unit: options.unit,
    effect: options.effect ?? USED,
  };
}

/** A setting with a default, given as the text that a user would write. */
export function defaulted<T>(
  name: string,
  type: SettingType<T>,
  text: string,
  options: SettingOptions & { readonly default: string },
): DefaultedSetting<T> {
  return { ...setting(name, type, text, options), default: options.default };
}

/** Of names that can only be meant for us. */
export const OUR_PREFIX = /^(WALNUT|WALG|WALE)_/;

/** Every name that the environment and files may use, the strongest first. */
export function settingNames({ name, form, aliases }: Setting): readonly string[] {
  const others = form === "any" ? aliases.flatMap((alias) => formNames(alias, form)) : aliases;
  return [...formNames(name, form), ...others];
}

/** The name that messages and the documentation use. */
export function preferredName({ name, form }: Setting): string {
  return form === "own" || form === "prefixed" ? `WALNUT_${name}` : name;
}

/** Every flag that stands for the setting, without dashes, the shortest form first. */
export function settingFlagNames(one: Setting): readonly string[] {
  return [...new Set([one.name, ...settingNames(one)].map(flagName))];
}

/** "S3_PREFIX" → "s3-prefix". */
export function flagName(name: string): string {
  return name.toLowerCase().replaceAll("_", "-");
}

/** In front of the name, the strongest first. */
const FORM_PREFIXES: Readonly<Record<NameForm, readonly string[]>> = {
  own: ["WALNUT_"],
  prefixed: ["WALNUT_", "WALG_", "WALE_"],
  any: ["WALNUT_", "", "WALG_", "WALE_"],
  plain: ["WALNUT_", ""],
  foreign: [""],
};

function formNames(name: string, form: NameForm): readonly string[] {
  return FORM_PREFIXES[form].map((prefix) => `${prefix}${name}`);
}
