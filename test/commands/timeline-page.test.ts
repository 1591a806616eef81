import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { Script } from "node:vm";
import { formatReport } from "../../src/commands/timeline.ts";
import { timelineJson } from "../../src/commands/timeline-json.ts";
import { timelinePage } from "../../src/commands/timeline-page.ts";
import { PAGE_SCRIPT } from "../../src/commands/timeline-page-script.ts";
import { dumpDocument, findBrowser } from "../support/browser.ts";
import { formatJson } from "../../src/layout/json.ts";
import { leaveOut } from "../support/left-out.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { TIMELINE_EXAMPLE } from "../support/timeline-example.ts";

const page = timelinePage(timelineJson(TIMELINE_EXAMPLE), new Date(0));
const VOID = new Set(["meta", "!doctype"]);

describe("the page of timeline --html", () => {
  test("closes every element that it opens", () => {
    const body = page.replaceAll(/<(script|style)([^>]*)>.*?<\/\1>/gs, "<$1$2></$1>");
    const open: string[] = [];
    for (const [, slash, name = ""] of body.matchAll(/<(\/?)([a-z!][a-z0-9]*)[^>]*>/g)) {
      if (VOID.has(name)) continue;
      if (slash === "") open.push(name);
      else assert.equal(open.pop(), name);
    }
    assert.deepEqual(open, []);
  });

  test("asks nothing of the network", () => {
    const addresses = page.match(/\b(https?:|\/\/[a-z]+\.|src=|href=|@import|url\()[^\s"]*/g) ?? [];
    assert.deepEqual(addresses, ["http://www.w3.org/2000/svg"]);
    assert.match(page, /Content-Security-Policy" content="default-src 'none'/);
  });

  test("holds the data, whatever is in it, and a script that is one", () => {
    const [, data = ""] = /id="data">(.*?)<\/script>/s.exec(page) ?? [];
    assert.equal(JSON.parse(data).storage, TIMELINE_EXAMPLE.storageName);
    assert.ok(new Script(PAGE_SCRIPT));
  });
});

test("the table says of a window what it ends at, as the page does", () => {
  const lines = formatReport(TIMELINE_EXAMPLE).split("\n");
  const ends = lines.flatMap(
    (line) => /(what retention kept|a hole|the archive's end)$/.exec(line)?.[1] ?? [],
  );
  assert.deepEqual(ends, ["what retention kept", "a hole", "the archive's end"]);
});

/** Uses the page as people do, and leaves what came of it in the document. */
const VISIT = `
  const seen = {};
  const all = (selector) => document.querySelectorAll(selector).length;
  const tip = document.getElementById("tip");
  const hover = (selector) => {
    const target = document.querySelector("svg " + selector);
    target.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, clientX: 400, clientY: 200 }));
    return tip.hidden ? null : tip.textContent;
  };
  seen.drawn = { windows: all("svg .window"), holes: all("svg .hole"), intended: all("svg .intended"),
    full: all("svg .full"), increments: all("svg .increment"), broken: all("svg .broken"),
    chains: all("svg .chain"), forks: all("svg .fork"), wal: all("svg .wal") };
  seen.summary = document.getElementById("summary").textContent;
  seen.hole = hover(".hole");
  seen.backup = hover(".increment");
  seen.window = hover(".window");
  const svg = document.querySelector("svg");
  svg.dispatchEvent(new PointerEvent("pointerleave"));
  seen.isHidden = tip.hidden;
  const widthOf = () => [...document.querySelectorAll("svg .window")].at(-1).getBoundingClientRect().width;
  const before = widthOf();
  svg.dispatchEvent(new WheelEvent("wheel", { bubbles: true, cancelable: true, deltaY: -100, clientX: 1000, clientY: 90 }));
  seen.isZoomed = widthOf() > before;
  document.getElementById("reset").click();
  seen.isReset = Math.abs(widthOf() - before) < 1;
  document.getElementById("by-lsn").click();
  const quiet = [...document.querySelectorAll("svg text.quiet")].map((text) => text.textContent);
  const edge = document.querySelector("svg").viewBox.baseVal.width;
  seen.isCut = [...document.querySelectorAll("svg text")].some((text) => {
    const { x, width } = text.getBBox();
    return x + width > edge;
  });
  seen.axis = quiet.filter((text) => text.includes("/")).length > 1;
  document.querySelector("svg .hole").focus();
  seen.isFocusShown = !tip.hidden && tip.textContent.startsWith("HOLE");
  seen.tables = all("#tables table");
  seen.injected = all("#tables b, #summary b, svg b");
  const show = (name) => {
    document.querySelector("svg").replaceWith(document.querySelector("svg").cloneNode(false));
    document.getElementById("tables").replaceChildren();
    document.getElementById("data").textContent = document.getElementById(name).textContent;
    const script = document.createElement("script");
    script.textContent = [...document.scripts].at(-2).textContent;
    document.head.append(script);
    return document.querySelector("svg");
  };
  const many = show("many");
  const isTaken = (more) => {
    const wheel = new WheelEvent("wheel", { bubbles: true, cancelable: true, deltaY: -1, ...more });
    return !many.dispatchEvent(wheel);
  };
  const labels = [...many.querySelectorAll("text.quiet")].map((text) => text.textContent);
  const dates = labels.filter((text) => /^\\d/.test(text));
  seen.many = { lanes: all("svg .lane"), forks: all("svg .fork"), windows: all("svg .window"),
    isHigh: many.clientHeight > 2000 && many.clientHeight < 3000,
    isAxisTwice: dates.length > 3 && dates.length === 2 * new Set(dates).size,
    lost: [...many.querySelectorAll("text.bad")].map((text) => text.textContent),
    hint: document.querySelector(".hint").textContent,
    wheel: [isTaken({}), isTaken({ ctrlKey: true })] };
  const empty = show("empty");
  seen.empty = { texts: [...empty.querySelectorAll("text")].map((text) => text.textContent),
    drawn: empty.querySelectorAll("rect, line, path").length,
    summary: document.getElementById("summary").textContent };
  const result = document.createElement("pre");
  result.id = "visit";
  result.textContent = JSON.stringify(seen);
  document.body.append(result);
`;

/** Fifty failovers, of which one lost its history. */
const MANY = Array.from({ length: 50 }, (_, index) => {
  const [, second] = TIMELINE_EXAMPLE.timelines;
  if (second === undefined) throw new Error("the example has no second timeline");
  const timeline = index + 1;
  return { ...second, timeline, parentTimeline: index, isHistoryLost: timeline === 30 };
});

function embedded(id: string, timelines: typeof TIMELINE_EXAMPLE.timelines): string {
  const data = formatJson(timelineJson({ ...TIMELINE_EXAMPLE, storageName: "here", timelines }));
  return `<script type="application/json" id="${id}">${data}</script>`;
}

test("a browser draws backups, windows, holes and timelines, and explains them", async () => {
  const browser = findBrowser();
  if (browser === undefined) return leaveOut("the page in a browser", "chromium is not installed");
  using directory = scratchDirectory();
  const path = join(directory.path, "page.html");
  const others = embedded("many", MANY) + embedded("empty", []);
  const [start = "", end = ""] = page.split('<script type="application/json"');
  const whole = `${start}${others}<script type="application/json"${end}`;
  await writeFile(
    path,
    whole.replace("</body>", () => `<script>${VISIT}</script></body>`),
  );
  const dom = dumpDocument(browser, path, { profileDirectory: join(directory.path, "profile") });
  const [, text = ""] = /<pre id="visit">(.*?)<\/pre>/s.exec(dom) ?? [];
  const seen = JSON.parse(
    text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&"),
  );
  assert.deepEqual(seen.drawn, {
    windows: 3,
    holes: 1,
    intended: 1,
    full: 3,
    increments: 3,
    broken: 1,
    chains: 3,
    forks: 1,
    wal: 4,
  });
  assert.match(seen.summary, /^To any point up to 2026-11-21 .* UTC, on timeline 2; 1 hole before/);
  assert.match(seen.hole, /^HOLE: 3 segments are missing\n.*\n.*\n.*\n3 of them were given up/);
  assert.match(seen.backup, /increment on base_/);
  assert.match(seen.window, /^Restorable from/);
  assert.deepEqual(seen.many, {
    lanes: 50,
    forks: 49,
    windows: 50,
    isHigh: true,
    isAxisTwice: true,
    lost: ["history lost"],
    hint: "Drag to move, Ctrl and scroll to zoom, Tab through what is drawn.",
    wheel: [false, true],
  });
  assert.deepEqual(seen.empty, {
    texts: ["The archive is empty."],
    drawn: 0,
    summary: "Nothing in here can be restored.",
  });
  const { isHidden, isZoomed, isReset, axis, isCut, isFocusShown, tables, injected } = seen;
  assert.deepEqual(
    { isHidden, isZoomed, isReset, axis, isCut, isFocusShown, tables, injected },
    {
      isHidden: true,
      isZoomed: true,
      isReset: true,
      axis: true,
      isCut: false,
      isFocusShown: true,
      tables: 5,
      injected: 0,
    },
  );
});
