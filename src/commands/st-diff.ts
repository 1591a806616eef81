import { ConfigError, UnsoundError } from "../errors.ts";
import { CREATE_ONLY_KEY } from "../layout/backup-group.ts";
import { compareStores, type Difference } from "../storage/mirror-compare.ts";
import { syncMirror } from "../storage/mirror-sync.ts";
import { MirroredStorage } from "../storage/mirrored.ts";
import type { Context, Words } from "./command.ts";
import { openSides } from "./context.ts";
import { judgeObject } from "./object-judge.ts";
import type { StorageTool } from "./st.ts";
import { formatPlainTable } from "./table.ts";
import { requirePositionals } from "./words.ts";

const HEADINGS = ["mirror", "what", "primary", "copy", "name"];

const WORDS: Readonly<Record<Difference["kind"], string>> = {
  missing: "missing",
  surplus: "surplus",
  size: "other-size",
  content: "other-content",
  due: "due",
};

/** `st diff`: proves that each mirror has what the primary has. */
export const diffTool: StorageTool = async (words, context) => {
  await using sides = await openMirrored(words, context);
  const { signal } = context;
  const rows: (readonly string[])[] = [];
  const counts = { equal: 0, different: 0, due: 0 };
  for (const { title, queue, ...pair } of sides.stored.pairs) {
    const options = {
      isContentRead: words.has("content"),
      onEqual: () => void (counts.equal += 1),
      unsharedKey: CREATE_ONLY_KEY,
      signal,
    };
    for await (const difference of compareStores(pair, queue, options)) {
      counts[difference.kind === "due" ? "due" : "different"] += 1;
      rows.push(rowOf(title, difference));
    }
  }
  if (rows.length > 0) await context.write(formatPlainTable(HEADINGS, rows));
  const { equal, different, due } = counts;
  context.log.info("compared", { equal, different, due });
  if (different + due === 0) return;
  throw new UnsoundError(`the mirror is not equal: ${different} objects differ, ${due} are due`, {
    hint: "`walnut st sync` carries over what is due and repairs what differs.",
  });
};

/** `st sync`: makes each mirror equal, and the primary where it is the damaged one. */
export const syncTool: StorageTool = async (words, context) => {
  await using sides = await openMirrored(words, context);
  const { signal, clock, log } = context;
  const counts = { repaired: 0, left: 0 };
  const rows: (readonly string[])[] = [];
  for (const [place, { title, queue, ...pair }] of sides.stored.pairs.entries()) {
    const [primary, copy] = [sides.readable.copies?.[0], sides.readable.copies?.[place + 1]];
    if (primary === undefined || copy === undefined) throw new Error("a store has no view");
    const repairs = syncMirror(pair, queue, {
      isContentRead: words.has("content"),
      isRestoring: words.has("restore"),
      unsharedKey: CREATE_ONLY_KEY,
      judge: (side, key) => judgeObject(side === "primary" ? primary : copy, key, context),
      clock,
      log,
      signal,
    });
    for await (const { difference, isDone, text } of repairs) {
      counts[isDone ? "repaired" : "left"] += 1;
      rows.push([...rowOf(title, difference), text]);
    }
  }
  if (rows.length > 0) await context.write(formatPlainTable([...HEADINGS, "done"], rows));
  log.info("synchronized", counts);
  if (counts.left === 0) return;
  throw new UnsoundError(`${counts.left} objects still differ`, {
    hint:
      "What was only in a mirror is brought back with --restore; look at the others with " +
      "`walnut st get -t <mirror>`. Nothing that may be good was overwritten.",
  });
};

async function openMirrored(words: Words, context: Context) {
  requirePositionals(words, []);
  const { stored, readable } = await openSides(context);
  if (!(stored instanceof MirroredStorage)) {
    await stored[Symbol.asyncDispose]();
    throw new ConfigError("there is no mirror", {
      hint: "WALNUT_MIRROR names the stores that get every object as well.",
    });
  }
  return { stored, readable, [Symbol.asyncDispose]: () => stored[Symbol.asyncDispose]() };
}

function rowOf(title: string, { key, kind, primary, mirror }: Difference): readonly string[] {
  return [title, WORDS[kind], sizeOf(primary), sizeOf(mirror), key];
}

function sizeOf(object: { readonly sizeBytes: number } | undefined): string {
  return object === undefined ? "-" : String(object.sizeBytes);
}
