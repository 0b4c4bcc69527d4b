"""The Spectra screen: the directions that old inputs use, and those left to the adapter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static, Tree

from kore_cli.dashboard.spectra_reader import Site, SpectrumSet
from kore_cli.dashboard.watcher import Snapshot
from kore_cli.screens.view import View
from kore_cli.widgets.chart import Chart, Line
from kore_cli.widgets.curve import Curve
from kore_cli.widgets.formatting import fit, short
from kore_cli.widgets.heatmap import HeatMap
from kore_cli.widgets.keys import SPECTRA, bindings
from kore_cli.widgets.themes import palette, styled


class SiteTree(Tree[str], inherit_bindings=False):
    """The sites. Space is the dashboard's, and the arrows to the sides are the chart's."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select_cursor", "Fold", show=False),
        Binding("up", "cursor_up", "Up", show=False),
        Binding("down", "cursor_down", "Down", show=False),
        Binding("home", "scroll_home", "First", show=False),
        Binding("end", "scroll_end", "Last", show=False),
        Binding("pageup", "page_up", "Page up", show=False),
        Binding("pagedown", "page_down", "Page down", show=False),
    ]


class SpectraScreen(View):
    """Eigenvalue curves of the covariances, site by site."""

    NAME = "spectra"
    FILTERS = "sites"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings(SPECTRA)]

    def __init__(self) -> None:
        super().__init__()
        self._site: str | None = None
        self._listed: object = None
        self._only: int | None = None
        self._marked: str | None = None

    def body(self) -> Iterable[Widget]:
        """Sites to the left; curve, numbers and heat map to the right."""
        tree = SiteTree("sites", id="sites")
        tree.show_root = False
        tree.guide_depth = 2
        facts = Static(id="facts", classes="panel")
        yield Horizontal(
            tree,
            Vertical(
                Chart(id="spectrum", log_x=True, log_y=True),
                Horizontal(facts, HeatMap(id="heat"), id="below"),
                id="right",
            ),
            id="columns",
        )
        yield Static(id="nothing", markup=False)

    def depends(self, snapshot: Snapshot) -> object:
        """The spectra alone."""
        return snapshot.spectra

    def show(self, snapshot: Snapshot) -> None:
        """List the sites once, draw the chosen one."""
        sets = snapshot.spectra
        nothing = self.query_one("#nothing", Static)
        nothing.display = not sets
        self.query_one("#columns").display = bool(sets)
        if not sets:
            nothing.update("no spectra yet: calibration writes them (kore calibrate, or kore demo)")
            return
        sites = [s for s in sets[0].sites if self.filter_text in s.name.lower()]
        if not sites:
            nothing.display, self.query_one("#columns").display = True, False
            nothing.update(self.no_match if self.filter_text else "no site in these spectra")
            return
        if self._site not in [s.name for s in sites]:
            self._site = sites[0].name
        self._list(sites)
        self._mark()
        self._draw(sets)

    def _list(self, sites: list[Site]) -> None:
        key = (self.has_class("-narrow"), *((s.name, s.energy_left) for s in sites))
        if key == self._listed:
            return
        self._listed, self._marked = key, None
        tree: Tree[str] = self.query_one("#sites", Tree)
        tree.border_title = "layers and sites"
        tree.border_subtitle = f"{len(sites)}"
        tree.clear()
        layers: dict[int | None, list[Site]] = {}
        for site in sites:
            layers.setdefault(site.layer, []).append(site)
        many = len(sites) > 40 and not self.filter_text
        for layer, members in layers.items():
            if layer is None:
                for site in members:
                    tree.root.add_leaf(Text(site.name), data=site.name)
                continue
            node = tree.root.add(f"layer {layer}", expand=not many or layer == 0)
            for site in members:
                node.add_leaf(self._label(site), data=site.name)
        tree.root.expand()

    def _mark(self) -> None:
        """Put the tree's cursor onto the site that is drawn."""
        tree = self.query_one("#sites", SiteTree)
        if self._marked == self._site:
            return  # already there, or moving past a layer
        self._marked = self._site
        leaves = [*tree.root.children, *(leaf for layer in tree.root.children for leaf in layer.children)]
        for leaf in leaves:
            if leaf.data == self._site:
                if leaf.parent is not None and not leaf.parent.is_expanded:
                    leaf.parent.expand()
                if tree.last_line >= 0:  # reading it numbers the lines
                    tree.move_cursor(leaf)

    def _label(self, site: Site) -> Text:
        if self.has_class("-narrow"):
            return Text(site.site)
        left = "" if site.energy_left is None else energy(site.energy_left)
        return Text.assemble(f"{fit(site.site, 9):<9} ", (left, "dim"))

    def _draw(self, sets: tuple[SpectrumSet, ...]) -> None:
        chart = self.query_one("#spectrum", Chart)
        lines, parts = [], []
        shown = [(i, s) for i, s in enumerate(sets) if self._only is None or i == self._only % len(sets)]
        first: Site | None = None
        for index, spectra in shown:
            site = spectra.site(self._site or "")
            if site is None:
                continue
            first = first or site
            lines.append(Line(Curve(site.index, site.eigenvalues), index, spectra.label))
            tone = styled(palette(self.app.current_theme).line(index))
            parts.append(Content.assemble(("━ ", tone), fit(spectra.label, 20)))
        shade = (first.d_in - first.rank + 1, first.d_in) if first and first.rank and first.d_in else None
        if shade:
            tone = styled(palette(self.app.current_theme).shade)
            words = f" the adapter's {first.rank if first else 0} directions"
            parts.append(Content.assemble(("██", tone), words))
        roomy = not self.has_class("-narrow")
        axes = " · eigenvalue by rank, both log" if roomy else ""
        chart.border_title = Content(f"{self._site}{axes}")
        chart.border_subtitle = Content("  ").join(parts) if roomy else ""
        chart.show(lines, shade=shade)
        self._facts([(s.label, site) for _, s in shown if (site := s.site(self._site or ""))])
        heat = self.query_one("#heat", HeatMap)
        heat.set_class(len(shown) > 1, "-crowded")
        heat.show(first.heatmap if first else ())
        heat.border_title = "covariance, 32 x 32"

    def _facts(self, sites: list[tuple[str, Site]]) -> None:
        panel = self.query_one("#facts", Static)
        panel.border_title = "this site"
        panel.update(facts(sites, max(14, panel.content_size.width)))

    @on(Tree.NodeHighlighted, "#sites")
    def _highlighted(self, event: Tree.NodeHighlighted[str]) -> None:
        if event.node.data and event.node.data != self._site:
            self._site = self._marked = event.node.data
            self.query_one("#spectrum", Chart).action_reset_scales()
            self.fill()

    def jump(self, name: str) -> None:
        """Show one site, also one that the filter hides."""
        if self.filter_text not in name.lower():
            self.clear_filter()
        self._site = name
        self.fill()

    def action_heat(self) -> None:
        """Show or hide the heat map."""
        heat = self.query_one("#heat")
        heat.display = not heat.display

    def action_overlay(self) -> None:
        """Show all covariances together, or the next one alone."""
        count = len(self.kore.shown.spectra) if self.kore.shown else 0
        if count:
            self._only = 0 if self._only is None else None if self._only + 1 >= count else self._only + 1
            self.fill()

    def table(self) -> tuple[list[str], list[list[object]]]:
        """The curves of the chosen site."""
        snapshot = self.kore.shown
        rows: list[list[object]] = []
        for spectra in snapshot.spectra if snapshot else ():
            site = spectra.site(self._site or "")
            if site:
                rows += [
                    [spectra.label, site.name, int(i), v]
                    for i, v in zip(site.index, site.eigenvalues, strict=False)
                ]
        return ["covariance", "site", "rank", "eigenvalue"], rows


