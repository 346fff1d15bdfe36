"""Decides how ALFWorld's engine is driven; the only door to textworld and fast_downward.

The engine is TextWorld's: Fast Downward's library holds the state and applies operators, and the grammar of the game
words the feedback. :class:`FastEngine` does with both what :class:`StockEngine` (TextWorld's own environment) does, but
translates a game once, rewinds instead of loading again, and remembers the wording of every operator.
"""

from __future__ import annotations

import gc
import json
import os
import re
import sys
import tempfile
import threading
import warnings
import weakref
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from gtr_envs.alfworld.install import REMEDY
from gtr_envs.errors import DependencyError, GameError

# On import the engine changes the program's arguments and draws from NumPy's global generator.
_ARGUMENTS, _GENERATOR = list(sys.argv), np.random.get_state()  # noqa: NPY002
try:
    import fast_downward
    import textworld
    from mementos import core as mementos
    from textworld.envs.pddl import PddlEnv, logic, textgen
    from textworld.logic import Placeholder, Proposition, Rule, State, Type, Variable
except ImportError as missing:
    _package = (missing.name or "textworld").partition(".")[0]
    raise DependencyError(f"ALFWorld needs the package {_package!r}, which is not installed. {REMEDY}") from missing
finally:
    sys.argv[:] = _ARGUMENTS
    np.random.set_state(_GENERATOR)  # noqa: NPY002

TESTED_TEXTWORLD = ("1.7.0",)
"""Versions whose inside :class:`FastEngine` knows."""
NOTHING = "Nothing happens."
"""The feedback of TextWorld for a command that is not admissible."""
_LOCK = threading.RLock()
"""The translator and the parsers keep their state in modules, so that only one engine may work at a time."""
_FORMAT = "2"
"""Part of the key of a kept translation; raised when what is kept changes."""
CACHED_GAMES = 20_000
"""About so many translations are kept, one gigabyte."""
_TASK = re.compile(r'(?<="rhs": "Your task is to: )[^"\n]*(?=\.")')
"""The task's words in a grammar. All else is the same in every game, and reading a grammar takes a third of a second.
"""
_UNKNOWN = "UNKNOWN GOAL"
_EXPRESSION = re.compile(
    r"\s*\(?(?:'(?P<literal>[^']*)'|"
    r"(?P<variable>\w+)(?:\.(?P<attribute>name|indefinite|definite)(?: or \w+\.id)?)?)\)?\s*"
)
"""A part of what a grammar computes: a text in quotes, an entity (by name), or an attribute of it, never empty."""


class Fact(NamedTuple):
    """Something that holds, e.g. ``inreceptacle`` of a cup and a shelf."""

    name: str
    """The predicate, in lower case; with ``not_`` in front if an operator has made it false."""
    arguments: tuple[str, ...]
    """Ids, in lower case as the translator writes them."""


class EngineState(NamedTuple):
    """What the engine says after a reset or a command."""

    feedback: str
    """The text for the player."""
    admissible: tuple[str, ...]
    """Commands that do something now, sorted."""
    facts: frozenset[Fact]
    """Everything that holds."""
    won: bool
    """True if the goal holds."""


class Engine(Protocol):
    """Plays one game at a time."""

    @property
    def names(self) -> Mapping[str, str]:
        """Id -> name for the player, e.g. ``"cup 1"``."""

    def load(self, game: Mapping[str, Any]) -> None:
        """Take a game: the content of a ``game.tw-pddl`` file."""

    def reset(self) -> EngineState:
        """Go to the beginning of the game."""

    def step(self, command: str) -> EngineState:
        """Play a command; one that is not admissible changes nothing."""

    def close(self) -> None:
        """Free what the engine holds; closing twice is allowed."""


