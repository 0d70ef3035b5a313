import { AtlasProblem } from "../contract/client";
import "../styles/shell.css";

/** What failed and what to do, in place of what could not be shown. */
export function Problem(props: { problem: Error; retry?: (() => void) | undefined }) {
  const { problem, retry } = props;
  return (
    <div class="problem" role="alert">
      <p class="problem-title">{nameProblem(problem)}</p>
      <p class="problem-message" dir="auto">
        {problem.message}
      </p>
      <p class="problem-remedy">{findRemedy(problem)}</p>
      {retry && (
        <button type="button" onClick={retry}>
          Try again
        </button>
      )}
    </div>
  );
}

const TITLES: Readonly<Record<string, string>> = {
  not_found: "No longer in the atlas",
  over_limit: "Too much at once",
  busy: "The server is busy",
  bad_query: "The question was not understood",
  bad_request: "The question was not understood",
  query_killed: "The query was stopped",
  stale_version: "The atlas has moved on",
  internal: "The server failed",
};

const REMEDIES: Readonly<Record<string, string>> = {
  not_found: "It may have been deleted, or belong to another version: choose another one.",
  over_limit: "Ask for less: fewer points, a shorter sequence, a narrower filter, or use SQL.",
  busy: "Others are asking too. Try again in a moment.",
  bad_query: "Check the names and the spelling, then ask again.",
  bad_request: "The link may be damaged: go back, or choose anew.",
  query_killed: "It took too long or too much memory: ask for less.",
  stale_version: "Load the page again to see the newest version.",
  internal: "The server's log says more. Try again; if it stays, report it.",
};

function nameProblem(problem: Error): string {
  if (isWithoutWebGL(problem)) return "No WebGL";
  if (problem instanceof AtlasProblem) {
    return TITLES[problem.kind] ?? `The server answered ${problem.status}`;
  }
  return "This could not be shown";
}

function findRemedy(problem: Error): string {
  if (isWithoutWebGL(problem)) {
    return "Maps are drawn with WebGL2: allow hardware or software rendering in the browser's settings. The table, sentences and SQL work without.";
  }
  if (problem instanceof AtlasProblem) {
    return (
      REMEDIES[problem.kind] ?? "Try again; a proxy between here and the server may be at fault."
    );
  }
  return "Try again, or load the page anew. If it stays, report it with the message above.";
}

function isWithoutWebGL(problem: Error): boolean {
  return problem.name === "NoWebGL";
}
