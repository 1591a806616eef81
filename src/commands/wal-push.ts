import { readdir } from "node:fs/promises";
import { basename, dirname, resolve } from "node:path";
import { drainSettings, listReady, queueOf } from "../archive/archive-status.ts";
import type { ArchiveQueue } from "../archive/archive-status.ts";
import { type ArchiverName, isArchiverName } from "../archive/caller-name.ts";
import type { SpentTime } from "../archive/deadline.ts";
import { lastCycleOf } from "../archive/last-cycle.ts";
import type { AskOutcome } from "../archive/drain-client.ts";
import { PushNotes } from "../archive/push-note.ts";
import { type Spool, spoolDirectory } from "../archive/spool-directory.ts";
import { RefusedError } from "../errors.ts";
import type { Command, Context } from "./command.ts";
import { openChangeNotes } from "./noting.ts";
import { IndexStarter } from "./wal-index.ts";
import { onePath } from "./words.ts";

interface Arguments {
  readonly path: string;
  readonly archiver: ArchiverName | undefined;
}

interface Wal {
  readonly path: string;
  readonly name: string;
}

/** The files that wait beside the one that we push, and what we keep about them. */
interface Surroundings {
  readonly queue: ArchiveQueue;
  readonly spool: Spool;
}

/** `archive_command = 'walnut wal-push %p'` */
export const walPush: Command<Arguments> = {
  name: "wal-push",
  usage: "wal-push <path>",
  summary: "Archive one WAL file; PostgreSQL's archive_command.",
  details:
    "postgresql.conf: archive_command = 'walnut wal-push %p'; `walnut setup` prints a faster one.\n\n" +
    "Exit code 0 means that the store has acknowledged the whole file, or holds the same content " +
    "already. A file that is there with other content is never overwritten.\n\n" +
    "While several files wait, a second process archives them ahead, so that the calls for them " +
    "return at once: TOTAL_BG_UPLOADED_LIMIT=0 turns that off.",
  flags: [
    { name: "archiver", value: "<name>", text: "The archiver process, as setup's line names it." },
  ],
  needsConfig: true,

  parse(words) {
    const named = words.value("archiver");
    const archiver = isArchiverName(named) ? named : undefined;
    return { path: onePath(words, "the WAL file"), archiver };
  },

  async run({ path, archiver }, context) {
    const { log, workingDirectory } = context;
    const wal = { path: resolve(workingDirectory, path), name: basename(path) };
    const around = await lookAround(wal, context);
    if (around === undefined) return await pushDirectly(wal, context);

    const { spool, queue } = around;
    const notes = new PushNotes(spool.notes, queue.walDirectory, spool.repository);
    if (await notes.isTrue(wal.name)) {
      log.info("archived ahead", { wal: wal.name });
      const readers = [archiver, context.self?.caller];
      const isNew = readers.some((one) => one !== undefined && !notes.isVouchedFor(one));
      // The drainer then lets this archiver's shell, and calls like this one, believe the notes.
      if (isNew) await callDrainer(wal, around, context, archiver).catch(() => {});
      return;
    }
    const { dropAboveBytes } = context.config.archiveQueue;
    if (dropAboveBytes === undefined) {
      await pushQueued(wal, around, context, archiver);
      return await shipOldGaps(wal, around, context);
    }
    const { pushOrDrop } = await import("./queue-drop.ts");
    await pushOrDrop(wal, { ...around, dropAboveBytes }, context, (limited) =>
      pushQueued(wal, around, limited, archiver),
    );
  },
};

/** Every file costs a start of us then: a busy server may write WAL faster than that. */
const NOTHING_AHEAD = "WAL is archived file by file, not ahead of the server, which is slow";

/** Undefined when nobody but us is to know of this push. */
async function lookAround(wal: Wal, { config, log }: Context): Promise<Surroundings | undefined> {
  const queue = queueOf(wal.path);
  if (queue === undefined) return undefined;
  try {
    const configured = config.archiveQueue.spoolDirectory;
    const spool = await spoolDirectory({ ...config, ...queue, configured });
    return { queue, spool };
  } catch (error) {
    if (!(error instanceof RefusedError)) throw error;
    // To be fast is no reason to fail; to drop without a record would be one to lie.
    if (config.archiveQueue.dropAboveBytes !== undefined) throw error;
    log.warning(NOTHING_AHEAD, { reason: error.message, hint: error.hint });
    return undefined;
  }
}

/** What was given up while the policy was "drop"; a look at an empty directory otherwise. */
async function shipOldGaps(wal: Wal, around: Surroundings, context: Context): Promise<void> {
  const records = await readdir(around.spool.gaps).catch(() => []);
  if (records.length === 0) return;
  const { shipRecorded } = await import("./queue-drop.ts");
  await shipRecorded(wal, around, context);
}

