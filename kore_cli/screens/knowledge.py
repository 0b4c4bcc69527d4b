"""The Knowledge screen: items, their trees, and rejected records with the reasons."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from rich.cells import cell_len
from textual import on, work
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option
from textual.worker import Worker, get_current_worker

from kore_cli.dashboard.tree_index import REJECTED, TREES, Entry, Index, image_of, read, tree_folder
from kore_cli.dashboard.watcher import Snapshot
from kore_cli.screens.parts import Box
from kore_cli.screens.view import View
from kore_cli.widgets.formatting import fit, padded
from kore_cli.widgets.image import Picture
from kore_cli.widgets.keys import KNOWLEDGE, bindings

LISTED = 2000


class KnowledgeScreen(View):
    """Browse knowledge trees with their images."""

    NAME = "knowledge"
    FILTERS = "titles and types"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings(KNOWLEDGE)]

    def __init__(self) -> None:
        super().__init__()
        self._worker: Worker[None] | None = None
        self._rejected = False
        self._open(None)

    def _open(self, folder: Path | None) -> None:
        """Open a folder of trees, or none, and drop the former one."""
        self._folder = folder
        self._stamp: object = None
        self._indices: tuple[Index, ...] = ()
        self._shown: list[Entry] = []
        self._listed: object = None
        self._chosen: tuple[Entry, dict[str, Any]] | None = None
        self._drawn: object = None

    def body(self) -> Iterable[Widget]:
        """Items to the left; image and tree to the right."""
        top = Horizontal(Picture(id="picture"), Static(id="item"), id="about-row")
        tree = Box(Static(id="tree"), id="tree-box", classes="panel")
        yield Horizontal(OptionList(id="items"), Vertical(top, tree, id="right"), id="columns")
        yield Static(id="nothing", markup=False)

    def show(self, snapshot: Snapshot) -> None:
        """Read the index when the files change; list what matches the filter."""
        folder = tree_folder(snapshot.run.inputs if snapshot.run else {}, snapshot.folder or Path())
        if folder != self._folder:
            self._open(folder)
        nothing = self.query_one("#nothing", Static)
        nothing.display = folder is None
        self.query_one("#columns").display = folder is not None
        if folder is None:
            nothing.update("no knowledge trees: this run does not name any (kore augment writes them)")
            return
        stamp = _stamps(folder)
        # while files grow, finish one index before the next
        if stamp != self._stamp and (self._worker is None or self._worker.is_finished):
            files = tuple(Index(folder / name, name == REJECTED) for name in (TREES, REJECTED))
            indices = files if self._stamp is None else self._indices
            self._stamp, self._worker = stamp, self._index(folder, indices or files)
        self._list()
        self._show_chosen()

    @work(thread=True, group="index")
    def _index(self, folder: Path, indices: tuple[Index, ...]) -> None:
        worker = get_current_worker()
        grown = []
        for index in indices:
            with contextlib.suppress(OSError):  # deleted meanwhile: the next poll shows it
                index = index.grown(lambda: not worker.is_cancelled and folder == self._folder)
            grown.append(index)
        if not worker.is_cancelled:
            self.app.call_from_thread(self._indexed, folder, tuple(grown))

    def _indexed(self, folder: Path, indices: tuple[Index, ...]) -> None:
        if folder != self._folder:
            return
        self._indices = indices
        self._listed = self._drawn = None
        self._list()

    @property
    def _entries(self) -> tuple[Entry, ...]:
        return tuple(e for i in self._indices for e in i.entries)

    def _list(self) -> None:
        filter_text = self.filter_text
        listed = [i for i in self._indices if i.rejected == self._rejected]
        entries = [e for i in listed for e in i.entries if filter_text in f"{e.title} {e.type}".lower()]
        odd = sum(i.odd for i in listed)
        width = max(10, self.query_one("#items").content_size.width - 2)
        key = (len(self._entries), odd, filter_text, self._rejected, width)
        if key == self._listed:
            return
        self._listed = key
        options = self.query_one("#items", OptionList)
        at = options.highlighted
        marked = self._shown[at] if at is not None and at < len(self._shown) else None
        self._shown = entries[:LISTED]
        options.border_title = "rejected" if self._rejected else "items"
        counts = [f"{len(entries):,}", f"{odd:,} lines unreadable" if odd else ""]
        counts += [f"first {LISTED:,} listed: / filters" if len(entries) > LISTED else ""]
        options.border_subtitle = ", ".join(filter(None, counts))
        options.clear_options()
        options.add_options([Option(row(e, width), id=f"{int(e.rejected)}:{e.offset}") for e in self._shown])
        if entries:
            options.highlighted = place(marked, self._shown)
        else:
            self._chosen = self._drawn = None
            text = self.no_match if filter_text else "nothing was rejected" if self._rejected else "no items"
            self.query_one("#item", Static).update(Content.styled(text, "$foreground 50%"))
            self.query_one("#tree-box").border_title = ""
            self.query_one("#tree", Static).update("")
            self.query_one("#picture", Picture).show(None)

    @on(OptionList.OptionHighlighted, "#items")
    def _highlighted(self, event: OptionList.OptionHighlighted) -> None:
        if event.option.id is None or self._folder is None:
            return
        rejected, offset = event.option.id.split(":")
        entry = next(
            (e for e in self._entries if e.offset == int(offset) and e.rejected == bool(int(rejected))), None
        )
        if entry is None:
            return
        try:
            record = read(entry)
        except (OSError, ValueError):  # rewritten meanwhile: the offsets are wrong
            self._stamp = None
            self.fill()
            return
        if self._chosen is None or self._chosen[0] != entry:
            self.query_one("#tree-box").scroll_home(animate=False)
        self._chosen = (entry, record)
        self._show_chosen()

    def _show_chosen(self) -> None:
        if self._chosen is None or self._folder is None:
            return
        entry, record = self._chosen
        box = self.query_one("#tree-box")
        width = max(20, box.scrollable_content_region.width)
        if (entry, width) == self._drawn:
            return
        self._drawn = (entry, width)
        self.query_one("#picture", Picture).show(image_of(record, self._folder))
        box.border_title = "why it was rejected" if entry.rejected else "knowledge tree"
        try:
            about, tree = texts(record, entry, width)
        except (TypeError, ValueError, AttributeError, RecursionError):
            about = Content.styled(fit(entry.title, 200), "bold")
            tree = Content.styled("unreadable: not as this version of KORE writes it", "$error")
        self.query_one("#item", Static).update(about)
        self.query_one("#tree", Static).update(tree)

    def action_rejected(self) -> None:
        """Switch between items and rejected records."""
        self._rejected = not self._rejected
        self.fill()

    def copied(self) -> str:
        """The chosen item or rejected record, as it is shown."""
        if self._chosen is None:
            return super().copied()
        shown = (self.query_one(f"#{name}", Static).visual for name in ("item", "tree"))
        return "\n\n".join(str(text) for text in shown)

    def table(self) -> tuple[list[str], list[list[object]]]:
        """The list."""
        return ["title", "type", "rejected"], [[e.title, e.type, e.rejected] for e in self._entries]


def place(marked: Entry | None, entries: Sequence[Entry]) -> int:
    """A record's index in another list: its own, else that of its title, else 0."""
    if marked in entries:
        return entries.index(marked)
    return next((i for i, e in enumerate(entries) if marked and e.title == marked.title), 0)


