import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef } from "preact/hooks";

/** A button that opens a small panel beneath it; Escape or a press elsewhere closes it. */
export function Menu(props: {
  label: string;
  /** Told each time that it opens. */
  onOpen?: () => void;
  children: ComponentChildren;
}) {
  const isOpen = useSignal(false);
  const root = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  const id = useId();
  const close = () => {
    isOpen.value = false;
  };
  useEffect(() => {
    if (!isOpen.value || !root.current) return;
    return closeBy(root.current, close, () => button.current?.focus());
  }, [isOpen.value]);
  const toggle = () => {
    isOpen.value = !isOpen.value;
    if (isOpen.value) props.onOpen?.();
  };
  return (
    <div class="menu" ref={root}>
      <button
        type="button"
        ref={button}
        aria-expanded={isOpen.value}
        aria-controls={id}
        onClick={toggle}
      >
        {props.label}
      </button>
      <div id={id} class="menu-panel" hidden={!isOpen.value}>
        {isOpen.value && props.children}
      </div>
    </div>
  );
}

function closeBy(root: HTMLElement, close: () => void, goBack: () => void): () => void {
  const leave = (event: Event) => {
    if (!root.contains(event.target as Node)) close();
  };
  const press = (event: KeyboardEvent) => {
    if (event.key !== "Escape") return;
    event.preventDefault(); // Escape has other meanings in the views
    close();
    goBack();
  };
  root.addEventListener("keydown", press);
  addEventListener("pointerdown", leave);
  addEventListener("focusin", leave);
  return () => {
    root.removeEventListener("keydown", press);
    removeEventListener("pointerdown", leave);
    removeEventListener("focusin", leave);
  };
}
