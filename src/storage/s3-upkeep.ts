import {
  AbortMultipartUploadCommand,
  GetBucketVersioningCommand,
  GetObjectLockConfigurationCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
} from "@aws-sdk/client-s3";
import { ObjectNotFoundError } from "../errors.ts";
import { foundOrNothing, isUntold, toHold } from "./presence.ts";
import type { Repeat } from "./repeat.ts";
import { isNotImplemented } from "./s3-errors.ts";
import type { S3Transport } from "./s3-transport.ts";
import type { CallOptions, HeldDelete, ObjectKey, UnfinishedPut, Upkeep } from "./storage.ts";

interface Page {
  readonly puts: readonly UnfinishedPut[];
  readonly next?: { readonly key: string; readonly id: string } | undefined;
}

/** Uploads in parts that nobody completed, and what keeps objects from being removed. */
export function s3Upkeep(transport: S3Transport, repeat: Repeat): Upkeep {
  return {
    async *listUnfinished(prefix, options) {
      let next: Page["next"];
      do {
        const from = next;
        const page = await repeat(options.signal, () =>
          readPage(transport, { prefix, from }, options),
        );
        yield* page.puts;
        next = page.next;
      } while (next !== undefined);
    },
    async removeUnfinished(put, options) {
      await repeat(options.signal, () => abortUpload(transport, put, options));
    },
    readHold: (key, options) => repeat(options.signal, () => readHold(transport, key, options)),
    heldDelete: (options) => repeat(options.signal, () => heldDelete(transport, options)),
    keepsVersions: (options) => repeat(options.signal, () => keepsVersions(transport, options)),
  };
}

async function readPage(
  transport: S3Transport,
  { prefix, from }: { readonly prefix: string; readonly from: Page["next"] },
  options: CallOptions,
): Promise<Page> {
  const command = new ListMultipartUploadsCommand({
    Bucket: transport.bucket,
    Prefix: prefix,
    ...(from === undefined ? {} : { KeyMarker: from.key, UploadIdMarker: from.id }),
  });
  const answer = await transport.send("list uploads below", prefix, options, (http) =>
    transport.client.send(command, http),
  );
  const puts = (answer.Uploads ?? []).flatMap(({ Key, UploadId, Initiated }) =>
    Key === undefined || UploadId === undefined || Initiated === undefined
      ? []
      : { key: Key, id: UploadId, startedAt: Initiated },
  );
  const { IsTruncated, NextKeyMarker: key, NextUploadIdMarker: id = "" } = answer;
  if (IsTruncated !== true) return { puts };
  if (key === undefined) throw transport.unclear("list uploads below", prefix, "the next page");
  return { puts, next: { key, id } };
}

async function abortUpload(
  transport: S3Transport,
  { key, id }: UnfinishedPut,
  options: CallOptions,
): Promise<void> {
  const command = new AbortMultipartUploadCommand({ ...transport.object(key), UploadId: id });
  try {
    await transport.send("abort the upload of", key, options, (http) =>
      transport.client.send(command, http),
    );
  } catch (error) {
    if (!(error instanceof ObjectNotFoundError) && !isNoSuchUpload(error)) throw error;
  }
}

function isNoSuchUpload(error: unknown): boolean {
  return error instanceof Error && error.cause instanceof Error
    ? error.cause.name === "NoSuchUpload"
    : false;
}

/** Many stores don't know the question, and many roles may not ask it. */
async function keepsVersions(
  transport: S3Transport,
  options: CallOptions,
): Promise<boolean | undefined> {
  const command = new GetBucketVersioningCommand({ Bucket: transport.bucket });
  try {
    const { Status } = await transport.send("ask for versions", "", options, (http) =>
      transport.client.send(command, http),
    );
    return Status === "Enabled";
  } catch (error) {
    if (isUntold(error)) return undefined;
    throw error;
  }
}

/** Locks need versions, and a plain delete of a version that is locked puts a mark on top of it. */
async function heldDelete(
  transport: S3Transport,
  options: CallOptions,
): Promise<HeldDelete | undefined> {
  const command = new GetObjectLockConfigurationCommand({ Bucket: transport.bucket });
  try {
    const answer = await transport.send("ask for locks", "", options, (http) =>
      transport.client.send(command, http),
    );
    if (answer.ObjectLockConfiguration?.ObjectLockEnabled === "Enabled") return "hidden";
  } catch (error) {
    if (isNotImplemented(error) || isWithoutLocks(error)) return "none";
    if (!isUntold(error)) throw error;
  }
  return (await keepsVersions(transport, options)) === false ? "none" : undefined;
}

function isWithoutLocks(error: unknown): boolean {
  const cause = error instanceof Error ? error.cause : undefined;
  return cause instanceof Error && cause.name === "ObjectLockConfigurationNotFoundError";
}

async function readHold(transport: S3Transport, key: ObjectKey, options: CallOptions) {
  const command = new HeadObjectCommand(transport.object(key));
  const answer = await foundOrNothing(() =>
    transport.send("stat", key, options, (http) => transport.client.send(command, http)),
  );
  const isLegalHold = answer?.ObjectLockLegalHoldStatus === "ON";
  return toHold(isLegalHold, answer?.ObjectLockRetainUntilDate);
}
