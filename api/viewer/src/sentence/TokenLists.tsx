/** Queries left, keys right, lines by weight between; hover isolates, a click hides a key. */

import { useSignal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import type { TokenPlace } from "../contract/rows";
import { hits, selection } from "../contract/selection";
import { change, state } from "../contract/state";
import { isDark } from "../shell/theme";
import { type Arrangement, hasNothingLeft, rowOf } from "./arrangement";
import { drawLines, lineColour, listLines, ROW_PX } from "./draw_lines";
import { hover, type Spot } from "./hovering";
import { shortToken, showToken, showWeight } from "./token_text";

/** Both lists and the lines; `lit` is what is hovered, in focus or pinned. */
export function TokenLists(props: { shown: Arrangement; sequenceId: number; lit: Spot | null }) {
  const { shown, sequenceId, lit } = props;
  return (
    <div class="sentence-scroll">
      <div class="sentence-lists" onPointerLeave={() => hover(null)}>
        <QueryList shown={shown} sequenceId={sequenceId} lit={lit} />
        <LinesCanvas shown={shown} lit={lit} />
        <KeyList shown={shown} sequenceId={sequenceId} lit={lit} />
      </div>
    </div>
  );
}

interface ListProps {
  readonly shown: Arrangement;
  readonly sequenceId: number;
  readonly lit: Spot | null;
}

function QueryList({ shown, sequenceId, lit }: ListProps) {
  const pinned = state.point.value;
  const column = lit !== null && lit.query === null ? lit.key : null;
  return (
    <TokenList title="Queries">
      {(register) =>
        shown.queries.map((token, row) => {
          const { position } = token;
          const isPinned =
            pinned?.kind === "query" &&
            pinned.sequenceId === sequenceId &&
            pinned.position === position;
          const place = { kind: "query" as const, sequenceId, position };
          const weight = column === null ? undefined : shown.weights[row]?.[column];
          return (
            <TokenButton
              key={position}
              {...register(row)}
              token={token}
              kind="query"
              sequenceId={sequenceId}
              isLit={lit?.query === position}
              isPressed={isPinned}
              number={hasNothingLeft(shown, row) ? "nothing left" : toText(weight)}
              title={`position ${position}: click to ${isPinned ? "let go" : "keep in focus"}`}
              onHover={() => hover({ query: position, key: null })}
              onClick={() => change({ point: isPinned ? null : place })}
            />
          );
        })
      }
    </TokenList>
  );
}

function KeyList({ shown, sequenceId, lit }: ListProps) {
  const row = lit?.query === null || lit === null ? -1 : rowOf(shown, lit.query);
  return (
    <TokenList title="Keys">
      {(register) =>
        shown.listed.map((column, at) => {
          const token = shown.keys[column];
          if (!token) return null;
          const isHidden = shown.hidden.has(column);
          return (
            <TokenButton
              key={`${at < shown.nOutside} ${token.position}`}
              {...register(at)}
              token={token}
              kind="key"
              sequenceId={sequenceId}
              isLit={lit?.key === token.position}
              isPressed={isHidden}
              isOutside={at < shown.nOutside}
              number={isHidden ? "hidden" : toText(shown.weights[row]?.[column])}
              title={`position ${token.position}: ${sayHiding(token, isHidden)}`}
              onHover={() => hover({ query: null, key: token.position })}
              onClick={() => toggleHidden(token.position)}
            />
          );
        })
      }
    </TokenList>
  );
}

function sayHiding(token: TokenPlace, isHidden: boolean): string {
  if (!isHidden) return "click to hide it as a key";
  const isByHand = state.hidden.peek().includes(token.position);
  return isByHand ? "hidden, click to show it" : "hidden with all such tokens";
}

function toText(weight: number | undefined): string {
  return weight === undefined ? "" : showWeight(weight);
}

/** Hide a key, or show it again. */
export function toggleHidden(position: number): void {
  const hidden = state.hidden.peek();
  const isHidden = hidden.includes(position);
  const next = isHidden ? hidden.filter((other) => other !== position) : [...hidden, position];
  change({ hidden: next.sort((a, b) => a - b) });
}

/** What makes a row of a list part of its one tab stop. */
interface Roving {
  readonly tabIndex: number;
  readonly onFocus: () => void;
}

type Registered = (row: number) => Roving;

/** A list of tokens: one tab stop, arrow keys from row to row. */
function TokenList(props: { title: string; children: (register: Registered) => unknown }) {
  const current = useSignal(0);
  const list = useRef<HTMLOListElement>(null);
  const register = (row: number): Roving => ({
    tabIndex: row === current.value ? 0 : -1,
    onFocus: () => {
      current.value = row;
    },
  });
  const step = (event: KeyboardEvent) => {
    const buttons = [...(list.current?.querySelectorAll("button") ?? [])];
    const next = findStep(
      event,
      buttons.indexOf(event.target as HTMLButtonElement),
      buttons.length,
    );
    if (next === null || event.shiftKey) return;
    event.preventDefault();
    buttons[next]?.focus();
  };
  const isGone = list.current !== null && current.value >= list.current.children.length;
  if (isGone) current.value = 0;
  return (
    <div class="sentence-list">
      <h3>{props.title}</h3>
      <ol ref={list} aria-label={props.title} onKeyDown={step}>
        {props.children(register) as preact.ComponentChildren}
      </ol>
    </div>
  );
}

function findStep(event: KeyboardEvent, at: number, n: number): number | null {
  switch (event.key) {
    case "ArrowDown":
      return Math.min(at + 1, n - 1);
    case "ArrowUp":
      return Math.max(at - 1, 0);
    case "Home":
      return 0;
    case "End":
      return n - 1;
    default:
      return null;
  }
}

function TokenButton(
  props: Roving & {
    token: TokenPlace;
    kind: "query" | "key";
    sequenceId: number;
    isLit: boolean;
    isPressed: boolean;
    isOutside?: boolean;
    number: string;
    title: string;
    onHover: () => void;
    onClick: () => void;
  },
) {
  const { token, kind, isLit, isPressed } = props;
  const marks = [isLit && "is-lit", props.isOutside && "is-outside", ...markPlace(props)];
  return (
    <li class={`sentence-row is-${kind} ${marks.filter(Boolean).join(" ")}`}>
      <button
        type="button"
        tabIndex={props.tabIndex}
        aria-pressed={isPressed}
        title={`${showToken(token.token)}\n${props.title}`}
        onPointerEnter={props.onHover}
        onFocus={() => {
          props.onFocus();
          props.onHover();
        }}
        onBlur={() => hover(null)}
        onClick={props.onClick}
      >
        <span class="sentence-position">{token.position}</span>
        <bdi class="sentence-token" dir="auto">
          {shortToken(token.token)}
        </bdi>
        <span class="sentence-number">{props.number}</span>
      </button>
    </li>
  );
}

function markPlace(props: { kind: string; sequenceId: number; token: TokenPlace }): string[] {
  const isQuery = props.kind === "query" ? 1 : 0;
  const isIn = (places: typeof hits.value) =>
    places?.has(isQuery, props.sequenceId, props.token.position) ?? false;
  return [isIn(hits.value) ? "is-hit" : "", isIn(selection.value) ? "is-selected" : ""];
}

function LinesCanvas({ shown, lit }: { shown: Arrangement; lit: Spot | null }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const dark = isDark.value;
  const height = Math.max(shown.queries.length, shown.listed.length) * ROW_PX;
  useLayoutEffect(() => {
    const element = canvas.current;
    if (!element) return;
    const draw = () => drawSharp(element, height, shown, lit);
    draw();
    const observer = new ResizeObserver(draw);
    observer.observe(element);
    return () => observer.disconnect();
  }, [shown, lit?.query, lit?.key, dark, height]);
  return (
    <canvas
      ref={canvas}
      class="sentence-lines"
      style={{ height: `${height}px` }}
      role="img"
      aria-label="Lines from queries to keys; opacity is the weight"
    />
  );
}

function drawSharp(
  canvas: HTMLCanvasElement,
  height: number,
  shown: Arrangement,
  lit: Spot | null,
): void {
  const width = canvas.clientWidth;
  const scale = Math.min(2, devicePixelRatio || 1);
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  if (!context) return;
  context.scale(scale, scale);
  drawLines(context, listLines(shown, lit), width, lineColour(lit));
}
