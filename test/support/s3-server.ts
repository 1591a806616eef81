import { constants } from "node:fs";
import { access, chmod, copyFile, mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startChildServer } from "./child-server.ts";
import type { ChildServer } from "./child-server.ts";
import { freePort } from "./postgres-programs.ts";
import { chownTree, serverUser } from "./server-user.ts";

/**
 * Real S3 servers. `swift` is Debian's OpenStack Swift (2.30: refuses If-None-Match, wants
 * Content-MD5, so it stands for old and strict providers), `moto` is PyPI's emulation of AWS (all
 * headers, atomic create; checks no hashes and no signatures), `versitygw` a gateway to a directory
 * (strict signatures and checksums, atomic create), `rclone` its `serve s3` over a directory.
 * scripts/test-servers.sh installs the first two, `npm run test:interop` the others; `minio` and
 * `rclone` start for that only.
 */
export type S3ServerKind = "swift" | "moto" | "versitygw" | "minio" | "rclone";

export interface S3Server extends AsyncDisposable {
  readonly kind: S3ServerKind;
  /** "http://127.0.0.1:40123"; path style, region us-east-1. */
  readonly endpoint: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** Exists and is empty. */
  readonly bucket: string;
  stop(): Promise<void>;
}

interface Launched {
  readonly child: ChildServer;
  readonly port: number;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

interface Program {
  /** All must be there; absolute paths. */
  readonly needs: readonly string[];
  /** `directory` is an empty one, for this server alone, and made away with afterwards. */
  launch(directory: string): Promise<Launched>;
}

const CACHE = join(import.meta.dirname, "..", "..", ".cache");
const BUCKET = "walnut-test";
const SWIFT_SCRIPT = join(import.meta.dirname, "swift-server.py");

const PROGRAMS: Readonly<Record<S3ServerKind, Program>> = {
  swift: {
    needs: ["/usr/bin/python3", "/usr/lib/python3/dist-packages/swift/__init__.py"],
    async launch(directory) {
      const script = join(directory, "server.py");
      const data = join(directory, "data");
      await copyFile(SWIFT_SCRIPT, script);
      await mkdir(data);
      const user = serverUser();
      await chownTree(directory, user);
      const child = startChildServer("/usr/bin/python3", ["-B", script, data], {
        cwd: directory,
        user,
      });
      const port = Number(await child.firstLine());
      return { child, port, accessKeyId: "test:tester", secretAccessKey: "testing" };
    },
  },
  moto: {
    // The list of packages is copied there once all are installed.
    needs: [join(CACHE, "moto", "bin", "moto_server"), join(CACHE, "moto", "requirements.txt")],
    async launch(directory) {
      const port = await freePort();
      const words = ["-H", "127.0.0.1", "-p", `${port}`];
      const child = startChildServer(join(CACHE, "moto", "bin", "moto_server"), words, {
        cwd: directory,
      });
      await child.listening(port);
      return { child, port, accessKeyId: "any", secretAccessKey: "any" };
    },
  },
  versitygw: {
    needs: [join(CACHE, "bin", "versitygw")],
    async launch(directory) {
      const port = await freePort();
      const words = ["--port", `127.0.0.1:${port}`, "--quiet", "posix", directory];
      const accessKeyId = "versity-key";
      const secretAccessKey = "versity-secret";
      const child = startChildServer(join(CACHE, "bin", "versitygw"), words, {
        cwd: directory,
        env: { ROOT_ACCESS_KEY: accessKeyId, ROOT_SECRET_KEY: secretAccessKey },
      });
      await child.listening(port);
      return { child, port, accessKeyId, secretAccessKey };
    },
  },
  minio: {
    needs: [join(CACHE, "bin", "minio")],
    async launch(directory) {
      const port = await freePort();
      const words = ["server", "--quiet", "--address", `127.0.0.1:${port}`, directory];
      const accessKeyId = "minio-key";
      const secretAccessKey = "minio-secret";
      const child = startChildServer(join(CACHE, "bin", "minio"), words, {
        cwd: directory,
        env: {
          MINIO_ROOT_USER: accessKeyId,
          MINIO_ROOT_PASSWORD: secretAccessKey,
          MINIO_BROWSER: "off",
          // Else it refuses the disk of the system.
          MINIO_CI_CD: "1",
        },
      });
      await child.listening(port);
      return { child, port, accessKeyId, secretAccessKey };
    },
  },
  rclone: {
    needs: [join(CACHE, "bin", "rclone")],
    async launch(directory) {
      const port = await freePort();
      const accessKeyId = "rclone-key";
      const secretAccessKey = "rclone-secret";
      const listening = ["--addr", `127.0.0.1:${port}`];
      const words = ["serve", "s3", "--config=/dev/null", ...listening, directory];
      const child = startChildServer(join(CACHE, "bin", "rclone"), words, {
        cwd: directory,
        env: { RCLONE_AUTH_KEY: `"${accessKeyId},${secretAccessKey}"` },
      });
      await child.listening(port);
      return { child, port, accessKeyId, secretAccessKey };
    },
  },
};

export const S3_SERVER_KINDS: readonly S3ServerKind[] = ["swift", "moto", "versitygw"];
const INTEROP_KINDS: readonly S3ServerKind[] = [...S3_SERVER_KINDS, "minio", "rclone"];

/** Whether this is a run of `npm run test:interop`, which starts all servers that it can have. */
export const isInterop = process.env["WALNUT_INTEROP"] === "1";

/** Which of them this machine has. */
export async function availableS3Servers(): Promise<S3ServerKind[]> {
  const found: S3ServerKind[] = [];
  for (const kind of isInterop ? INTEROP_KINDS : S3_SERVER_KINDS) {
    const checks = PROGRAMS[kind].needs.map((path) => isReadable(path));
    if ((await Promise.all(checks)).every(Boolean)) found.push(kind);
  }
  return found;
}

/** Starts one on 127.0.0.1, with an empty bucket; all it stored is gone after `stop`. */
export async function startS3Server(kind: S3ServerKind): Promise<S3Server> {
  const directory = await mkdtemp(join(tmpdir(), `walnut-${kind}-`));
  await chmod(directory, 0o755);
  const remove = () => rm(directory, { recursive: true, force: true });
  try {
    const { child, port, ...credentials } = await PROGRAMS[kind].launch(directory);
    const stop = async () => {
      await child.stop();
      await remove();
    };
    const endpoint = `http://127.0.0.1:${port}`;
    const server = { kind, endpoint, bucket: BUCKET, ...credentials };
    try {
      await makeBucket(server);
    } catch (error) {
      await stop();
      throw error;
    }
    return { ...server, stop, [Symbol.asyncDispose]: stop };
  } catch (error) {
    await remove();
    throw error;
  }
}

async function makeBucket(server: Omit<S3Server, "stop" | typeof Symbol.asyncDispose>) {
  const { CreateBucketCommand, S3Client } = await import("@aws-sdk/client-s3");
  const { endpoint, accessKeyId, secretAccessKey, bucket } = server;
  const client = new S3Client({
    endpoint,
    region: "us-east-1",
    forcePathStyle: true,
    credentials: { accessKeyId, secretAccessKey },
  });
  try {
    await client.send(new CreateBucketCommand({ Bucket: bucket }));
  } finally {
    client.destroy();
  }
}

async function isReadable(path: string): Promise<boolean> {
  try {
    await access(path, constants.R_OK);
    return true;
  } catch {
    return false;
  }
}
