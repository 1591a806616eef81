import { join } from "node:path";

/** The formats that a config file may have, by the end of its name; the first that is there counts. */
export const CONFIG_EXTENSIONS = ["json", "toml", "yaml", "yml", "env", "dotenv"] as const;

/** Where a config file is looked for that nobody named: ~/.walnut.* and ~/.walg.*, in this order. */
export function homeConfigPaths(homeDirectory: string): readonly string[] {
  return [".walnut", ".walg"].flatMap((stem) =>
    CONFIG_EXTENSIONS.map((extension) => join(homeDirectory, `${stem}.${extension}`)),
  );
}
