// After the build: a Content-Security-Policy for each page, with the hashes of its inline scripts, and the templates that come along.
//
//   node server/policy.mjs out
//
// Writes out/policy.json for server/serve.mjs, and out/_headers for hosts that read that (Netlify, Cloudflare Pages).

import { createHash } from "node:crypto";
import { readdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";

const out = path.resolve(process.argv[2] ?? "out");

/** Headers that each answer carries. */
export const FIXED = {
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
  "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=()",
  "Cross-Origin-Opener-Policy": "same-origin",
};

/** `api` is the Supabase project: the only other origin that a page may reach. */
export function policy(hashes, api) {
  const origin = new URL(api).origin;
  return [
    "default-src 'none'",
    `script-src 'self' ${hashes.map((hash) => `'sha256-${hash}'`).join(" ")}`.trimEnd(),
    "style-src 'self'",
    "img-src 'self' data:",
    "font-src 'self'",
    `connect-src 'self' ${origin} ${origin.replace(/^http/, "ws")}`,
    "manifest-src 'self'",
    "base-uri 'none'",
    "form-action 'self'",
    "frame-ancestors 'none'",
  ].join("; ");
}

async function pages(dir, base = "") {
  const found = [];
  for (const entry of await readdir(path.join(dir, base), { withFileTypes: true })) {
    const name = path.posix.join(base, entry.name);
    if (entry.isDirectory()) found.push(...(await pages(dir, name)));
    else if (entry.name.endsWith(".html")) found.push(name);
  }
  return found;
}

if (process.argv[1] && import.meta.url.endsWith(path.basename(process.argv[1]))) {
  const hashes = {};
  for (const page of await pages(out)) {
    const html = await readFile(path.join(out, page), "utf8");
    const inline = [...html.matchAll(/<script(?![^>]*\ssrc=)[^>]*>([\s\S]*?)<\/script>/g)].map((match) => match[1]);
    if (/<[^>]+\sstyle="/.test(html) || /<style[\s>]/.test(html)) throw new Error(`${page} has an inline style, which the policy forbids`);
    hashes[page] = [...new Set(inline.map((script) => createHash("sha256").update(script).digest("base64")))];
  }
  await writeFile(path.join(out, "policy.json"), `${JSON.stringify(hashes, null, 1)}\n`);
  const address = (page) => `/${page.replace(/index\.html$/, "")}`;
  const api = process.env.SUPABASE_URL ?? "https://YOUR-PROJECT.supabase.co";
  const lines = Object.entries(hashes).flatMap(([page, own]) => [
    address(page), `  Content-Security-Policy: ${policy(own, api)}`,
    ...Object.entries(FIXED).map(([name, value]) => `  ${name}: ${value}`),
  ]);
  await writeFile(path.join(out, "_headers"), `${lines.join("\n")}\n`);
  console.log(`policy: ${Object.keys(hashes).length} pages`);
}
