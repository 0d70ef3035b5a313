/** Which part of a map to ask for when it holds more points than one picture. */

/** x0, x1, y0, y1 in the map's units. */
export type Box = readonly [number, number, number, number];

/** What is drawn of a large map: all of it where `box` is null. */
export interface Part {
  readonly box: Box | null;
  /** Whether the box holds more points than were drawn. */
  readonly isCut: boolean;
}

/** The part asked for is larger than the view, so that a small pan shows no border. */
const MARGIN = 1.5;
/** A cut part is asked for anew once the view is this much smaller than what it was made for. */
const CLOSER = 0.75;

/**
 * The part to draw for a view.
 *
 * `whole` is the part of the map that the first picture shows. The part drawn now is returned as it
 * is where asking again would show nothing new.
 */
export function choosePart(now: Part, view: Box, whole: Box): Box | null {
  if (areaOf(view) >= areaOf(whole) / (MARGIN * MARGIN)) return null;
  const wanted = widen(view, MARGIN);
  if (now.box === null || !isWithin(view, now.box)) return wanted;
  const isCloser = areaOf(wanted) < areaOf(now.box) * CLOSER * CLOSER;
  return now.isCut && isCloser ? wanted : now.box;
}

function areaOf(box: Box): number {
  return (box[1] - box[0]) * (box[3] - box[2]);
}

function widen(box: Box, factor: number): Box {
  const [x0, x1, y0, y1] = box;
  const [moreX, moreY] = [((x1 - x0) * (factor - 1)) / 2, ((y1 - y0) * (factor - 1)) / 2];
  return [x0 - moreX, x1 + moreX, y0 - moreY, y1 + moreY];
}

function isWithin(inner: Box, outer: Box): boolean {
  return (
    inner[0] >= outer[0] && inner[1] <= outer[1] && inner[2] >= outer[2] && inner[3] <= outer[3]
  );
}
