"use client";
import { DeploymentPage } from "../../components/deployment-page.tsx";
import { WithId } from "../../components/query.tsx";
import { Shell } from "../../components/shell.tsx";

export default function Deployment() {
  return <Shell title="Deployment"><WithId>{(id) => <DeploymentPage id={id} key={id} />}</WithId></Shell>;
}
