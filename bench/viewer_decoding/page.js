// Fetch and decoding of all heads: by the viewer's own code, and as AttentionViz's page does it.
import { loadMatrix } from "../../api/viewer/src/contract/atlas.ts";

async function elapsed(load) {
  const started = performance.now();
  const n = await load();
  if (n === 0) throw new Error("nothing was decoded");
  return performance.now() - started;
}

async function ours(model, number) {
  // Another number of points each time, so that no reply is kept; the file is the same.
  const asked = { method: "pca", dims: 2, maxPoints: 2_000 + number };
  return (await loadMatrix(model, asked)).heads.length;
}

async function theirs(path) {
  const reply = await fetch(path, { cache: "no-store" });
  return (await reply.json()).data.length;
}

window.time = async (model, path, repetitions) => {
  const times = [[], []];
  for (let i = 0; i <= repetitions; i++) {
    const own = await elapsed(() => ours(model, i));
    const other = await elapsed(() => theirs(path));
    if (i === 0) continue;
    times[0].push(own);
    times[1].push(other);
  }
  return times;
};
