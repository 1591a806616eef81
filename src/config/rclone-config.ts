import { ConfigError } from "../errors.ts";
import type { RcloneConfig } from "../storage/rclone-config.ts";
import type { FoundSettings } from "./found-settings.ts";
import { rclone } from "./rclone-settings.ts";
import { defined } from "./store-url.ts";

/** The store that RCLONE_PREFIX names. Throws ConfigError. */
export function readRcloneConfig(found: FoundSettings): RcloneConfig {
  const value = found.get(rclone.prefix) ?? "";
  const remote = value.replace(/^rclone:(?=.)/, "").replace(/(?<=[^:/])\/+$/, "");
  // A remote's name, or ":type" for one that is made up here; then the path.
  if (!/^:?[^:/[\]]+:[^[\]]*$/.test(remote)) {
    throw new ConfigError(`${found.describe(rclone.prefix)} names no remote of rclone: ${value}`, {
      hint: "It has the form rclone:remote:path, without [ and ].",
    });
  }
  if (found.origin(rclone.configFile) !== undefined && found.origin(rclone.configBase64)) {
    throw new ConfigError(
      `${found.describe(rclone.configFile)} and ${found.describe(rclone.configBase64)} contradict each other`,
      { hint: "Keep one of them." },
    );
  }
  return {
    kind: "rclone",
    remote,
    ...defined("configFile", found.get(rclone.configFile)),
    ...defined("configText", readText(found)),
    program: found.get(rclone.program),
  };
}

function readText(found: FoundSettings): string | undefined {
  const encoded = found.get(rclone.configBase64)?.replaceAll(/\s/g, "");
  if (encoded === undefined) return undefined;
  const bytes = Buffer.from(encoded, "base64");
  const isBase64 = bytes.toString("base64").replace(/=+$/, "") === encoded.replace(/=+$/, "");
  if (isBase64 && bytes.length > 0) return bytes.toString();
  throw new ConfigError(`${found.describe(rclone.configBase64)} is not base64`, {
    hint: "Make it with: base64 -w0 < ~/.config/rclone/rclone.conf",
  });
}
