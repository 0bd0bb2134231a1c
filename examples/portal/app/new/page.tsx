import { Suspense } from "react";
import { NewDeployment } from "../../components/new-deployment.tsx";
import { Shell } from "../../components/shell.tsx";

export default function New() {
  return <Shell title="New deployment"><Suspense><NewDeployment /></Suspense></Shell>;
}
