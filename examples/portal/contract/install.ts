// The lines that start an agent with a cluster's key.

export interface Project {
  /** Where the Supabase project is. */
  url: string;
  /** Its publishable (or anon) key. */
  key: string;
}

/** An argument of POSIX shell: unquoted where nothing in it is special. */
export const quoted = (text: string): string =>
  /^[A-Za-z0-9_@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;

export const helmLines = (project: Project, clusterKey: string): string =>
  [
    "kubectl create namespace tendril",
    "kubectl --namespace tendril create secret generic tendril-agent \\",
    `  --from-literal=SUPABASE_URL=${quoted(project.url)} \\`,
    `  --from-literal=SUPABASE_PUBLISHABLE_KEY=${quoted(project.key)} \\`,
    `  --from-literal=TENDRIL_AGENT_TOKEN=${quoted(clusterKey)}`,
    "helm install tendril-agent oci://ghcr.io/tendril-dev/charts/tendril-agent \\",
    "  --namespace tendril --set existingSecret=tendril-agent --set tokenFrom=file",
  ].join("\n");

export const dockerLines = (project: Project, clusterKey: string): string =>
  [
    "docker run --detach --name tendril-agent --restart unless-stopped \\",
    `  --env SUPABASE_URL=${quoted(project.url)} \\`,
    `  --env SUPABASE_PUBLISHABLE_KEY=${quoted(project.key)} \\`,
    `  --env TENDRIL_AGENT_TOKEN=${quoted(clusterKey)} \\`,
    "  --volume tendril:/var/lib/tendril ghcr.io/tendril-dev/tendril-agent",
  ].join("\n");
