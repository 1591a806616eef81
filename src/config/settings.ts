import { archive } from "./archive-settings.ts";
import { azure } from "./azure-settings.ts";
import { backup } from "./backup-settings.ts";
import { encryptionSettings } from "./encryption-settings.ts";
import { failover } from "./failover-settings.ts";
import { gcs } from "./gcs-settings.ts";
import { general } from "./general-settings.ts";
import { inertSettings } from "./inert-settings.ts";
import { otherStoreSettings } from "./other-store-settings.ts";
import { mirror } from "./mirror-settings.ts";
import { postgres } from "./postgres-settings.ts";
import { rclone } from "./rclone-settings.ts";
import { retention } from "./retention-settings.ts";
import { OUR_PREFIX, type Setting, settingFlagNames, settingNames } from "./setting.ts";
import { sftp } from "./sftp-settings.ts";
import { storage } from "./storage-settings.ts";
import { swift } from "./swift-settings.ts";
import { wal } from "./wal-settings.ts";

/** Settings that belong together, under a heading for the documentation. */
export interface SettingGroup {
  readonly title: string;
  readonly settings: readonly Setting[];
}

/** Every setting once, in the order of the documentation. */
export const settingGroups: readonly SettingGroup[] = [
  { title: "General", settings: Object.values(general) },
  { title: "PostgreSQL", settings: Object.values(postgres) },
  { title: "Backups", settings: Object.values(backup) },
  { title: "Archiving", settings: Object.values(archive) },
  { title: "Retention", settings: Object.values(retention) },
  { title: "Streamed WAL", settings: Object.values(wal) },
  { title: "Storage", settings: Object.values(storage) },
  { title: "Google Cloud Storage", settings: Object.values(gcs) },
  { title: "Azure", settings: Object.values(azure) },
  { title: "SFTP", settings: Object.values(sftp) },
  { title: "Swift", settings: Object.values(swift) },
  { title: "rclone", settings: Object.values(rclone) },
  { title: "Fail-over storages", settings: Object.values(failover) },
  { title: "Mirrors", settings: Object.values(mirror) },
  { title: "Encryption", settings: encryptionSettings },
  { title: "Other stores", settings: otherStoreSettings },
  { title: "WAL-G's settings without effect", settings: inertSettings },
];

/** Every setting once. */
export const allSettings: readonly Setting[] = settingGroups.flatMap(({ settings }) => settings);

/** Finds settings by any of their names, without making a list of all of those. */
export class SettingIndex {
  readonly #byBareName: ReadonlyMap<string, Setting>;

  constructor() {
    const byBareName = new Map<string, Setting>();
    for (const setting of allSettings) {
      byBareName.set(setting.name, setting);
      for (const alias of setting.aliases) byBareName.set(alias, setting);
    }
    this.#byBareName = byBareName;
  }

  /** By the name of a variable or a key of a file: "WALG_S3_PREFIX". */
  byName(name: string): Setting | undefined {
    const exact = this.#byBareName.get(name);
    if (exact !== undefined && settingNames(exact).includes(name)) return exact;
    const prefixed = OUR_PREFIX.test(name)
      ? this.#byBareName.get(name.replace(OUR_PREFIX, ""))
      : undefined;
    return prefixed !== undefined && settingNames(prefixed).includes(name) ? prefixed : undefined;
  }

  /** By a flag without dashes: "s3-prefix", "walg-s3-prefix". */
  byFlag(flag: string): Setting | undefined {
    if (!/^[a-z0-9-]+$/.test(flag)) return undefined;
    const name = flag.toUpperCase().replaceAll("-", "_");
    const bare = this.#byBareName.get(name);
    // Without prefix a flag is always right: there are no flags of other programs.
    return bare?.name === name ? bare : this.byName(name);
  }

  /** All names of variables, for suggestions. */
  names(): readonly string[] {
    return allSettings.flatMap(settingNames);
  }

  /** All flags, for suggestions. */
  flags(): readonly string[] {
    return allSettings.flatMap(settingFlagNames);
  }
}
