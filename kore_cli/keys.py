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
        about: what it does, for the help and the docs.
        footer: whether the footer shows it.
    """

    keys: str
    action: str
    words: str
    place: str
    about: str = ""
    face: str = ""
    footer: bool = True

    @property
    def shown(self) -> str:
        """The key as people write it."""
        return self.face or self.keys.split(",")[0]


EVERYWHERE = (
    Key("1", "go('train')", "Train", "everywhere", "loss, machine, counts, log", footer=False),
    Key("2", "go('spectra')", "Spectra", "everywhere", "eigenvalue curves, site by site", footer=False),
    Key("3", "go('answers')", "Answers", "everywhere", "base and KORE on fixed questions", footer=False),
    Key("4", "go('results')", "Results", "everywhere", "evaluation scores", footer=False),
    Key("5", "go('knowledge')", "Knowledge", "everywhere", "items and their trees", footer=False),
    Key("space", "pause", "Pause", "everywhere", "freeze what is shown; the header goes on"),
    Key(
        "slash",
        "screen.filter",
        "Filter",
        "everywhere",
        "show only what matches; Enter keeps it, Escape clears it",
        face="/",
    ),
    Key(
        "z",
        "zoom_panel",
        "Panel",
        "everywhere",
        "enlarge the chart or the panel with the focus, and back",
        footer=False,
    ),
    Key("o", "runs", "Runs", "everywhere", "pick a run to watch, or runs to draw over this one"),
    Key(
        "y",
        "copy",
        "Copy",
        "everywhere",
        "copy the next command or what is selected (OSC 52, works over ssh)",
    ),
    Key("e", "export_csv", "CSV", "everywhere", "write what is shown as CSV", footer=False),
    Key("f8", "export_svg", "SVG", "everywhere", "write the screen as SVG", footer=False),
    Key("t", "next_theme", "Theme", "everywhere", "the next colour theme", footer=False),
    Key("question_mark,f1", "help", "Help", "everywhere", "every key", face="?"),
    Key("ctrl+p", "command_palette", "Commands", "everywhere", "everything by name", footer=False),
    Key("escape", "screen.back", "Back", "everywhere", "clear the filter, leave a window", footer=False),
    Key("q", "quit", "Quit", "everywhere", "leave; the run goes on"),
)
TRAIN = (
    Key("l", "log_axis", "Log axis", "train", "logarithmic or plain y axis"),
    Key("s", "smooth", "Smooth", "train", "less, more or no smoothing"),
    Key("m", "metric", "Metric", "train", "the next metric in the large chart"),
)
SPECTRA = (
    Key("h", "heat", "Heat map", "spectra", "show or hide the heat map"),
    Key("v", "overlay", "Covariances", "spectra", "all covariances together, or one at a time"),
)
ANSWERS = (
    Key("left_square_bracket", "earlier", "Earlier", "answers", "the checkpoint before", face="["),
    Key(
        "right_square_bracket",
        "later",
        "Later",
        "answers",
        "the checkpoint after; past the last one it follows the run",
        face="]",
    ),
    Key(
        "n",
        "next_change",
        "Next change",
        "answers",
        "the next question that is answered otherwise than by the base",
    ),
)
RESULTS = (Key("d", "dimensions", "Dimensions", "results", "show or hide the parts of each suite"),)
KNOWLEDGE = (Key("x", "rejected", "Rejected", "knowledge", "what was rejected, and why"),)
CHARTS = (
    Key("plus", "zoom_in", "Zoom in", "charts", "zoom in", face="+", footer=False),
    Key("minus", "zoom_out", "Zoom out", "charts", "zoom out", face="-", footer=False),
    Key("left,right,up,down", "pan", "Move the view", "charts", "move the view", face="arrows", footer=False),
    Key("r,0", "reset_scales", "See the whole", "charts", "see the whole again", face="r", footer=False),
)
CHAT = (
    Key("ctrl+o", "picture", "Picture", "chat", "choose a picture by path", face="^o"),
    Key("ctrl+r", "regenerate", "Again", "chat", "ask the last question again", face="^r"),
    Key("ctrl+t", "retry", "Warmer", "chat", "ask it again at a higher temperature", face="^t"),
    Key("ctrl+b", "compare", "Compare", "chat", "base and KORE side by side, or one", face="^b"),
    Key("ctrl+g", "adapter", "Model", "chat", "who answers next: KORE, the base, other adapters", face="^g"),
    Key("ctrl+s", "save", "Save", "chat", "write the conversation as Markdown", face="^s"),
    Key("ctrl+l", "clear", "New", "chat", "begin a new conversation", face="^l"),
    Key("ctrl+c", "stop", "Stop", "chat", "stop the answer, not the program", face="^c"),
    Key("f1", "help", "Help", "chat", "every key"),
    Key("ctrl+q", "quit", "Quit", "chat", "leave", face="^q"),
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
        lines += [f"| `{key.shown}` | {key.words}: {key.about} |" for key in keys]
        lines.append("")
    return "\n".join(lines)