def _stamps(folder: Path) -> object:
    return (folder, *(_stamp(folder / name) for name in (TREES, REJECTED)))


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


def texts(record: dict[str, Any], entry: Entry, width: int) -> tuple[Content, Content]:
    """An item and its tree, or a rejected record and the reasons.

    Raises:
        TypeError, ValueError, AttributeError, RecursionError: the record is malformed.
    """
    if entry.rejected:
        return rejected_text(record, entry), rejection(record)
    item = record.get("item")
    return item_text(item if isinstance(item, dict) else record), tree_text(record, width)


def item_text(item: dict[str, Any]) -> Content:
    """Title, kind, text and facts."""
    rows = [
        Content.styled(str(item.get("title", "?")), "bold"),
        Content.styled(" · ".join(str(item[k]) for k in ("kind", "type", "date") if item.get(k)), "$accent"),
        Content(""),
        Content(str(item.get("text", ""))),
    ]
    for name, value in (item.get("facts") or {}).items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        rows.append(Content.assemble((f"{name}: ", "$foreground 55%"), shown))
    if item.get("source"):
        rows.append(Content.styled(str(item["source"]), "$foreground 45%"))
    return Content("\n").join(rows)


def row(entry: Entry, width: int) -> Content:
    """A line of the list: the title, and the type if there is room."""
    if width < 24:
        return Content(fit(entry.title, width))
    kind = fit(entry.type, 12)
    room = width - cell_len(kind) - 2
    return Content.assemble(padded(entry.title, room), "  ", (kind, "$foreground 45%"))


