import { afterEach, expect, test, vi } from "vitest";
import { savePicture, saveText } from "./picture";

afterEach(() => {
  vi.restoreAllMocks();
});

test("a text is handed over as a file of its name and type, and no link is left on the page", async () => {
  const blobs: Blob[] = [];
  vi.spyOn(URL, "createObjectURL").mockImplementation((blob) => {
    blobs.push(blob as Blob);
    return "blob:here";
  });
  const clicked: string[] = [];
  vi.spyOn(HTMLAnchorElement.prototype, "click").mockImplementation(function (
    this: HTMLAnchorElement,
  ) {
    clicked.push(`${this.download} ${this.href}`);
  });
  saveText("kind,position\nquery,3\n", "selection.csv", "text/csv");
  expect(clicked).toEqual(["selection.csv blob:here"]);
  expect(await blobs[0]?.text()).toBe("kind,position\nquery,3\n");
  expect(blobs[0]?.type).toBe("text/csv;charset=utf-8");
  expect(document.querySelector("a")).toBeNull();
});

test("a picture of nothing is refused", async () => {
  await expect(savePicture([], "map.png", "#ffffff", "")).rejects.toThrow("nothing to save");
});
