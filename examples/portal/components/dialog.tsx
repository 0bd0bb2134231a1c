"use client";
import { useId, useLayoutEffect, useRef, type ReactNode } from "react";
import { Icon } from "./icon.tsx";

/** The browser's own modal dialog: the focus stays inside, and Escape closes it. */
export function Dialog({ title, onClose, children, wide = false, sticky = false }: {
  title: string;
  onClose(): void;
  children: ReactNode;
  wide?: boolean;
  /** Something is in it that would be lost: only a button closes it. */
  sticky?: boolean;
}) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  // Closed before it leaves the page: then the browser gives the focus back to where it was.
  useLayoutEffect(() => {
    const element = dialog.current;
    if (element && !element.open) element.showModal();
    return () => element?.close();
  }, []);
  return (
    <dialog
      ref={dialog}
      className={wide ? "dialog wide" : "dialog"}
      aria-labelledby={id}
      onCancel={(event) => {
        event.preventDefault();
        if (!sticky) onClose();
      }}
      onClick={(event) => {
        if (event.target === dialog.current && !sticky) onClose();
      }}
    >
      <div className="dialog-body">
        <header>
          <h2 id={id}>{title}</h2>
          {sticky ? null : (
            <button type="button" className="button ghost square" aria-label="Close" onClick={onClose}>
              <Icon name="close" />
            </button>
          )}
        </header>
        {children}
      </div>
    </dialog>
  );
}
