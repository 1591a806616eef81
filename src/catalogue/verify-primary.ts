import { OperationError } from "../errors.ts";
import type { ByteStream } from "../io/bytes.ts";
import { COMMIT_INDEX_FOLDER, verifyMemoryKey } from "../layout/keys.ts";
import { mergeLists } from "../storage/merged-list.ts";
import { statIfThere } from "../storage/object-copy.ts";
import { borrowed, overlay } from "../storage/overlay.ts";
import type { CallOptions, GetOptions, ObjectKey, Storage } from "../storage/storage.ts";
import { type Finding, isFailure } from "./finding.ts";
import { type VerifyOptions, type VerifyReport, verifyRepository } from "./verify.ts";

/** What only a mirror has is counted up to here. */
const SURPLUS_MAX = 100;

/**
 * Checks a repository, where there are mirrors that of the primary: they would hide what it lacks.
 * Of what is found it is told which mirror could give a sound copy: one that passes the same checks
 * in the place of the primary's. Rejects where the primary fails; a mirror that does is a note.
 */
export async function verifyPrimary(
  storage: Storage,
  options: VerifyOptions,
): Promise<VerifyReport> {
  const { primary, copies = [] } = storage;
  if (primary === undefined) return await verifyRepository(storage, options);
  // What is remembered belongs into all of them.
  const put: Storage["put"] = async (...words) => await storage.put(...words);
  const remove: Storage["delete"] = async (...words) => await storage.delete(...words);
  const own = borrowed(overlay(primary, { put, delete: remove }));
  const report = await verifyRepository(own, options);
  let { findings } = report;
  for (const [place, mirror] of copies.slice(1).entries()) {
    try {
      if (isFailure(findings))
        findings = await judgeMirror(findings, { own, mirror, place }, options);
      const surplus = await findSurplus({ own, mirror }, options);
      if (surplus !== undefined) findings = [...findings, surplus];
    } catch (error) {
      options.signal.throwIfAborted();
      if (!(error instanceof OperationError)) throw error;
      const text = `the mirror could not be looked at: ${error.message}`;
      findings = [...findings, { kind: "note", subject: mirror.name, text }];
    }
  }
  return { ...report, findings };
}

interface Pair {
  readonly own: Storage;
  readonly mirror: Storage;
}

/** The findings, with the mirror's place in those that it has a sound copy for. */
async function judgeMirror(
  findings: readonly Finding[],
  { place, ...pair }: Pair & { readonly place: number },
  options: VerifyOptions,
): Promise<readonly Finding[]> {
  const faults = findings.filter(({ kind }) => kind !== "note");
  const subjects = new Set(faults.map(({ subject }) => subject));
  const isLacking = faults.some(({ kind }) => kind !== "damaged");
  const keys = new Set(subjects);
  const { findings: all } = await verifyRepository(patched(pair, keys, isLacking), {
    ...options,
    level: "quick",
    only: keys,
    onProgress: () => {},
  });
  const left = all.filter(({ kind }) => kind !== "note");
  const leftSubjects = new Set(left.map(({ subject }) => subject));
  // A hole may be filled in part, or with what is damaged.
  const isFilled = left.every(({ subject }) => subjects.has(subject));
  const { mirror } = pair;
  const judged = findings.map(async (finding): Promise<Finding> => {
    const { kind, subject, soundIn } = finding;
    const isOpen = kind === "note" || soundIn !== undefined || isRewritten(subject);
    if (isOpen || leftSubjects.has(subject)) return finding;
    const isSound =
      kind === "damaged" ? (await statIfThere(mirror, subject, options)) !== undefined : isFilled;
    return isSound ? { ...finding, soundIn: place } : finding;
  });
  return await Promise.all(judged);
}

/** What a verify writes anew by itself. */
function isRewritten(subject: string): boolean {
  return subject === verifyMemoryKey || subject.startsWith(COMMIT_INDEX_FOLDER);
}

/**
 * The primary with some objects as the mirror has them: those in `keys`, to which are added those
 * that only the mirror has, if wanted. Keeps nothing that is put.
 */
function patched({ own, mirror }: Pair, keys: Set<ObjectKey>, isFilled: boolean): Storage {
  async function* get(key: ObjectKey, options: GetOptions): ByteStream {
    yield* (keys.has(key) ? mirror : own).get(key, options);
  }
  return overlay(own, {
    get,
    stat: async (key, options) => await (keys.has(key) ? mirror : own).stat(key, options),
    async *list(prefix, options) {
      for await (const [first, second] of mergeLists([own, mirror], prefix, options)) {
        if (first === undefined && second !== undefined && isFilled) keys.add(second.key);
        const key = first?.key ?? second?.key ?? "";
        const info = keys.has(key) ? second : first;
        if (info !== undefined) yield info;
      }
    },
    put: async () => {},
    delete: async () => {},
  });
}

/** A sentinel that is lost leaves no trace where it was, nor does the end of the WAL. */
async function findSurplus(
  { own, mirror }: Pair,
  { signal }: CallOptions,
): Promise<Finding | undefined> {
  const found: ObjectKey[] = [];
  for await (const [first, second] of mergeLists([own, mirror], "", { signal })) {
    if (first !== undefined || second === undefined) continue;
    // What is written meanwhile may be listed in the mirror alone.
    if ((await statIfThere(own, second.key, { signal })) !== undefined) continue;
    if ((await statIfThere(mirror, second.key, { signal })) === undefined) continue;
    found.push(second.key);
    if (found.length === SURPLUS_MAX) break;
  }
  const [first] = found;
  if (first === undefined) return undefined;
  const count = found.length === SURPLUS_MAX ? `${SURPLUS_MAX} or more` : found.length;
  const text =
    `only mirror ${mirror.name} has ${count} ${count === 1 ? "object" : "objects"}, the first is ` +
    "this: deleted by others, or lost here; `walnut st sync --restore` would bring back all of them";
  return { kind: "note", subject: first, text };
}
