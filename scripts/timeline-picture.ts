/**
 * Makes the pictures in docs/ of the page that `walnut timeline --html` writes; needs chromium.
 *
 *   node scripts/run.mjs scripts/timeline-picture.ts
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { timelineJson } from "../src/commands/timeline-json.ts";
import { timelinePage } from "../src/commands/timeline-page.ts";
import { findBrowser, takePicture } from "../test/support/browser.ts";
import { TIMELINE_EXAMPLE } from "../test/support/timeline-example.ts";

const MADE_AT = new Date(Date.UTC(2026, 10, 21, 12));
const images = join(dirname(import.meta.dirname), "docs", "images");
const browser = findBrowser();
if (browser === undefined) throw new Error("chromium is not installed");

const directory = mkdtempSync(join(tmpdir(), "walnut-picture-"));
try {
  const report = { ...TIMELINE_EXAMPLE, storageName: "s3://backups/main" };
  const path = join(directory, "page.html");
  writeFileSync(path, timelinePage(timelineJson(report), MADE_AT));
  mkdirSync(images, { recursive: true });
  for (const isDark of [false, true]) {
    const name = isDark ? "timeline-dark.png" : "timeline.png";
    const profileDirectory = join(directory, name);
    const size = { width: 1200, height: 860 };
    takePicture(browser, path, join(images, name), { profileDirectory, isDark, ...size });
    console.log(`docs/images/${name}`);
  }
} finally {
  rmSync(directory, { recursive: true, force: true });
}
