"""What ``gtr eval`` and ``gtr episodes`` do, apart from reading the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gtr_agents.episode_sets import find_sets

if TYPE_CHECKING:
    from rich.console import Console


def list_sets(names: Sequence[str], console: Console) -> None:
    """Print episode sets: name, episodes, the first characters of the fingerprint, what is in them.

    Args:
        names: names or patterns; none for all.
        console: where to print.

    Raises:
        UnknownNameError: if a name fits no set.
    """
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("set", no_wrap=True)
    table.add_column("episodes", justify="right")
    table.add_column("fingerprint", no_wrap=True)
    table.add_column("what is in it")
    for chosen in find_sets(names or ["*"]):
        table.add_row(chosen.name, str(chosen.episodes), chosen.fingerprint[:8], chosen.about)
    console.print(table)
    console.print(
        "\nMeasure on one: gtr eval MODEL --on SET; a pattern such as 'points24/*' takes several.", markup=False
    )
