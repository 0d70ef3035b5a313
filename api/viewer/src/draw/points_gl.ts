/** A cloud of points drawn by WebGL2: one `gl.POINTS` draw a frame, buffers filled when they change. */

import { type Camera, type Cloud, type Size, toMatrix } from "./camera";
import { makeProgram, openGl } from "./program";
import { type Form, FRAGMENT, VERTEX } from "./shaders";

export type { Cloud } from "./camera";

/** More device pixels than this for a CSS pixel cost much and show little. */
const MOST_RATIO = 2;
/** Up to this many device pixels a square looks like a disc and costs less. */
const LARGEST_SQUARE = 2.5;
const DIMMED_ALPHA = 0.16;
const FADING_3D = 0.45;

type Numbers = Float32Array | Uint8Array | Uint32Array;

/** How the shader reads a buffer, by attribute location. */
interface Attribute {
  readonly location: number;
  readonly size: number;
  readonly isNormalised: boolean;
}

const ATTRIBUTES = {
  x: { location: 0, size: 1, isNormalised: false },
  y: { location: 1, size: 1, isNormalised: false },
  z: { location: 2, size: 1, isNormalised: false },
  colour: { location: 3, size: 4, isNormalised: true },
  diameter: { location: 4, size: 1, isNormalised: false },
  lit: { location: 5, size: 1, isNormalised: false },
  isQuery: { location: 6, size: 1, isNormalised: false },
  uv: { location: 7, size: 4, isNormalised: false },
} as const satisfies Record<string, Attribute>;

type AttributeName = keyof typeof ATTRIBUTES;
const NAMES = Object.keys(ATTRIBUTES) as AttributeName[];

interface Program {
  readonly program: WebGLProgram;
  readonly view: WebGLUniformLocation | null;
  readonly ratio: WebGLUniformLocation | null;
  readonly smallest: WebGLUniformLocation | null;
  readonly dimmed: WebGLUniformLocation | null;
  readonly fading: WebGLUniformLocation | null;
}

/** Device pixels of a CSS pixel, at most 2. */
export function deviceRatio(): number {
  return Math.min(MOST_RATIO, globalThis.devicePixelRatio || 1);
}

/**
 * Draws one cloud on one canvas. A second one on the same canvas shares its context.
 *
 * Arrays are kept, not copied, and one that is set again is not uploaded again: give a new one.
 */
export class PointsGL {
  /** Called when the context came back: draw again. */
  onRestored: () => void = () => {};

  readonly #gl: WebGL2RenderingContext;
  /** What each attribute holds, kept for a context that is lost; null for one value for all. */
  readonly #values = new Map<AttributeName, Numbers>();
  readonly #buffers = new Map<AttributeName, WebGLBuffer>();
  readonly #stale = new Set<AttributeName>();
  readonly #programs = new Map<Form, Program>();
  #n = 0;
  #dims: 2 | 3 = 2;
  #diameter = 4;
  #marked: Uint8Array | null = null;
  #order: WebGLBuffer | null = null;
  #orderedCount = -1;
  #pictures: ImageBitmap | null = null;
  #texture: WebGLTexture | null = null;