def make_engine(cache: Path | None = None) -> Engine:
    """Make the fastest engine that fits the installed version of TextWorld.

    Args:
        cache: Folder for translated games, made if needed; None keeps nothing.

    Returns:
        A :class:`FastEngine`; with an untested version of TextWorld a :class:`StockEngine`, and a warning.
    """
    installed = version("textworld")
    if installed in TESTED_TEXTWORLD:
        return FastEngine(cache)
    warnings.warn(
        f"TextWorld {installed} was not tested with the fast engine (tested: {', '.join(TESTED_TEXTWORLD)}); games are "
        "played by TextWorld's own environment, about twenty times slower.",
        stacklevel=2,
    )
    return StockEngine()


def display_names(ids: Sequence[str]) -> dict[str, str]:
    """Name everything for the player, with ALFWorld's numbers.

    Args:
        ids: Ids of all entities, as the translator writes them.

    Returns:
        Id -> name: the class and a number, or the id itself where it has no coordinates.
    """
    # The last of the sorted ids gets number 1, as upstream takes numbers from the end of a list.
    numbers: Counter[str] = Counter()
    names = {}
    for identity in sorted(ids, reverse=True):
        kind, bar, _ = identity.partition("_bar_")
        if bar:
            kind += "basin" if "basin" in identity else ""
            numbers[kind] += 1
            names[identity] = f"{kind} {numbers[kind]}"
        else:
            names[identity] = identity
    return names


class FastEngine:
    """TextWorld's engine without its repetitions; behaves like :class:`StockEngine`, command by command."""

    def __init__(self, cache: Path | None = None) -> None:
        """Load a copy of the engine's library.

        Args:
            cache: Folder for translated games, made if needed; None keeps nothing.
        """
        self._cache = cache
        self._library = _borrow_library()
        self._give_back = weakref.finalize(self, _IDLE.append, self._library)
        self._state: _State | None = None
        self._words: _Words | None = None
        self._commands: dict[str, _Operator] = {}

    @property
    def names(self) -> Mapping[str, str]:
        """Id -> name for the player, e.g. ``"cup 1"``."""
        return self._playing.names

    def load(self, game: Mapping[str, Any]) -> None:
        """Take a game.

        Args:
            game: The content of a ``game.tw-pddl`` file.

        Raises:
            GameError: If the game is not complete or cannot be translated.
        """
        domain, grammar, problem = _parts(game)
        with _LOCK, _guarded(), _as_game_error():
            # A game that cannot be read leaves none behind, since the library may hold a part of it already.
            self._state, self._words, self._commands = None, None, {}
            _forget_propositions()
            told = _TASK.findall(grammar)
            general = _TASK.sub(_UNKNOWN, grammar) if len(told) == 1 else grammar
            self._state = _State(self._library, _grounded(domain, problem, self._cache), _logic(general))
            names = display_names(list(self._state.name2type))
            self._words = _Words(self._state, names, {_UNKNOWN: told[0]} if len(told) == 1 else {})

    def reset(self) -> EngineState:
        """Go to the beginning of the game.

        Returns:
            The first state; its feedback is the introduction.

        Raises:
            GameError: If no game was loaded.
        """
        words = self._playing
        with _LOCK:
            words.state.rewind()
            return self._told(words.derive("#intro#", {}))

    def step(self, command: str) -> EngineState:
        """Play a command.

        Args:
            command: One of the admissible commands; any other changes nothing.

        Returns:
            The state after it.

        Raises:
            GameError: If no game was loaded.
        """
        words = self._playing
        with _LOCK:
            operator = self._commands.get(command.strip())
            if operator is None:
                return self._told(NOTHING)
            words.state.carry_out(operator.number)
            wording = words.of(operator.name)
            return self._told(words.derive(wording.feedback, wording.mapping))

    def close(self) -> None:
        """Give the library back; closing twice is allowed."""
        self._state = self._words = None
        self._give_back()

    @property
    def _playing(self) -> _Words:
        if self._words is None:
            raise GameError("Expected a game, but none was loaded; call load() first.")
        return self._words

    def _told(self, feedback: str) -> EngineState:
        """Ask for everything that is told, and remember which operator each command stands for."""
        words = self._playing
        self._commands = {}
        for operator in words.state.applicable():
            # Of operators with equal words the first is meant, as in TextWorld.
            self._commands.setdefault(words.of(operator.name).command, operator)
        won = bool(self._library.check_goal())
        return EngineState(feedback, tuple(sorted(self._commands)), frozenset(words.state.told), won)


