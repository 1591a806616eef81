/** A real browser without a window, where the machine has one. */
import { spawnSync } from "node:child_process";

const PROGRAMS = ["chromium", "chromium-browser", "google-chrome"];

/** The program's name; undefined where none is installed. */
export function findBrowser(): string | undefined {
  return PROGRAMS.find((program) => spawnSync(program, ["--version"]).status === 0);
}

const WORDS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--hide-scrollbars",
  "--disable-dev-shm-usage",
];
const TIMEOUT_MS = 120_000;

export interface PageOptions {
  readonly profileDirectory: string;
  readonly width?: number;
  readonly height?: number;
  readonly isDark?: boolean;
}

/** The document as it is when the page's scripts have run. */
export function dumpDocument(browser: string, path: string, options: PageOptions): string {
  return run(browser, path, options, ["--dump-dom"]);
}

/** Writes a PNG of the page. */
export function takePicture(
  browser: string,
  path: string,
  destination: string,
  options: PageOptions,
): void {
  run(browser, path, options, [`--screenshot=${destination}`]);
}

function run(
  browser: string,
  path: string,
  { profileDirectory, width = 1280, height = 900, isDark = false }: PageOptions,
  words: readonly string[],
): string {
  const dark = isDark ? ["--blink-settings=preferredColorScheme=0"] : [];
  const size = `--window-size=${width},${height}`;
  const profile = `--user-data-dir=${profileDirectory}`;
  const result = spawnSync(
    browser,
    [...WORDS, ...dark, size, profile, ...words, `file://${path}`],
    {
      encoding: "utf8",
      timeout: TIMEOUT_MS,
    },
  );
  if (result.status !== 0) throw new Error(`${browser}: ${result.stderr}`);
  return result.stdout;
}
