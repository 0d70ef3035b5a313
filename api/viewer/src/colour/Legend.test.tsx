import { render } from "preact";
import { afterEach, expect, test, vi } from "vitest";
import { Legend } from "./Legend";
import type { Legend as LegendOf } from "./scale";

afterEach(() => {
  render(null, document.body);
});

function show(legend: LegendOf, onPick?: (label: string) => void) {
  render(
    onPick ? <Legend legend={legend} onPick={onPick} /> : <Legend legend={legend} />,
    document.body,
  );
  return document.body;
}

const CATEGORIES: LegendOf = {
  kind: "categories",
  title: "token",
  entries: [
    { label: "<img src=x onerror=alert(1)>", css: "#123456", n: 1200 },
    { label: " ", css: "#654321", n: 3 },
  ],
  nOthers: 7,
};

test("two legends side by side have names of their own, and tell what is picked", () => {
  render(
    <Legend legend={CATEGORIES} name="second map" picked=" " onPick={vi.fn()} />,
    document.body,
  );
  const name = document.querySelector("section")?.getAttribute("aria-label");
  expect(name).toBe("Legend: token, second map");
  const pressed = [...document.querySelectorAll("button")].map((one) =>
    one.getAttribute("aria-pressed"),
  );
  expect(pressed).toEqual(["false", "true"]);
});

test("categories are a named list of texts with counts, whatever the texts are", () => {
  const page = show(CATEGORIES);
  expect(page.querySelector("section")?.getAttribute("aria-label")).toBe("Legend: token");
  expect(page.querySelector("img")).toBeNull();
  const lines = [...page.querySelectorAll("li")].map((line) => line.textContent);
  expect(lines).toEqual(["<img src=x onerror=alert(1)>1,200", "␠3", "others7"]);
  expect(page.querySelector("button")).toBeNull();
});

test("an entry that can be picked is a button that tells its label", () => {
  const onPick = vi.fn();
  const buttons = show(CATEGORIES, onPick).querySelectorAll("button");
  buttons[1]?.click();
  expect(onPick).toHaveBeenCalledWith(" ");
  expect(buttons).toHaveLength(2);
});

test("numbers show their range, what lies beyond it and what is missing", () => {
  const legend: LegendOf = {
    kind: "continuous",
    title: "norm",
    low: 0.123456,
    high: 17,
    css: ["#000000", "#ffffff"],
    nMissing: 4,
    isClipped: true,
  };
  const text = show(legend).textContent;
  expect(text).toContain("≤ 0.1235");
  expect(text).toContain("≥ 17");
  expect(text).toContain("no value: 4");
});
