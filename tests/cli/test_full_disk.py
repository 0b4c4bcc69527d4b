"""A full disk is named as such, whichever library writes."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from kore_cli.errors import unforeseen


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail] PytorchStreamWriter failed: No space left on device"),
    ],
)
def test_the_message_says_how_much_is_free(error: Exception) -> None:
    code, message, hint = unforeseen(error)
    assert code == 1 and "no space left on the disk (" in message and " MB free in " in message
    assert "resumes" in str(hint)


def test_the_file_is_named_where_the_library_names_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "model.safetensors"
    message = unforeseen(OSError(errno.ENOSPC, "No space left on device", str(path)))[1]
    assert message.startswith(f"{path}: no space left") and f"free in {tmp_path}" in message


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_command_that_writes_to_a_full_device_ends_with_the_message() -> None:
    code = "from kore_cli.errors import ended\nimport sys\ndef work():\n    with open('/dev/full', 'w') as f: f.write('x')\nsys.exit(ended(work))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith("error: no space left on the disk"), done.stderr
