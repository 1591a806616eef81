import { defaulted, setting } from "./setting.ts";
import { choice, integer, path, secretJson } from "./value-types.ts";

const OWN = { form: "own" } as const;

/** Stores that get a copy of every object. */
export const mirror = {
  stores: setting(
    "MIRROR",
    secretJson,
    "Stores that get every object as well: of each its name and an object of its settings, as for " +
      "the fail-over storages.",
    OWN,
  ),
  policy: defaulted(
    "MIRROR_POLICY",
    choice(["primary", "all"]),
    "What has to have an object before it counts as stored: all stores, or the first one and a note " +
      "on the local disk from which the mirrors are caught up.",
    { ...OWN, default: "primary" },
  ),
  queueDirectory: setting(
    "MIRROR_QUEUE_DIRECTORY",
    path,
    "Where the notes are of what the mirrors lack: it must survive a restart of the machine. " +
      "~/.local/state/walnut/mirror unless set.",
    OWN,
  ),
  queueMax: defaulted(
    "MIRROR_QUEUE_MAX",
    integer(1, 1_000_000),
    "Notes of puts that may wait for one mirror, about 4 KiB each. More become one note to compare " +
      "everything.",
    { ...OWN, default: "20000" },
  ),
} as const;
