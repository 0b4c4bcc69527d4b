"""The base of the dashboard and the chat: plain messages, and errors reported as by any command."""

from __future__ import annotations

from textual.app import App
from textual.notifications import SeverityLevel
from textual.worker import WorkerFailed


class PlainApp(App[None]):
    """An app that shows text by users and models: brackets in a message are no markup."""

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = False,
    ) -> None:
        """Show a message as it is; `markup` is ignored, since widgets always pass it."""
        super().notify(message, title=title, severity=severity, timeout=timeout, markup=False)

    def until_left(self, *, mouse: bool = True) -> None:
        """Run until the user leaves.

        Raises:
            Exception: the error that ended the app, for the command to report.
        """
        self.run(mouse=mouse)
        if self._exception is not None:
            failed = self._exception
            raise failed.error if isinstance(failed, WorkerFailed) else failed

    def _fatal_error(self) -> None:
        """Leave the terminal without Textual's own traceback: `until_left` raises the error."""
        self._close_messages_no_wait()
