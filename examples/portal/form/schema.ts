// The part of JSON Schema that a template.json may use, read into the fields of a form. No keyword is evaluated as code.

import type { Json } from "../contract/rows.ts";

export type Kind = "string" | "number" | "integer" | "boolean" | "array" | "object" | "null";

/** A schema as the agent enforces it; other keywords are for readers. */
export interface Schema {
  type?: Kind | Kind[];
  title?: string;
  description?: string;
  enum?: Json[];
  const?: Json;
  pattern?: string;
  format?: string;
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
  multipleOf?: number;
  minLength?: number;
  maxLength?: number;
  minItems?: number;
  maxItems?: number;
  uniqueItems?: boolean;
  minProperties?: number;
  maxProperties?: number;
  items?: Schema;
  properties?: { [name: string]: Schema };
  required?: string[];
  additionalProperties?: boolean | Schema;
  default?: Json;
  examples?: Json[];
  sensitive?: boolean;
  writeOnly?: boolean;
}

export type Widget = "text" | "number" | "switch" | "choice" | "list" | "map" | "group" | "json";

/** One field of the form. */
export interface Field {
  /** As in the agent's messages: `sizes[2]`, `network.cidr`. */
  path: string;
  name: string;
  title: string;
  description: string;
  widget: Widget;
  schema: Schema;
  required: boolean;
  /** Never shown while it is typed, and never prefilled from an earlier run. */
  sensitive: boolean;
  /** Of a group. */
  fields: Field[];
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

export const kinds = (schema: Schema): Kind[] =>
  schema.type === undefined ? [] : Array.isArray(schema.type) ? schema.type : [schema.type];

/** What a template's catalogue entry holds, or a sentence that explains why no form can be made of it. */
export function readSchema(json: unknown): Schema | string {
  if (json === null || json === undefined) return { type: "object", properties: {} };
  if (!isObject(json)) return "The template's variables are not described by an object.";
  if (json.properties !== undefined && !isObject(json.properties)) return "The template's `properties` are not an object.";
  for (const [name, property] of Object.entries(json.properties ?? {})) {
    if (!isObject(property)) return `The template does not describe the variable ${name}.`;
  }
  return json as Schema;
}

/** The fields of an object's schema: required ones first, otherwise in the order of the template. */
export function fields(schema: Schema, parent = ""): Field[] {
  const required = new Set(schema.required ?? []);
  const all = Object.entries(schema.properties ?? {}).map(([name, property]): Field => {
    const path = parent === "" ? name : `${parent}.${name}`;
    const widget = widgetOf(property);
    return {
      path, name, widget,
      title: property.title ?? name,
      description: property.description ?? "",
      schema: property,
      required: required.has(name),
      sensitive: property.sensitive === true || property.writeOnly === true,
      fields: widget === "group" ? fields(property, path) : [],
    };
  });
  return [...all.filter((field) => field.required), ...all.filter((field) => !field.required)];
}

const scalar = (schema: Schema | undefined): boolean =>
  schema !== undefined && kinds(schema).every((kind) => ["string", "number", "integer"].includes(kind)) && kinds(schema).length > 0;

function widgetOf(schema: Schema): Widget {
  const wanted = kinds(schema).filter((kind) => kind !== "null");
  if (schema.enum && schema.enum.every((choice) => typeof choice !== "object" || choice === null)) return "choice";
  if (wanted.length !== 1) return "json";
  switch (wanted[0]) {
    case "string":
      return "text";
    case "number":
    case "integer":
      return "number";
    case "boolean":
      return "switch";
    case "array":
      return scalar(schema.items) ? "list" : "json";
    case "object":
      if (schema.properties && Object.keys(schema.properties).length > 0) return "group";
      if (isObject(schema.additionalProperties) && scalar(schema.additionalProperties as Schema)) return "map";
      return "json";
    default:
      return "json";
  }
}
