/** Shaders of points. Fragments cost most in software, so each program does no more than it must. */

/** What a program draws a point as. */
export type Form = "square" | "disc" | "shape" | "sprite";

/**
 * One point: place, colour, diameter, whether it is lit.
 *
 * Depth only orders 3-D maps: squashed to (−1, 1) so that no zoom cuts a point off, lit points in front.
 */
export const VERTEX = (form: Form) => `#version 300 es
precision highp float;
layout(location = 0) in float x;
layout(location = 1) in float y;
layout(location = 2) in float z;
layout(location = 3) in vec4 colour;
layout(location = 4) in float diameter;
layout(location = 5) in float lit;
${form === "shape" ? "layout(location = 6) in float isQuery;" : ""}
${form === "sprite" ? "layout(location = 7) in vec4 uv;" : ""}
uniform mat4 view;
uniform float ratio;
uniform float smallest;
uniform float dimmed;
uniform float fading;
flat out lowp vec4 fill;
${form === "square" ? "" : "flat out float pixels;"}
${form === "shape" ? "flat out float query;" : ""}
${form === "sprite" ? "flat out vec4 patch_;" : ""}
void main() {
  vec4 at = view * vec4(x, y, z, 1.0);
  float depth = at.z / (1.0 + abs(at.z));
  gl_Position = vec4(at.xy, depth * 0.5 + (lit > 0.0 ? -0.5 : 0.5), 1.0);
  float size = max(diameter * ratio, smallest);
  gl_PointSize = size;
  float alpha = colour.a * (lit > 0.0 ? 1.0 : dimmed) * (1.0 - fading * (0.5 + 0.5 * depth));
  fill = vec4(colour.rgb * alpha, alpha);
  ${form === "square" ? "" : "pixels = 0.5 * size;"}
  ${form === "shape" ? "query = isQuery;" : ""}
  ${form === "sprite" ? "patch_ = uv;" : ""}
}`;

const HEAD = `#version 300 es
precision mediump float;
flat in lowp vec4 fill;
out lowp vec4 shown;
`;

const SQUARE = `${HEAD}
void main() { shown = fill; }`;

/** The edge is one pixel of partial cover, seen as a thin gap between neighbours. */
const DISC = `${HEAD}
flat in float pixels;
void main() {
  vec2 from = gl_PointCoord * 2.0 - 1.0;
  float square = dot(from, from);
  if (square > 1.0) discard;
  float cover = min(1.0, pixels * (1.0 - square) * 0.7 + 0.15);
  shown = fill * cover;
}`;

const SHAPE = `${HEAD}
flat in float pixels;
flat in float query;
void main() {
  vec2 from = gl_PointCoord * 2.0 - 1.0;
  if (query > 0.5) {
    float square = dot(from, from);
    if (square > 1.0) discard;
    shown = fill * min(1.0, pixels * (1.0 - square) * 0.7 + 0.15);
  } else {
    float away = abs(from.x) + abs(from.y);
    if (away > 1.0) discard;
    if (away < 1.0 - 2.2 / pixels) discard;
    shown = fill;
  }
}`;

/** A patch with a border in the point's colour; without a patch a disc. */
const SPRITE = `${HEAD}
uniform sampler2D pictures;
flat in float pixels;
flat in vec4 patch_;
void main() {
  vec2 from = gl_PointCoord * 2.0 - 1.0;
  if (patch_.z <= patch_.x) {
    if (dot(from, from) > 1.0) discard;
    shown = fill;
    return;
  }
  float edge = max(abs(from.x), abs(from.y));
  if (edge > 1.0 - 3.0 / pixels) shown = fill;
  else shown = vec4(texture(pictures, mix(patch_.xy, patch_.zw, gl_PointCoord)).rgb, 1.0) * fill.a;
}`;

export const FRAGMENT: Readonly<Record<Form, string>> = {
  square: SQUARE,
  disc: DISC,
  shape: SHAPE,
  sprite: SPRITE,
};
