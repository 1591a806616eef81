import type { StoreCounts, TrafficCounts } from "../storage/traffic.ts";
import { formatBytes } from "./progress.ts";

/** What `--stats` prints on standard error after a command: lines for people. */
export function formatTraffic({ stores, retries, waitedMs }: TrafficCounts): string {
  const lines = Object.entries(stores).map(([name, counts]) => `  ${name}: ${formatStore(counts)}`);
  const waits = [
    `${seconds(waitedMs.retry)} for ${retries} repetitions`,
    `${seconds(waitedMs.rateLimit)} for the rate limit`,
    `${seconds(waitedMs.turn)} for a turn`,
  ];
  return ["storage traffic:", ...lines, `  waited ${waits.join(", ")}`, ""].join("\n");
}

/** The same as one line of JSON, for programs; docs/storage.md describes it. */
export function formatTrafficJson(counts: TrafficCounts): string {
  const { retries, waitedMs } = counts;
  const stores = Object.entries(counts.stores).map(([name, store]) => ({ name, ...store }));
  const whole = Object.entries(waitedMs).map(([why, ms]) => [why, Math.round(ms)]);
  const storageTraffic = { stores, retries, waitedMs: Object.fromEntries(whole) };
  return `${JSON.stringify({ storageTraffic })}\n`;
}

function formatStore(store: StoreCounts): string {
  const { gotBytes, putBytes, ...calls } = store.calls;
  const parts = [
    `calls ${formatKinds(calls)}`,
    `objects ${formatBytes(putBytes)} put, ${formatBytes(gotBytes)} got`,
  ];
  if (Object.keys(store.requests).length > 0) {
    parts.push(
      `requests ${formatKinds(store.requests)}`,
      `${formatBytes(store.sentBytes)} sent, ${formatBytes(store.receivedBytes)} received`,
    );
  }
  if (store.slowDowns > 0) {
    const fewest = store.fewestAtOnce ?? 1;
    parts.push(`told ${store.slowDowns} times to slow down, down to ${fewest} at once`);
  }
  return parts.join("; ");
}

function formatKinds(counts: Readonly<Record<string, number>>): string {
  const given = Object.entries(counts).filter(([, count]) => count > 0);
  return given.length === 0 ? "none" : given.map(([kind, count]) => `${kind} ${count}`).join(", ");
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
