"""What the README and the documentation tell a newcomer to type exists."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PAGE_NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def blocks(text: str, language: str) -> list[str]:
    """The fenced code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


SESSIONS = [page for page in PAGES if ">>> " in page.read_text()]


@pytest.mark.parametrize("page", SESSIONS, ids=[str(page.relative_to(ROOT)) for page in SESSIONS])
def test_the_sessions_of_a_page_are_true(page: Path) -> None:
    text = "\n".join(block for block in blocks(page.read_text(), "python") if ">>> " in block)
    session = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    runner = doctest.DocTestRunner()
    runner.run(session)
    assert runner.tries > 0
    assert runner.failures == 0


def test_the_two_commands_stand_at_the_top() -> None:
    first_block = blocks(README, "bash")[0]
    assert "make demo" in first_block
    assert "make test" in first_block
    assert README.index("make demo") < README.index("\n## ")


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(), flags=re.MULTILINE))
    assert named <= TARGETS


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_every_extra_that_is_named_exists(page: Path) -> None:
    named = {
        name for group in re.findall(r"(?:gtr-suite|\.)\[([a-z,]+)\]", page.read_text()) for name in group.split(",")
    }
    assert named <= EXTRAS


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_every_link_to_a_file_resolves(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    # What Sphinx generates is there only after `make docs`, which checks these links.
    links = [link for link in links if "://" not in link and not link.startswith("generated/")]
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("number", range(len(blocks(README, "python"))))
def test_the_python_of_the_readme_runs(number: int, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", blocks(README, "python")[number]], check=True, cwd=tmp_path)
