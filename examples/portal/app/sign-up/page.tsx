import { Sign } from "../../components/sign.tsx";

export default function SignUp() {
  return <Sign kind="up" />;
}
