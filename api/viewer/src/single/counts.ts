/** How many points a picture has, in words. */

import type { Drawn } from "./pane";

/** `250,000 of 1,000,000 points drawn …`, or how many queries and keys there are. */
export function describeCount({
  map,
  points,
  part,
}: Pick<Drawn, "map" | "points" | "part">): string {
  const write = (n: number) => n.toLocaleString("en");
  if (!part.isCut && part.box === null) {
    const nQueries = points.isQuery.reduce((sum, one) => sum + one, 0);
    const nKeys = points.n - nQueries;
    return `${write(points.n)} points: ${write(nQueries)} queries, ${write(nKeys)} keys`;
  }
  const drawn = `${write(points.n)} of ${write(map.n_points)} points drawn`;
  if (part.box === null) return `${drawn}, spread as all of them are: zoom in for more`;
  return part.isCut
    ? `${drawn}, around what is in view: zoom in for more`
    : `${drawn}: all in view`;
}
