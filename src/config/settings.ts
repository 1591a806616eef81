import { encryptionSettings } from "./encryption-settings.ts";
import { general } from "./general-settings.ts";
import { inertSettings } from "./inert-settings.ts";
import { otherStoreSettings } from "./other-store-settings.ts";
import { postgres } from "./postgres-settings.ts";
import { type Setting, settingFlagNames } from "./setting.ts";
import { storage } from "./storage-settings.ts";

/** Settings that belong together, under a heading for the documentation. */
export interface SettingGroup {
  readonly title: string;
  readonly settings: readonly Setting[];
}

/** Every setting once, in the order of the documentation. */
export const settingGroups: readonly SettingGroup[] = [
  { title: "General", settings: Object.values(general) },
  { title: "PostgreSQL", settings: Object.values(postgres) },
  { title: "Storage", settings: Object.values(storage) },
  { title: "Encryption", settings: encryptionSettings },
  { title: "Other stores", settings: otherStoreSettings },
  { title: "WAL-G's settings without effect", settings: inertSettings },
];

/** Every setting once. */
export const allSettings: readonly Setting[] = settingGroups.flatMap(({ settings }) => settings);

/** Every flag that stands for a setting, by its name without dashes. */
export function settingsByFlag(): ReadonlyMap<string, Setting> {
  return new Map(
    allSettings.flatMap((setting) => settingFlagNames(setting).map((flag) => [flag, setting])),
  );
}
