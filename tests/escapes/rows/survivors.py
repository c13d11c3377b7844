"""Attacks that outlive their command."""

from typing import Final

from tests.escapes.attack import Attack, Kind, Sign
from tests.escapes.programs import survivors

ATTACKS: Final = (
    Attack("setsid", Kind.SURVIVORS, survivors.new_session, Sign.LIVES),
    Attack("setsid, killed", Kind.SURVIVORS, survivors.new_session_while_running, Sign.LIVES),
    Attack("double fork", Kind.SURVIVORS, survivors.double_fork, Sign.LIVES),
    Attack("double fork, killed", Kind.SURVIVORS, survivors.double_fork_while_running, Sign.LIVES),
    Attack("ignoring signals", Kind.SURVIVORS, survivors.ignoring_signals, Sign.LIVES),
    Attack("blocking signals", Kind.SURVIVORS, survivors.blocking_signals, Sign.LIVES),
    Attack("SIGSTOP", Kind.SURVIVORS, survivors.stopping_itself, Sign.LIVES),
    Attack("SIGSTOP, all", Kind.SURVIVORS, survivors.stopping_everything, Sign.LIVES),
    Attack("no death signal", Kind.SURVIVORS, survivors.no_death_signal, Sign.LIVES),
    Attack("subreaper", Kind.SURVIVORS, survivors.adopting, Sign.LIVES),
    Attack("forking in a race with the kill", Kind.SURVIVORS, survivors.forking_in_a_race, Sign.LIVES),
    Attack("holding the output", Kind.SURVIVORS, survivors.holding_the_output, Sign.LIVES),
    Attack("first thread gone", Kind.SURVIVORS, survivors.first_thread_gone, Sign.LIVES),
    Attack("silent clone", Kind.SURVIVORS, survivors.silent_clone, Sign.LIVES),
    Attack("renamed", Kind.SURVIVORS, survivors.renamed, Sign.LIVES),
)
