import { formatJson } from "../layout/json.ts";
import type { JsonObject } from "../layout/json-value.ts";
import { PAGE_SCRIPT } from "./timeline-page-script.ts";
import { PAGE_STYLE } from "./timeline-page-style.ts";

/** What stands in the page may run; nothing is loaded. */
const POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";

/**
 * One page with an interactive picture of what `timeline --json` says. It loads nothing, so that it
 * can be mailed and kept; without script it shows the data as text.
 */
export function timelinePage(report: JsonObject, madeAt: Date): string {
  const data = escapeScript(formatJson(report));
  const time = madeAt.toISOString();
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<title>To when can I restore?</title>
<style>${PAGE_STYLE}</style>
</head>
<body>
<header>
<h1>To when can I restore?</h1>
<p id="summary"></p>
<div class="controls">
<div role="group" aria-label="Axis">
<button type="button" id="by-time" aria-pressed="true">Time</button>
<button type="button" id="by-lsn" aria-pressed="false">WAL position</button>
</div>
<button type="button" id="reset">Show all</button>
<span class="hint">Drag to move, scroll to zoom, Tab through what is drawn.</span>
</div>
</header>
<main>
<div id="picture"><svg role="img" aria-label="Backups, WAL and restorable windows by timeline"></svg></div>
<div id="tip" role="tooltip" hidden></div>
<ul class="legend" aria-label="Legend">
<li><span class="key window"></span>restorable</li>
<li><span class="key wal"></span>archived WAL</li>
<li><span class="key hole"></span>hole</li>
<li><span class="key intended"></span>left out by retention</li>
<li><span class="key full"></span>full backup</li>
<li><span class="key increment"></span>increment, with its base</li>
<li><span class="key broken"></span>backup that can't be restored</li>
<li><span class="key fork"></span>new timeline</li>
</ul>
<div id="tables"></div>
</main>
<footer>Made by walnut at <time datetime="${time}">${time}</time>. Times are UTC, as the server wrote them.</footer>
<noscript><p>The picture needs JavaScript; the data stands in this page as JSON.</p></noscript>
<script type="application/json" id="data">${data}</script>
<script>${PAGE_SCRIPT}</script>
</body>
</html>
`;
}

/** JSON that no text in it can end the element with. */
function escapeScript(json: string): string {
  return json
    .replaceAll("<", "\\u003c")
    .replaceAll("\u2028", "\\u2028")
    .replaceAll("\u2029", "\\u2029");
}
