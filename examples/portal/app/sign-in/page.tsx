import { Sign } from "../../components/sign.tsx";

export default function SignIn() {
  return <Sign kind="in" />;
}
