"""Attacks on the terminal."""

from typing import Final

from tests.escapes.attack import Attack, Kind, Sign
from tests.escapes.programs import terminals

ATTACKS: Final = (
    Attack("TIOCSTI", Kind.TERMINALS, terminals.type_into_it, Sign.TYPED),
    Attack("TIOCSTI with padding", Kind.TERMINALS, terminals.type_with_padding, Sign.TYPED),
    Attack("TIOCLINUX", Kind.TERMINALS, terminals.paste_from_the_console, Sign.TYPED),
    Attack("/dev/tty", Kind.TERMINALS, terminals.write_to_dev_tty, Sign.TYPED),
    Attack("/dev/pts", Kind.TERMINALS, terminals.write_to_its_name, Sign.TYPED),
    Attack("inherited terminal", Kind.TERMINALS, terminals.inherited_terminal, Sign.TYPED),
    Attack("TIOCSCTTY", Kind.TERMINALS, terminals.steal_it, Sign.TYPED),
    Attack("TIOCCONS", Kind.TERMINALS, terminals.take_the_console, Sign.TYPED),
    Attack("terminal settings", Kind.TERMINALS, terminals.change_its_settings, Sign.TYPED),
    Attack("control characters in output", Kind.TERMINALS, terminals.acting_output, Sign.SHOWN),
    Attack("hiding characters in output", Kind.TERMINALS, terminals.hiding_output, Sign.SHOWN),
)
