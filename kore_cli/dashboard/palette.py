"""What the command palette offers besides Textual's own: screens, copying, exporting, sites, runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from textual.command import DiscoveryHit, Hit, Hits, Provider

if TYPE_CHECKING:
    from kore_cli.dashboard.app import KoreApp


class KoreCommands(Provider):
    """Commands of the dashboard."""

    def _offers(self) -> Iterator[tuple[str, str, Callable[[], object]]]:
        from kore_cli.dashboard.app import KoreApp
        from kore_cli.screens.view import TABS

        app = self.app
        assert isinstance(app, KoreApp)
        for name, title in TABS:
            yield f"Go to {title}", f"the {title} screen", partial(app.action_go, name)
        yield "Pause or go on", "freeze what is shown", app.action_pause
        yield "Pick a run", "watch another run, or draw it over this one", app.action_runs
        yield "Export CSV", "what this screen shows, as a table", app.action_export_csv
        yield "Export SVG", "this screen as a picture", app.action_export_svg
        yield "Copy the next command", "to the clipboard, also over ssh", app.action_copy
        yield "Copy the run's path", "to the clipboard, also over ssh", lambda: self._copy_path(app)
        if app.snapshot:
            for spectrum in app.snapshot.spectra[:1]:
                for site in spectrum.sites:
                    yield f"Jump to {site.name}", "its spectrum", partial(self._site, app, site.name)

    @staticmethod
    def _copy_path(app: KoreApp) -> None:
        if app.snapshot and app.snapshot.folder:
            app.copy_to_clipboard(str(app.snapshot.folder.resolve()))
            app.notify(str(app.snapshot.folder.resolve()), title="copied", timeout=2)

    @staticmethod
    def _site(app: KoreApp, name: str) -> None:
        from kore_cli.screens.spectra import SpectraScreen

        app.action_go("spectra")
        if isinstance(app.screen, SpectraScreen):
            app.screen.jump(name)

    async def discover(self) -> Hits:
        """The first offers, before anything is typed."""
        for name, words, run in self._offers():
            if not name.startswith("Jump"):
                yield DiscoveryHit(name, run, help=words)

    async def search(self, query: str) -> Hits:
        """Offers that match."""
        matcher = self.matcher(query)
        for name, words, run in self._offers():
            score = matcher.match(name)
            if score > 0:
                yield Hit(score, matcher.highlight(name), run, help=words)
