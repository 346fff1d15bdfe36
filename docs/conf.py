"""How the documentation is built: Sphinx, furo and MyST, with one page per environment made from its docstring."""

from __future__ import annotations

import importlib.metadata
import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "GTR Suite"
author = "The GTR Suite authors"
copyright = f"2026, {author}"
release = importlib.metadata.version("gtr-suite")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"{project} {release}"
myst_enable_extensions = ["colon_fence", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
# Both packages have an UnknownNameError of their own, and a docstring names the one of its package.
suppress_warnings = ["ref.python"]

GENERATED = Path(__file__).parent / "environments" / "generated"


def write_environment_pages(_app: Sphinx) -> None:
    """Write one page per registered environment; the page is the docstring of the class."""
    from gymnasium.envs.registration import load_env_creator

    from gtr_envs.cards.duel import DuelEnv
    from gtr_envs.registration import COMPAT_ENVS, ENVS, HOUSEHOLD_ENVS

    GENERATED.mkdir(exist_ok=True)
    # The classes are read and nothing is made: a page needs no extra.
    for env_id, entry_point in (ENVS | HOUSEHOLD_ENVS | COMPAT_ENVS).items():
        page = inspect.getdoc(load_env_creator(entry_point)) or ""
        (GENERATED / f"{env_id.replace('/', '-')}.md").write_text(f"# {env_id}\n\n{page}\n", encoding="utf-8")
    # The duel for two has no Gymnasium id; its own page includes this text.
    (GENERATED / "duel.inc").write_text(inspect.getdoc(DuelEnv) or "", encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Hook the page writer into the build."""
    app.connect("builder-inited", write_environment_pages)
