/**
 * An S3 that accepts uploads and keeps nothing, in a process of its own, so that the memory of the
 * test's process is the uploader's. Prints its port.
 */
import { createHash } from "node:crypto";
import { once } from "node:events";
import http from "node:http";

const server = http.createServer((request, response) => {
  const hash = createHash("md5");
  request.on("data", (chunk: Uint8Array) => hash.update(chunk));
  request.on("end", () => {
    const etag = `"${hash.digest("hex")}"`;
    const isPost = request.method === "POST";
    const body = isPost ? `<Result><UploadId>u</UploadId><ETag>${etag}</ETag></Result>` : "";
    response.writeHead(200, { etag, "content-length": `${body.length}` });
    response.end(body);
  });
});
server.listen(0, "127.0.0.1");
await once(server, "listening");
const address = server.address();
if (address !== null && typeof address !== "string") process.stdout.write(`${address.port}\n`);
