// Before the build: the templates of this repository, for clusters whose agents have not published what they carry.

import { readdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";

const root = path.resolve(import.meta.dirname, "../../../templates");
const found = [];
for (const entry of (await readdir(root, { withFileTypes: true })).filter((entry) => entry.isDirectory()).sort((a, b) => a.name.localeCompare(b.name))) {
  const { title, description, variables } = JSON.parse(await readFile(path.join(root, entry.name, "template.json"), "utf8"));
  found.push({ name: entry.name, title, description, variables });
}
await writeFile(path.resolve(import.meta.dirname, "../public/templates.json"), JSON.stringify(found));
