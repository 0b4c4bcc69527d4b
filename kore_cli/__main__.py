"""``python -m kore_cli`` is the kore command."""

from __future__ import annotations

from kore_cli.main import main

if __name__ == "__main__":
    main()
