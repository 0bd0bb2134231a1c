// What a person has typed, and the values that it means.

import type { Json } from "../contract/rows.ts";
import { faults, type Fault } from "./rule.ts";
import { kinds, type Field, type Schema } from "./schema.ts";

/** Text, number, choice and JSON are typed as text; a switch is on, off or not set; a list has a text per item. */
export type Draft = string | boolean | null | string[] | [string, string][] | Drafts;
export interface Drafts {
  [name: string]: Draft;
}

const show = (value: Json): string => (typeof value === "string" ? value : JSON.stringify(value));

/** How a field looks before anybody types: its default, or what an earlier run had. A secret is never prefilled. */
export function draftOf(field: Field, value: Json | undefined): Draft {
  const given = field.sensitive ? undefined : value ?? field.schema.default;
  switch (field.widget) {
    case "switch":
      return typeof given === "boolean" ? given : null;
    case "list":
      return Array.isArray(given) ? given.map(show) : [];
    case "map":
      return isMap(given) ? Object.entries(given).map(([name, item]): [string, string] => [name, show(item)]) : [];
    case "group":
      return draftsOf(field.fields, isMap(given) ? given : {});
    case "json":
      return given === undefined ? "" : JSON.stringify(given, null, 2);
    default:
      return given === undefined || given === null ? "" : show(given);
  }
}

const isMap = (value: Json | undefined): value is { [name: string]: Json } =>
  typeof value === "object" && value !== null && !Array.isArray(value);

export function draftsOf(fields: Field[], values: { [name: string]: Json }): Drafts {
  return Object.fromEntries(fields.map((field) => [field.name, draftOf(field, values[field.name])]));
}

export interface Reading {
  values: { [name: string]: Json };
  faults: Fault[];
}

/** The values of a form, and all that is wrong with it. An optional field that is empty is left out. */
export function read(fields: Field[], drafts: Drafts): Reading {
  const values: { [name: string]: Json } = {};
  const found: Fault[] = [];
  for (const field of fields) {
    const result = readField(field, drafts[field.name] ?? null);
    if ("fault" in result) {
      found.push({ path: field.path, message: result.fault });
    } else if (result.value === undefined) {
      if (field.required) found.push({ path: field.path, message: "Is required." });
    } else {
      values[field.name] = result.value;
      found.push(...(result.faults ?? faults(field.schema, result.value, field.path)));
    }
  }
  return { values, faults: found };
}

type Result = { value: Json | undefined; faults?: Fault[] } | { fault: string };

function readField(field: Field, draft: Draft): Result {
  switch (field.widget) {
    case "switch":
      return { value: typeof draft === "boolean" ? draft : undefined };
    case "choice": {
      const found = field.schema.enum?.find((choice) => show(choice) === draft);
      return { value: draft === "" || draft === null ? undefined : found ?? String(draft) };
    }
    case "number":
      return readNumber(String(draft ?? ""));
    case "list":
      return readList(field, Array.isArray(draft) ? (draft as string[]) : []);
    case "map":
      return readMap(field, Array.isArray(draft) ? (draft as [string, string][]) : []);
    case "group": {
      const inner = read(field.fields, isDrafts(draft) ? draft : {});
      const empty = Object.keys(inner.values).length === 0;
      return empty && !field.required && onlyMissing(inner.faults) ? { value: undefined } : { value: inner.values, faults: inner.faults };
    }
    case "json":
      return readJson(String(draft ?? ""));
    default:
      return { value: draft === "" || draft === null ? undefined : String(draft) };
  }
}

const isDrafts = (draft: Draft): draft is Drafts => typeof draft === "object" && draft !== null && !Array.isArray(draft);
const onlyMissing = (found: Fault[]): boolean => found.every((fault) => fault.message === "Is required.");

function readNumber(text: string): Result {
  const trimmed = text.trim();
  if (trimmed === "") return { value: undefined };
  const value = Number(trimmed);
  // Beyond this a browser rounds, and what is deployed is not what was typed.
  if (Number.isInteger(value) && !Number.isSafeInteger(value)) return { fault: "Has more digits than a browser can store." };
  return /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(trimmed) && Number.isFinite(value) ? { value } : { fault: "Must be a number." };
}

/** An item of a list or a map, in the type of its schema. */
function item(schema: Schema | undefined, text: string): Json {
  const allowed = schema ? kinds(schema) : [];
  if (allowed.includes("string") || allowed.length === 0) return text;
  const result = readNumber(text);
  return "value" in result && result.value !== undefined ? result.value : text;
}

function readList(field: Field, texts: string[]): Result {
  const items = texts.map((text) => text.trim()).filter((text) => text !== "");
  return { value: items.length === 0 && !field.required ? emptyOr(field, []) : items.map((text) => item(field.schema.items, text)) };
}

/** Nothing typed means the template's default, unless that is not empty: then nothing is what was entered. */
const emptyOr = (field: Field, empty: Json): Json | undefined => {
  const standard = field.schema.default;
  return standard !== undefined && JSON.stringify(standard) !== JSON.stringify(empty) ? empty : undefined;
};

function readMap(field: Field, pairs: [string, string][]): Result {
  const values: { [name: string]: Json } = {};
  const schema = typeof field.schema.additionalProperties === "object" ? field.schema.additionalProperties : undefined;
  for (const [name, text] of pairs) {
    if (name.trim() === "" && text === "") continue;
    if (name.trim() === "") return { fault: "A value has no name." };
    if (Object.hasOwn(values, name.trim())) return { fault: `${name.trim()} is there twice.` };
    values[name.trim()] = item(schema, text);
  }
  return { value: Object.keys(values).length === 0 && !field.required ? emptyOr(field, {}) : values };
}

function readJson(text: string): Result {
  if (text.trim() === "") return { value: undefined };
  try {
    return { value: JSON.parse(text) as Json };
  } catch {
    return { fault: "Must be JSON, such as [\"a\", \"b\"] or {\"name\": \"value\"}." };
  }
}

export const STACK_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;

/** What is wrong with the name of a stack. */
export const stackFault = (name: string): string | null =>
  STACK_NAME.test(name) ? null : "A stack's name has 1 to 63 letters, digits, dots, hyphens and underscores, and begins with a letter or a digit.";

/** What is wrong with a repository as a source. */
export function sourceFaults(source: { git: string; ref: string; path: string }): Fault[] {
  const found: Fault[] = [];
  if (!/^(https:\/\/|http:\/\/(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?\/)[^?#\s]+$/.test(source.git)) {
    found.push({ path: "source.git", message: "Must be an https:// address of a repository, without a query." });
  } else if (/^https?:\/\/[^/]*@/.test(source.git)) {
    found.push({ path: "source.git", message: "Must not contain credentials: the agent has its own." });
  }
  if (source.ref !== "" && !/^[A-Za-z0-9][A-Za-z0-9._/-]{0,254}$/.test(source.ref)) {
    found.push({ path: "source.ref", message: "Must be a branch, a tag or a full commit." });
  }
  if (/^\//.test(source.path) || /(^|\/)\.\.(\/|$)/.test(source.path)) {
    found.push({ path: "source.path", message: "Must be a folder inside the repository, without a leading slash and without ..." });
  }
  return found;
}
