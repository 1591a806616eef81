import { existsSync, readFileSync, symlinkSync } from "node:fs";
import { once } from "node:events";
import { createServer } from "node:net";
import { basename, join } from "node:path";
import { systemErrorCode } from "../../src/errors.ts";
import { reachable } from "./reachable.ts";
import { listen } from "./listening.ts";

export const MAJORS = [13, 14, 15, 16, 17, 18] as const;
const CACHE = join(import.meta.dirname, "..", "..", ".cache");
export type Major = (typeof MAJORS)[number];

/** A port of 127.0.0.1 that nobody listened on a moment ago. */
export async function freePort(): Promise<number> {
  const probe = createServer();
  const port = await listen(probe);
  probe.close();
  await once(probe, "close");
  return port;
}

/** "initdb", "postgres" or "pg_ctl" of a release, with the links that npm leaves out. */
export function serverProgram(major: Major, name: string): string {
  const root = reachable(join(import.meta.dirname, "..", "..", "node_modules", `pg${major}`));
  const program = join(root, "native", "bin", name);
  if (!existsSync(program)) throw new Error(`${program} is missing: run npm ci`);
  const links: unknown = JSON.parse(readFileSync(join(root, "native", "pg-symlinks.json"), "utf8"));
  if (!Array.isArray(links)) throw new Error(`${root}: pg-symlinks.json is not a list`);
  for (const link of links) {
    const { source, target }: { source: string; target: string } = link;
    try {
      symlinkSync(basename(source), join(root, target));
    } catch (error) {
      if (systemErrorCode(error) !== "EEXIST") throw error;
    }
  }
  return program;
}

/**
 * A client program of this release or a later one: Debian's own, or those that
 * scripts/postgres-tools.sh puts into .cache/.
 */
export function clientProgram(major: Major, name: string): string | undefined {
  return MAJORS.filter((candidate) => candidate >= major)
    .flatMap((candidate) => [
      `/usr/lib/postgresql/${candidate}/bin/${name}`,
      join(CACHE, `postgresql-${candidate}`, "bin", name),
    ])
    .find((path) => existsSync(path));
}

/** All that a server and the commands that it starts see of our environment. */
export function serverEnvironment(
  home: string,
  environment: Readonly<Record<string, string>>,
): NodeJS.ProcessEnv {
  return { PATH: process.env["PATH"], HOME: home, TMPDIR: home, LC_ALL: "C", ...environment };
}
