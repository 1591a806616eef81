import type { BackupStop } from "../connection/backup-session.ts";
import { DatabaseError } from "../errors.ts";
import type { Hasher } from "../io/hash.ts";
import { formatLsn, type Lsn } from "../postgres/lsn.ts";
import { parseBackupLabel } from "../postgres/backup-label.ts";
import { BLOCK_BYTES } from "../tar/header.ts";
import { packTar, type TarMember, tarPaddingBytes } from "../tar/write.ts";
import { CONTROL_FILE } from "./exclusion.ts";
import type { DocumentsSpool } from "./documents-spool.ts";

/** A tar in memory that is no part of the walk. */
export interface OwnPart {
  /** Last component of its key. */
  readonly name: string;
  readonly tar: Buffer;
}

interface OwnPartOptions {
  readonly documents: DocumentsSpool;
  readonly hasher: Hasher;
  /** Of the key, without dot; "" for none. */
  readonly extension: string;
  /** Whom the data directory belongs to: for those who unpack with tar as root. */
  readonly owner: { readonly uid: number; readonly gid: number };
}

const PRIVATE_MODE = 0o600;

/** pg_control alone, so that a restore can write it last. */
export function packControl(bytes: Buffer, options: OwnPartOptions): OwnPart {
  return pack("pg_control", [{ name: `/${CONTROL_FILE}`, content: bytes }], options);
}

/**
 * backup_label and tablespace_map as the server gave them, both also when empty. Throws
 * DatabaseError when the label is not that of this backup.
 */
export function packLabel(stop: BackupStop, startLsn: Lsn, options: OwnPartOptions): OwnPart {
  const label = parseBackupLabel(stop.backupLabel);
  if (label.startLsn !== startLsn) {
    throw new DatabaseError(
      `the server ended a backup that began at ${formatLsn(label.startLsn)}, ` +
        `ours began at ${formatLsn(startLsn)}`,
    );
  }
  const files = [
    { name: "tablespace_map", content: Buffer.from(stop.tablespaceMap) },
    { name: "backup_label", content: Buffer.from(stop.backupLabel) },
  ];
  const part = pack("backup_label", files, options);
  for (const { name } of files) options.documents.addPartName(part.name, name);
  return part;
}

function pack(
  stem: string,
  files: readonly { readonly name: string; readonly content: Buffer }[],
  { documents, hasher, extension, owner }: OwnPartOptions,
): OwnPart {
  const partName = extension === "" ? `${stem}.tar` : `${stem}.tar.${extension}`;
  let offsetBytes = 0;
  for (const { name, content } of files) {
    offsetBytes += BLOCK_BYTES;
    documents.addOwnFile({
      name,
      sizeBytes: content.length,
      mode: PRIVATE_MODE,
      mtimeNs: 0n,
      hash: hasher.digestOf(content),
      part: partName,
      offsetBytes,
    });
    offsetBytes += content.length + tarPaddingBytes(content.length);
  }
  const tar = packTar(
    files.map(({ name, content }) => ({ member: memberOf(name, content, owner), content })),
  );
  return { name: partName, tar };
}

function memberOf(name: string, content: Buffer, owner: OwnPartOptions["owner"]): TarMember {
  return {
    kind: "file",
    name,
    mode: PRIVATE_MODE,
    sizeBytes: content.length,
    modifiedAtSeconds: 0,
    uid: owner.uid,
    gid: owner.gid,
  };
}
