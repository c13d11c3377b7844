"""Whether a rule fits an action: one that allows must fit beyond doubt, one that asks or denies is given the doubt."""

import posixpath
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from itertools import islice
from typing import assert_never

from stepgate.domain.policy import clarity
from stepgate.domain.policy.action import Action, Reach, Ruling
from stepgate.domain.policy.globs import lies_below, matches, matches_any, may_meet
from stepgate.domain.policy.model import GlobWord, Match, OneOf, Rule, Word


class Fit(IntEnum):
    """How a rule fits, the least certain first; a rule fits as well as the worst of its fields."""

    NO = 0
    LATER = 1
    """Only what comes later will tell: the change set, or what was spent by then."""
    MAYBE = 2
    """The facts that would tell are not known."""
    YES = 3


@dataclass(frozen=True)
class Asked:
    """An action while its rules are looked at: what costs something to find out is found out once."""

    action: Action

    @property
    def reach(self) -> Reach:
        return self.action.reach

    @cached_property
    def unclear(self) -> str | None:
        """Why the command cannot be understood; None where it can, or where there is none."""
        reach = self.reach
        if not reach.is_command:
            return None
        found = reach.executable if reach.resolved else ""
        return clarity.unclear(reach.argv, reach.shell, reach.env, stdin=reach.stdin, executable=found)

    @cached_property
    def unworded(self) -> str | None:
        """Why no rule about words may allow the command; None where one may, or where there is no command."""
        reach = self.reach
        if not reach.is_command:
            return None
        return self.unclear or clarity.unsaid(reach.planned_env, stdin=reach.stdin)

    @cached_property
    def spellings(self) -> tuple[tuple[str, ...], ...]:
        """What a command that is not understood may run, the first 20,000 guesses."""
        if self.unclear is None:
            return ()
        return tuple(islice(clarity.spellings(self.reach.argv, self.reach.shell), clarity.MAX_SPELLINGS))

    @cached_property
    def by_program(self) -> Mapping[str, Sequence[tuple[str, ...]]]:
        """The spellings by each form of their first word: a rule looks at those that may fit, not at all of them."""
        found: dict[str, list[tuple[str, ...]]] = {}
        for words in self.spellings:
            for form in clarity.forms(words[0], program=True):
                found.setdefault(form, []).append(words)
        return found

    @property
    def unread(self) -> bool:
        """Whether it has more words than anybody looked at."""
        return len(self.spellings) == clarity.MAX_SPELLINGS


def fit(rule: Rule, asked: Asked) -> Fit:
    """How well the rule fits the action."""
    match, strict = rule.match, rule.verdict is Ruling.ALLOW
    worst = Fit.YES
    for test in _TESTS:
        found = test(match, asked, strict)
        if found is Fit.NO:
            return found
        worst = min(worst, found)
    return worst


def _sure(fits: bool) -> Fit:
    return Fit.YES if fits else Fit.NO


def _executor(match: Match, asked: Asked, strict: bool) -> Fit:
    return _sure(match.executor is None or asked.action.executor in match.executor)


def _labels(match: Match, asked: Asked, strict: bool) -> Fit:
    given = asked.action.labels
    return _sure(all(given.get(name) == value for name, value in (match.labels or {}).items()))


def _requester(match: Match, asked: Asked, strict: bool) -> Fit:
    """All who asked are trusted or none is; one who is watched is enough."""
    if match.requester is None:
        return Fit.YES
    named = (one in match.requester for one in (asked.action.requester, *asked.action.others))
    return _sure(all(named) if strict else any(named))


def _level(match: Match, asked: Asked, strict: bool) -> Fit:
    level = asked.reach.sandbox_level
    if match.sandbox_level is None:
        return Fit.YES
    if level is None:
        return Fit.MAYBE if asked.reach.is_command or not asked.action.known else Fit.NO
    return _sure(level in match.sandbox_level)


def _paths(match: Match, asked: Asked, strict: bool) -> Fit:
    if match.paths is None:
        return Fit.YES
    if not asked.action.known:
        return Fit.MAYBE
    paths = asked.reach.paths
    if strict:
        return _sure(asked.reach.complete and bool(paths) and all(matches_any(match.paths, path) for path in paths))
    # A command that names a folder reaches what lies in it.
    folders = [glob.removesuffix("/**") for glob in match.paths if glob.endswith("/**") and asked.reach.is_command]
    if any(matches_any((*match.paths, *folders), path) for path in paths):
        return Fit.YES
    open_ended = any(may_meet(glob, word) for glob in match.paths for word in asked.reach.words)
    if asked.reach.is_command:
        open_ended = open_ended or any(lies_below(glob, path) for glob in match.paths for path in paths)
    return Fit.MAYBE if asked.reach.cut or open_ended else Fit.NO


def _argv(match: Match, asked: Asked, strict: bool) -> Fit:
    if match.argv is None:
        return Fit.YES
    if not asked.action.known:
        return Fit.MAYBE
    if not asked.reach.is_command:
        return Fit.NO
    if strict:
        return _sure(asked.unworded is None and _fits_words(match, asked.reach.argv or (), _is_word))
    given = asked.reach.argv
    if given is not None and _fits_words(match, given, _is_like):
        return Fit.YES
    # What a wrapper adds at the end nobody knows, so the words that are there need only begin alike.
    longer = match.model_copy(update={"rest": "any"})
    if any(_fits_words(longer, words, _is_like) for words in _beginning(match.argv[0], asked)):
        return Fit.YES
    return Fit.MAYBE if asked.unread else Fit.NO


