"""KORE's own two themes, and the colours of charts under any theme (16-colour ones too)."""

from __future__ import annotations

from dataclasses import dataclass

from textual.theme import Theme

DARK = Theme(
    name="kore-dark",
    primary="#7cc7e8",
    secondary="#8fa6c4",
    accent="#f0b866",
    foreground="#d6dde6",
    background="#10151c",
    surface="#151c25",
    panel="#1c2530",
    success="#8ccf8f",
    warning="#f0b866",
    error="#ef7f86",
    dark=True,
    variables={
        "footer-key-foreground": "#7cc7e8",
        "border": "#2c3a49",
        "block-cursor-text-style": "none",
        "scrollbar": "#3a4b5d",
        "scrollbar-background": "#151c25",
    },
)
LIGHT = Theme(
    name="kore-light",
    primary="#1f6f99",
    secondary="#5b6f8a",
    accent="#a8620a",
    foreground="#22303c",
    background="#f7f8fa",
    surface="#eef1f5",
    panel="#e2e8ef",
    success="#2f7d3b",
    warning="#a8620a",
    error="#b3323e",
    dark=False,
    variables={
        "footer-key-foreground": "#1f6f99",
        "border": "#c3cedb",
        "block-cursor-text-style": "none",
        "scrollbar": "#a9b8c8",
        "scrollbar-background": "#eef1f5",
    },
)
OWN = (DARK, LIGHT)

# distinguishable for the common kinds of colour blindness (Okabe and Ito), in this order
SERIES = ("#7cc7e8", "#f0b866", "#b9a3e3", "#8ccf8f", "#ef9fb5", "#d9d16c")
SERIES_LIGHT = ("#1f6f99", "#a8620a", "#6a4fa3", "#2f7d3b", "#a33b60", "#7a7210")
SERIES_16 = ("bright_cyan", "bright_yellow", "bright_magenta", "bright_green", "bright_red", "bright_blue")


@dataclass(frozen=True)
class Palette:
    """Rich style names for what is drawn cell by cell."""

    series: tuple[str, ...]
    dim: str
    good: str
    warn: str
    bad: str
    shade: str

    def line(self, index: int) -> str:
        """The style of the n-th curve."""
        return self.series[index % len(self.series)]


def styled(rich_style: str) -> str:
    """A palette's colour, of a line or a shade, in Textual's notation."""
    colour = rich_style.removeprefix("on ")
    return colour if colour.startswith("#") else f"ansi_{colour}"


def palette(theme: Theme) -> Palette:
    """The chart's colours under a theme."""
    if theme.name.startswith("ansi"):
        return Palette(SERIES_16, "bright_black", "green", "yellow", "red", "on bright_black")
    if theme.dark:
        return Palette(SERIES, "#4d6072", "#8ccf8f", "#f0b866", "#ef7f86", "on #2b2a24")
    return Palette(SERIES_LIGHT, "#a9b8c8", "#2f7d3b", "#a8620a", "#b3323e", "on #f3e6cf")
