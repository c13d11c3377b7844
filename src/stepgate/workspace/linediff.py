"""Which lines changed, in time that stays bounded however large or hostile the two texts are."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final

# difflib is quadratic and worse; over this many pairs of lines a gap is shown as replaced whole.
_PAIRS: Final = 250_000


@dataclass(frozen=True, slots=True)
class Block:
    """Lines `[old_from, old_to)` of the old text became `[new_from, new_to)` of the new; either may be empty."""

    old_from: int
    old_to: int
    new_from: int
    new_to: int


def changed_blocks(old: Sequence[str], new: Sequence[str]) -> list[Block]:
    """The changed blocks in order, none touching the next; the same for the same texts everywhere."""
    found = list[Block]()
    todo = [Block(0, len(old), 0, len(new))]
    while todo:
        gap = _trim(old, new, todo.pop())
        if gap.old_from == gap.old_to and gap.new_from == gap.new_to:
            continue
        if gap.old_from == gap.old_to or gap.new_from == gap.new_to:
            found.append(gap)
        elif (gap.old_to - gap.old_from) * (gap.new_to - gap.new_from) <= _PAIRS:
            found.extend(_compare(old, new, gap))
        elif anchors := _anchors(old, new, gap):
            todo.extend(_between(gap, anchors))
        else:
            found.append(gap)
    return _joined(sorted(found, key=lambda block: (block.old_from, block.new_from)))


def _trim(old: Sequence[str], new: Sequence[str], gap: Block) -> Block:
    old_from, old_to, new_from, new_to = gap.old_from, gap.old_to, gap.new_from, gap.new_to
    while old_from < old_to and new_from < new_to and old[old_from] == new[new_from]:
        old_from, new_from = old_from + 1, new_from + 1
    while old_from < old_to and new_from < new_to and old[old_to - 1] == new[new_to - 1]:
        old_to, new_to = old_to - 1, new_to - 1
    return Block(old_from, old_to, new_from, new_to)


def _compare(old: Sequence[str], new: Sequence[str], gap: Block) -> Iterator[Block]:
    matcher = SequenceMatcher(None, old[gap.old_from : gap.old_to], new[gap.new_from : gap.new_to], autojunk=False)
    for tag, old_from, old_to, new_from, new_to in matcher.get_opcodes():
        if tag != "equal":
            yield Block(gap.old_from + old_from, gap.old_from + old_to, gap.new_from + new_from, gap.new_from + new_to)


def _anchors(old: Sequence[str], new: Sequence[str], gap: Block) -> list[tuple[int, int]]:
    """Lines that occur once on each side, the longest run of them in the same order (Bram Cohen's patience diff)."""
    places = {old[index]: index for index in range(gap.old_from, gap.old_to)}
    old_counts = Counter(old[gap.old_from : gap.old_to])
    new_counts = Counter(new[gap.new_from : gap.new_to])
    pairs = [
        (places[line], index)
        for index in range(gap.new_from, gap.new_to)
        if new_counts[line := new[index]] == 1 and old_counts[line] == 1
    ]
    return _longest_rise(pairs)


def _longest_rise(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    ends, last, before = list[int](), list[int](), list[int]()
    for number, (old_index, _) in enumerate(pairs):
        place = bisect_left(ends, old_index)
        before.append(last[place - 1] if place else -1)
        if place == len(ends):
            ends.append(old_index)
            last.append(number)
        else:
            ends[place], last[place] = old_index, number
    rise, number = list[tuple[int, int]](), last[-1] if last else -1
    while number >= 0:
        rise.append(pairs[number])
        number = before[number]
    return rise[::-1]


def _between(gap: Block, anchors: Sequence[tuple[int, int]]) -> Iterator[Block]:
    old_from, new_from = gap.old_from, gap.new_from
    for old_index, new_index in (*anchors, (gap.old_to, gap.new_to)):
        yield Block(old_from, old_index, new_from, new_index)
        old_from, new_from = old_index + 1, new_index + 1


def _joined(blocks: Sequence[Block]) -> list[Block]:
    joined = list[Block]()
    for block in blocks:
        if joined and joined[-1].old_to == block.old_from and joined[-1].new_to == block.new_from:
            joined[-1] = Block(joined[-1].old_from, block.old_to, joined[-1].new_from, block.new_to)
        else:
            joined.append(block)
    return joined
