import { ClusterList } from "../../components/cluster-list.tsx";
import { Shell } from "../../components/shell.tsx";

export default function Clusters() {
  return <Shell title="Clusters"><ClusterList /></Shell>;
}
