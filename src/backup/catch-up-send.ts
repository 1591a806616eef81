import { join } from "node:path";
import {
  type BackupStart,
  keepWal,
  lockBackup,
  startBackup,
  stopBackup,
} from "../connection/backup-session.ts";
import { connectPostgres } from "../connection/connect.ts";
import { readServerFacts, type ServerFacts } from "../connection/server-facts.ts";
import type { Session } from "../connection/session.ts";
import { SessionWatch } from "../connection/session-watch.ts";
import type { ConnectionSettings } from "../connection/target.ts";
import { readWalPosition } from "../connection/wal-position.ts";
import { LocalFileError, RefusedError } from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import type { Log } from "../io/log.ts";
import { formatLsn, type Lsn } from "../postgres/lsn.ts";
import { parsePgControl } from "../postgres/pg-control.ts";
import {
  formatHistoryName,
  formatSegmentName,
  parseSegmentName,
  segmentNumberOf,
  segmentOfEnd,
} from "../postgres/wal-file.ts";
import type { CatchUpLink } from "./catch-up-link.ts";
import {
  type CatchUpStart,
  formatStart,
  formatSummary,
  parseListedFiles,
  parseSummary,
  requireSameSummary,
} from "./catch-up-messages.ts";
import { withoutOwnFiles } from "./catch-up-push.ts";
import { requireCatchable } from "./catch-up-position.ts";
import { EntrySender } from "./catch-up-stream.ts";
import { readControlFile } from "./control-file.ts";
import { CONTROL_FILE } from "./exclusion.ts";
import { openForReading } from "./file-content.ts";
import { FileJudge } from "./file-judge.ts";
import { readLocalHistory } from "./increment-origin.ts";
import { BaseFiles } from "./known-files.ts";
import {
  requireCheckpoint,
  requireDataDirectory,
  requireOwnProcess,
  statsDirectoryOf,
  tablespaceDirectoryOf,
} from "./preflight.ts";
import { PushProgress, type ProgressListener } from "./push-progress.ts";
import { LABEL_PATH, TABLESPACE_MAP_PATH } from "./restore-plan.ts";
import { requireSameTimeline } from "./standby.ts";
import { DataDirectoryWalk } from "./walk.ts";

export interface CatchUpSendSettings {
  /** Absolute; must be the server's own. */
  readonly dataDirectory: string;
  readonly connection: ConnectionSettings;
  /** How often the session is asked whether it still lives; 0 = never. */
  readonly aliveCheckIntervalMs: number;
}

export interface CatchUpSendWorld {
  readonly log: Log;
  readonly clock: Clock;
  readonly onProgress: ProgressListener;
  readonly signal: AbortSignal;
}

export interface CatchUpSent {
  /** What changed from here on was sent. */
  readonly fromLsn: Lsn;
  readonly startLsn: Lsn;
  readonly stopLsn: Lsn;
  readonly dataBytes: number;
  readonly unchangedCount: number;
}

const FILE_MODE = 0o600;

/**
 * Gives a stopped standby at the other end of the link what it lacks of a running primary. Resolves
 * when the other end has said that all of it is there and durable. See CATCHUP.md.
 */
export async function sendCatchUp(
  link: CatchUpLink,
  settings: CatchUpSendSettings,
  world: CatchUpSendWorld,
): Promise<CatchUpSent> {
  try {
    return await send(link, settings, world);
  } catch (error) {
    await link.giveUp(error);
    throw error;
  }
}

async function send(
  link: CatchUpLink,
  settings: CatchUpSendSettings,
  world: CatchUpSendWorld,
): Promise<CatchUpSent> {
  const { log, signal } = world;
  await using session = await connectPostgres(settings.connection, { signal });
  requireOwnProcess(session);
  const facts = await readServerFacts(session, { signal });
  if (facts.isInRecovery) {
    throw new RefusedError("this server is a standby: it can't end the WAL that the other needs", {
      hint: "Run catchup-send on the primary. Nothing was changed.",
    });
  }
  const dataDirectory = await requireDataDirectory(settings.dataDirectory, facts, world);
  await lockBackup(session, { signal });

  const standby = parsePgControl(await link.expect("position"));
  const { control } = await readControlFile(dataDirectory, world);
  const { lsn, timeline } = await readWalPosition(session, { signal });
  const history = await readLocalHistory(join(dataDirectory, "pg_wal"), timeline);
  const fromLsn = requireCatchable(standby, { control, history, lsn });
  const files = await receiveFiles(link);
  // Its end is heard while we send.
  const done = link.receive();
  done.catch(() => {});

  await keepWal(session, { signal });
  const label = `walnut catch-up ${new Date(world.clock.now()).toISOString()}`;
  const { majorVersion } = facts;
  const start = await startBackup(session, { majorVersion, label }, { signal });
  await requireCheckpoint(dataDirectory, start, world);
  log.info("sending what changed", { since: formatLsn(fromLsn), server: session.address });
  const sending = new Sending(link, { facts, dataDirectory, start, fromLsn, files }, world);
  const { stopLsn, sender } = await sending.run(session, settings.aliveCheckIntervalMs);
  const frame = await done;
  if (frame.type !== "done") throw new RefusedError(`the other end sent ${frame.type} at the end`);
  requireSameSummary(sender.summary, parseSummary(frame.payload));
  const { dataBytes } = sender.summary;
  const { unchangedCount } = sender;
  return { fromLsn, startLsn: start.startLsn, stopLsn, dataBytes, unchangedCount };
}

