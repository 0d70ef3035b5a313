/** All heads' points in one draw: cells are placed by a texture, so that sorting uploads no point. */

import type { MatrixHead } from "../contract/atlas";
import type { Size } from "../draw/camera";
import { makeProgram, openGl } from "../draw/program";
import type { Sheet } from "./order";
import type { SheetView } from "./sheet_view";

const VERTEX = `#version 300 es
precision highp float;
precision highp int;
in vec2 place;
in uvec2 numbers;
uniform highp sampler2D cells;
uniform highp sampler2D colours;
uniform vec4 sheet;
uniform vec4 screen;
uniform vec3 ground;
flat out vec3 colour;
flat out float isRound;
vec4 look(highp sampler2D table, uint index) {
  uint width = uint(textureSize(table, 0).x);
  return texelFetch(table, ivec2(index % width, index / width), 0);
}
void main() {
  vec4 cell = look(cells, numbers.x);
  vec4 own = look(colours, numbers.y);
  vec2 inside = vec2(0.5) + (place - vec2(0.5)) * cell.zw * ${0.88};
  vec2 pixel = sheet.xy + (cell.xy + vec2(inside.x, 1.0 - inside.y)) * sheet.z;
  bool isLit = own.a > 0.75;
  bool isDimmed = own.a < 0.25;
  colour = isDimmed ? mix(ground, own.rgb, 0.28) : own.rgb;
  float diameter = sheet.w * (isLit ? 1.7 : 1.0) + (isLit ? 1.0 : 0.0);
  isRound = diameter * screen.z > 2.5 ? 1.0 : 0.0;
  gl_PointSize = max(1.0, diameter * screen.z);
  vec2 clip = pixel / screen.xy * 2.0 - 1.0;
  gl_Position = vec4(clip.x, -clip.y, isDimmed ? 0.5 : 0.0, 1.0);
}`;

const FRAGMENT = `#version 300 es
precision mediump float;
flat in vec3 colour;
flat in float isRound;
out vec4 pixel;
void main() {
  vec2 away = gl_PointCoord - vec2(0.5);
  if (isRound > 0.5 && dot(away, away) > 0.25) discard;
  pixel = vec4(colour, 1.0);
}`;

/** Two uint16 of the place in the head's bounds, the number of the cell and that of the point. */
const NUMBERS_A_POINT = 4;
const BYTES_A_POINT = 2 * NUMBERS_A_POINT;
const LONGEST_ROW = 1024;

/** How a point's colour says what it is: its alpha. */
const PLAIN = 128;
const LIT = 255;
const DIMMED = 0;

/** What a frame needs beyond the points. */
export interface Frame {
  readonly view: SheetView;
  readonly size: Size;
  /** Device pixels a CSS pixel. */
  readonly ratio: number;
  /** Red, green and blue, 0 to 1, that dimmed points fade to. */
  readonly ground: readonly number[];
}

interface Drawing {
  readonly program: WebGLProgram;
  readonly vertices: WebGLVertexArrayObject;
  readonly points: WebGLBuffer;
  readonly cells: WebGLTexture;
  readonly colours: WebGLTexture;
}

/** The canvas of a matrix. Throws NoWebGL. */
export class MatrixGL {
  readonly #gl: WebGL2RenderingContext;
  #drawing: Drawing | null = null;
  #points = new Uint16Array();
  #cells = new Float32Array();
  #scales = new Float32Array();
  /** Where each head's points begin, and where the last one's end. */
  #starts: readonly number[] = [0];
  #colours = new Uint8Array();
  #hasMarks = false;
  /** Called when a lost context is back: draw again. */
  onRestored: () => void = () => {};

