"""Rules about the source text that no linter checks."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted([*(ROOT / "gtr_envs").rglob("*.py"), *(ROOT / "gtr_agents").rglob("*.py")])
NAMES = [str(path.relative_to(ROOT)) for path in MODULES]
EVALUATORS = {"eval", "exec", "compile", "__import__"}
PICKLES = {"pickle", "marshal", "shelve", "dill", "joblib"}


def is_dataclass(node: ast.AST) -> bool:
    """True for a class statement decorated with ``dataclass``."""
    if not isinstance(node, ast.ClassDef):
        return False
    calls = [decorator.func if isinstance(decorator, ast.Call) else decorator for decorator in node.decorator_list]
    return any(isinstance(call, ast.Name) and call.id == "dataclass" for call in calls)


def undocumented_fields(tree: ast.Module) -> Iterator[str]:
    """Fields of dataclasses that no string literal follows."""
    for node in ast.walk(tree):
        if not is_dataclass(node):
            continue
        assert isinstance(node, ast.ClassDef)
        if node.name.startswith("_"):
            continue
        for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                documented = (
                    isinstance(following, ast.Expr)
                    and isinstance(following.value, ast.Constant)
                    and isinstance(following.value.value, str)
                )
                if not documented:
                    yield f"{node.name}.{statement.target.id}"


def test_the_field_rule_finds_an_undocumented_field() -> None:
    source = '@dataclass\nclass A:\n    x: int\n    """Doc."""\n    y: int = 0\n'
    assert list(undocumented_fields(ast.parse(source))) == ["A.y"]


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_every_dataclass_field_has_a_doc_line(path: Path) -> None:
    assert not list(undocumented_fields(ast.parse(path.read_text())))


def forbidden_uses(tree: ast.Module) -> Iterator[str]:
    """Calls that run text as program, and imports that unpickle."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in EVALUATORS:
            yield node.func.id
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in PICKLES)
        elif isinstance(node, ast.ImportFrom) and node.module in PICKLES:
            yield node.module or ""
        elif isinstance(node, ast.keyword) and ast.unparse(node) == "trust_remote_code=True":
            yield ast.unparse(node)  # handing it through is allowed, switching it on is not


def test_the_text_rule_finds_evaluation_pickles_and_remote_code() -> None:
    source = "import pickle\neval('1')\nload('x', trust_remote_code=True)\nload('x', trust_remote_code=False)"
    assert sorted(forbidden_uses(ast.parse(source))) == ["eval", "pickle", "trust_remote_code=True"]


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_no_text_is_run_as_program(path: Path) -> None:
    assert not list(forbidden_uses(ast.parse(path.read_text())))