async function pushQueued(
  wal: Wal,
  around: Surroundings,
  context: Context,
  archiver: ArchiverName | undefined,
): Promise<void> {
  const { queue, spool } = around;
  const { config, log, clock, self } = context;
  const isAlone = config.uploadConcurrency <= 1 || config.archiveQueue.aheadMax <= 1;
  if (isAlone || self === undefined) return await pushDirectly(wal, context, around);

  const startMs = clock.monotonicMs();
  const answer = await callDrainer(wal, around, context, archiver);
  if (answer.kind === "stored") {
    log.info(answer.outcome, { wal: wal.name });
    return;
  }
  log.debug("the drainer does not push", { wal: wal.name, reason: answer.reason });
  if (answer.kind === "absent" && (await listReady(queue)).size > 1) {
    const words = ["wal-drain", queue.dataDirectory, "--except", wal.name];
    try {
      self.startDetached([...words], `${spool.path}/drain.log`);
    } catch (error) {
      log.warning(NOTHING_AHEAD, { reason: String(error) });
    }
  }
  const spentMs = clock.monotonicMs() - startMs;
  const leftMs = Math.max(config.walTimeoutMs - spentMs, config.walTimeoutMs * LEFT_SHARE);
  const limited = { ...context, config: { ...config, walTimeoutMs: leftMs } };
  await pushDirectly(wal, limited, { ...around, spent: waitedForDrainer(spentMs, spool) });
}

/** Of the time for one push, what is always left to our own, however long the drainer took. */
const LEFT_SHARE = 0.5;
/** The drainer says every second that it lives; where it does not, it is stopped or gone. */
const SILENCE_MS = 10_000;
/**
 * How many times the time for one push a drainer that lives may take: each of its pushes ends by
 * itself, but one may be slow, and have waited for others that are. Once, where a server waits.
 */
const DRAINER_PATIENCE = 20;

function waitedForDrainer(ms: number, { path }: Spool): SpentTime {
  const hint = `What that one does is told by \`walnut wal-drain --status\` and ${path}/drain.log.`;
  return { ms, by: "waiting for wal-drain", hint };
}

async function callDrainer(
  { name }: Wal,
  { queue, spool }: Surroundings,
  { config, clock, signal, self }: Context,
  archiver: ArchiverName | undefined,
): Promise<AskOutcome> {
  if (self === undefined) return { kind: "absent", reason: "there can be none" };
  const { askDrainer } = await import("../archive/drain-client.ts");
  const shell = archiver === undefined ? {} : { archiver };
  const caller = self.caller === undefined ? {} : { caller: self.caller };
  const settings = await drainSettings(self.fingerprint, queue);
  const request = { kind: "push", name, settings, ...shell, ...caller } as const;
  const { walTimeoutMs } = config;
  const limits = {
    timeoutMs: walTimeoutMs * DRAINER_PATIENCE,
    silenceMs: Math.min(SILENCE_MS, walTimeoutMs * LEFT_SHARE),
    lastCycle: {
      dataDirectory: queue.dataDirectory,
      clock,
      heardAtMs: () => Number.NEGATIVE_INFINITY,
      patienceMs: walTimeoutMs,
    },
  };
  return await askDrainer(spool.socket, request, { ...limits, signal });
}

async function pushDirectly(
  wal: Wal,
  context: Context,
  around?: Surroundings & { readonly spent?: SpentTime | undefined },
): Promise<void> {
  const [{ pushWal }, { withinDeadline }, { codecOf }, { WalPacker }] = await Promise.all([
    import("../archive/push.ts"),
    import("../archive/deadline.ts"),
    import("../codec/table.ts"),
    import("../archive/wal-packer.ts"),
  ]);
  const { config, log, signal } = context;
  const codec = codecOf(config.compressionMethod);
  const level = config.compressionLevel;
  const packer = new WalPacker({ codec, jobs: config.codecJobs });
  const changeNotes =
    around === undefined
      ? undefined
      : await openChangeNotes(context, { ...around.queue, ...around });
  const limits = {
    timeoutMs: config.walTimeoutMs,
    signal,
    spent: around?.spent,
    lastCycle: lastCycleOf({ dataDirectory: dirname(dirname(wal.path)) }, context),
  };
  await using storage = await withinDeadline(limits, ({ begin }) => {
    begin("opening the storage");
    return context.openStorage("archive");
  });
  const outcome = await pushWal(storage, wal, {
    ...limits,
    codec,
    level,
    pack:
      codec.method === "zstd" ? (local, options) => packer.pack(local, level, options) : undefined,
    codecJobs: config.codecJobs,
    cacheDirectory: config.cacheDirectory,
    serverName: config.archiveQueue.serverName,
    changeNotes,
    onStored: around && new IndexStarter(context, { ...around.queue, ...around }).stored,
    log,
  });
  log.info(outcome, { wal: wal.name, storage: storage.name });
}
