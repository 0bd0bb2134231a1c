"use client";
// What can be deployed on a cluster: what its agents published, or else the templates that came with this portal.

import { useEffect, useState } from "react";
import type { Json } from "../contract/rows.ts";
import * as spec from "./spec.ts";
import { useWatch } from "./use.ts";

export interface Template {
  name: string;
  title: string;
  description: string;
  variables: Json;
}

export interface Catalogue {
  templates: Template[] | null;
  /** Whether the cluster's agents published it. */
  published: boolean;
}

export function useCatalogue(cluster: string | null): Catalogue {
    const stored = useWatch(cluster ? spec.templates(cluster) : null, `templates-${cluster}`);
  const [bundled, setBundled] = useState<Template[] | null>(null);
  useEffect(() => {
    fetch("/templates.json").then((answer) => (answer.ok ? (answer.json() as Promise<Template[]>) : []), () => []).then(setBundled, () => setBundled([]));
  }, []);
  if (cluster !== null && stored.rows === null && !stored.error) return { templates: null, published: false };
  if (stored.rows && stored.rows.length > 0) {
    const templates = stored.rows.map((row) => ({ name: row.name, title: row.title ?? row.name, description: row.description ?? "", variables: row.variables }));
    return { templates, published: true };
  }
  return { templates: bundled, published: false };
}
