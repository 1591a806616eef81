/** Whatever rclone reaches: a path on one of its remotes. */
export interface RcloneConfig {
  readonly kind: "rclone";
  /** As rclone writes it: "remote:path". */
  readonly remote: string;
  /** Absent = where rclone looks by itself. */
  readonly configFile?: string;
  /** The content of a config file, in place of one. */
  readonly configText?: string;
  /** The program; found by PATH unless it is a path. */
  readonly program: string;
}
