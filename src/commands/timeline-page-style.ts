/** Style of the page that `timeline --html` writes. Colours differ in brightness, too. */
export const PAGE_STYLE = `
:root {
  --paper: #ffffff; --ink: #1d2430; --quiet: #5c6675; --line: #d5dae2; --band: #f5f7fa;
  --window: #2f9e63; --wal: #9db4d3; --hole: #d43a3a; --intended: #a9a9a9;
  --full: #1f4e9c; --increment: #6a8fd0; --broken: #d43a3a; --fork: #8450b5;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181f; --ink: #e6eaf0; --quiet: #9aa5b5; --line: #333c49; --band: #1b212b;
    --window: #4cc38a; --wal: #4a6285; --hole: #ff6b6b; --intended: #6d747e;
    --full: #8ab4ff; --increment: #5f86c9; --broken: #ff6b6b; --fork: #c49bf0;
  }
}
* { box-sizing: border-box; }
body { margin: 0; padding: 1.25rem; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .25rem; }
h2 { font-size: 1.05rem; margin: 1.5rem 0 .4rem; }
#summary { margin: 0 0 .75rem; font-size: 1.05rem; }
.controls { display: flex; flex-wrap: wrap; gap: .75rem; align-items: center;
  margin-bottom: .75rem; }
button { font: inherit; color: inherit; background: var(--band); border: 1px solid var(--line);
  border-radius: 4px; padding: .2rem .7rem; cursor: pointer; }
button[aria-pressed="true"] { background: var(--full); border-color: var(--full);
  color: var(--paper); }
.hint, footer { color: var(--quiet); font-size: .85rem; }
#picture { border: 1px solid var(--line); border-radius: 6px; overflow: hidden; cursor: grab;
  touch-action: pan-y; }
#picture.dragging { cursor: grabbing; }
svg { display: block; width: 100%; }
svg text { fill: var(--ink); font-size: 12px; }
svg text.quiet { fill: var(--quiet); }
svg text.bad { fill: var(--hole); }
.lane { fill: var(--band); }
.grid { stroke: var(--line); }
.wal { fill: var(--wal); background: var(--wal); }
.window { fill: var(--window); background: var(--window); }
.hole { fill: var(--hole); background: var(--hole); }
.intended { fill: var(--intended); background: var(--intended); }
.full { fill: var(--full); background: var(--full); }
.increment { fill: var(--increment); background: var(--increment); }
.broken { fill: var(--broken); background: var(--broken); }
.chain { stroke: var(--increment); stroke-width: 1.5; fill: none; }
.fork { stroke: var(--fork); fill: none; stroke-width: 2; stroke-dasharray: 4 3; }
.key.fork { background: var(--fork); }
[data-tip] { outline: none; }
[data-tip]:hover, [data-tip]:focus-visible { stroke: var(--ink); stroke-width: 2; }
#tip { position: fixed; z-index: 1; max-width: 34rem; padding: .5rem .7rem; border-radius: 6px;
  background: var(--ink); color: var(--paper); font-size: .85rem; white-space: pre-line;
  pointer-events: none; }
.legend { display: flex; flex-wrap: wrap; gap: .4rem 1.1rem; padding: 0; margin: .75rem 0;
  list-style: none; font-size: .85rem; }
.key { display: inline-block; width: 1.1em; height: .75em; margin-right: .4em; border-radius: 2px; }
table { border-collapse: collapse; font-size: .85rem; }
.scroll { overflow-x: auto; margin-bottom: .9rem; }
th, td { text-align: left; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
td.bad { color: var(--hole); font-weight: 600; }
footer { margin-top: 1.5rem; }
@media print { .controls { display: none; } }
`;
