// The rules of a schema, with the sentences of the agent. A value is never repeated in them: it may be a secret.

import type { Json } from "../contract/rows.ts";
import { formatFault } from "./format.ts";
import { kinds, type Kind, type Schema } from "./schema.ts";

/** What is wrong, and where. */
export interface Fault {
  path: string;
  message: string;
}

const ARTICLE: Record<Kind, string> = {
  string: "a text", number: "a number", integer: "a whole number", boolean: "true or false", array: "a list", object: "an object", null: "null",
};

const fits = (kind: Kind, value: Json): boolean => {
  switch (kind) {
    case "string": return typeof value === "string";
    case "number": return typeof value === "number";
    case "integer": return typeof value === "number" && Number.isInteger(value);
    case "boolean": return typeof value === "boolean";
    case "array": return Array.isArray(value);
    case "object": return typeof value === "object" && value !== null && !Array.isArray(value);
    case "null": return value === null;
  }
};

const same = (a: Json, b: Json): boolean => JSON.stringify(a) === JSON.stringify(b);

/** Everything that is wrong with a value. */
export function faults(schema: Schema, value: Json, path: string): Fault[] {
  const allowed = kinds(schema);
  const wrong = (message: string): Fault[] => [{ path, message }];
  if (allowed.length > 0 && !allowed.some((kind) => fits(kind, value))) {
    return wrong(`Must be ${allowed.map((kind) => ARTICLE[kind] ?? kind).join(" or ")}.`);
  }
  if (schema.const !== undefined && !same(schema.const, value)) return wrong(`Must be ${JSON.stringify(schema.const)}.`);
  if (schema.enum && !schema.enum.some((choice) => same(choice, value))) {
    return wrong(`Must be one of ${schema.enum.map((choice) => JSON.stringify(choice)).join(", ")}.`);
  }
  if (typeof value === "string") return text(schema, value).flatMap(wrong);
  if (typeof value === "number") return number(schema, value).flatMap(wrong);
  if (Array.isArray(value)) {
    const found = count(value.length, schema.minItems, schema.maxItems, "item").flatMap(wrong);
    if (schema.uniqueItems && new Set(value.map((item) => JSON.stringify(item))).size < value.length) found.push({ path, message: "Must not have the same item twice." });
    const items = schema.items;
    return items ? found.concat(value.flatMap((item, i) => faults(items, item, `${path}[${i}]`))) : found;
  }
  if (typeof value === "object" && value !== null) return object(schema, value, path);
  return [];
}

function object(schema: Schema, value: { [name: string]: Json }, path: string): Fault[] {
  const at = (name: string): string => (path === "" ? name : `${path}.${name}`);
  const found: Fault[] = count(Object.keys(value).length, schema.minProperties, schema.maxProperties, "entry").map((message) => ({ path, message }));
  for (const name of schema.required ?? []) {
    if (!Object.hasOwn(value, name)) found.push({ path: at(name), message: "Is required." });
  }
  const properties = schema.properties ?? {};
  const additional = schema.additionalProperties;
  for (const [name, item] of Object.entries(value)) {
    const property = Object.hasOwn(properties, name) ? properties[name] : undefined;
    if (property) {
      found.push(...faults(property, item, at(name)));
    } else if (typeof additional === "object") {
      found.push(...faults(additional, item, at(name)));
    } else if (additional === true || (additional === undefined && path !== "" && Object.keys(properties).length === 0)) {
      // A nested object that declares no properties may hold any names.
    } else {
      found.push({ path: at(name), message: "Is not a variable of this template." });
    }
  }
  return found;
}

function text(schema: Schema, value: string): string[] {
  const found = count([...value].length, schema.minLength, schema.maxLength, "character");
  const format = formatFault(schema.format, value);
  if (format) found.push(format);
  if (schema.pattern !== undefined) {
    const pattern = compile(schema.pattern);
    if (pattern && !pattern.test(value)) found.push(`Must match ${schema.pattern}`);
  }
  return found;
}

/** A pattern that JavaScript cannot read is left to the agent. */
function compile(pattern: string): RegExp | null {
  for (const flags of ["u", ""]) {
    try {
      return new RegExp(pattern, flags);
    } catch {
      // The next spelling.
    }
  }
  return null;
}

function number(schema: Schema, value: number): string[] {
  const { minimum, maximum } = schema;
  if (minimum !== undefined && maximum !== undefined && (value < minimum || value > maximum)) return [`Must be from ${minimum} to ${maximum}.`];
  if (minimum !== undefined && value < minimum) return [`Must be at least ${minimum}.`];
  if (maximum !== undefined && value > maximum) return [`Must be at most ${maximum}.`];
  if (schema.exclusiveMinimum !== undefined && value <= schema.exclusiveMinimum) return [`Must be more than ${schema.exclusiveMinimum}.`];
  if (schema.exclusiveMaximum !== undefined && value >= schema.exclusiveMaximum) return [`Must be less than ${schema.exclusiveMaximum}.`];
  if (schema.multipleOf !== undefined && !isMultiple(value, schema.multipleOf)) return [`Must be a multiple of ${schema.multipleOf}.`];
  return [];
}

/** An approximation: the agent counts in decimals, and decides. */
const isMultiple = (value: number, of: number): boolean => {
  const times = value / of;
  return Math.abs(times - Math.round(times)) <= 1e-9 * Math.max(1, Math.abs(times));
};

function count(n: number, least: number | undefined, most: number | undefined, unit: string): string[] {
  const units = (m: number): string => `${m} ${m === 1 ? unit : unit.endsWith("y") ? `${unit.slice(0, -1)}ies` : `${unit}s`}`;
  if (least !== undefined && n < least) return [`Must have at least ${units(least)}.`];
  if (most !== undefined && n > most) return [`Must have at most ${units(most)}; it has ${n}.`];
  return [];
}
