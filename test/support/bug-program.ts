/** Walnut with a bug that shows itself where nobody waits for it; BUG says how. */
const watch = setInterval(() => {
  if (process.listenerCount("uncaughtException") === 0) return;
  clearInterval(watch);
  if (process.env["BUG"] === "rejected") void Promise.reject(new Error("planted"));
  else throw new Error("planted");
}, 5);

await import("../../src/main.ts");
