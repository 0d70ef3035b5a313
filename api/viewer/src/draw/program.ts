/** WebGL2 contexts and shader programs, and what is said where there are none. */

/** The browser cannot draw: no WebGL2. Its message is for the user. */
export class NoWebGL extends Error {
  constructor(reason: string) {
    super(`This browser cannot draw points: ${reason}. Switch on WebGL 2, or use another browser.`);
    this.name = "NoWebGL";
  }
}

/** The canvas's context, the same one at each call; its picture outlives the frame. */
export function openGl(canvas: HTMLCanvasElement): WebGL2RenderingContext {
  const gl = canvas.getContext("webgl2", {
    alpha: true,
    antialias: false,
    depth: true,
    premultipliedAlpha: true,
    preserveDrawingBuffer: true,
  });
  if (!gl) throw new NoWebGL("WebGL 2 is missing or switched off");
  return gl;
}

/** A linked program. A context that is lost gives one that draws nothing until it is restored. */
export function makeProgram(
  gl: WebGL2RenderingContext,
  vertex: string,
  fragment: string,
): WebGLProgram {
  const program = gl.createProgram();
  const shaders = [
    compile(gl, gl.VERTEX_SHADER, vertex),
    compile(gl, gl.FRAGMENT_SHADER, fragment),
  ];
  for (const shader of shaders) gl.attachShader(program, shader);
  gl.linkProgram(program);
  for (const shader of shaders) gl.deleteShader(shader);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
    throw new NoWebGL(`its shaders do not link (${gl.getProgramInfoLog(program)?.trim()})`);
  }
  return program;
}

function compile(gl: WebGL2RenderingContext, kind: number, source: string): WebGLShader {
  const shader = gl.createShader(kind);
  if (!shader) throw new NoWebGL("its context is gone");
  gl.shaderSource(shader, source);
  gl.compileShader(shader);
  if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS) && !gl.isContextLost()) {
    throw new NoWebGL(`a shader does not compile (${gl.getShaderInfoLog(shader)?.trim()})`);
  }
  return shader;
}
