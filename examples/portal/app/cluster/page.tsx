"use client";
import { ClusterPage } from "../../components/cluster-page.tsx";
import { WithId } from "../../components/query.tsx";
import { Shell } from "../../components/shell.tsx";

export default function Cluster() {
  return <Shell title="Cluster"><WithId>{(id) => <ClusterPage id={id} key={id} />}</WithId></Shell>;
}
