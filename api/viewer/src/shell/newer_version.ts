/** Tells that the atlas has grown, and shows the new version when asked to. */

import { effect } from "@preact/signals";
import { ask, connection, newestVersion } from "../contract/client";
import { isEmpty, listedVersion, reloadListings } from "./chosen";
import { dismissText, say } from "./toasts";

const TEXT = "The atlas has grown.";
const ASKED_EVERY_MS = 60_000;

/** Offer each newer version once; returns what ends that. */
export function followVersion(): () => void {
  const told = new Set<string>();
  const stopTelling = effect(() => {
    const newest = newestVersion.value;
    if (listedVersion.peek() === "" || newest === listedVersion.peek() || told.has(newest)) return;
    told.add(newest);
    if (isEmpty.peek())
      void reloadListings(); // nothing in sight to be moved
    else say(TEXT, { label: "Show the new version", run: () => void reloadListings() });
  });
  const stopAnswered = effect(() => {
    listedVersion.value;
    dismissText(TEXT);
  });
  const timer = setInterval(askVersion, ASKED_EVERY_MS);
  document.addEventListener("visibilitychange", askVersion);
  return () => {
    stopTelling();
    stopAnswered();
    clearInterval(timer);
    document.removeEventListener("visibilitychange", askVersion);
  };
}

/** A page left open asks now and then; every reply tells the version. */
function askVersion(): void {
  if (document.hidden || connection.peek() !== "ok") return;
  ask("v1").catch(() => {
    // What the user asks for next tells what is wrong, in its own place.
  });
}