def facts(sites: list[tuple[str, Site]], width: int) -> Content:
    """A site's covariances in numbers: side by side, or one below the other where there is no room."""
    if not sites:
        return Content("no such site in this covariance")
    values_by_label = [(label, numbers(site)) for label, site in sites]
    names = list(values_by_label[0][1])
    first = 1 + max(map(len, names))
    heads = [fit(label, 16) for label, _ in values_by_label]
    columns = [
        2 + max(cell_len(head), *map(len, values.values()))
        for head, (_, values) in zip(heads, values_by_label, strict=True)
    ]
    rows: list[Content] = []
    if len(sites) > 1 and first + sum(columns) <= width:
        head = "".join(
            " " * (room - cell_len(head)) + head for head, room in zip(heads, columns, strict=True)
        )
        rows.append(Content.styled(" " * first + head, "bold $accent"))
        for name in names:
            line = "".join(
                f"{values[name]:>{room}}" for (_, values), room in zip(values_by_label, columns, strict=True)
            )
            rows.append(Content.assemble((f"{name:<{first}}", "$foreground 55%"), (line, "bold")))
    else:
        for label, values in values_by_label:
            if len(sites) > 1:
                rows.append(Content.styled(fit(label, width), "bold $accent"))
            rows += [fact(name, value, width) for name, value in values.items() if value != "-"]
    if any(site.tokens is not None and site.tokens < site.d_in for _, site in sites):
        rows.append(Content.styled("fewer tokens than inputs: the null space overfits", "$warning"))
    return Content("\n").join(rows)


def numbers(site: Site) -> dict[str, str]:
    """A site's numbers as text."""
    share = f" ({site.rank / site.d_in:.1%})" if site.rank and site.d_in else ""
    return {
        "tokens": "-" if site.tokens is None else f"{site.tokens:,.0f}",
        "inputs": f"{site.d_in:,}",
        "effective rank": short(site.effective_rank),
        "adapter rank": f"{site.rank or '-'}{share}",
        "energy left": energy(site.energy_left),
        "on held-out": energy(site.held_out),
    }


def fact(name: str, value: str, width: int) -> Content:
    """A name and its value; where there is no room, the part in brackets goes, then the end of the name."""
    if len(name) + 1 + len(value) > width:
        value = value.partition(" (")[0]
    room = min(20, max(4, width - len(value) - 1))
    return Content.assemble((f"{fit(name, room):<{room}} ", "$foreground 55%"), (value, "bold"))


def energy(share: float | None) -> str:
    """A share of energy, which may be very small."""
    if share is None:
        return "-"
    return f"{share:.2%}" if share >= 1e-4 else short(share)
