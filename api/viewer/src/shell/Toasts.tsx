import { dismiss, type Notice, notices } from "./toasts";

/** The notices in sight, told politely to screen readers. */
export function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {notices.value.map((notice) => (
        <Toast key={notice.id} notice={notice} />
      ))}
    </div>
  );
}

function Toast(props: { notice: Notice }) {
  const { id, text, action } = props.notice;
  const run = () => {
    dismiss(id);
    action?.run();
  };
  return (
    <div class="toast">
      <span dir="auto">{text}</span>
      {action && (
        <button type="button" class="primary" onClick={run}>
          {action.label}
        </button>
      )}
      <button type="button" class="quiet" aria-label="Dismiss" onClick={() => dismiss(id)}>
        ×
      </button>
    </div>
  );
}
