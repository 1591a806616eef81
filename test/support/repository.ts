import { join } from "node:path";
import { writeFile } from "node:fs/promises";
import type { Cluster } from "./postgres.ts";
import { type RunResult, runWalnut, shellWord, walnutShellCommand } from "./walnut.ts";

/** The product, set up for one cluster by a config file, as an administrator would have it. */
export interface Installation {
  readonly configFile: string;
  /** For postgresql.conf. */
  readonly archiveCommand: string;
  readonly restoreCommand: string;
  /** Runs as the server's user in the data directory. */
  run(...words: readonly string[]): Promise<RunResult>;
  /** Like `run`, but throws with the program's own words unless it ends with 0. */
  mustRun(...words: readonly string[]): Promise<RunResult>;
}

/** Writes the config file: the given settings, the cluster's connection and a private cache. */
export async function install(
  cluster: Cluster,
  settings: Readonly<Record<string, string>>,
  name = "walnut",
): Promise<Installation> {
  const configFile = join(cluster.directory, `${name}.json`);
  const cache = await cluster.makeDirectory(`${name}-cache`);
  const all = { WALNUT_CACHE_DIR: cache, ...cluster.connection, ...settings };
  await writeFile(configFile, JSON.stringify(all));

  const program = `${walnutShellCommand()} --config ${shellWord(configFile)}`;
  const run = (...words: readonly string[]) =>
    runWalnut(["--config", configFile, ...words], {
      cwd: cluster.dataDirectory,
      user: cluster.user,
    });
  return {
    configFile,
    archiveCommand: `${program} wal-push "%p"`,
    restoreCommand: `${program} wal-fetch "%f" "%p"`,
    run,
    async mustRun(...words) {
      const result = await run(...words);
      if (result.code !== 0) {
        throw new Error(`${words.join(" ")}: ${result.code ?? result.signal}\n${result.stderr}`);
      }
      return result;
    },
  };
}