def _beginning(first: Word, asked: Asked) -> Iterator[tuple[str, ...]]:
    """The spellings whose first word may fit."""
    known = asked.by_program
    match first:
        case str():
            names: Iterable[str] = (first,)
        case OneOf():
            names = first.one_of
        case GlobWord():
            names = (name for name in known if matches(first.glob, name))
        case _:
            assert_never(first)
    for name in names:
        yield from known.get(name, ())


def _fits_words(match: Match, words: Sequence[str], fits: Callable[[Word, str, bool], bool]) -> bool:
    patterns = match.argv or ()
    if len(words) < len(patterns) or (match.rest is None and len(words) > len(patterns)):
        return False
    pairs = zip(patterns, words, strict=False)
    return all(fits(pattern, word, index == 0) for index, (pattern, word) in enumerate(pairs))


def _is_word(pattern: Word, word: str, first: bool) -> bool:
    """Exactly, for a rule that allows."""
    match pattern:
        case str():
            return word == pattern
        case OneOf():
            return word in pattern.one_of
        case GlobWord():
            plain = not word.startswith("-") and not word.startswith("/") and posixpath.normpath(word) == word
            return plain and not word.startswith("..") and matches(pattern.glob, word)


def _is_like(pattern: Word, word: str, first: bool) -> bool:
    """However it is written, for a rule that asks or denies."""
    forms = clarity.forms(word, program=first)
    match pattern:
        case str():
            return pattern in forms
        case OneOf():
            return not forms.isdisjoint(pattern.one_of)
        case GlobWord():
            return any(matches(pattern.glob, form) for form in forms)


def _executable(match: Match, asked: Asked, strict: bool) -> Fit:
    if match.executable is None:
        return Fit.YES
    if not asked.action.known:
        return Fit.MAYBE
    reach = asked.reach
    if not reach.is_command:
        return Fit.NO
    wanted = {_merged(program) for program in match.executable}
    if strict:
        return _surely_executes(wanted, asked)
    if reach.executable is not None and _merged(reach.executable) in wanted:
        return Fit.YES
    names = {clarity.base_name(program) for program in wanted}
    if not names.isdisjoint(asked.by_program):
        return Fit.YES
    if reach.executable is None and reach.argv is not None and clarity.base_name(reach.argv[0]) in names:
        return Fit.YES
    return Fit.MAYBE if asked.unread or (reach.executable is None and reach.shell is None) else Fit.NO


def _surely_executes(wanted: Collection[str], asked: Asked) -> Fit:
    reach = asked.reach
    if asked.unworded is not None:
        return Fit.NO
    if reach.executable is None:
        return Fit.NO if reach.resolved else Fit.MAYBE
    return _sure(_merged(reach.executable) in wanted)


def _merged(program: str) -> str:
    """`/bin` and `/sbin` are links to folders of the same name in `/usr` where programs are looked for."""
    return f"/usr{program}" if program.startswith(("/bin/", "/sbin/")) else program


def _cwd(match: Match, asked: Asked, strict: bool) -> Fit:
    if match.cwd is None:
        return Fit.YES
    reach = asked.reach
    if not asked.action.known:
        return Fit.MAYBE
    if not reach.is_command:
        return Fit.NO
    if reach.cwd is None:
        return Fit.MAYBE
    if reach.cwd in match.cwd:
        return Fit.YES
    # Text for a shell, or what a wrapper runs, may go elsewhere before it begins.
    return Fit.NO if strict or asked.unclear is None else Fit.MAYBE


def _cost(match: Match, asked: Asked, strict: bool) -> Fit:
    if match.cost_over is None:
        return Fit.YES
    spent = asked.action.spent
    if spent is None:
        return Fit.LATER
    if spent.usd > match.cost_over:
        return Fit.YES
    return Fit.MAYBE if spent.unknown_calls else Fit.NO


def _touches(match: Match, asked: Asked, strict: bool) -> Fit:
    if match.touches is None:
        return Fit.YES
    if asked.action.change is None:
        return Fit.LATER
    fits: Callable[[Iterable[bool]], bool] = all if strict else any
    return _sure(fits(matches_any(match.touches, path) for path in asked.action.change.paths))


def _deletes(match: Match, asked: Asked, strict: bool) -> Fit:
    if match.deletes_over is None:
        return Fit.YES
    change = asked.action.change
    return Fit.LATER if change is None else _sure(change.deleted > match.deletes_over)


def _files(match: Match, asked: Asked, strict: bool) -> Fit:
    if match.files_over is None:
        return Fit.YES
    change = asked.action.change
    return Fit.LATER if change is None else _sure(len(change.paths) > match.files_over)


_TESTS: tuple[Callable[[Match, Asked, bool], Fit], ...] = (
    _executor,
    _labels,
    _requester,
    _level,
    _paths,
    _argv,
    _executable,
    _cwd,
    _cost,
    _touches,
    _deletes,
    _files,
)