class StockEngine:
    """TextWorld's own environment behind the same interface: the reference, and what untested versions get."""

    def __init__(self) -> None:
        """Load a copy of the engine's library."""
        library = _borrow_library()
        with _LOCK, _loading(library):
            self._env = PddlEnv(textworld.EnvInfos(won=True, admissible_commands=True, facts=True))
        self._give_back = weakref.finalize(self, _IDLE.append, library)
        self._loaded = False

    @property
    def names(self) -> Mapping[str, str]:
        """Id -> name for the player, e.g. ``"cup 1"``."""
        return {identity: info.name for identity, info in self._env._entity_infos.items()}

    def load(self, game: Mapping[str, Any]) -> None:
        """Take a game: the content of a ``game.tw-pddl`` file.

        Raises:
            GameError: If the game is not complete or cannot be translated.
        """
        _parts(game)
        with _LOCK, _guarded(), _as_game_error():
            self._env.load(dict(game))
            names = display_names(list(self._env._entity_infos))
            for identity, info in self._env._entity_infos.items():
                info.name = names[identity]
        self._loaded = True

    def reset(self) -> EngineState:
        """Go to the beginning of the game.

        Raises:
            GameError: If no game was loaded.
        """
        self._require_game()
        with _LOCK, _guarded():
            return self._told(self._env.reset())

    def step(self, command: str) -> EngineState:
        """Play a command; one that is not admissible changes nothing.

        Raises:
            GameError: If no game was loaded.
        """
        self._require_game()
        with _LOCK:
            return self._told(self._env.step(command)[0])

    def close(self) -> None:
        """Give the library back; closing twice is allowed."""
        self._loaded = False
        self._give_back()

    def _require_game(self) -> None:
        if not self._loaded:
            raise GameError("Expected a game, but none was loaded; call load() first.")

    @staticmethod
    def _told(state: Any) -> EngineState:
        facts = frozenset(_told_fact(proposition) for proposition in state["_facts"])
        return EngineState(state.feedback, tuple(state["admissible_commands"]), facts, bool(state["won"]))


# --- a game as the planner sees it ------------------------------------------------------------------------------------


class _Grounded(NamedTuple):
    """A translated game."""

    sas: str
    """The task in the planner's own format."""
    parameters: dict[str, list[tuple[str, str]]]
    """Operator schema -> name and type of each parameter."""
    types: list[tuple[str, list[str]]]
    """Type and its supertypes."""
    sorts: dict[str, str]
    """Object -> its type."""
    facts: list[tuple[str, list[str]]]
    """What holds at the beginning by the problem: predicate and arguments."""


def _grounded(domain: str, problem: str, cache: Path | None) -> _Grounded:
    """Translate a game, or take the translation that is kept."""
    if cache is None:
        return _translated(domain, problem)
    versions = [version(name) for name in ("textworld", "fast-downward-textworld")]
    path = cache / (sha256("\0".join([_FORMAT, *versions, domain, problem]).encode()).hexdigest() + ".json.z")
    try:
        kept = _Grounded(**json.loads(zlib.decompress(path.read_bytes())))
        with suppress(OSError):  # somebody else's cache
            os.utime(path)
        return kept
    except (OSError, ValueError, TypeError, zlib.error):
        pass  # not there, or broken: it is made again
    grounded = _translated(domain, problem)
    try:
        _keep(grounded, path)
    except OSError as error:
        warnings.warn(f"Games cannot be kept in {cache}, so each is translated anew ({error}).", stacklevel=2)
    return grounded


