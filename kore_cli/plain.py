"""What the dashboard and the chat have in common: an app whose messages are shown as they are written."""

from __future__ import annotations

from textual.app import App
from textual.notifications import SeverityLevel


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
