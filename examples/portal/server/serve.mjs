// Serves the built portal with its headers, for development, the demo and the tests. A static host does the same.
//
//   SUPABASE_URL=… SUPABASE_PUBLISHABLE_KEY=… node server/serve.mjs out [port]

import { createServer } from "node:http";
import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import path from "node:path";
import { FIXED, policy } from "./policy.mjs";

const TYPES = {
  ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".json": "application/json",
  ".txt": "text/plain; charset=utf-8", ".svg": "image/svg+xml", ".ico": "image/x-icon", ".woff2": "font/woff2", ".png": "image/png",
};

/** Starts to serve; resolves with the address. */
export async function serve({ dir, port = 0, supabaseUrl, publishableKey }) {
  const root = path.resolve(dir);
  const hashes = JSON.parse(await readFile(path.join(root, "policy.json"), "utf8"));
  const config = JSON.stringify({ supabaseUrl, publishableKey });

  const answer = async (request, response) => {
    if (request.method !== "GET" && request.method !== "HEAD") {
      response.writeHead(405, { Allow: "GET, HEAD" }).end();
      return;
    }
    let wanted;
    try {
      wanted = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    } catch {
      response.writeHead(400).end();
      return;
    }
    if (wanted === "/config.json") {
      response.writeHead(200, { ...FIXED, "Content-Type": TYPES[".json"], "Cache-Control": "no-store" }).end(config);
      return;
    }
    const found = await lookUp(root, wanted);
    if (found.redirect) {
      response.writeHead(308, { Location: found.redirect }).end();
      return;
    }
    const page = path.relative(root, found.file).split(path.sep).join("/");
    const headers = {
      ...FIXED,
      "Content-Type": TYPES[path.extname(found.file)] ?? "application/octet-stream",
      // Names below _next/static change with their content.
      "Cache-Control": wanted.startsWith("/_next/static/") ? "public, max-age=31536000, immutable" : "no-cache",
    };
    if (page in hashes) headers["Content-Security-Policy"] = policy(hashes[page], supabaseUrl);
    response.writeHead(found.status, headers);
    if (request.method === "HEAD") response.end();
    else createReadStream(found.file).on("error", () => response.destroy()).pipe(response);
  };
  const server = createServer((request, response) => {
    answer(request, response).catch(() => response.destroy());
  });
  await new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", resolve);
  });
  return { url: `http://127.0.0.1:${server.address().port}`, close: () => new Promise((resolve) => { server.closeAllConnections(); server.close(resolve); }) };
}

async function lookUp(root, wanted) {
  const missing = { status: 404, file: path.join(root, "404.html") };
  const file = path.join(root, path.normalize(wanted));
  // Nothing above the folder, and none of the files that are for the server.
  if ((file !== root && !file.startsWith(root + path.sep)) || wanted.includes("\0") || ["/policy.json", "/_headers"].includes(wanted)) return missing;
  const kind = await stat(file).catch(() => null);
  if (kind?.isFile()) return { status: 200, file };
  if (!kind?.isDirectory()) return missing;
  if (!wanted.endsWith("/")) return { redirect: `${wanted}/` };
  const index = path.join(file, "index.html");
  return (await stat(index).catch(() => null))?.isFile() ? { status: 200, file: index } : missing;
}

if (process.argv[1] === import.meta.filename) {
  const { SUPABASE_URL: supabaseUrl, SUPABASE_PUBLISHABLE_KEY: publishableKey } = process.env;
  if (!supabaseUrl || !publishableKey) {
    console.error("serve: set SUPABASE_URL and SUPABASE_PUBLISHABLE_KEY (or run `make portal`, which starts a local stack too)");
    process.exit(2);
  }
  const { url, close } = await serve({ dir: process.argv[2] ?? "out", port: Number(process.argv[3] ?? 3000), supabaseUrl, publishableKey }).catch((error) => {
    console.error(`serve: ${error.message}`);
    process.exit(1);
  });
  console.log(url);
  for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => void close().then(() => process.exit(0)));
}
