"""The graph of a plan: unique keys, known needs, no cycles, and references that reach ancestors only."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from stepgate.domain.limits import MAX_NEEDS, MAX_REFERENCES
from stepgate.domain.plan import KnownStep
from stepgate.domain.plan_faults import Faults, nearest
from stepgate.domain.references import Reference

_MAX_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Node:
    """A new step: its key, needs and references; `needs_known` is False where the needs were unreadable."""

    key: str
    needs: tuple[str, ...]
    needs_known: bool
    field: str
    references: tuple[Reference, ...]


def check_graph(nodes: Sequence[Node], existing: Sequence[KnownStep], faults: Faults) -> None:
    """Adds to `faults` whatever is wrong between the steps; linear in steps and needs, without recursion."""
    first: dict[str, str] = {step.key: "the run already has a step of that key" for step in existing}
    needs: dict[str, tuple[str, ...]] = {}
    for node in nodes:
        if node.key in first:
            faults.add(
                f"{node.field}.key",
                f"the key {node.key!r} is taken: {first[node.key]}",
                "give it another key",
            )
        else:
            first[node.key] = f"{node.field} has it"
            needs[node.key] = node.needs
    sound = all(node.needs_known for node in nodes) and len(needs) == len(nodes)
    if sum(len(node.needs) for node in nodes) > MAX_NEEDS:
        faults.add("steps", f"more than {MAX_NEEDS} needs in all", "let a step in between gather them")
        return
    if sum(len(node.references) for node in nodes) > MAX_REFERENCES:
        faults.add("steps", f"more than {MAX_REFERENCES} references in all", "split the work in runs")
        return
    gone = {step.key for step in existing if step.gone}
    for node in nodes:
        for need in node.needs:
            if need in gone:
                message = f"step {need!r} was rejected or replaced, and what waits for it never begins"
                faults.add(f"{node.field}.needs", message, "name only steps that are done or still to be done")
            elif need not in first:
                sound = False
                faults.add(
                    f"{node.field}.needs",
                    f"there is no step {need!r}",
                    partial(nearest, need, first),
                )
    order = _order(needs)
    if len(order) < len(needs):
        _report_cycles(needs, set(order), {node.key: node.field for node in nodes}, faults)
    elif sound:
        _check_references(nodes, needs, order, existing, faults)


def _order(needs: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Keys so that each stands behind what it needs (Kahn 1962); those on or behind a cycle are left out."""
    waiting = {key: sum(need in needs for need in own) for key, own in needs.items()}
    dependents: dict[str, list[str]] = {}
    for key, own in needs.items():
        for need in own:
            dependents.setdefault(need, []).append(key)
    ready = deque(key for key, count in waiting.items() if not count)
    order = []
    while ready:
        key = ready.popleft()
        order.append(key)
        for dependent in dependents.get(key, ()):
            waiting[dependent] -= 1
            if not waiting[dependent]:
                ready.append(dependent)
    return order


def _report_cycles(
    needs: Mapping[str, tuple[str, ...]], ordered: set[str], fields: Mapping[str, str], faults: Faults
) -> None:
    """Each step left over needs one left over; following the first such need must come round."""
    seen: set[str] = set()
    for start in needs:
        path: list[str] = []
        at: dict[str, int] = {}
        key = start
        while key not in seen and key not in ordered:
            seen.add(key)
            at[key] = len(path)
            path.append(key)
            key = next(need for need in needs[key] if need in needs and need not in ordered)
        if key in at:
            cycle = path[at[key] :]
            shown = [*cycle[:_MAX_SHOWN], *(["..."] if len(cycle) > _MAX_SHOWN else []), cycle[0]]
            text = " needs ".join(shown)
            faults.add(
                f"{fields[cycle[0]]}.needs",
                f"the steps wait for each other: {text}",
                "remove one of these needs",
            )


def _check_references(
    nodes: Sequence[Node],
    needs: Mapping[str, tuple[str, ...]],
    order: Sequence[str],
    existing: Sequence[KnownStep],
    faults: Faults,
) -> None:
    """Every referenced step must be an ancestor: sets of ancestors as the bits of one integer a step."""
    targets = {ref.name for node in nodes for ref in node.references if ref.scope == "steps"}
    if not targets:
        return
    bits = {key: 1 << number for number, key in enumerate(targets)}
    above: dict[str, int] = {}
    earlier = {step.key: step.needs for step in existing}
    for graph, keys in ((earlier, _order(earlier)), (needs, order)):
        for key in keys:
            reached = 0
            for need in graph[key]:
                reached |= above.get(need, 0) | bits.get(need, 0)
            above[key] = reached
    known = needs.keys() | earlier.keys()
    for node in nodes:
        for ref in node.references:
            if ref.scope != "steps" or above[node.key] & bits[ref.name]:
                continue
            if ref.name == node.key:
                faults.add(ref.field, f"step {node.key!r} refers to its own output", "refer to a step before it")
            elif ref.name in known:
                message = f"step {node.key!r} does not wait for step {ref.name!r}, whose output it uses"
                faults.add(ref.field, message, f"add {ref.name} to its needs")
            else:
                faults.add(ref.field, f"there is no step {ref.name!r}", partial(nearest, ref.name, known))
