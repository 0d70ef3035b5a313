import { useEffect } from "preact/hooks";
import { connection } from "../contract/client";

const PROBED_EVERY_MS = 2_000;

/** A banner while the server does not answer. */
export function Connection() {
  const isLost = connection.value === "lost";
  useEffect(() => (isLost ? probe() : undefined), [isLost]);
  return (
    <div class="connection-banner" role="status" data-lost={isLost ? "yes" : "no"}>
      {isLost && (
        <>
          <span>The server does not answer; what you asked for waits and is asked again</span>
          <span class="connection-dots" aria-hidden="true">
            <i />
            <i />
            <i />
          </span>
        </>
      )}
    </div>
  );
}

/** Look whether the server is back, as perhaps no question waits for it. */
function probe(): () => void {
  const timer = setInterval(async () => {
    const isBack = await fetch("readyz").then(
      (reply) => reply.ok,
      () => false, // still away: the banner says so
    );
    if (isBack && connection.peek() === "lost") connection.value = "ok";
  }, PROBED_EVERY_MS);
  return () => clearInterval(timer);
}
