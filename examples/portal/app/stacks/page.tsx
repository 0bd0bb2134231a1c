import { Shell } from "../../components/shell.tsx";
import { StackList } from "../../components/stack-list.tsx";

export default function Stacks() {
  return <Shell title="Stacks"><StackList /></Shell>;
}
