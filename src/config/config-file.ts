import { readFile, stat } from "node:fs/promises";
import { extname } from "node:path";
import { ConfigError, FormatError, systemErrorCode } from "../errors.ts";
import { parseDotenv } from "./dotenv-file.ts";
import { type CONFIG_EXTENSIONS, homeConfigPaths } from "./home-config.ts";
import { parseJsonObject } from "./json-file.ts";

/** A file with settings, whatever its format was. */
export interface ConfigFile {
  readonly path: string;
  /** By upper-case key; values that were numbers or booleans are text. */
  readonly values: ReadonlyMap<string, string>;
}

type Parse = (source: string) => Promise<Map<string, string>>;

const parsers: ReadonlyMap<string, Parse> = new Map<(typeof CONFIG_EXTENSIONS)[number], Parse>([
  ["json", async (source) => parseJsonObject(source)],
  ["toml", async (source) => (await import("./toml-file.ts")).parseTomlTable(source)],
  ["yaml", async (source) => (await import("./yaml-file.ts")).parseYamlMap(source)],
  ["yml", async (source) => (await import("./yaml-file.ts")).parseYamlMap(source)],
  ["env", async (source) => parseDotenv(source)],
  ["dotenv", async (source) => parseDotenv(source)],
]);

/** Nobody's settings are longer; a wrong path may lead to anything. */
const LARGEST_FILE_BYTES = 4 * 1024 * 1024;

/** Reads the file that the user named. Throws ConfigError if it is not there or can't be read. */
export async function readConfigFile(path: string): Promise<ConfigFile> {
  const extension = extname(path).slice(1).toLowerCase();
  const parse = parsers.get(extension);
  if (parse === undefined) {
    throw new ConfigError(`config file ${path} has no known format`, {
      hint: `Its name must end in one of: ${[...parsers.keys()].join(", ")}.`,
    });
  }
  const source = await readText(path);
  try {
    const values = new Map<string, string>();
    for (const [key, value] of await parse(source)) values.set(key.toUpperCase(), value);
    return { path, values };
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    throw new ConfigError(`config file ${path} can't be read: ${error.message}`, { cause: error });
  }
}

/** The first of ~/.walnut.* and ~/.walg.* that is there, if any. */
export async function findHomeConfigFile(homeDirectory: string): Promise<string | undefined> {
  for (const path of homeConfigPaths(homeDirectory)) {
    if (await isFile(path)) return path;
  }
  return undefined;
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile();
  } catch (error) {
    // A home directory that we may not look into holds no settings for us.
    if (["ENOENT", "ENOTDIR", "EACCES"].includes(systemErrorCode(error) ?? "")) return false;
    throw error;
  }
}

const READ_HINTS: ReadonlyMap<string, string> = new Map([
  [
    "ENOENT",
    "Correct the path in --config or WALNUT_CONFIG (WALG_CONFIG_PATH), or write the file. With none " +
      "of these, the first of ~/.walnut.* and ~/.walg.* is read.",
  ],
  ["EACCES", "The user who runs walnut needs the right to read it, and to pass its directories."],
  ["EISDIR", "Name a file: this is a directory."],
]);

async function readText(path: string): Promise<string> {
  try {
    const { size } = await stat(path);
    if (size > LARGEST_FILE_BYTES) {
      throw new ConfigError(`config file ${path} is longer than ${LARGEST_FILE_BYTES} bytes`);
    }
    return await readFile(path, "utf8");
  } catch (cause) {
    const code = systemErrorCode(cause);
    if (code === undefined) throw cause;
    const text = code === "ENOENT" ? "does not exist" : `can't be read: ${code}`;
    const hint = READ_HINTS.get(code);
    throw new ConfigError(`config file ${path} ${text}`, {
      ...(hint === undefined ? {} : { hint }),
      cause,
    });
  }
}
