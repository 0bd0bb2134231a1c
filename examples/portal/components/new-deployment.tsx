"use client";
import Link from "next/link";
import { useRouter, useSearchParams } from "next/navigation";
import { useEffect, useMemo, useRef, useState } from "react";
import type { Problem } from "../contract/problem.ts";
import type { Action, ConfigSnapshot, Json } from "../contract/rows.ts";
import { draftsOf, read, sourceFaults, stackFault, type Drafts } from "../form/draft.ts";
import type { Fault } from "../form/rule.ts";
import { fields as fieldsOf, readSchema, type Field } from "../form/schema.ts";
import { useCatalogue, type Template } from "../live/catalogue.ts";
import { usePortal } from "../live/session.tsx";
import * as spec from "../live/spec.ts";
import { useWatch } from "../live/use.ts";
import { ClusterBadge } from "./badge.tsx";
import { Fields } from "./fields.tsx";
import { Icon } from "./icon.tsx";
import { Empty, Notice, ProblemNotice, Skeleton } from "./notice.tsx";

/** Starts from nothing, or from an earlier deployment (`?from=`), with another action if wanted (`&action=destroy`). */
export function NewDeployment() {
  const { client, fail } = usePortal();
  const search = useSearchParams();
  const from = search.get("from");
  const [earlier, setEarlier] = useState<{ cluster_id: string; config_snapshot: ConfigSnapshot } | null>(null);
  const [found, setFound] = useState<Problem | null>(null);
  const clusters = useWatch(spec.clusters(), "clusters");
  useEffect(() => {
    if (!from) return;
    void client.from("deployments").select("cluster_id,config_snapshot").eq("id", from).single().then(({ data, error }) => {
      if (error) setFound(fail(error, "deployment to start from"));
      else setEarlier(data as typeof earlier);
    });
  }, [client, fail, from]);

  const live = clusters.rows?.filter((row) => row.revoked_at === null);
  if (clusters.error && !clusters.rows) return <ProblemNotice problem={fail(clusters.error)} retry={clusters.read} />;
  if (!live || (from && !earlier && !found)) return <Skeleton />;
  if (live.length === 0) {
    return <Empty title="No cluster to deploy to" action={<Link className="button primary" href="/clusters/">Add a cluster</Link>}>A deployment runs where an agent is. Add a cluster and start its agent first.</Empty>;
  }
  const action = search.get("action");
  const wanted = earlier && action && ["plan", "apply", "destroy"].includes(action) ? { ...earlier.config_snapshot, action: action as Action } : earlier?.config_snapshot ?? {};
  return (
    <>
      <header className="head"><h1>{wanted.action === "destroy" ? "Destroy a stack" : "New deployment"}</h1></header>
      {found ? <ProblemNotice problem={found} /> : null}
      {earlier && !live.some((row) => row.id === earlier.cluster_id) ? (
        <Notice tone="warn" title="The cluster of that deployment was revoked.">Choose another one. It has no state of this stack: everything is created again there.</Notice>
      ) : null}
      <Order key={earlier ? from : "new"} clusters={live} config={wanted} cluster={search.get("cluster") ?? earlier?.cluster_id ?? null} template={search.get("template")} />
    </>
  );
}

interface OrderProps {
  clusters: { id: string; name: string; status: string }[];
  config: ConfigSnapshot;
  cluster: string | null;
  template: string | null;
}

