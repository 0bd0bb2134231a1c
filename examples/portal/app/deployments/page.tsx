import { Suspense } from "react";
import { DeploymentList } from "../../components/deployment-list.tsx";
import { Shell } from "../../components/shell.tsx";

export default function Deployments() {
  return <Shell title="Deployments"><Suspense><DeploymentList /></Suspense></Shell>;
}
