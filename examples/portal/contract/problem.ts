// Errors of the database, the network and the sign-in, as sentences for people: what happened, and what to do.

export type ProblemKind =
  | "offline" | "session" | "refused" | "not-found" | "too-late" | "revoked" | "invalid" | "busy" | "server";

export interface Problem {
  kind: ProblemKind;
  /** What happened. */
  title: string;
  /** What to do. */
  advice: string;
  /** Whether the same request may work later. */
  retry: boolean;
  code?: string;
}

/** What PostgREST and Auth answer, as supabase-js passes it on. */
export interface ServerError {
  code?: string | null;
  message?: string | null;
  details?: string | null;
  hint?: string | null;
  status?: number;
  name?: string;
}

const sentence = (text: string): string => {
  const trimmed = text.trim();
  if (trimmed === "") return "";
  const first = trimmed[0]!.toUpperCase() + trimmed.slice(1);
  return /[.!?…]$/.test(first) ? first : `${first}.`;
};

const CONSTRAINTS: Record<string, string> = {
  clusters_name_length: "A cluster's name has 1 to 100 characters.",
  config_snapshot_names_a_template_or_source: "Choose a template, or a repository.",
  config_snapshot_action_known: "The action is plan, apply or destroy.",
  config_snapshot_variables_are_an_object: "The variables are an object of names and values.",
  config_snapshot_at_most_256_kib: "The values take more than 256 KiB together. Shorten them.",
  config_snapshot_approval_is_a_boolean: "Approval is either on or off.",
};

/** What an error means. `what` names the thing that was requested, such as "this deployment". */
export function problem(error: ServerError | null | undefined, what = "this"): Problem {
  const code = error?.code ?? "";
  const message = error?.message ?? "";
  const hint = error?.hint ? sentence(error.hint) : "";
  if (isNetwork(error)) {
    return { kind: "offline", title: "The server cannot be reached.", advice: "Check your connection. This page tries again by itself.", retry: true };
  }
  if (isSession(error)) {
    return { kind: "session", title: "Your session has ended.", advice: "Sign in again; you will come back to this page.", retry: false, code };
  }
  switch (code) {
    case "TD001":
      return { kind: "too-late", title: "The agent's claim on this deployment is over.", advice: "Read the deployment again.", retry: false, code };
    case "TD002":
      return { kind: "too-late", title: sentence(message), advice: hint || "The deployment has moved on meanwhile. Check its status.", retry: false, code };
    case "TD004":
      return { kind: "revoked", title: "This cluster was revoked.", advice: "Revocation is final. Add a new cluster and run the deployment there.", retry: false, code };
    case "TD005":
      return { kind: "too-late", title: "This plan does not wait for approval any more.", advice: "Another person decided, or there is a new plan. The page shows the current state.", retry: false, code };
    case "TD006":
    case "TD008":
      return { kind: "not-found", title: `There is no such ${what.replace(/^this /, "")} of yours.`, advice: "The link may be wrong, or it belongs to another account.", retry: false, code };
    case "TD007":
    case "TD010":
      return { kind: "invalid", title: sentence(message), advice: hint, retry: false, code };
    case "PGRST116":
    case "22P02":
      return { kind: "not-found", title: `There is no such ${what.replace(/^this /, "")}.`, advice: "The link may be wrong, it may be deleted, or it belongs to another account.", retry: false, code };
    case "23514": {
      const name = /constraint "([^"]+)"/.exec(message)?.[1] ?? "";
      return { kind: "invalid", title: CONSTRAINTS[name] ?? "The database refused a value.", advice: CONSTRAINTS[name] ? "Correct it and send it again." : sentence(message), retry: false, code };
    }
    case "23505":
      return { kind: "invalid", title: "That exists already.", advice: "Choose another name.", retry: false, code };
    case "42501":
      return { kind: "refused", title: `You may not do that with ${what}.`, advice: "It belongs to another account, or its cluster was revoked.", retry: false, code };
    case "42P01":
    case "PGRST205":
    case "PGRST202":
    case "42703":
      return { kind: "server", title: "The database is older than this portal.", advice: "Apply the project's migrations, then reload.", retry: false, code };
    case "invalid_credentials":
      return { kind: "invalid", title: "The address or the password is wrong.", advice: "Try again, or create an account.", retry: false, code };
    case "user_already_exists":
    case "email_exists":
      return { kind: "invalid", title: "There is an account with this address.", advice: "Sign in instead.", retry: false, code };
    case "weak_password":
      return { kind: "invalid", title: sentence(message), advice: "Choose a longer password.", retry: false, code };
    case "validation_failed":
    case "email_address_invalid":
      return { kind: "invalid", title: sentence(message), advice: "Correct it and send it again.", retry: false, code };
    case "over_request_rate_limit":
    case "over_email_send_rate_limit":
      return { kind: "busy", title: "That was tried too often.", advice: "Wait a minute, then try again.", retry: true, code };
  }
  if (error?.status === 429) {
    return { kind: "busy", title: "That was tried too often.", advice: "Wait a minute, then try again.", retry: true };
  }
  const title = message ? sentence(message) : "The server answered with an error.";
  return { kind: "server", title, advice: hint || "Try again in a moment.", retry: true, ...(code ? { code } : {}) };
}

function isNetwork(error: ServerError | null | undefined): boolean {
  if (!error) return false;
  const text = `${error.name ?? ""} ${error.message ?? ""}`;
  return /AuthRetryableFetchError|Failed to fetch|NetworkError|Load failed|fetch failed|ERR_INTERNET|network request failed/i.test(text);
}

function isSession(error: ServerError | null | undefined): boolean {
  if (!error) return false;
  const code = error.code ?? "";
  return (
    ["PGRST301", "PGRST302", "PGRST303", "refresh_token_not_found", "refresh_token_already_used", "session_not_found", "session_expired", "bad_jwt"].includes(code) ||
    error.name === "AuthSessionMissingError" ||
    /JWT expired|Invalid Refresh Token/i.test(error.message ?? "")
  );
}
