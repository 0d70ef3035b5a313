import { useSignal } from "@preact/signals";
import { useId } from "preact/hooks";
import { withToken } from "./page_address";

/** Asks for the token that the server wants, and goes to the page below it. */
export function TokenForm() {
  const said = useSignal("");
  const isAsking = useSignal(false);
  const id = useId();
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    isAsking.value = true;
    said.value = await tryToken(String(form.get("token") ?? ""));
    isAsking.value = false;
  };
  return (
    <section class="notice-page">
      <h2>This atlas wants a token</h2>
      <p>
        Who runs the server has it: it is in the file of <code>--token-file</code> or in{" "}
        <code>QKATLAS_TOKEN</code>. A link that somebody shares never holds it.
      </p>
      <form class="token-form" onSubmit={submit}>
        <label for={id}>Token</label>
        <input
          id={id}
          name="token"
          type="password"
          required
          autocomplete="current-password"
          aria-describedby={`${id}-said`}
          aria-invalid={said.value !== ""}
        />
        <button type="submit" class="primary" disabled={isAsking.value}>
          Open the atlas
        </button>
      </form>
      <p id={`${id}-said`} class="token-said" role="alert">
        {said.value}
      </p>
    </section>
  );
}

/** Go on where the token is right; else what is wrong with it. */
async function tryToken(token: string): Promise<string> {
  const path = withToken(location.pathname, token.trim());
  try {
    const reply = await fetch(`${path}v1`);
    if (reply.ok) {
      location.assign(path + location.search + location.hash);
      return "";
    }
    if (reply.status === 401) return "This is not the token of this atlas.";
    return `The server answered ${reply.status}. Try again in a moment.`;
  } catch {
    return "The server does not answer. Try again in a moment.";
  }
}