def _keep(grounded: _Grounded, path: Path) -> None:
    """Write a translation to the cache."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Renamed when whole, so that no process ever reads a half of it.
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as part:
        part.write(zlib.compress(json.dumps(grounded._asdict()).encode(), level=3))
    os.replace(part.name, path)
    if path.name.startswith("00"):  # one game in 256
        _tidy(path.parent)


def _tidy(cache: Path) -> None:
    """Delete the translations that were not used for longest if there are too many; other processes may do the same."""
    last_used = []
    for entry in os.scandir(cache):
        with suppress(FileNotFoundError):
            last_used.append((entry.stat().st_mtime, entry.path))
    for _, path in sorted(last_used)[: max(0, len(last_used) - CACHED_GAMES)]:
        with suppress(OSError):
            os.unlink(path)


def _translated(domain: str, problem: str) -> _Grounded:
    """Let Fast Downward translate a game; takes some tenths of a second."""
    with _without_garbage_collection():
        task, sas = fast_downward.pddl2sas(domain, problem)
    facts = [(atom.predicate, list(atom.args)) for atom in task.init if getattr(atom, "predicate", "=") != "="]
    return _Grounded(
        sas,
        {action.name: [(p.name.strip("?"), p.type_name) for p in action.parameters] for action in task.actions},
        [(sort.name, list(sort.supertype_names)) for sort in task.types],
        {item.name: item.type_name for item in task.objects},
        facts,
    )


class _Operator(NamedTuple):
    """Something that can be done now."""

    number: int
    """The library's number."""
    name: str
    """Schema and arguments, separated by blanks."""


class _State(State):  # type: ignore[misc]
    """The state of a game, kept beside the library's own so that the grammar can ask for facts."""

    def __init__(self, library: Any, grounded: _Grounded, game_logic: Any) -> None:
        self._logic = game_logic
        self._facts: defaultdict[Any, set[Any]] = defaultdict(set)
        self._vars_by_name: dict[str, Any] = {}
        self._vars_by_type: defaultdict[str, set[Any]] = defaultdict(set)
        self._var_counts: Counter[str] = Counter()
        self.library, self.parameters, self.name2type = library, grounded.parameters, grounded.sorts
        self.logic = game_logic
        for name, supertypes in grounded.types:
            # A grammar is read once for many games, which all declare the same types.
            with suppress(ValueError):
                game_logic.types.add(Type(name, supertypes))
        library.load_sas(grounded.sas.encode("utf-8"))
        self._beginning = library.get_state_id()
        self.add_facts(
            Proposition(name, [Variable(a, grounded.sorts[a]) for a in arguments]) for name, arguments in grounded.facts
        )
        atoms = (logic.Atom * library.get_state_size())()
        library.get_state(atoms)
        # Most atoms tell what does not hold; they are left out before they are made into facts.
        self.add_facts(atom.get_fact(grounded.sorts) for atom in atoms if not atom.name.startswith("Negated"))
        self.told = {_told_fact(fact) for fact in self.facts}
        self._kept = ({sig: set(facts) for sig, facts in self._facts.items()}, set(self.told))
        self._effects: dict[int, int] = {}

    def rewind(self) -> None:
        """Go back to the beginning; objects never come or go, so that facts are all that has changed."""
        self.library.set_state_id(self._beginning)
        facts, told = self._kept
        self._facts = defaultdict(set, {sig: set(kept) for sig, kept in facts.items()})
        self.told = set(told)

    def applicable(self) -> Iterator[_Operator]:
        """Yield what can be done now; operators of one name are one."""
        operators = (fast_downward.Operator * self.library.get_applicable_operators_count())()
        self.library.get_applicable_operators(operators)
        self._effects = {operator.id: operator.nb_effect_atoms for operator in operators}
        seen = set()
        for operator in operators:
            name = operator.name
            if name not in seen:
                seen.add(name)
                yield _Operator(operator.id, name)

    def carry_out(self, number: int) -> None:
        """Apply an operator."""
        effects = (logic.Atom * self._effects[number])()
        self.library.apply_operator(number, effects)
        for effect in effects:
            fact = effect.get_fact(self.name2type)
            opposite = fact.negate()
            self._facts[opposite.signature].discard(opposite)
            self._facts[fact.signature].add(fact)
            self.told.discard(_told_fact(opposite))
            self.told.add(_told_fact(fact))


