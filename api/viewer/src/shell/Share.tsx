import { useSignal } from "@preact/signals";
import { useEffect, useId, useRef } from "preact/hooks";
import { Menu } from "./Menu";
import { hasToken, writeLink } from "./page_address";

/** Copies the link to what is in sight; where it cannot, shows it to be copied by hand. */
export function Share() {
  return (
    <Menu label="Share">
      <ShareLink />
    </Menu>
  );
}

function ShareLink() {
  const link = writeLink();
  const said = useSignal("");
  const field = useRef<HTMLInputElement>(null);
  const id = useId();
  const copy = async () => {
    field.current?.select();
    said.value = await copyText(link);
  };
  useEffect(() => {
    void copy();
  }, []);
  return (
    <div class="share">
      <label for={id}>Link to this view</label>
      <span class="share-line">
        <input id={id} ref={field} readOnly value={link} onFocus={() => field.current?.select()} />
        <button type="button" onClick={copy}>
          Copy
        </button>
      </span>
      <p class="share-said" role="status">
        {said.value}
      </p>
      {hasToken(location.pathname) && (
        <p>The link is without your token: who opens it needs a token of their own.</p>
      )}
    </div>
  );
}

async function copyText(text: string): Promise<string> {
  try {
    await navigator.clipboard.writeText(text);
    return "Copied.";
  } catch {
    // No clipboard without https or permission: the field is selected instead.
    return "The browser did not let it be copied: copy the selected text yourself.";
  }
}
