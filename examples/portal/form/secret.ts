// Values that a page does not show again.

import type { Json } from "../contract/rows.ts";
import type { Schema } from "./schema.ts";

/** Stands for a secret; no value that a person types, as it has a control character. */
export const MASK = "\u0000secret";

const NAME = /(password|passwd|secret|token|api_?key|private_?key|credential)/i;

/** Variables without those that the template calls sensitive; where the template is not known, by their names. */
export function hideSecrets(values: { [name: string]: Json }, schema: Schema | null): { [name: string]: Json } {
  return Object.fromEntries(
    Object.entries(values).map(([name, value]): [string, Json] => {
      const property = schema?.properties?.[name];
      if (property ? property.sensitive === true || property.writeOnly === true : NAME.test(name)) return [name, MASK];
      const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
      return [name, isObject ? hideSecrets(value, property ?? null) : value];
    }),
  );
}
