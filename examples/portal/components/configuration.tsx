"use client";
import { useMemo } from "react";
import { actionOf, stackName } from "../contract/deployment.ts";
import type { Deployment, Json } from "../contract/rows.ts";
import { readSchema } from "../form/schema.ts";
import { hideSecrets, MASK } from "../form/secret.ts";
import { useCatalogue } from "../live/catalogue.ts";
import { CopyButton } from "./copy.tsx";
import { CostFigure } from "./cost.tsx";
import { Empty } from "./notice.tsx";

const show = (value: Json): string => (typeof value === "string" ? value : JSON.stringify(value, null, 2));

export function Outputs({ row }: { row: Deployment }) {
  const outputs = Object.entries(row.outputs ?? {});
  if (outputs.length === 0) {
    return row.status === "SUCCESS" ? <Empty title="No outputs">The template has none, or all of them are sensitive: those stay in the state.</Empty> : <Empty title="No outputs yet">They are here once the deployment has succeeded.</Empty>;
  }
  return (
    <div className="table-box">
      <table className="outputs">
        <thead><tr><th>Output</th><th>Value</th><th><span className="sr">Actions</span></th></tr></thead>
        <tbody>
          {outputs.map(([name, value]) => (
            <tr key={name}><td><code>{name}</code></td><td><pre>{show(value)}</pre></td><td className="actions"><CopyButton text={show(value)} /></td></tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function Configuration({ row }: { row: Deployment }) {
  const config = row.config_snapshot;
  const { templates } = useCatalogue(row.cluster_id);
  const schema = useMemo(() => {
    const found = templates?.find((each) => each.name === config.template);
    const read = found ? readSchema(found.variables) : null;
    return read && typeof read === "object" ? read : null;
  }, [templates, config.template]);
  const facts: [string, string | undefined | null][] = [
    ["Template", config.template], ["Repository", config.source?.git], ["Ref", config.source?.ref], ["Folder", config.source?.path], ["Commit", row.template_commit], ["Program", row.terraform_version],
    ["Stack", stackName(config)], ["Action", actionOf(config)], ["Approval", config.approval ? "required" : "not required"], ["State", row.state_key], ["Plan", row.plan_sha256], ["Deployment", row.id],
  ];
  const variables = Object.entries(hideSecrets(config.variables ?? {}, schema));
  return (
    <div className="configuration">
      <dl className="facts column">{facts.map(([name, value]) => (value ? <div key={name}><dt>{name}</dt><dd><code>{value}</code></dd></div> : null))}</dl>
      <h2>Variables</h2>
      {variables.length === 0 ? <p className="quiet">None: the template&apos;s defaults hold.</p> : (
        <div className="table-box"><table className="outputs"><thead><tr><th>Name</th><th>Value</th></tr></thead><tbody>
          {variables.map(([name, value]) => <tr key={name}><td><code>{name}</code></td><td>{value === MASK ? <span className="masked">secret</span> : <pre>{show(value)}</pre>}</td></tr>)}
        </tbody></table></div>
      )}
      {row.cost_status ? <><h2>Cost</h2><CostFigure row={row} /></> : null}
    </div>
  );
}
