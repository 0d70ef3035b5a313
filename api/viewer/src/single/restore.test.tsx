import { render } from "preact";
import { act } from "preact/test-utils";
import { afterEach, expect, test, vi } from "vitest";
import type { MapRow } from "../contract/rows";
import { readState } from "../contract/state";
import { useRestoredOutline } from "./restore";

const MAPS = [2, 3].map((dims) => ({ map_id: `map${dims}`, dims, n_points: 1e6 }) as MapRow);

function View() {
  useRestoredOutline(MAPS);
  return null;
}

afterEach(async () => {
  await act(() => render(null, document.body));
  readState("");
  vi.unstubAllGlobals();
});

test.each([
  ["map2", [1.5, -2, 3, 4, 2, 9], "1.5,3,-2,9"],
  ["map3", [0, 0, 0, 1, 1, 2, 0.1, 0.1, 0.2, 0.2, 0.3, 0], null],
])("of a large map %s the points around the outline are asked for", async (mapId, corners, box) => {
  const ask = vi.fn(async (_url: string) => new Response("{}", { status: 500 }));
  vi.stubGlobal("fetch", ask);
  const selector = JSON.stringify({ by: "polygon", mapId, corners });
  readState(new URLSearchParams({ selector }).toString());
  await act(() => render(<View />, document.body));
  await vi.waitFor(() => expect(ask).toHaveBeenCalled());
  const url = new URL(String(ask.mock.calls[0]?.[0]), "http://atlas/");
  expect(url.pathname).toContain(mapId);
  expect(url.searchParams.get("box")).toBe(box);
});