function Order({ clusters, config, cluster: wantedCluster, template: wantedTemplate }: OrderProps) {
  const { client, fail } = usePortal();
  const router = useRouter();
  const [cluster, setCluster] = useState(clusters.find((row) => row.id === wantedCluster)?.id ?? clusters.find((row) => row.status === "ONLINE")?.id ?? clusters[0]!.id);
  const [origin, setOrigin] = useState<"template" | "git">(config.source ? "git" : "template");
  const [name, setName] = useState(config.template ?? wantedTemplate);
  const [source, setSource] = useState({ git: config.source?.git ?? "", ref: config.source?.ref ?? "", path: config.source?.path ?? "" });
  const [variables, setVariables] = useState(JSON.stringify(config.source ? config.variables ?? {} : {}, null, 2));
  const [drafts, setDrafts] = useState<{ of: string; drafts: Drafts } | null>(null);
  const [stack, setStack] = useState(config.stack ?? "default");
  const [mode, setMode] = useState<"plan" | "approval" | "apply" | "destroy">(config.action === "plan" || config.action === "destroy" ? config.action : config.action === "apply" && !config.approval ? "apply" : "approval");
  const [tried, setTried] = useState(false);
  const [busy, setBusy] = useState(false);
  const [found, setFound] = useState<Problem | null>(null);
  const form = useRef<HTMLFormElement>(null);
  const { templates, published } = useCatalogue(cluster);
  const chosen = templates?.find((each) => each.name === name);
  const schema = useMemo(() => (chosen ? readSchema(chosen.variables) : null), [chosen]);
  const fields = useMemo(() => (schema && typeof schema === "object" ? fieldsOf(schema) : []), [schema]);
  const current = drafts && drafts.of === name ? drafts.drafts : draftsOf(fields, name === config.template ? config.variables ?? {} : {});
  const online = clusters.find((row) => row.id === cluster)!.status === "ONLINE";

  const reading = origin === "template" ? read(fields, current) : readVariables(variables);
  const wrong: Fault[] = [...reading.faults, ...(origin === "git" ? sourceFaults(source) : [])];
  const stackWrong = stackFault(stack);
  const gone = origin === "template" && name !== null && templates !== null && !chosen;

  const submit = async (): Promise<void> => {
    setTried(true);
    setFound(null);
    if (wrong.length > 0 || stackWrong || (origin === "template" && !chosen)) {
      // After the page shows what is wrong.
      setTimeout(() => form.current?.querySelector<HTMLElement>("[aria-invalid=true], .wrong input, .wrong select")?.focus());
      return;
    }
    setBusy(true);
    const snapshot: ConfigSnapshot = {
      ...(origin === "template" ? { template: chosen!.name } : { source: { git: source.git, ...(source.ref ? { ref: source.ref } : {}), ...(source.path ? { path: source.path } : {}) } }),
      stack,
      action: mode === "approval" ? "apply" : mode,
      variables: reading.values,
      // A destroy is reviewed first, too.
      ...(mode === "approval" || mode === "destroy" ? { approval: true } : {}),
    };
    const { data, error } = await client.from("deployments").insert({ cluster_id: cluster, config_snapshot: snapshot }).select("id").single();
    if (error) {
      setBusy(false);
      setFound(fail(error, "this cluster"));
    } else {
      router.push(`/deployment/?id=${(data as { id: string }).id}`);
    }
  };

  return (
    <form ref={form} className="order" noValidate onSubmit={(event) => { event.preventDefault(); void submit(); }}>
      <section className="card">
        <h2>Where</h2>
        <div className="choices" role="radiogroup" aria-label="Cluster">
          {clusters.map((row) => (
            <label key={row.id} className="choice">
              <input type="radio" name="cluster" checked={row.id === cluster} onChange={() => setCluster(row.id)} />
              <span>{row.name}</span><ClusterBadge status={row.status} revoked={false} />
            </label>
          ))}
        </div>
        {online ? null : <p className="field-hint">No agent is online there: the deployment waits until one is.</p>}
      </section>
      <section className="card">
        <div className="card-head">
          <h2>What</h2>
          <div className="segments" role="group" aria-label="Source">
            <button type="button" aria-pressed={origin === "template"} onClick={() => setOrigin("template")}>Template</button>
            <button type="button" aria-pressed={origin === "git"} onClick={() => setOrigin("git")}><Icon name="git" size={14} /> Git</button>
          </div>
        </div>
        {origin === "git" ? <GitSource source={source} variables={variables} faults={tried ? wrong : []} onSource={setSource} onVariables={setVariables} /> : (
          <>
            {templates === null ? <Skeleton rows={3} /> : <Templates templates={templates} name={name} onChoose={(next) => { setName(next); setDrafts(null); setTried(false); }} />}
            {gone ? <Notice tone="bad" title={`There is no template ${name} on this cluster any more.`}>Choose one of those above, or add it to the agent&apos;s templates.</Notice> : null}
            {tried && name === null ? <p className="field-fault" role="alert">Choose a template.</p> : null}
            {templates !== null && !published ? <p className="field-hint">No agent of this cluster has published its templates: these come with Tendril.</p> : null}
            {typeof schema === "string" ? <Notice tone="bad" title={schema}>The agent&apos;s operator has to correct its template.json.</Notice> : null}
          </>
        )}
      </section>
      {origin === "template" && fields.length > 0 ? (
        <section className="card">
          <h2>{chosen!.title}</h2>
          {hasSecrets(fields) && config.template === name ? <Notice tone="info" title="Secrets are not taken over.">Type them again.</Notice> : null}
          <Fields fields={fields} drafts={current} faults={tried ? reading.faults : []} onChange={(next) => setDrafts({ of: name!, drafts: next })} />
        </section>
      ) : null}
      <section className="card">
        <h2>How</h2>
        <div className={`field${tried && stackWrong ? " wrong" : ""}`}>
          <label className="field-title" htmlFor="stack">Stack</label>
          <p className="field-hint" id="stack-hint">Which state the run works on. The same template with two stacks makes two sets of resources.</p>
          <input id="stack" name="stack" className="short" value={stack} aria-describedby="stack-hint stack-fault" aria-invalid={(tried && stackWrong !== null) || undefined} onChange={(event) => setStack(event.target.value)} autoComplete="off" spellCheck={false} />
          <p className="field-fault" id="stack-fault">{tried ? stackWrong : null}</p>
        </div>
        <div className="choices" role="radiogroup" aria-label="Action">
          {MODES.map((each) => (
            <label key={each.mode} className={`choice tall${each.mode === "destroy" ? " bad" : ""}`}>
              <input type="radio" name="mode" value={each.mode} checked={mode === each.mode} onChange={() => setMode(each.mode)} />
              <span><strong>{each.title}</strong><small>{each.text}</small></span>
            </label>
          ))}
        </div>
      </section>
      {found ? <ProblemNotice problem={found} /> : null}
      {tried && wrong.length > 0 ? <p className="field-fault" role="alert">{wrong.length === 1 ? "One value has to be corrected." : `${wrong.length} values have to be corrected.`}</p> : null}
      <footer className="order-end">
        <button type="submit" className={`button ${mode === "destroy" ? "bad" : "primary"}`} disabled={busy}>{busy ? "Queueing…" : mode === "destroy" ? "Plan the destroy" : mode === "apply" ? "Apply" : "Plan"}</button>
      </footer>
    </form>
  );
}

