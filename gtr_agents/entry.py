"""Decides what the ``gtr`` command says where the packages it needs are not installed."""

from __future__ import annotations

import sys

from gtr_agents.errors import missing_package


def main() -> None:
    """Run the command line, or say what to install first."""
    try:
        from gtr_agents.cli import main as run
    except ModuleNotFoundError as error:
        sys.stderr.write(f"gtr: error: {missing_package(error)}\n")
        raise SystemExit(2) from None
    run()