def _told_fact(proposition: Any) -> Fact:
    return Fact(proposition.name, tuple(variable.name for variable in proposition.arguments))


# --- the words of a game ----------------------------------------------------------------------------------------------


class _Wording(NamedTuple):
    """The words of one operator."""

    command: str
    """What the player says."""
    feedback: str
    """The symbol of the grammar that tells what happened."""
    mapping: dict[Any, Any]
    """Which variable stands for which parameter."""


class _Words:
    """Words a game by its grammar, as TextWorld does, with the readings of every rule kept."""

    def __init__(self, state: _State, names: dict[str, str], told: Mapping[str, str]) -> None:
        self.state, self.names = state, names
        self._told = told
        self._wordings: dict[str, _Wording] = {}

    def of(self, operator: str) -> _Wording:
        """The words of an operator; they depend on nothing that ever changes."""
        wording = self._wordings.get(operator)
        if wording is None:
            schema, *arguments = operator.split()
            action = self.state.logic.actions[schema]
            mapping = {
                Placeholder(name, sort): Variable(argument, sort)
                for (name, sort), argument in zip(self.state.parameters[schema], arguments, strict=False)
            }
            template = self.derive(action.template, mapping)
            command = template.format(**{hole.name: self.names[variable.name] for hole, variable in mapping.items()})
            wording = self._wordings[operator] = _Wording(command, action.feedback_rule, mapping)
        return wording

    def derive(self, start: str, mapping: Mapping[Any, Any]) -> str:
        """Write what a text with symbols of the grammar stands for."""
        text = self._write(_symbols(start), mapping)
        for general, told in self._told.items():
            text = text.replace(general, told)
        return text

    def _write(self, symbols: Sequence[Any], mapping: Mapping[Any, Any]) -> str:
        return "".join(self._write_one(symbol, mapping) for symbol in symbols)

    def _write_one(self, symbol: Any, mapping: Mapping[Any, Any]) -> str:
        if isinstance(symbol, textgen.ListSymbol):
            return self._write_list(
                [self._write([symbol.symbol.expression], found) for found in self._found(symbol, mapping)]
            )
        if isinstance(symbol, textgen.ConditionalSymbol) and not symbol.given:
            return self._write([symbol.expression], mapping)
        if isinstance(symbol, textgen.NonterminalSymbol):
            return self._write(self._rule(symbol.symbol, mapping).rhs, mapping)
        if isinstance(symbol, textgen.EvalSymbol):
            return self._evaluate(symbol.expression, mapping)
        return str(symbol.symbol)

    def _found(self, symbol: Any, mapping: Mapping[Any, Any]) -> Iterator[dict[Any, Any]]:
        """Yield everything that a list's condition holds for, with what is known already."""
        for found in self.state.all_assignments(_query(symbol.symbol.given), dict(mapping)):
            yield {**mapping, **found}

    def _write_list(self, items: list[str]) -> str:
        """Write a list with the grammar's own words for "nothing", commas and "and"."""
        if not items:
            return self._write(self._rule("list_empty", {}).rhs, {})
        *first, last = items
        if not first:
            return last
        comma, conjunction = (self._write(self._rule(f"list_{name}separator", {}).rhs, {}) for name in ("", "last_"))
        return comma.join(first) + conjunction + last

    def _rule(self, name: str, mapping: Mapping[Any, Any]) -> Any:
        """The first rule of a symbol whose condition holds."""
        rules = self.state.logic.grammar._rules.get(name)
        for rule in rules or ():
            condition = rule.condition and self.state.all_assignments(_query(rule.condition), dict(mapping))
            if not condition or next(iter(condition), None) is not None:
                return rule
        raise GameError(f"The game's grammar has no rule for {name!r} that fits.")

    def _evaluate(self, expression: str, mapping: Mapping[Any, Any]) -> str:
        """Put an expression such as ``o.indefinite + ' ' + o.name`` together; nothing of it is run as a program."""
        variables = {hole.name: variable.name for hole, variable in mapping.items()}
        text = ""
        # Signs inside of quotes are no operators; ALFWorld's grammars have none there.
        for part in str(expression).split("+"):
            match = _EXPRESSION.fullmatch(part)
            if match is None or (match["variable"] and match["variable"] not in variables):
                raise GameError(f"The game's grammar computes {expression!r}, which is not understood.")
            if match["variable"] is None:
                text += match["literal"]
            else:
                name = self.names[variables[match["variable"]]]
                text += {"indefinite": "a", "definite": "the"}.get(match["attribute"], name)
        return text