const MODES = [
  { mode: "approval", title: "Plan, then apply once approved", text: "You read the plan first; exactly that plan is applied." },
  { mode: "plan", title: "Plan only", text: "Shows what would change and changes nothing." },
  { mode: "apply", title: "Apply at once", text: "Without a review of the plan." },
  { mode: "destroy", title: "Destroy", text: "Removes everything of the stack, once you have approved the plan." },
] as const;

const hasSecrets = (fields: Field[]): boolean => fields.some((field) => field.sensitive || hasSecrets(field.fields));

function readVariables(text: string): { values: { [name: string]: Json }; faults: Fault[] } {
  try {
    const values: unknown = text.trim() === "" ? {} : JSON.parse(text);
    if (typeof values === "object" && values !== null && !Array.isArray(values)) return { values: values as { [name: string]: Json }, faults: [] };
  } catch {
    // Shown below.
  }
  return { values: {}, faults: [{ path: "variables", message: "Must be a JSON object, such as {\"name\": \"value\"}." }] };
}

function Templates({ templates, name, onChoose }: { templates: Template[]; name: string | null; onChoose(name: string): void }) {
  if (templates.length === 0) return <p className="quiet">The cluster offers no template.</p>;
  return (
    <div className="templates" role="radiogroup" aria-label="Template">
      {templates.map((each) => (
        <label key={each.name} className="choice tall">
          <input type="radio" name="template" value={each.name} checked={each.name === name} onChange={() => onChoose(each.name)} />
          <span><strong>{each.title}</strong><small>{each.description}</small></span>
        </label>
      ))}
    </div>
  );
}

function GitSource({ source, variables, faults, onSource, onVariables }: {
  source: { git: string; ref: string; path: string };
  variables: string;
  faults: Fault[];
  onSource(source: { git: string; ref: string; path: string }): void;
  onVariables(text: string): void;
}) {
  const inputs = [
    { name: "git", title: "Repository", hint: "On a host that the agent allows; it has its own credentials.", example: "https://github.com/acme/infrastructure.git" },
    { name: "ref", title: "Branch, tag or commit", hint: "Without it the default branch.", example: "main" },
    { name: "path", title: "Folder", hint: "Without it the root.", example: "network" },
  ] as const;
  const fault = (path: string): string | undefined => faults.find((each) => each.path === path)?.message;
  return (
    <>
      {inputs.map(({ name, title, hint, example }) => (
        <div key={name} className={`field${fault(`source.${name}`) ? " wrong" : ""}`}>
          <label className="field-title" htmlFor={`git-${name}`}>{title}</label>
          <p className="field-hint">{hint}</p>
          <input id={`git-${name}`} value={source[name]} placeholder={example} spellCheck={false} autoComplete="off" aria-invalid={fault(`source.${name}`) !== undefined || undefined} onChange={(event) => onSource({ ...source, [name]: event.target.value.trim() })} />
          <p className="field-fault">{fault(`source.${name}`)}</p>
        </div>
      ))}
      <div className={`field${fault("variables") ? " wrong" : ""}`}>
        <label className="field-title" htmlFor="git-variables">Variables</label>
        <p className="field-hint">The agent checks them against the template once it has fetched it.</p>
        <textarea id="git-variables" className="mono" rows={5} spellCheck={false} value={variables} aria-invalid={fault("variables") !== undefined || undefined} onChange={(event) => onVariables(event.target.value)} />
        <p className="field-fault">{fault("variables")}</p>
      </div>
    </>
  );
}
