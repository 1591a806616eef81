import { spawnSync } from "node:child_process";
import type { RcloneConfig } from "../../src/storage/rclone-config.ts";

/** Whether this machine has the program. */
export function isRcloneAvailable(): boolean {
  return spawnSync("rclone", ["version"], { stdio: "ignore" }).status === 0;
}

/** A directory here as a remote: rclone's own way to all that providers have, but the network. */
export function localRemote(path: string, settings: Partial<RcloneConfig> = {}): RcloneConfig {
  const configText = "[here]\ntype = local\n";
  return { kind: "rclone", remote: `here:${path}`, configText, program: "rclone", ...settings };
}
