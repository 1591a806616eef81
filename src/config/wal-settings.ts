import { FormatError } from "../errors.ts";
import { defaulted, setting, type SettingType } from "./setting.ts";
import { boolean, bytes, duration, integer, text } from "./value-types.ts";

/** @source ReplicationSlotValidateName, src/backend/replication/slot.c */
const slotName: SettingType<string> = {
  ...text,
  name: "slot",
  text: "1 to 63 lower-case letters, digits and underscores",
  parse(value) {
    if (!/^[a-z0-9_]{1,63}$/.test(value)) throw new FormatError(`is not ${this.text}`);
    return value;
  },
};

/** Settings of WAL that is streamed, and of what recovery may use of it. */
export const wal = {
  slot: defaulted(
    "SLOTNAME",
    slotName,
    "Physical replication slot of wal-receive; made when it is missing.",
    { default: "walg" },
  ),
  receiveSynchronous: defaulted(
    "RECEIVE_SYNCHRONOUS",
    boolean,
    "wal-receive stores what it gets at once: with its PGAPPNAME in synchronous_standby_names, " +
      "commits wait for the store, and none is lost with the server.",
    { form: "own", default: "false" },
  ),
  receivePartialInterval: defaulted(
    "RECEIVE_PARTIAL_INTERVAL",
    duration({ minMs: 100 }),
    "How often wal-receive stores a segment that is not complete yet, when it has grown.",
    { form: "own", default: "10s" },
  ),
  receivePartialBytes: setting(
    "RECEIVE_PARTIAL_BYTES",
    bytes(1),
    "wal-receive stores a segment that is not complete also when it has grown by this much.",
    { form: "own", unit: "bytes" },
  ),
  fetchPartial: defaulted(
    "FETCH_PARTIAL",
    boolean,
    "wal-fetch gives the unfinished segment at the end of the archive, where that is safe.",
    { form: "own", default: "true" },
  ),
  fetchEndAtHole: defaulted(
    "FETCH_END_AT_HOLE",
    boolean,
    "Let recovery end, and open the database, at a segment that is missing or breaks off before " +
      "later ones, or before a timeline whose history is lost.",
    { form: "own", default: "false" },
  ),
  integrityMaxDelayedWals: defaulted(
    "INTEGRITY_MAX_DELAYED_WALS",
    integer(0),
    "wal-verify integrity: so many of the newest segments may be missing without being lost.",
    { default: "0" },
  ),
  walVerifyExitZero: defaulted(
    "WAL_VERIFY_EXIT_ZERO",
    boolean,
    "wal-verify ends with 0 on FAILURE, too, as WAL-G's does.",
    { form: "own", default: "false" },
  ),
} as const;
