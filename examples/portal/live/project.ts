// Which Supabase project this portal belongs to. It is read when the page starts, so one build serves any project.

import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import type { Project } from "../contract/install.ts";

export async function loadProject(): Promise<Project> {
  const response = await fetch("/config.json", { cache: "no-store" });
  if (!response.ok) throw new Error(`/config.json answers ${response.status}`);
  const { supabaseUrl, publishableKey } = (await response.json()) as { supabaseUrl?: string; publishableKey?: string };
  if (!supabaseUrl || !publishableKey) throw new Error("/config.json must have supabaseUrl and publishableKey");
  return { url: supabaseUrl.replace(/\/+$/, ""), key: publishableKey };
}

export const connect = (project: Project): SupabaseClient =>
  createClient(project.url, project.key, {
    auth: { persistSession: true, autoRefreshToken: true, detectSessionInUrl: true, storageKey: "tendril-session" },
    // A worker sends the heartbeat where the browser slows hidden tabs down; the policy allows no blob: worker.
    realtime: { heartbeatIntervalMs: 15_000, timeout: 10_000 },
  });
