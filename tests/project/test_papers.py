"""The index of papers names files that are there, and every paper that the code cites."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")


def test_the_files_are_there() -> None:
    named = set(re.findall(r"`([\w/]+(?:\.py|/))", PAGE))
    assert len(named) > 20
    assert [
        name for name in sorted(named) if not any((ROOT / top / name).exists() for top in (".", "gtr_agents"))
    ] == []


def test_every_paper_of_the_code_is_listed() -> None:
    code = [*(ROOT / "gtr_agents").rglob("*.py"), *(ROOT / "gtr_envs").rglob("*.py")]
    cited = {number for file in code for number in re.findall(r"\b\d{4}\.\d{5}\b", file.read_text(encoding="utf-8"))}
    assert {"2512.13043", "2306.01708"} <= cited
    assert sorted(cited - set(re.findall(r"\d{4}\.\d{5}", PAGE))) == []