def tree_text(record: dict[str, Any], width: int) -> Content:
    """Trunk and branches, each with its origin, wrapped to `width` columns."""
    rows = [Content.styled("trunk", "bold $accent")]
    rows += _turns(record.get("trunk") or [], "origin", width)
    rows += [Content(""), Content.styled("branches", "bold $accent")]
    rows += _turns(record.get("branches") or [], "task", width)
    return Content("\n").join(rows)


def _turns(turns: list[dict[str, Any]], tag: str, width: int) -> list[Content]:
    rows: list[Content] = []
    for position, turn in enumerate(turns):
        stem, rest = ("└─ ", "   ") if position == len(turns) - 1 else ("├─ ", "│  ")
        made = turn.get("made") or {}
        by = " · ".join(str(v) for v in (turn.get(tag), made.get("by"), made.get("verdict")) if v)
        lines = _hung(str(turn.get("question", "")), "bold", stem, rest, width)
        if by and lines[-1].cell_length + cell_len(by) + 2 <= width:
            lines[-1] = Content.assemble(lines[-1], ("  " + by, "$foreground 45%"))
        elif by:
            lines += _hung(by, "$foreground 45%", rest, rest, width)
        rows += lines
        rows += _hung(str(turn.get("answer", "")), "", rest, rest, width)
        if turn.get("evidence"):
            rows += _hung(f"“{turn['evidence']}”", "italic $foreground 55%", rest, rest, width)
    return rows or [Content.styled("none", "$foreground 45%")]


def _hung(text: str, style: str, first: str, rest: str, width: int) -> list[Content]:
    """Lines of a text beside the stem of the tree."""
    lines = Content.styled(" ".join(text.split()), style).wrap(max(10, width - len(first))) or [Content("")]
    stems = [first, *[rest] * (len(lines) - 1)]
    return [
        Content.assemble((stem, "$foreground 40%"), line.rstrip())
        for stem, line in zip(stems, lines, strict=True)
    ]


def rejected_text(record: dict[str, Any], entry: Entry) -> Content:
    """A rejected record: its item, its question and its answer."""
    rows = [Content.styled(entry.title, "bold"), Content.styled(entry.type, "$accent"), Content("")]
    rows += [Content(str(record[name])) for name in ("question", "answer", "text") if record.get(name)]
    return Content("\n").join(rows)


def rejection(record: dict[str, Any]) -> Content:
    """The reasons first, then the record, field by field."""
    reasons = record.get("reasons") or record.get("reason") or record.get("why") or "no reason written"
    reasons = reasons if isinstance(reasons, list) else [reasons]
    rows = [Content.styled(f"✖ {reason}", "$error") for reason in reasons]
    rows.append(Content(""))
    for name, value in record.items():
        if name not in ("reasons", "reason", "why"):
            rows.append(Content.assemble((f"{name}: ", "$foreground 55%"), str(value)))
    return Content("\n").join(rows)
