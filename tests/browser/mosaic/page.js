// One head of an atlas in vgplot: a map, a histogram, bars and a menu that filter one another.
// The address says where and what: page.html?uri=…&connector=rest&model=…&map_id=…
import * as vg from "@uwdata/vgplot";
import { makeClient } from "@uwdata/mosaic-core";

const asked = Object.fromEntries(new URLSearchParams(location.search));
const COLOURS = { key: "#2665ac", query: "#d65d0e" };

const connectors = { rest: vg.restConnector, socket: vg.socketConnector };
vg.coordinator().databaseConnector(connectors[asked.connector]({ uri: asked.uri }));
vg.coordinator().preaggregator.enabled = asked.preaggregate === "yes";

const points = vg.sql`(
  SELECT points.x, points.y, points.kind, points.position, tokens.token
  FROM points JOIN tokens USING (model, sequence_id, position)
  WHERE model = ${vg.literal(asked.model)} AND points.layer = ${vg.literal(+asked.layer)}
    AND points.head = ${vg.literal(+asked.head)} AND points.map_id = ${vg.literal(asked.map_id)}
)`;
const word = vg.Selection.single();
const chosen = vg.Selection.crossfilter({ include: word });
const of = { filterBy: chosen };
const style = vg.style({ fontSize: "12px" });

const map = vg.plot(
  vg.dot(vg.from(points, of), {
    x: "x", y: "y", fill: "kind", r: 2, fillOpacity: 0.6, channels: { token: "token" },
    tip: { format: { x: false, y: false } },
  }),
  vg.colorDomain(Object.keys(COLOURS)),
  vg.colorRange(Object.values(COLOURS)),
  vg.xyDomain(vg.Fixed),
  vg.aspectRatio(1),
  vg.axis(null),
  vg.margins({ left: 4, right: 4, top: 4, bottom: 4 }),
  vg.width(560),
);

const positions = vg.plot(
  vg.rectY(vg.from(points, of), {
    x: vg.bin("position"), y: vg.count(), fill: "#777", inset: 0.5,
  }),
  vg.intervalX({ as: chosen }),
  style,
  vg.xDomain(vg.Fixed),
  vg.xLabel(null),
  vg.yLabel(null),
  vg.marginLeft(64),
  vg.marginTop(8),
  vg.width(400),
  vg.height(140),
);

const tokens = vg.plot(
  vg.barX(vg.from(points, of), {
    x: vg.count(), y: "token", fill: "#777", sort: { y: "-x", limit: 12 },
  }),
  vg.toggleY({ as: word }),
  vg.highlight({ by: word }),
  style,
  vg.xLabel(null),
  vg.yLabel(null),
  vg.marginLeft(64),
  vg.marginTop(4),
  vg.width(400),
  vg.height(280),
);

const menu = vg.menu({ label: "Kind", as: chosen, from: points, column: "kind" });

function count(source, show) {
  makeClient({
    coordinator: vg.coordinator(),
    selection: chosen,
    query: (filter) =>
      vg.Query.from({ source }).select("kind", { n: vg.count() }).where(filter).groupby("kind"),
    queryResult: (rows) => show(Object.fromEntries([...rows].map(({ kind, n }) => [kind, n]))),
  });
}

function showCounts({ key = 0, query = 0 }) {
  const line = document.querySelector("#counts");
  line.querySelector(".key").textContent = `${key} keys`;
  line.querySelector(".query").textContent = `${query} queries`;
  Object.assign(line.dataset, { key, query, where: where() });
}

function where() {
  return [chosen.predicate() ?? []].flat().join(" AND ");
}

count(points, showCounts);
// Of a plain view Mosaic tries to keep sums in a table of its own, which a read-only server refuses.
if (asked.preaggregate === "yes") {
  count("points", ({ key = 0, query = 0 }) => {
    document.querySelector("#all").textContent = `, ${key + query} points of all maps`;
  });
}

document.querySelector("#title").textContent =
  `${asked.model}, layer ${asked.layer}, head ${asked.head}`;
document.querySelector("#map").append(map);
document.querySelector("#positions").append(positions);
document.querySelector("#tokens").append(tokens);
document.querySelector("#menu").append(menu);

globalThis.shown = { where, coordinator: vg.coordinator() }; // for a console, and for tests
