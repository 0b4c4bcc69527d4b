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
        about: what it does, for the help screen and the docs.
        footer: whether the footer shows it.
        bound: whether KORE binds it; otherwise a widget has it already, and it is only documented.
    """

    keys: str
    action: str
    words: str
    place: str
    about: str = ""
    face: str = ""
    footer: bool = True
    bound: bool = True

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
    Key("space", "pause", "Pause", "everywhere", "freeze what is shown, except for the header"),
    Key(
        "tab",
        "focus_next",
        "Next panel",
        "everywhere",
        "move the focus: to a list, whose arrows choose; to a text, whose arrows scroll; to the chart",
        footer=False,
        bound=False,
    ),
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
        "the next command; answers and items where one is chosen (OSC 52, works over ssh)",
    ),
    Key("e", "export_csv", "CSV", "everywhere", "write what is shown as CSV", footer=False),
    Key("f8", "export_svg", "SVG", "everywhere", "write the screen as SVG", footer=False),
    Key("t", "next_theme", "Theme", "everywhere", "the next colour theme", footer=False),
    Key("question_mark,f1", "help", "Help", "everywhere", "every key", face="?"),
    Key("ctrl+p", "command_palette", "Commands", "everywhere", "every command by name", footer=False),
    Key("escape", "screen.back", "Back", "everywhere", "clear the filter, leave a window", footer=False),
    Key("q", "quit", "Quit", "everywhere", "leave; the run continues"),
)
TRAIN = (
    Key("l", "log_axis", "Log axis", "train", "logarithmic or plain y axis"),
    Key("s", "smooth", "Smooth", "train", "less, more or no smoothing"),
    Key("m", "metric", "Metric", "train", "the next metric in the large chart"),
)
SPECTRA = (
    Key("enter", "select_cursor", "Fold", "spectra", "open or close a layer", footer=False, bound=False),
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
        "the next question whose answer differs from the base's",
    ),
)
RESULTS = (Key("d", "dimensions", "Dimensions", "results", "show or hide the parts of each suite"),)
KNOWLEDGE = (Key("x", "rejected", "Rejected", "knowledge", "rejected records, with the reasons"),)
CHARTS = (
    Key("plus", "zoom_in", "Zoom in", "charts", "a part of the curve, larger", face="+", footer=False),
    Key("minus", "zoom_out", "Zoom out", "charts", "more of the curve", face="-", footer=False),
    Key(
        "left,right,up,down",
        "pan",
        "Move the view",
        "charts",
        "to earlier or later parts, up and down; in a list up and down choose from it",
        face="arrows",
        footer=False,
    ),
    Key("r,0", "reset_scales", "The whole", "charts", "undo zooming and moving", face="r", footer=False),
)
RUNS = (
    Key("enter", "select", "Watch", "runs", "follow the marked run", footer=False, bound=False),
    Key(
        "space",
        "over",
        "Draw over",
        "runs",
        "draw its curves over those of the watched run, or remove them",
    ),
    Key("escape,o", "dismiss", "Close", "runs", "change nothing", face="escape", footer=False),
)
CHAT = (
    Key("enter", "submit", "Ask", "chat", "ask the typed question", footer=False, bound=False),
    Key("ctrl+o", "picture", "Picture", "chat", "choose a picture by path", face="^o"),
    Key("ctrl+r", "regenerate", "Again", "chat", "ask the last question again", face="^r"),
    Key("ctrl+t", "retry", "Warmer", "chat", "ask it again at a higher temperature", face="^t"),
    Key("ctrl+b", "compare", "Compare", "chat", "base and KORE side by side, or one", face="^b"),
    Key("ctrl+g", "adapter", "Model", "chat", "who answers next: KORE, the base, other adapters", face="^g"),
    Key("ctrl+s", "save", "Save", "chat", "write the conversation as Markdown", face="^s"),
    Key("ctrl+l", "clear", "New", "chat", "start a new conversation", face="^l"),
    Key("ctrl+c", "stop", "Stop", "chat", "stop the answer, not the program", face="^c"),
    Key(
        "up,down",
        "recall",
        "Earlier questions",
        "chat",
        "put an earlier question into the line; below the newest, what was typed",
        face="up down",
        footer=False,
        bound=False,
    ),
    Key("pageup", "scroll_back", "Back", "chat", "a page back in the conversation", footer=False),
    Key("pagedown", "scroll_on", "On", "chat", "a page on; at the end, follow new answers", footer=False),
    Key(
        "backspace",
        "drop_picture",
        "No picture",
        "chat",
        "in an empty line: ask without the picture",
        footer=False,
        bound=False,
    ),
    Key("f1", "help", "Help", "chat", "every key"),
    Key("ctrl+q", "quit", "Quit", "chat", "leave", face="^q"),
)
ALL = (*EVERYWHERE, *CHARTS, *RUNS, *TRAIN, *SPECTRA, *ANSWERS, *RESULTS, *KNOWLEDGE, *CHAT)


def bindings(keys: Iterable[Key]) -> list[Binding]:
    """Textual's bindings for some keys; each has an id, so that a keymap can move it."""
    from textual.binding import Binding

    return [
        Binding(k.keys, k.action, k.words, show=k.footer, key_display=k.shown, id=f"{k.place}.{k.action}")
        for k in keys
        if k.bound
    ]


def groups() -> dict[str, list[Key]]:
    """Keys by where they work, in reading order."""
    places: dict[str, list[Key]] = {}
    for key in ALL:
        places.setdefault(key.place, []).append(key)
    return places


def markdown() -> str:
    """The keys as a page of documentation."""
    lines = [
        "# Keys of the dashboard and the chat",
        "",
        "Generated from `kore_cli/widgets/keys.py`; `?` shows the same.",
        "",
    ]
    for place, keys in groups().items():
        lines += [f"## {place.capitalize()}", "", "| key | what it does |", "|---|---|"]
        lines += [f"| `{key.shown}` | {key.words}: {key.about} |" for key in keys]
        lines.append("")
    return "\n".join(lines)
