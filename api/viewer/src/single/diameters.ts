/** How large points are drawn. */

const LARGEST_PX = 10;
const SMALLEST_PX = 1.5;
/** Between the smallest and the largest norm, so that a large one is seen and hides nothing. */
const SMALLEST_FACTOR = 0.6;
const LARGEST_FACTOR = 2.2;
/** How much faster points grow than room between them does not; 0 keeps their size in every zoom. */
const GROWTH = 0.35;

/** CSS pixels of a point among n on a map that is seen whole. */
export function diameterOf(n: number): number {
  return Math.min(LARGEST_PX, Math.max(SMALLEST_PX, 40 / Math.max(1, n) ** 0.25));
}

/** CSS pixels of a point after zooming in `zoom` times. */
export function zoomedDiameter(n: number, zoom: number): number {
  return Math.min(LARGEST_PX, Math.max(SMALLEST_PX, diameterOf(n) * zoom ** GROWTH));
}

/** CSS pixels by norm, in proportion to where it lies between the 2nd and 98th of 100 parts. */
export function diametersByNorm(norms: Float32Array, n: number): Float32Array {
  const known = norms.filter((norm) => !Number.isNaN(norm)).sort();
  const low = known[Math.floor(known.length * 0.02)] ?? 0;
  const high = known[Math.min(known.length - 1, Math.floor(known.length * 0.98))] ?? 0;
  const usual = diameterOf(n);
  return Float32Array.from({ length: n }, (_, i) => {
    const norm = norms[i] ?? Number.NaN;
    if (Number.isNaN(norm) || high <= low) return usual;
    const part = Math.min(1, Math.max(0, (norm - low) / (high - low)));
    return usual * (SMALLEST_FACTOR + part * (LARGEST_FACTOR - SMALLEST_FACTOR));
  });
}