/** The relation files that the standby has, by the names that a walk gives them. */
async function receiveFiles(link: CatchUpLink): Promise<BaseFiles> {
  const files = await BaseFiles.create("xxh64");
  for (;;) {
    const { type, payload } = await link.receive();
    if (type === "files-end") return files;
    if (type !== "files") throw new RefusedError(`the other end sent ${type}, not its files`);
    for (const { path, sizeBytes } of parseListedFiles(payload.toString())) {
      files.add(`/${path}`, { sizeBytes });
    }
  }
}

interface SendingParts {
  readonly facts: ServerFacts;
  readonly dataDirectory: string;
  readonly start: BackupStart;
  readonly fromLsn: Lsn;
  readonly files: BaseFiles;
}

/** From the start of the backup to the last entry. */
class Sending {
  readonly #link: CatchUpLink;
  readonly #parts: SendingParts;
  readonly #world: CatchUpSendWorld;

  constructor(link: CatchUpLink, parts: SendingParts, world: CatchUpSendWorld) {
    this.#link = link;
    this.#parts = parts;
    this.#world = world;
  }

  async run(
    session: Session,
    intervalMs: number,
  ): Promise<{ readonly stopLsn: Lsn; readonly sender: EntrySender }> {
    const { facts, dataDirectory, start, fromLsn, files } = this.#parts;
    await using watch = new SessionWatch(session, { ...this.#world, intervalMs });
    const signal = AbortSignal.any([this.#world.signal, watch.signal]);
    const said = this.#survey();
    await this.#link.send("start", formatStart(said));
    const progress = new PushProgress(this.#world.onProgress);
    progress.expect(said.totalBytes);
    const sender = await EntrySender.create(this.#link, {
      judge: new FileJudge({ files, startLsn: fromLsn, sameDatabases: { has: () => true } }),
      onRead: (sizeBytes) => progress.add(sizeBytes),
      signal,
    });
    for (const entry of withoutOwnFiles(this.#walk())) await sender.sendWalked(entry);

    const { bytes } = await readControlFile(dataDirectory, { ...this.#world, signal });
    const stop = await stopBackup(session, facts, { signal });
    const label = stop.backupLabel;
    await requireSameTimeline(session, { start, label, facts }, { signal });
    await this.#sendWal(sender, stop.stopLsn);
    await sender.sendBytes(LABEL_PATH, FILE_MODE, Buffer.from(label));
    await sender.sendBytes(TABLESPACE_MAP_PATH, FILE_MODE, Buffer.from(stop.tablespaceMap));
    await sender.sendBytes(CONTROL_FILE, FILE_MODE, bytes);
    await this.#link.send("end", formatSummary(sender.finish()));
    return { stopLsn: stop.stopLsn, sender };
  }

  #walk(): DataDirectoryWalk {
    const { facts, dataDirectory } = this.#parts;
    return new DataDirectoryWalk({
      dataDirectory,
      majorVersion: facts.majorVersion,
      tablespaceDirectory: tablespaceDirectoryOf(facts),
      statsDirectory: statsDirectoryOf(facts, dataDirectory),
      onNotice: (text, path) => this.#world.log.debug(text, { path }),
    });
  }

  /** Looks at all sizes: whether it fits has to be known before anything is changed. */
  #survey(): CatchUpStart {
    const walk = this.#walk();
    const growths = new Map<string, number>();
    let totalBytes = 0;
    for (const entry of walk) {
      if (entry.kind !== "file") continue;
      totalBytes += entry.sizeBytes;
      const oid = /^\/pg_tblspc\/([0-9]+)\//.exec(entry.name)?.[1] ?? "";
      const had = this.#parts.files.find(entry.name)?.sizeBytes ?? 0;
      growths.set(oid, (growths.get(oid) ?? 0) + Math.max(0, entry.sizeBytes - had));
    }
    return {
      totalBytes,
      growthBytes: growths.get("") ?? 0,
      tablespaces: walk.tablespaces.map(({ name: oid, location }) => ({
        oid,
        location,
        growthBytes: growths.get(oid) ?? 0,
      })),
    };
  }

  /** What makes the pages consistent: with it the standby can start, whatever else it reaches. */
  async #sendWal(sender: EntrySender, stopLsn: Lsn): Promise<void> {
    const { facts, start, dataDirectory } = this.#parts;
    const { walSegmentBytes: segmentBytes } = facts;
    const { timeline } = parseSegmentName(start.segment, segmentBytes);
    const names = timeline === 1 ? [] : [formatHistoryName(timeline)];
    const last = segmentOfEnd(stopLsn, segmentBytes);
    for (let number = segmentNumberOf(start.startLsn, segmentBytes); number <= last; number += 1n) {
      names.push(formatSegmentName(timeline, number, segmentBytes));
    }
    for (const name of names) {
      const path = join(dataDirectory, "pg_wal", name);
      using file = openForReading(path);
      if (file === undefined) throw new LocalFileError(`${path} is gone before it was sent`);
      const { sizeBytes } = file;
      await sender.sendWhole({ path: `pg_wal/${name}`, mode: FILE_MODE, sizeBytes, file });
    }
  }
}