  constructor(private readonly canvas: HTMLCanvasElement) {
    this.#gl = openGl(canvas);
    canvas.addEventListener("webglcontextlost", this.#lose);
    canvas.addEventListener("webglcontextrestored", this.#restore);
  }

  /** The points; what was set for those before (colours, diameters, marks …) is forgotten. */
  setCloud(cloud: Cloud): void {
    for (const name of NAMES) this.#set(name, null);
    this.#n = cloud.n;
    this.#dims = cloud.dims;
    this.#set("x", cloud.x);
    this.#set("y", cloud.y);
    this.#set("z", cloud.dims === 3 ? cloud.z : null);
    this.setMarked(null);
  }

  /** Four bytes a point; alpha is cover over the ground, never of other points. */
  setColours(rgba: Uint8Array): void {
    this.#set("colour", rgba);
  }

  /** CSS pixels, of each point or of all. */
  setDiameters(pixels: Float32Array | number): void {
    if (typeof pixels === "number") this.#diameter = pixels;
    this.#set("diameter", typeof pixels === "number" ? null : pixels);
  }

  /** 1 for discs (queries), 0 for outlined diamonds (keys); null: all discs. */
  setShapes(isQuery: Uint8Array | null): void {
    this.#set("isQuery", isQuery);
  }

  /** 1 lit, 0 dimmed and beneath; null: all lit. */
  setMarked(marked: Uint8Array | null): void {
    if (marked !== this.#marked) this.#orderedCount = -1;
    this.#marked = marked;
    this.#set("lit", marked);
  }

  /** Patches as points: a picture of them all, and u0, v0, u1, v1 a point (zeros: a disc). */
  setSprites(pictures: ImageBitmap | null, uv: Float32Array | null): void {
    this.#set("uv", pictures && uv);
    if (pictures === this.#pictures) return;
    this.#pictures = pictures;
    this.#gl.deleteTexture(this.#texture);
    this.#texture = null;
  }

  /** Draw the first `count` points. Nothing is drawn while the context is lost. */
  draw(camera: Camera, size: Size, count: number = this.#n): void {
    const gl = this.#gl;
    if (gl.isContextLost()) return;
    const ratio = deviceRatio();
    this.#fit(size, ratio);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const shown = Math.min(count, this.#n);
    if (shown <= 0) return;
    const { program, ...at } = this.#program(this.#form(ratio));
    gl.useProgram(program);
    gl.uniformMatrix4fv(at.view, false, toMatrix(camera, size));
    gl.uniform1f(at.ratio, ratio);
    gl.uniform1f(at.smallest, 1);
    gl.uniform1f(at.dimmed, DIMMED_ALPHA);
    gl.uniform1f(at.fading, this.#dims === 3 ? FADING_3D : 0);
    this.#bind();
    if (this.#dims === 3) gl.enable(gl.DEPTH_TEST);
    else gl.disable(gl.DEPTH_TEST);
    gl.disable(gl.BLEND);
    this.#drawOrdered(shown);
  }

  /** Free what it holds on the graphics side; the context stays for the canvas's next drawer. */
  dispose(): void {
    const gl = this.#gl;
    for (const buffer of this.#buffers.values()) gl.deleteBuffer(buffer);
    for (const { program } of this.#programs.values()) gl.deleteProgram(program);
    gl.deleteBuffer(this.#order);
    gl.deleteTexture(this.#texture);
    for (const name of NAMES) gl.disableVertexAttribArray(ATTRIBUTES[name].location);
    this.#forget();
    this.#values.clear();
    this.#marked = null;
    this.#pictures = null;
    this.#n = 0;
    this.canvas.removeEventListener("webglcontextlost", this.#lose);
    this.canvas.removeEventListener("webglcontextrestored", this.#restore);
  }

  readonly #lose = (event: Event): void => {
    event.preventDefault(); // else it is never restored
    this.#forget();
  };

  readonly #restore = (): void => {
    for (const name of this.#values.keys()) this.#stale.add(name);
    this.onRestored();
  };

  #forget(): void {
    this.#buffers.clear();
    this.#programs.clear();
    this.#order = null;
    this.#orderedCount = -1;
    this.#texture = null;
  }

  #set(name: AttributeName, values: Numbers | null): void {
    if (this.#values.get(name) === (values ?? undefined)) return;
    if (values) {
      this.#values.set(name, values);
      this.#stale.add(name);
    } else {
      this.#values.delete(name);
      this.#stale.delete(name);
    }
  }

  #fit(size: Size, ratio: number): void {
    const width = Math.max(1, Math.round(size.width * ratio));
    const height = Math.max(1, Math.round(size.height * ratio));
    if (this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas.height !== height) this.canvas.height = height;
    this.#gl.viewport(0, 0, width, height);
  }

  #form(ratio: number): Form {
    if (this.#pictures && this.#values.has("uv")) return "sprite";
    const isSmall = !this.#values.has("diameter") && this.#diameter * ratio <= LARGEST_SQUARE;
    if (isSmall) return "square";
    return this.#values.has("isQuery") ? "shape" : "disc";
  }

  #program(form: Form): Program {
    const gl = this.#gl;
    const known = this.#programs.get(form);
    if (known) return known;
    const program = makeProgram(gl, VERTEX(form), FRAGMENT[form]);
    const at = (name: string) => gl.getUniformLocation(program, name);
    const made = {
      program,
      view: at("view"),
      ratio: at("ratio"),
      smallest: at("smallest"),
      dimmed: at("dimmed"),
      fading: at("fading"),
    };
    this.#programs.set(form, made);
    return made;
  }

  /** Attributes and texture as the programs read them. Other drawers may share the context. */
  #bind(): void {
    for (const name of NAMES) this.#bindAttribute(name);
    if (this.#pictures) this.#bindPictures(this.#pictures);
  }

  #bindAttribute(name: AttributeName): void {
    const gl = this.#gl;
    const { location, size, isNormalised } = ATTRIBUTES[name];
    const values = this.#values.get(name);
    // Values for another number of points came late, for a cloud that is gone: not used.
    if (values?.length !== this.#n * size) {
      gl.disableVertexAttribArray(location);
      if (name === "colour") gl.vertexAttrib4f(location, 0.5, 0.5, 0.5, 1);
      else gl.vertexAttrib1f(location, this.#usual(name));
      return;
    }
    gl.bindBuffer(gl.ARRAY_BUFFER, this.#buffer(name));
    if (this.#stale.delete(name)) gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(location);
    const type = values instanceof Float32Array ? gl.FLOAT : gl.UNSIGNED_BYTE;
    gl.vertexAttribPointer(location, size, type, isNormalised, 0, 0);
  }

  #usual(name: AttributeName): number {
    if (name === "diameter") return this.#diameter;
    return name === "lit" || name === "isQuery" ? 1 : 0;
  }

  #buffer(name: AttributeName): WebGLBuffer {
    const known = this.#buffers.get(name);
    if (known) return known;
    const made = this.#gl.createBuffer();
    this.#buffers.set(name, made);
    this.#stale.add(name);
    return made;
  }

  #bindPictures(pictures: ImageBitmap): void {
    const gl = this.#gl;
    gl.activeTexture(gl.TEXTURE0);
    if (this.#texture) {
      gl.bindTexture(gl.TEXTURE_2D, this.#texture);
      return;
    }
    this.#texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, this.#texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, pictures);
    for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) {
      gl.texParameteri(gl.TEXTURE_2D, side, gl.CLAMP_TO_EDGE);
    }
    for (const filter of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) {
      gl.texParameteri(gl.TEXTURE_2D, filter, gl.LINEAR);
    }
  }

  /** Without marks in their order; with marks the dimmed first, by an index. One draw either way. */
  #drawOrdered(count: number): void {
    const gl = this.#gl;
    if (!this.#marked || this.#dims === 3) {
      gl.drawArrays(gl.POINTS, 0, count);
      return;
    }
    this.#order ??= gl.createBuffer();
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.#order);
    if (this.#orderedCount !== count) {
      gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, litLast(this.#marked, count), gl.STATIC_DRAW);
      this.#orderedCount = count;
    }
    gl.drawElements(gl.POINTS, count, gl.UNSIGNED_INT, 0);
  }
}

/** The first `count` indices, the lit ones last, else in their order. */
export function litLast(marked: Uint8Array, count: number): Uint32Array {
  const order = new Uint32Array(count);
  let next = 0;
  for (const isLit of [false, true]) {
    for (let i = 0; i < count; i++) {
      if ((marked[i] !== 0) === isLit) order[next++] = i;
    }
  }
  return order;
}
