/** Perceptual colour: OKLCH to sRGB and back, relative luminance, contrast. */

/** Bytes of red, green and blue. */
export type Rgb = readonly [red: number, green: number, blue: number];

/**
 * The sRGB colour of a lightness (0 to 1), chroma and hue (degrees), clipped to what screens show.
 *
 * Source: Björn Ottosson, "A perceptual color space for image processing", 2020.
 */
export function oklchToRgb(lightness: number, chroma: number, hue: number): Rgb {
  const angle = (hue * Math.PI) / 180;
  const [a, b] = [chroma * Math.cos(angle), chroma * Math.sin(angle)];
  const long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const short = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    toByte(4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short),
    toByte(-1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short),
    toByte(-0.0041960863 * long - 0.7034186147 * middle + 1.707614701 * short),
  ];
}

/** OKLab of linear red, green and blue, 0 to 1: distances in it are about those seen. */
export function linearToOklab([red, green, blue]: Rgb): readonly [number, number, number] {
  const long = Math.cbrt(0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue);
  const middle = Math.cbrt(0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue);
  const short = Math.cbrt(0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue);
  return [
    0.2104542553 * long + 0.793617785 * middle - 0.0040720468 * short,
    1.9779984951 * long - 2.428592205 * middle + 0.4505937099 * short,
    0.0259040371 * long + 0.7827717662 * middle - 0.808675766 * short,
  ];
}

/** A byte of linear light, 0 to 1, as sRGB encodes it. */
function toByte(linear: number): number {
  const value = Math.min(1, Math.max(0, linear));
  const encoded = value <= 0.0031308 ? 12.92 * value : 1.055 * value ** (1 / 2.4) - 0.055;
  return Math.round(255 * encoded);
}

/** Linear light of a byte of sRGB. */
export function toLinear(byte: number): number {
  const value = byte / 255;
  return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
}

/** Relative luminance, 0 to 1, as WCAG 2 defines it. */
export function luminance([red, green, blue]: Rgb): number {
  return 0.2126 * toLinear(red) + 0.7152 * toLinear(green) + 0.0722 * toLinear(blue);
}

/** Contrast of two colours, 1 to 21, as WCAG 2 defines it. */
export function contrast(a: Rgb, b: Rgb): number {
  const [one, other] = [luminance(a) + 0.05, luminance(b) + 0.05];
  return Math.max(one, other) / Math.min(one, other);
}

/** `#rrggbb`. */
export function toCss(rgb: Rgb): string {
  return `#${rgb.map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** Bytes of `#rrggbb`. */
export function fromCss(css: string): Rgb {
  const number = Number.parseInt(css.slice(1), 16);
  return [(number >> 16) & 255, (number >> 8) & 255, number & 255];
}