@lru_cache(maxsize=16)
def _logic(grammar: str) -> Any:
    """Read a grammar."""
    return logic.GameLogic(domain="", grammar=grammar)


@lru_cache(maxsize=1024)
def _symbols(text: str) -> tuple[Any, ...]:
    """Read a text with symbols."""
    return tuple(textgen._parse_and_convert(text, rule_name="symbols"))


@lru_cache(maxsize=256)
def _query(condition: str) -> Any:
    """Read a condition."""
    return Rule.parse_conjunctive_query(condition)


# --- the engine's bad manners -----------------------------------------------------------------------------------------


def _parts(game: Mapping[str, Any]) -> tuple[str, str, str]:
    """Domain, grammar and problem of a game."""
    names = ("pddl_domain", "grammar", "pddl_problem")
    missing = [name for name in names if not isinstance(game.get(name), str)]
    if missing:
        raise GameError(f"Expected a game with texts under {list(names)}; missing: {missing}. Is the file complete?")
    domain, grammar, problem = (game[name] for name in names)
    return domain, grammar, problem


@contextmanager
def _guarded() -> Iterator[None]:
    """The translator overwrites the program's arguments and swaps its output."""
    arguments, output = list(sys.argv), sys.stdout
    try:
        yield
    finally:
        sys.argv, sys.stdout = arguments, output


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """The translator makes a million small objects, hardly any in circles; to look for those is a fifth of its time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@contextmanager
def _as_game_error() -> Iterator[None]:
    """The translator leaves by ``sys.exit``, and the parsers raise whatever they like."""
    try:
        yield
    except GameError:
        raise
    except (Exception, SystemExit) as error:
        raise GameError(f"The engine cannot read this game: {type(error).__name__}: {error}") from error


def _forget_propositions() -> None:
    """TextWorld keeps every fact that ever was, almost a megabyte for each new game; equality does not need it."""
    kept = mementos._memento_cache
    for key in [key for key in kept if key[0] is Proposition]:
        del kept[key]


_IDLE: list[Any] = []
"""Libraries of engines that were closed. Every copy takes 34 MB of a deleted but open file, and unloading one while
another works ends in a crash, since the copies share what C++ makes unique; so they are used again."""


def _borrow_library() -> Any:
    """A copy of the engine's library that nobody uses."""
    with _LOCK:
        return _IDLE.pop() if _IDLE else fast_downward.load_lib()


@contextmanager
def _loading(library: Any) -> Iterator[None]:
    """TextWorld's environment loads a library of its own; let it have this one."""
    loader, fast_downward.load_lib = fast_downward.load_lib, lambda: library
    try:
        yield
    finally:
        fast_downward.load_lib = loader
