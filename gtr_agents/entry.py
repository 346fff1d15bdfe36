"""Decides what the ``gtr`` command says where the packages it needs are not installed."""

from __future__ import annotations

import sys

from gtr_agents.errors import DependencyError
from gtr_agents.requirements import explain


def main() -> None:
    """Run the command line, or say what to install first."""
    try:
        from gtr_agents.cli import main as run
    except ImportError as error:
        try:
            explain(error)
        except DependencyError as explained:
            sys.stderr.write(f"gtr: error: {explained}\n")
            raise SystemExit(2) from None
        raise
    run()
