"""What the dashboard and the chat have in common: messages shown as they are written, errors told as any."""

from __future__ import annotations

from textual.app import App
from textual.notifications import SeverityLevel
from textual.worker import WorkerFailed


class PlainApp(App[None]):
    """An app that tells what users and models wrote: brackets in a message are brackets, never markup."""

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = False,
    ) -> None:
        """Show a message as it is; widgets pass `markup` on whether it was asked for or not."""
        super().notify(message, title=title, severity=severity, timeout=timeout, markup=False)

    def until_left(self, *, mouse: bool = True) -> None:
        """Run until the user leaves.

        Raises:
            Exception: what ended it before, for the command to tell of.
        """
        self.run(mouse=mouse)
        if self._exception is not None:
            failed = self._exception
            raise failed.error if isinstance(failed, WorkerFailed) else failed

    def _fatal_error(self) -> None:
        """Leave the terminal without Textual's own traceback: `until_left` raises the error."""
        self._close_messages_no_wait()
