import { type ComponentChild, render } from "preact";
import { act } from "preact/test-utils";
import { afterEach, expect, test, vi } from "vitest";
import { AtlasProblem, connection } from "../contract/client";
import { NoWebGL } from "../draw/program";
import { Connection } from "./Connection";
import { Menu } from "./Menu";
import { Problem } from "./Problem";
import { Share } from "./Share";
import { Toasts } from "./Toasts";
import { TokenForm } from "./TokenForm";
import { Choice, Toggle } from "./Toolbar";
import { notices, say } from "./toasts";

const root = document.createElement("div");
document.body.append(root);

async function show(what: ComponentChild): Promise<void> {
  await act(() => render(what, root));
}

/** Let time pass, as the fake clock has it. */
async function pass(ms: number): Promise<void> {
  await act(async () => {
    await vi.advanceTimersByTimeAsync(ms);
  });
}

function find<Kind extends Element>(selector: string): Kind {
  const found = root.querySelector<Kind>(selector);
  if (!found) throw new Error(`there is no ${selector} in ${root.innerHTML}`);
  return found;
}

afterEach(async () => {
  await show(null);
  connection.value = "ok";
  notices.value = [];
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

test("a problem says what happened and what to do, by its kind", async () => {
  await show(<Problem problem={new AtlasProblem(404, "not_found", "no sequence 7")} />);
  expect(find(".problem").getAttribute("role")).toBe("alert");
  expect(root.textContent).toContain("No longer in the atlas");
  expect(root.textContent).toContain("no sequence 7");
  await show(<Problem problem={new AtlasProblem(418, "teapot", "short and stout")} />);
  expect(root.textContent).toContain("418");
  await show(<Problem problem={new NoWebGL("it is off")} />);
  expect(root.textContent).toContain("WebGL2");
  await show(<Problem problem={new Error("a fault of ours")} />);
  expect(root.textContent).toContain("a fault of ours");
});

test("a problem's text is text, whatever it holds", async () => {
  const text = "<img src=x onerror=alert(1)>";
  await show(<Problem problem={new AtlasProblem(400, "bad_query", text)} />);
  expect(root.querySelector("img")).toBeNull();
  expect(root.textContent).toContain(text);
});

test("a problem can be tried again only where that makes sense", async () => {
  const retry = vi.fn();
  await show(<Problem problem={new Error("x")} retry={retry} />);
  find<HTMLButtonElement>("button").click();
  expect(retry).toHaveBeenCalledTimes(1);
  await show(<Problem problem={new Error("x")} />);
  expect(root.querySelector("button")).toBeNull();
});

test("menus and switches have names and tell their new values", async () => {
  const [choose, toggle] = [vi.fn(), vi.fn()];
  const options = ["umap", { value: "pca", label: "PCA", isDisabled: true }];
  await show(
    <>
      <Choice label="Method" value="umap" options={options} onChange={choose} />
      <Toggle label="Labels" value={false} onChange={toggle} />
    </>,
  );
  const select = find<HTMLSelectElement>("select");
  expect(find<HTMLLabelElement>(".choice label").htmlFor).toBe(select.id);
  expect(select.value).toBe("umap");
  expect(find<HTMLOptionElement>("option[value=pca]").disabled).toBe(true);
  select.value = "pca";
  select.dispatchEvent(new Event("change", { bubbles: true }));
  expect(choose).toHaveBeenCalledWith("pca");
  find<HTMLInputElement>("input").click();
  expect(toggle).toHaveBeenCalledWith(true);
});

test("a menu opens by its button; Escape closes it and gives the focus back", async () => {
  await show(
    <Menu label="Export">
      <button type="button" id="inside">
        CSV
      </button>
    </Menu>,
  );
  const button = find<HTMLButtonElement>(".menu > button");
  expect(root.querySelector("#inside")).toBeNull();
  await act(() => button.click());
  expect(button.getAttribute("aria-expanded")).toBe("true");
  const press = new KeyboardEvent("keydown", { key: "Escape", bubbles: true, cancelable: true });
  await act(() => {
    find("#inside").dispatchEvent(press);
  });
  expect(press.defaultPrevented).toBe(true);
  expect(button.getAttribute("aria-expanded")).toBe("false");
  expect(document.activeElement).toBe(button);
  await act(() => button.click());
  await act(() => {
    document.body.dispatchEvent(new Event("pointerdown", { bubbles: true }));
  });
  expect(root.querySelector("#inside")).toBeNull();
});

test("a lost server is told, and found again though nothing waits for it", async () => {
  vi.useFakeTimers();
  let isBack = false;
  vi.stubGlobal("fetch", async () => {
    if (!isBack) throw new TypeError("Failed to fetch");
    return new Response("{}");
  });
  await show(<Connection />);
  expect(root.textContent).toBe("");
  await act(() => {
    connection.value = "lost";
  });
  expect(root.textContent).toContain("does not answer");
  await pass(10_000);
  expect(connection.value).toBe("lost");
  isBack = true;
  await pass(10_000);
  expect(connection.value).toBe("ok");
  expect(root.textContent).toBe("");
});

test("a link is copied without the token; without a clipboard it is selected to be copied", async () => {
  history.replaceState(null, "", "/t/s3cret/#layer=2");
  const copied: string[] = [];
  let isAllowed = true;
  const writeText = async (text: string) => {
    if (!isAllowed) throw new DOMException("no", "NotAllowedError");
    copied.push(text);
  };
  vi.stubGlobal("navigator", { clipboard: { writeText } });
  await show(<Share />);
  await act(() => find<HTMLButtonElement>(".menu > button").click());
  await vi.waitFor(() => expect(root.textContent).toContain("Copied."));
  expect(copied).toEqual([`${location.origin}/#layer=2`]);
  expect(root.textContent).toContain("without your token");
  isAllowed = false;
  await act(() => find<HTMLButtonElement>(".share button").click());
  await vi.waitFor(() => expect(root.textContent).toContain("copy the selected text yourself"));
  const field = find<HTMLInputElement>(".share input");
  expect(field.selectionEnd).toBe(copied[0]?.length);
  history.replaceState(null, "", "/");
});

test("a notice goes by itself, but one with an action stays until it is answered", async () => {
  vi.useFakeTimers();
  const run = vi.fn();
  await show(<Toasts />);
  await act(() => {
    say("Saved");
    say("The atlas has grown.", { label: "Show it", run });
  });
  expect(root.querySelectorAll(".toast")).toHaveLength(2);
  await pass(60_000);
  expect(root.textContent).not.toContain("Saved");
  await act(() => find<HTMLButtonElement>(".toast .primary").click());
  expect(run).toHaveBeenCalledTimes(1);
  expect(root.querySelector(".toast")).toBeNull();
});

test("a wrong token is told so and asked for below the page's own path", async () => {
  const fetch = vi.fn(async (_url: string) => new Response("", { status: 401 }));
  vi.stubGlobal("fetch", fetch);
  await show(<TokenForm />);
  const input = find<HTMLInputElement>("input");
  expect(input.type).toBe("password");
  input.value = "not/it";
  await act(async () => {
    const form = find<HTMLFormElement>("form");
    form.dispatchEvent(new Event("submit", { bubbles: true, cancelable: true }));
  });
  await vi.waitFor(() => expect(root.textContent).toContain("not the token"));
  expect(fetch.mock.calls[0]?.[0]).toBe("/t/not%2Fit/v1");
});
