/**
 * Script of the page that `timeline --html` writes; runs in a browser and reads the page's own
 * data. Only textContent and attributes are set: nothing of the data is taken for markup.
 */
export const PAGE_SCRIPT = String.raw`
"use strict";
(() => {
  const report = JSON.parse(document.getElementById("data").textContent);
  const svg = document.querySelector("svg");
  const tip = document.getElementById("tip");
  const TOP = 34, LEFT = 92;
  // Of many timelines each gets less room, so that more of them fit into a window.
  const isDense = report.timelines.length > 8;
  const SIZE = isDense
    ? { lane: 52, name: 22, origin: 38, window: 6, bar: 10, wal: 19, run: 5,
        hole: 17, gap: 9, backup: 38, fork: 21 }
    : { lane: 92, name: 30, origin: 47, window: 12, bar: 16, wal: 32, run: 8,
        hole: 29, gap: 14, backup: 62, fork: 36 };
  const LANE = SIZE.lane;
  const state = { axis: "time", from: 0, to: 1, height: 0 };
  const lsn = (text) => {
    const [high, low] = text.split("/");
    return parseInt(high, 16) * 2 ** 32 + parseInt(low, 16);
  };
  const time = (text) => (text == null ? null : Date.parse(text));
  const bytes = (count) => {
    if (count == null) return "?";
    const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let unit = 0;
    while (count >= 1024 && unit < units.length - 1) { count /= 1024; unit += 1; }
    return (unit ? count.toFixed(1) : count) + " " + units[unit];
  };
  const shown = (text) =>
    text == null ? "time unknown" : text.replace("T", " ").replace(/\.\d+Z|Z/, " UTC");

  // Known pairs of position and time, to place what has only one of them.
  const pairs = [];
  const pair = (place) => {
    if (place && place.time) pairs.push([lsn(place.lsn), time(place.time)]);
  };
  for (const line of report.timelines) {
    for (const backup of line.backups) { pair(backup.start); pair(backup.finish); }
    for (const window of line.windows) { pair(window.from); pair(window.to); }
    for (const hole of line.holes) {
      pair(hole.last_commit_before);
      pair(hole.first_commit_behind);
    }
  }
  pairs.sort((a, b) => a[0] - b[0]);
  const timeAt = (position) => {
    if (pairs.length === 0) return position;
    let below = pairs[0], above = pairs[pairs.length - 1];
    if (position <= below[0]) return below[1];
    if (position >= above[0]) return above[1];
    for (const one of pairs) {
      if (one[0] <= position) below = one;
      else { above = one; break; }
    }
    const share = (position - below[0]) / (above[0] - below[0] || 1);
    return below[1] + share * (above[1] - below[1]);
  };
  const valueOf = (place) => {
    if (state.axis === "lsn") return lsn(place.lsn);
    return time(place.time) ?? timeAt(lsn(place.lsn));
  };
  const at = (position, text) => ({ lsn: position, time: text ?? null });

  const bounds = () => {
    const values = [];
    for (const line of report.timelines) {
      for (const backup of line.backups) values.push(valueOf(backup.start), valueOf(backup.finish));
      for (const window of line.windows) values.push(valueOf(window.from), valueOf(window.to));
      for (const run of line.wal) values.push(valueOf(at(run.start_lsn)), valueOf(at(run.end_lsn)));
    }
    if (values.length === 0) return [0, 1];
    const low = Math.min(...values), high = Math.max(...values);
    const margin = (high - low) * 0.03 || 1;
    return [low - margin, high + margin];
  };
  const reset = () => { [state.from, state.to] = bounds(); draw(); };

  const element = (name, attributes, parent, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  };
  const explained = (made, text) => {
    made.setAttribute("data-tip", text);
    made.setAttribute("tabindex", "0");
    made.setAttribute("role", "listitem");
    made.setAttribute("aria-label", text);
  };

  const width = () => Math.max(480, svg.clientWidth || 960);
  const xOf = (value) =>
    LEFT + ((value - state.from) / (state.to - state.from || 1)) * (width() - LEFT - 12);
  const bar = (group, kind, from, to, { y, height, text }) => {
    const left = Math.max(LEFT, xOf(from)), right = Math.min(width() - 12, xOf(to));
    if (right < LEFT || left > width() - 12) return;
    const box = { x: left, y, width: Math.max(3, right - left), height, rx: 2 };
    const made = element("rect", { class: kind, ...box }, group);
    explained(made, text);
  };

  const ticks = () => {
    const span = state.to - state.from, wanted = Math.max(2, Math.floor((width() - LEFT) / 150));
    let step;
    if (state.axis === "lsn") step = 2 ** Math.ceil(Math.log2(span / wanted || 1));
    else {
      const steps = [
        1, 10, 100, 1e3, 5e3, 15e3, 6e4, 3e5, 9e5, 36e5, 108e5, 216e5, 432e5,
        864e5, 1728e5, 3456e5, 6048e5, 26784e5, 316224e5,
      ];
      step = steps.find((one) => span / one <= wanted) ?? steps[steps.length - 1];
    }
    const values = [];
    const first = Math.ceil(state.from / step) * step;
    for (let value = first; value <= state.to; value += step) values.push(value);
    return { values, step };
  };
  const tickText = (value, step) => {
    if (state.axis === "lsn") {
      return Math.floor(value / 2 ** 32).toString(16).toUpperCase() + "/" +
        (value % 2 ** 32).toString(16).toUpperCase();
    }
    const text = new Date(value).toISOString();
    if (step >= 864e5) return text.slice(0, 10);
    if (step >= 6e4) return text.slice(5, 16).replace("T", " ");
    return step >= 1e3 ? text.slice(11, 19) : text.slice(11, 23);
  };

  const tickLabel = (x, y, text) => {
    const made = element("text", { class: "quiet", x: x + 3, y }, svg, text);
    // At the right edge it would be cut off behind its line.
    if (x + 3 + made.getComputedTextLength() <= width()) return;
    made.setAttribute("text-anchor", "end");
    made.setAttribute("x", x - 3);
  };

  // Where the picture is higher than the window, the wheel has to move the page.
  const isTall = () => state.height > innerHeight * 0.8;
  const hint = document.querySelector(".hint");
  const draw = () => {
    const focused = document.activeElement?.getAttribute("data-tip");
    svg.replaceChildren();
    const lines = report.timelines;
    const height = TOP + Math.max(1, lines.length) * LANE + (isDense ? 22 : 8);
    state.height = height;
    hint.textContent = "Drag to move, " + (isTall() ? "Ctrl and scroll" : "scroll") +
      " to zoom, Tab through what is drawn.";
    svg.setAttribute("viewBox", "0 0 " + width() + " " + height);
    svg.setAttribute("height", height);
    if (lines.length === 0) {
      element("text", { class: "quiet", x: 10, y: TOP + 20 }, svg, "The archive is empty.");
      return;
    }
    const { values, step } = ticks();
    const laneOf = new Map(lines.map((line, index) => [line.timeline, TOP + index * LANE]));
    for (const [, y] of laneOf) {
      element("rect", { class: "lane", x: 0, y: y + 2, width: width(), height: LANE - 6 }, svg);
    }
    for (const value of values) {
      const x = xOf(value);
      if (x < LEFT) continue;
      element("line", { class: "grid", x1: x, x2: x, y1: TOP - 6, y2: height - 8 }, svg);
      tickLabel(x, TOP - 12, tickText(value, step));
      // Whoever has scrolled down to the last timelines sees the axis, too.
      if (isDense) tickLabel(x, height - 8, tickText(value, step));
    }
    for (const line of lines) drawLine(line, laneOf);
    for (const made of svg.querySelectorAll("[data-tip]")) {
      if (focused != null && made.getAttribute("data-tip") === focused) made.focus();
    }
  };

  const places = new Map();
  const drawLine = (line, laneOf) => {
    const y = laneOf.get(line.timeline);
    const group = element("g", { role: "list" }, svg);
    element("text", { x: 10, y: y + SIZE.name }, group, "timeline " + line.timeline);
    if (line.history_lost) {
      element("text", { class: "bad", x: 10, y: y + SIZE.origin }, group, "history lost");
    }
    if (line.parent !== null) {
      element("text", { class: "quiet", x: 10, y: y + SIZE.origin }, group, "from " + line.parent);
      drawFork(line, laneOf, group);
    }
    for (const window of line.windows) {
      const [ends] = endOf(line, window);
      bar(group, "window", valueOf(window.from), valueOf(window.to), { y: y + SIZE.window, height: SIZE.bar, text:
        "Restorable from " + shown(window.from.time) + "\nto " + shown(window.to.time) +
        (window.has_commit
          ? "\nlast commit " + window.to.lsn + ", transaction " + window.last_xid
          : "\nno commit in it") +
        "\nends at " + ends + "; " + window.segments + " segments\nfrom " + window.backups.join(", ") });
    }
    for (const run of line.wal) {
      const [start, end] = [valueOf(at(run.start_lsn)), valueOf(at(run.end_lsn))];
      bar(group, "wal", start, end, { y: y + SIZE.wal, height: SIZE.run, text:
        "WAL " + run.first_segment + "\nto " + run.last_segment + "\n" + run.segments + " segments, " +
        run.start_lsn + " to " + run.end_lsn });
    }
    for (const hole of line.holes) {
      const before = at(hole.start_lsn, hole.last_commit_before?.time);
      const behind = at(hole.end_lsn, hole.first_commit_behind?.time);
      const kind = hole.intended ? "intended" : "hole";
      bar(group, kind, valueOf(before), valueOf(behind), { y: y + SIZE.hole, height: SIZE.gap, text:
        (hole.intended ? "Left out by retention: " : "HOLE: ") + hole.segments +
        (hole.segments === 1 ? " segment is missing\n" : " segments are missing\n") +
        hole.first_segment + " to " + hole.last_segment +
        "\nlast commit before: " + shown(hole.last_commit_before?.time) +
        "\nfirst commit behind: " + shown(hole.first_commit_behind?.time) +
        (hole.given_up ? "\n" + hole.given_up + " of them were given up by the queue policy" : "") });
    }
    for (const backup of line.backups) drawBackup(backup, y, group);
  };

  const drawFork = (line, laneOf, group) => {
    const parentY = laneOf.get(line.parent);
    if (parentY === undefined) return;
    const [window] = line.windows;
    const fork = at(line.fork_lsn, window?.from.lsn === line.fork_lsn ? window.from.time : null);
    const x = xOf(valueOf(fork)), y = laneOf.get(line.timeline);
    if (x < LEFT) return;
    const path = "M" + x + " " + (parentY + SIZE.fork) + " L" + x + " " + (y + SIZE.fork);
    const made = element("path", { class: "fork", d: path }, group);
    const text = "Timeline " + line.timeline + " left timeline " + line.parent;
    explained(made, text + " at " + line.fork_lsn);
  };

  const drawBackup = (backup, y, group) => {
    const middle = xOf((valueOf(backup.start) + valueOf(backup.finish)) / 2), middleY = y + SIZE.backup;
    places.set(backup.name, [middle, middleY]);
    if (middle < LEFT || middle > width() - 12) return;
    const base = places.get(backup.base);
    if (base !== undefined && base[0] >= LEFT) {
      const low = (base[0] + middle) / 2 + " " + (Math.max(base[1], middleY) + 24);
      const path = "M" + base[0] + " " + base[1] + " Q" + low + " " + middle + " " + middleY;
      element("path", { class: "chain", d: path }, group);
    }
    const kind = backup.problem ? "broken" : backup.kind;
    const size = backup.kind === "full" ? 8 : 6;
    const edge = 2 * size;
    const box = { x: middle - size, y: middleY - size, width: edge, height: edge, rx: 2 };
    const made = backup.kind === "full"
      ? element("rect", { class: kind, ...box }, group)
      : element("circle", { class: kind, cx: middle, cy: middleY, r: size }, group);
    explained(made, backup.name + "\n" + backup.kind + (backup.permanent ? ", permanent" : "") +
      (backup.base ? " on " + backup.base : "") +
      "\n" + shown(backup.start.time) + " to " + shown(backup.finish.time) +
      "\n" + bytes(backup.content_bytes) + ", stored as " + bytes(backup.stored_bytes) +
      "\nconsistent at " + backup.finish.lsn +
      (backup.problem ? "\nCAN'T BE RESTORED: " + backup.problem : ""));
  };

  const summarize = () => {
    const lines = report.timelines;
    const windows = lines.flatMap((line) => line.windows.map((window) => ({ line, window })));
    const holes = lines.flatMap((line) => line.holes.filter((hole) => !hole.intended));
    const count = holes.length + (holes.length === 1 ? " hole" : " holes");
    const newest = windows[windows.length - 1];
    const text = newest === undefined
      ? "Nothing in " + report.storage + " can be restored."
      : "To any point up to " + shown(newest.window.to.time) +
        ", on timeline " + newest.line.timeline + (holes.length ? "; " + count + " before that." : ".");
    document.getElementById("summary").textContent = text;
  };

  const table = (headings, rows) => {
    const box = document.createElement("div");
    box.className = "scroll";
    const made = box.appendChild(document.createElement("table"));
    const head = made.createTHead().insertRow();
    for (const heading of headings) {
      const cell = document.createElement("th");
      cell.textContent = heading;
      head.append(cell);
    }
    const body = made.createTBody();
    for (const row of rows) {
      const line = body.insertRow();
      for (const [text, isBad] of row) {
        const cell = line.insertCell();
        cell.textContent = text;
        if (isBad) cell.className = "bad";
      }
    }
    return box;
  };
  const endOf = (line, window) => {
    if (window.end !== "hole") return ["the archive's end"];
    const next = line.holes.find((hole) => lsn(hole.start_lsn) > lsn(window.to.lsn));
    return next?.intended ? ["what retention kept"] : ["a hole", true];
  };
  const tabulate = () => {
    const parent = document.getElementById("tables");
    for (const line of report.timelines) {
      const title = parent.appendChild(document.createElement("h2"));
      title.textContent = "Timeline " + line.timeline;
      if (line.windows.length) {
        parent.append(table(["restorable from", "to", "last commit", "ends at"],
          line.windows.map((window) => [
            [shown(window.from.time)], [shown(window.to.time)], [window.to.lsn],
            endOf(line, window),
          ])));
      }
      if (line.holes.length) {
        parent.append(table(["hole from", "to", "segments", "why"],
          line.holes.map((hole) => [
            [hole.first_segment], [hole.last_segment], [String(hole.segments)],
            [hole.given_up ? "given up" : hole.intended ? "retention" : "missing", !hole.intended],
          ])));
      }
      if (line.backups.length) parent.append(table(["backup", "kind", "finished", "size", "state"],
        line.backups.map((backup) => [[backup.name], [backup.kind], [shown(backup.finish.time)],
          [bytes(backup.stored_bytes)],
          [backup.problem ?? (backup.permanent ? "permanent" : "ok"), Boolean(backup.problem)]])));
    }
  };

  const hide = () => { tip.hidden = true; };
  const show = (target, x, y) => {
    tip.textContent = target.getAttribute("data-tip");
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(x + 14, innerWidth - box.width - 8)) + "px";
    const isLow = y + 18 + box.height > innerHeight;
    tip.style.top = (isLow ? Math.max(4, y - box.height - 12) : y + 18) + "px";
  };
  let drag = null;
  svg.addEventListener("pointermove", (event) => {
    if (drag !== null) {
      const moved = ((drag.x - event.clientX) / (width() - LEFT)) * (drag.to - drag.from);
      state.from = drag.from + moved;
      state.to = drag.to + moved;
      return draw();
    }
    const target = event.target.closest("[data-tip]");
    if (target === null) hide();
    else show(target, event.clientX, event.clientY);
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("focusin", (event) => {
    const box = event.target.getBoundingClientRect();
    if (event.target.hasAttribute("data-tip")) show(event.target, box.left, box.bottom - 14);
  });
  svg.addEventListener("focusout", hide);
  svg.addEventListener("pointerdown", (event) => {
    drag = { x: event.clientX, from: state.from, to: state.to };
    svg.parentElement.classList.add("dragging");
  });
  addEventListener("pointerup", () => {
    drag = null;
    svg.parentElement.classList.remove("dragging");
  });
  svg.addEventListener("wheel", (event) => {
    if (isTall() && !event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const box = svg.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left - LEFT) / (width() - LEFT)));
    const center = state.from + share * (state.to - state.from);
    const factor = event.deltaY > 0 ? 1.25 : 0.8;
    state.from = center - (center - state.from) * factor;
    state.to = center + (state.to - center) * factor;
    draw();
  }, { passive: false });
  const choose = (axis) => {
    state.axis = axis;
    document.getElementById("by-time").setAttribute("aria-pressed", String(axis === "time"));
    document.getElementById("by-lsn").setAttribute("aria-pressed", String(axis === "lsn"));
    reset();
  };
  document.getElementById("by-time").addEventListener("click", () => choose("time"));
  document.getElementById("by-lsn").addEventListener("click", () => choose("lsn"));
  document.getElementById("reset").addEventListener("click", reset);
  addEventListener("resize", draw);
  summarize();
  tabulate();
  choose(pairs.length > 1 ? "time" : "lsn");
  document.documentElement.dataset.ready = "true";
})();
`;
