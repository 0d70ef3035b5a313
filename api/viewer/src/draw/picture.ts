/** Files for the user: pictures of what is drawn, and texts. */

const CAPTION_PIXELS = 28;
const MARGIN = 10;

/** Save canvases that lie over each other as one PNG, on a ground, with a caption beneath. */
export async function savePicture(
  canvases: readonly HTMLCanvasElement[],
  name: string,
  groundCss: string,
  caption: string,
): Promise<void> {
  const picture = drawPicture(canvases, groundCss, caption);
  const blob = await new Promise<Blob | null>((resolve) => picture.toBlob(resolve, "image/png"));
  if (!blob) throw new Error("The picture is too large for this browser: make its window smaller.");
  saveBlob(blob, name);
}

/** The layers over the ground, each stretched to the first one's size. */
function drawPicture(
  canvases: readonly HTMLCanvasElement[],
  groundCss: string,
  caption: string,
): HTMLCanvasElement {
  const [first] = canvases;
  if (!first) throw new Error("There is nothing to save.");
  const ratio = first.clientWidth > 0 ? first.width / first.clientWidth : 1;
  const picture = document.createElement("canvas");
  picture.width = first.width;
  picture.height = first.height + Math.round(CAPTION_PIXELS * ratio);
  const context = picture.getContext("2d");
  if (!context) throw new Error("This browser cannot draw on a canvas. Use another browser.");
  context.fillStyle = groundCss;
  context.fillRect(0, 0, picture.width, picture.height);
  for (const canvas of canvases) context.drawImage(canvas, 0, 0, first.width, first.height);
  context.scale(ratio, ratio);
  context.font = "12px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.fillStyle = inkOn(groundCss, context);
  const [width, top] = [first.width / ratio, first.height / ratio];
  context.fillText(caption, MARGIN, top + CAPTION_PIXELS / 2, width - 2 * MARGIN);
  return picture;
}

/** Black or white, whichever is legible on a colour of whatever notation. */
function inkOn(css: string, context: CanvasRenderingContext2D): string {
  const before = context.fillStyle;
  context.fillStyle = css;
  const found = /^#(..)(..)(..)$/.exec(String(context.fillStyle));
  context.fillStyle = before;
  if (!found) return "#000000";
  const [red, green, blue] = found.slice(1).map((part) => Number.parseInt(part, 16));
  const brightness = 0.3 * (red ?? 0) + 0.59 * (green ?? 0) + 0.11 * (blue ?? 0);
  return brightness > 140 ? "#1a1a1a" : "#f0f0f0";
}

/** Hand a file to the user under a name. */
export function saveBlob(blob: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  // Browsers begin to read only after the click; a minute is ample.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Hand a text to the user as a file. */
export function saveText(text: string, name: string, type: string): void {
  saveBlob(new Blob([text], { type: `${type};charset=utf-8` }), name);
}
