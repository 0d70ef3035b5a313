import "../styles/header.css";
import { useEffect, useRef } from "preact/hooks";
import { connection } from "../contract/client";
import type { ModelRow } from "../contract/rows";
import { select, selection } from "../contract/selection";
import { change, state, VIEWS, type View, writeState } from "../contract/state";
import { hasImages, model, models } from "./chosen";
import { ExportMenu } from "./ExportMenu";
import { isHelpOpen } from "./Help";
import { openModel } from "./open_head";
import { Search } from "./Search";
import { Share } from "./Share";
import { useShortcut } from "./shortcuts";
import { ThemeMenu } from "./ThemeMenu";
import { Choice } from "./Toolbar";
import { HEAD_VIEWS, VIEW_NAMES } from "./title";

/** What stays above every view: where one is, where one may go, and what is searched. */
export function Header() {
  const isOpen = connection.value !== "token";
  return (
    <header class="header">
      <h1 class="header-name">
        <Mark />
        QK Atlas
      </h1>
      {isOpen && <ModelMenu />}
      {isOpen && <Tabs />}
      {isOpen && <Where />}
      {isOpen && <Search />}
      <span class="header-space" />
      {isOpen && <Share />}
      {isOpen && <ExportMenu />}
      <span class="header-theme">
        <ThemeMenu />
      </span>
      {isOpen && <HelpButton />}
      {isOpen && <Selected />}
    </header>
  );
}

/** The page's sign: queries and keys among each other. */
function Mark() {
  return (
    <svg class="header-mark" viewBox="0 0 20 20" width="18" height="18" aria-hidden="true">
      <circle class="mark-query" cx="6" cy="13" r="4" />
      <circle class="mark-key" cx="14" cy="6" r="4" />
      <circle class="mark-key" cx="15" cy="16" r="2" />
      <circle class="mark-query" cx="5" cy="4" r="2" />
    </svg>
  );
}

function ModelMenu() {
  const row = model.value;
  if (models.value.length === 0) return null;
  const options = models.value.map((one) => ({ value: one.model, label: one.model }));
  const name = state.model.value || (row?.model ?? "");
  if (row === null) options.unshift({ value: name, label: `${name} (not here)` });
  return (
    <span class="header-model">
      <Choice
        label="Model"
        value={name}
        options={options}
        onChange={openModel}
        title={row ? writeSize(row) : ""}
      />
      {row && <span class="header-size">{writeSize(row)}</span>}
    </span>
  );
}

/** `6 × 12 heads, 128,089 tokens`. */
export function writeSize(row: ModelRow): string {
  const tokens = row.n_tokens.toLocaleString("en");
  return `${row.n_layers} × ${row.n_heads} heads, ${tokens} tokens`;
}

function Tabs() {
  const views = VIEWS.filter(
    (view) => view !== "image" || hasImages.value || state.view.value === "image",
  );
  return (
    <nav class="tabs" aria-label="Views">
      {views.map((view) => (
        <Tab key={view} view={view} />
      ))}
    </nav>
  );
}

function Tab({ view }: { view: View }) {
  const open = () => change({ view });
  const isCurrent = state.view.value === view;
  const link = useRef<HTMLAnchorElement>(null);
  // On a phone the tabs scroll sideways.
  useEffect(() => {
    if (isCurrent) link.current?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }, [isCurrent]);
  useShortcut(String(VIEWS.indexOf(view) + 1), `${VIEW_NAMES[view]} view`, open);
  const follow = (event: MouseEvent) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a new tab of the browser
    event.preventDefault();
    open();
  };
  return (
    <a
      class="tab"
      ref={link}
      href={writeHref(view)}
      aria-current={isCurrent ? "page" : undefined}
      onClick={follow}
    >
      {VIEW_NAMES[view]}
    </a>
  );
}

function writeHref(view: View): string {
  const parts = new URLSearchParams(writeState());
  parts.set("view", view);
  return `#${parts}`;
}

/** The head in sight, in the views of one head. */
function Where() {
  if (!HEAD_VIEWS.has(state.view.value)) return null;
  return (
    <span class="header-where">
      layer {state.layer.value}, head {state.head.value}
    </span>
  );
}

function Selected() {
  const places = selection.value;
  if (places === null) return null;
  const n = places.size.toLocaleString("en");
  const sequences = places.sequences().length;
  return (
    <span class="selected">
      <span role="status">
        {n} selected in {sequences.toLocaleString("en")}{" "}
        {sequences === 1 ? "sequence" : "sequences"}
      </span>
      <button type="button" class="quiet" onClick={() => select(null, null)}>
        Select none
      </button>
    </span>
  );
}

function HelpButton() {
  const open = () => {
    isHelpOpen.value = true;
  };
  useShortcut("?", "This help", open);
  return (
    <button type="button" aria-haspopup="dialog" onClick={open}>
      Help
    </button>
  );
}
