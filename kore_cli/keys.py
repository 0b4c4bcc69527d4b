"""Every key of the dashboard and the chat, as data: the footer, the help screen and the docs read it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textual.binding import Binding


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        keys: Textual's names, comma-separated. face: how it is written for people.
        place: where it works: everywhere, charts, or a screen's name.
        footer: whether the footer shows it.
    """

    keys: str
    action: str
    words: str
    place: str
    face: str = ""
    footer: bool = True

    @property
    def shown(self) -> str:
        """The key as people write it."""
        return self.face or self.keys.split(",")[0]


EVERYWHERE = (
    Key("1", "go('train')", "Train", "everywhere", footer=False),
    Key("2", "go('spectra')", "Spectra", "everywhere", footer=False),
    Key("3", "go('answers')", "Answers", "everywhere", footer=False),
    Key("4", "go('results')", "Results", "everywhere", footer=False),
    Key("5", "go('knowledge')", "Knowledge", "everywhere", footer=False),
    Key("space", "pause", "Pause", "everywhere"),
    Key("slash", "filter", "Filter", "everywhere", face="/"),
    Key("z", "zoom_panel", "Panel", "everywhere", footer=False),
    Key("o", "runs", "Runs", "everywhere"),
    Key("y", "copy", "Copy", "everywhere"),
    Key("e", "export_csv", "CSV", "everywhere", footer=False),
    Key("f8", "export_svg", "SVG", "everywhere", footer=False),
    Key("t", "next_theme", "Theme", "everywhere", footer=False),
    Key("question_mark,f1", "help", "Help", "everywhere", face="?"),
    Key("ctrl+p", "command_palette", "Commands", "everywhere", footer=False),
    Key("escape", "back", "Back", "everywhere", footer=False),
    Key("q", "quit", "Quit", "everywhere"),
)
TRAIN = (
    Key("l", "log_axis", "Log axis", "train"),
    Key("s", "smooth", "Smooth", "train"),
    Key("m", "metric", "Metric", "train"),
)
SPECTRA = (
    Key("h", "heat", "Heat map", "spectra"),
    Key("v", "overlay", "Covariances", "spectra"),
)
ANSWERS = (
    Key("left_square_bracket", "earlier", "Earlier", "answers", face="["),
    Key("right_square_bracket", "later", "Later", "answers", face="]"),
    Key("n", "next_change", "Next change", "answers"),
)
RESULTS = (Key("d", "dimensions", "Dimensions", "results"),)
KNOWLEDGE = (Key("x", "rejected", "Rejected", "knowledge"),)
CHARTS = (
    Key("plus", "zoom_in", "Zoom in", "charts", face="+", footer=False),
    Key("minus", "zoom_out", "Zoom out", "charts", face="-", footer=False),
    Key("left,right,up,down", "pan", "Move the view", "charts", face="arrows", footer=False),
    Key("r,0", "reset_scales", "See the whole", "charts", face="r", footer=False),
)
CHAT = (
    Key("ctrl+o", "picture", "Picture", "chat", face="^o"),
    Key("ctrl+r", "regenerate", "Again", "chat", face="^r"),
    Key("ctrl+t", "retry", "Warmer", "chat", face="^t"),
    Key("ctrl+b", "compare", "Compare", "chat", face="^b"),
    Key("ctrl+g", "adapter", "Model", "chat", face="^g"),
    Key("ctrl+s", "save", "Save", "chat", face="^s"),
    Key("ctrl+l", "clear", "New", "chat", face="^l"),
    Key("ctrl+c", "stop", "Stop", "chat", face="^c"),
    Key("f1", "help", "Help", "chat"),
    Key("ctrl+q", "quit", "Quit", "chat", face="^q"),
)
ALL = (*EVERYWHERE, *CHARTS, *TRAIN, *SPECTRA, *ANSWERS, *RESULTS, *KNOWLEDGE, *CHAT)


def bindings(keys: Iterable[Key]) -> list[Binding]:
    """Textual's bindings for some keys; each has an id, so that a keymap can move it."""
    from textual.binding import Binding

    return [
        Binding(k.keys, k.action, k.words, show=k.footer, key_display=k.shown, id=f"{k.place}.{k.action}")
        for k in keys
    ]


def groups() -> dict[str, list[Key]]:
    """Keys by where they work, in reading order."""
    found: dict[str, list[Key]] = {}
    for key in ALL:
        found.setdefault(key.place, []).append(key)
    return found


def markdown() -> str:
    """The keys as a page of documentation."""
    lines = [
        "# Keys of the dashboard and the chat",
        "",
        "Made from `kore_cli/keys.py`; `?` shows the same.",
        "",
    ]
    for place, keys in groups().items():
        lines += [f"## {place.capitalize()}", "", "| key | what it does |", "|---|---|"]
        lines += [f"| `{key.shown}` | {key.words} |" for key in keys]
        lines.append("")
    return "\n".join(lines)
