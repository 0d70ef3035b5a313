import "../styles/shell.css";
import type { ComponentType } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { connection } from "../contract/client";
import { followAddress, state, type View } from "../contract/state";
import { ImageView } from "../image/ImageView";
import { MatrixView } from "../matrix/MatrixView";
import { SentenceView } from "../sentence/SentenceView";
import { SingleView } from "../single/SingleView";
import { SqlView } from "../sql/SqlView";
import { TableView } from "../table/TableView";
import { Connection } from "./Connection";
import {
  followListings,
  isEmpty,
  isListing,
  isUnknownModel,
  maps,
  model,
  problem,
  reloadListings,
} from "./chosen";
import { EmptyAtlas, NoMaps, UnknownModel } from "./Empty";
import { followFocus } from "./focus";
import { Header } from "./Header";
import { Help } from "./Help";
import { followVersion } from "./newer_version";
import { Problem } from "./Problem";
import { followSearch } from "./searching";
import { followSelector } from "./selecting";
import { followKeys } from "./shortcuts";
import { Toasts } from "./Toasts";
import { TokenForm } from "./TokenForm";
import { followTheme } from "./theme";
import { followTitle, VIEW_NAMES } from "./title";

const VIEW_COMPONENTS: Readonly<Record<View, ComponentType>> = {
  matrix: MatrixView,
  single: SingleView,
  sentence: SentenceView,
  image: ImageView,
  table: TableView,
  sql: SqlView,
};

/** What runs as long as the page: each keeps one thing equal to the state. */
const FOLLOWERS = [
  followAddress,
  followTheme,
  followTitle,
  followListings,
  followSelector,
  followSearch,
  followVersion,
  followKeys,
];

/** Start them, before the page is drawn: the first view asks for what the address says. */
export function startFollowing(): () => void {
  const stops = FOLLOWERS.map((follow) => follow());
  return () => {
    for (const stop of stops) stop();
  };
}

/** The page: header, the view chosen, and what floats over both. */
export function App() {
  const main = useRef<HTMLElement>(null);
  useEffect(() => followFocus(() => main.current), []);
  return (
    <div class="page">
      <button type="button" class="skip-link" onClick={() => main.current?.focus()}>
        Skip to the view
      </button>
      <Header />
      <Connection />
      <main id="view" class="page-main" tabIndex={-1} ref={main}>
        <Content />
      </main>
      <Toasts />
      <Help />
    </div>
  );
}

/** The view, or what stands in its place where there is nothing to view. */
function Content() {
  const view = state.view.value;
  if (connection.value === "token") return <TokenForm />;
  if (isUnknownModel.value) return <UnknownModel />;
  if (problem.value) return <Problem problem={problem.value} retry={() => void reloadListings()} />;
  if (isEmpty.value) return <EmptyAtlas />;
  const needsMaps = view === "matrix" || view === "single";
  const hasNoMaps = model.value !== null && !isListing.value && maps.value.length === 0;
  if (needsMaps && hasNoMaps) return <NoMaps />;
  const ViewComponent = VIEW_COMPONENTS[view];
  return (
    <>
      <h2 class="unseen">{VIEW_NAMES[view]}</h2>
      <ViewComponent />
    </>
  );
}
