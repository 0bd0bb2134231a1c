import type { Deployment } from "../contract/rows.ts";
import { amount } from "../plan/cost.ts";

/** What it will cost, as far as that is known. Unknown is not nothing. */
export function CostFigure({ row }: { row: Pick<Deployment, "cost" | "cost_status"> }) {
  const { cost, cost_status: status } = row;
  if (!status) return null;
  if (status === "UNAVAILABLE" || !cost) {
    return <div className="cost"><span className="quiet">No cost estimate</span>{cost?.reason ? <small>{cost.reason}</small> : null}</div>;
  }
  const monthly = amount(cost.monthly, cost.currency);
  return (
    <div className="cost">
      <strong className="tabular">{monthly ?? "Unknown cost"}</strong>
      <small>a month{cost.usage_monthly && Number(cost.usage_monthly) > 0 ? `, ${amount(cost.usage_monthly, cost.currency)} of it depends on use` : ""}</small>
      {status === "PARTIAL" ? <small className="partial">Not all of it: {cost.reason ?? "some prices are not known"}</small> : null}
      {Array.isArray(cost.by_resource) && cost.by_resource.length > 0 ? (
        <details>
          <summary>By resource</summary>
          <table>
            <tbody>{cost.by_resource.map((each) => <tr key={each.name}><td><code>{each.name}</code></td><td className="tabular">{amount(each.monthly, cost.currency) ?? "unknown"}</td></tr>)}</tbody>
          </table>
        </details>
      ) : null}
    </div>
  );
}
