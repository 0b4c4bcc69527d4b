"""Report keys of records that nothing reads, once per file, as warnings of the logger ``kore.data``."""

from __future__ import annotations

import difflib
import logging
import re

from kore.data.record_base import Record

_LOG = logging.getLogger("kore.data")
_PLACE = re.compile(r"(:\d+|\[\d+\])$")
_NOTED: set[tuple[str, str]] = set()


def note_unread(record: Record, where: str) -> None:
    """Report the keys of a record that KORE keeps but does not read, with the nearest key that it reads."""
    unread = [key for key in record.extra if key not in record.read_keys and _is_first(where, key)]
    if not unread or not record.read_keys:
        return
    fields = [k for k in type(record).model_fields if k != "extra"]
    known = sorted({*fields, *record.read_keys})
    names = []
    for key in unread:
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.7)
        names.append(f"{key} (did you mean {close[0]}?)" if close else key)
    _LOG.warning("%s: keys that KORE does not read: %s", where, ", ".join(names))


def note_once(where: str, kind: str, text: str) -> None:
    """Report something about a file at the first place where it occurs."""
    if _is_first(where, f"\0{kind}"):
        _LOG.warning("%s: %s", where, text)


def _is_first(where: str, kind: str) -> bool:
    entry = (_PLACE.sub("", where), kind)
    if entry in _NOTED:
        return False
    _NOTED.add(entry)
    return True