  constructor(private readonly canvas: HTMLCanvasElement) {
    this.#gl = openGl(canvas);
    canvas.addEventListener("webglcontextlost", this.#lose);
    canvas.addEventListener("webglcontextrestored", this.#restore);
  }

  /** The points of all heads; forgets where their cells lie. */
  setHeads(heads: readonly MatrixHead[], dims: number): void {
    this.#points = interleave(heads, dims);
    this.#scales = Float32Array.from(heads.flatMap((head) => scalesOf(head)));
    this.#starts = countStarts(heads, dims);
    this.#cells = new Float32Array();
    this.#upload("points");
  }

  /** Where each head's cell lies, by the order of setHeads. */
  setSheet(sheet: Sheet): void {
    const place = (i: number) => [sheet.columns[i] ?? 0, sheet.rows[i] ?? 0];
    const n = sheet.columns.length;
    this.#cells = new Float32Array(4 * n);
    for (let i = 0; i < n; i++) {
      this.#cells.set(place(i), 4 * i);
      this.#cells.set(this.#scales.subarray(2 * i, 2 * i + 2), 4 * i + 2);
    }
    this.#upload("cells");
  }

  /** A colour for each shared point, and which of them are lit; null lights and dims none. */
  setColours(rgba: Uint8Array, marks: Uint8Array | null): void {
    const colours = rgba.slice();
    for (let i = 0; 4 * i < colours.length; i++) {
      colours[4 * i + 3] = marks === null ? PLAIN : marks[i] === 1 ? LIT : DIMMED;
    }
    this.#colours = colours;
    this.#hasMarks = marks !== null;
    this.#upload("colours");
  }

  /** Draw all points once; true where there was all that it takes. */
  draw(frame: Frame): boolean {
    const gl = this.#gl;
    if (gl.isContextLost()) return false;
    this.#fitCanvas(frame);
    gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    if (this.#cells.length === 0 || this.#colours.length === 0) return false;
    this.#drawing ??= this.#make();
    if (this.#points.length > 0) this.#drawPoints(this.#drawing, frame);
    return true;
  }

  /** Free what it holds, and the context: the canvas goes too, and browsers keep only 16. */
  dispose(): void {
    const gl = this.#gl;
    if (this.#drawing) {
      const { program, vertices, points, cells, colours } = this.#drawing;
      gl.deleteProgram(program);
      gl.deleteVertexArray(vertices);
      gl.deleteBuffer(points);
      gl.deleteTexture(cells);
      gl.deleteTexture(colours);
    }
    this.#drawing = null;
    this.canvas.removeEventListener("webglcontextlost", this.#lose);
    this.canvas.removeEventListener("webglcontextrestored", this.#restore);
    gl.getExtension("WEBGL_lose_context")?.loseContext();
  }

  #drawPoints(drawing: Drawing, frame: Frame): void {
    const gl = this.#gl;
    const { view, size, ratio, ground } = frame;
    gl.useProgram(drawing.program);
    gl.bindVertexArray(drawing.vertices);
    const at = (name: string) => gl.getUniformLocation(drawing.program, name);
    gl.uniform4f(at("sheet"), view.left, view.top, view.cell, diameterOf(view.cell));
    gl.uniform4f(at("screen"), size.width, size.height, ratio, 0);
    gl.uniform3f(at("ground"), ground[0] ?? 0, ground[1] ?? 0, ground[2] ?? 0);
    gl.uniform1i(at("cells"), 0);
    gl.uniform1i(at("colours"), 1);
    for (const [unit, texture] of [drawing.cells, drawing.colours].entries()) {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, texture);
    }
    // Depth puts lit points above dimmed ones within the one draw.
    if (this.#hasMarks) gl.enable(gl.DEPTH_TEST);
    else gl.disable(gl.DEPTH_TEST);
    gl.depthFunc(gl.LEQUAL);
    const [first, last] = visibleRange(this.#cells, view, size);
    const start = this.#starts[first] ?? 0;
    gl.drawArrays(gl.POINTS, start, Math.max(0, (this.#starts[last + 1] ?? 0) - start));
    gl.bindVertexArray(null);
  }

  #fitCanvas({ size, ratio }: Frame): void {
    const width = Math.max(1, Math.round(size.width * ratio));
    const height = Math.max(1, Math.round(size.height * ratio));
    if (this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas.height !== height) this.canvas.height = height;
  }

  #make(): Drawing {
    const gl = this.#gl;
    const program = makeProgram(gl, VERTEX, FRAGMENT);
    const vertices = gl.createVertexArray();
    const points = gl.createBuffer();
    gl.bindVertexArray(vertices);
    gl.bindBuffer(gl.ARRAY_BUFFER, points);
    const place = gl.getAttribLocation(program, "place");
    const numbers = gl.getAttribLocation(program, "numbers");
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, 2, gl.UNSIGNED_SHORT, true, BYTES_A_POINT, 0);
    gl.enableVertexAttribArray(numbers);
    gl.vertexAttribIPointer(numbers, 2, gl.UNSIGNED_SHORT, BYTES_A_POINT, 4);
    gl.bindVertexArray(null);
    const drawing = {
      program,
      vertices,
      points,
      cells: gl.createTexture(),
      colours: gl.createTexture(),
    };
    this.#fill(drawing, "points");
    this.#fill(drawing, "cells");
    this.#fill(drawing, "colours");
    return drawing;
  }

  #upload(what: "points" | "cells" | "colours"): void {
    if (this.#drawing) this.#fill(this.#drawing, what);
  }

  #fill(drawing: Drawing, what: "points" | "cells" | "colours"): void {
    const gl = this.#gl;
    if (what === "points") {
      gl.bindBuffer(gl.ARRAY_BUFFER, drawing.points);
      gl.bufferData(gl.ARRAY_BUFFER, this.#points, gl.STATIC_DRAW);
      return;
    }
    const values = what === "cells" ? this.#cells : this.#colours;
    const width = Math.max(1, Math.min(LONGEST_ROW, values.length / 4));
    const height = Math.max(1, Math.ceil(values.length / 4 / width));
    const isFloat = values instanceof Float32Array;
    const padded = isFloat
      ? new Float32Array(4 * width * height)
      : new Uint8Array(4 * width * height);
    padded.set(values);
    gl.bindTexture(gl.TEXTURE_2D, drawing[what]);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    const form = isFloat ? gl.RGBA32F : gl.RGBA8;
    const type = isFloat ? gl.FLOAT : gl.UNSIGNED_BYTE;
    gl.texImage2D(gl.TEXTURE_2D, 0, form, width, height, 0, gl.RGBA, type, padded);
  }

  readonly #lose = (event: Event): void => {
    event.preventDefault(); // else it is never restored
    this.#drawing = null;
  };

  readonly #restore = (): void => {
    this.onRestored();
  };
}

/** Points head by head: x and y within the head's bounds, then the numbers of cell and point. */
export function interleave(heads: readonly MatrixHead[], dims: number): Uint16Array<ArrayBuffer> {
  const total = heads.reduce((sum, head) => sum + (head.coordinates?.length ?? 0) / dims, 0);
  const points = new Uint16Array(NUMBERS_A_POINT * total);
  let end = 0;
  for (const [cell, { coordinates }] of heads.entries()) {
    const n = (coordinates?.length ?? 0) / dims;
    for (let i = 0; i < n; i++) {
      points[end++] = coordinates?.[i * dims] ?? 0;
      points[end++] = coordinates?.[i * dims + 1] ?? 0;
      points[end++] = cell;
      points[end++] = i;
    }
  }
  return points;
}

function countStarts(heads: readonly MatrixHead[], dims: number): readonly number[] {
  const starts = [0];
  for (const { coordinates } of heads) {
    starts.push((starts.at(-1) ?? 0) + (coordinates?.length ?? 0) / dims);
  }
  return starts;
}

/**
 * The first and last head with a cell in sight, whose points and those between are drawn: the
 * heads of a few rows when zoomed in. `cells` has four numbers a head, column and row first.
 */
export function visibleRange(cells: Float32Array, view: SheetView, size: Size): [number, number] {
  let [first, last] = [0, -1];
  for (let i = 0; 4 * i < cells.length; i++) {
    const x = view.left + (cells[4 * i] ?? 0) * view.cell;
    const y = view.top + (cells[4 * i + 1] ?? 0) * view.cell;
    const isInSight = x < size.width && x + view.cell > 0 && y < size.height && y + view.cell > 0;
    if (!isInSight) continue;
    if (last < 0) first = i;
    last = i;
  }
  return [first, last];
}

/** The part of a square cell that a head's bounds take each way: equal units in x and y. */
export function scalesOf(head: MatrixHead): [number, number] {
  const across = (head.high[0] ?? 1) - (head.low[0] ?? 0);
  const down = (head.high[1] ?? 1) - (head.low[1] ?? 0);
  const longer = Math.max(across, down);
  return longer > 0 ? [across / longer, down / longer] : [1, 1];
}

/** CSS pixels of a point in a cell that wide. */
export function diameterOf(cell: number): number {
  return Math.min(6, Math.max(1, cell / 70));
}
