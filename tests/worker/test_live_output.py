"""What commands print is shown while they run, by any process, and is gone when they have ended."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from stepgate.domain.errors import DatabaseUnavailable
from stepgate.domain.ids import RunId, StepId
from stepgate.engine import views
from stepgate.storage.live import Chunk, OutputChunks, Place, Upto
from stepgate.worker import live
from stepgate.worker.live import PENDING_BYTES, PIECES, SHOWN_CHARS, LiveOutput
from tests.worker.conftest import LoseLease, OpenLab
from tests.worker.lab import PERSON, Lab, eventually
from tests.worker.test_takeover import Begin, Expire, begin, expire

__all__ = ["begin", "expire"]

PLACE = Place(RunId("01890000-0000-7000-8000-000000000001"), StepId("01890000-0000-7000-8000-000000000002"), 1, 1)
PRINTS = "echo one; printf 'tw\\303'; echo err >&2; printf '\\033[31mred\\n'; sleep 300"
PATIENT = {"command_timeout_s": 600.0, "step_timeout_s": 600.0}
"""The machine may be busy."""


class Recorder(OutputChunks):
    """Takes the database's place: keeps what would be there, and can fail or be slow."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.gone: list[Upto] = []
        self.writes = 0
        self.fails = False
        self.open = asyncio.Event()
        self.open.set()

    async def write(self, chunks: Sequence[Chunk]) -> None:
        self.writes += 1
        await self.open.wait()
        if self.fails:
            raise DatabaseUnavailable("away")
        self.chunks += chunks

    async def forget(self, upto: Sequence[Upto]) -> None:
        self.gone += upto
        last = {one.step_id: one.seq for one in upto}
        self.chunks = [one for one in self.chunks if one.seq > last.get(one.place.step_id, 0)]

    async def close(self) -> None:
        pass

    def text(self) -> str:
        return "".join(chunk.text for chunk in self.chunks)

    async def until(self, text: str) -> None:
        async def there() -> bool:
            return text in self.text()

        await eventually(there, self.text)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def shown(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LiveOutput]:
    monkeypatch.setattr(live, "AGAIN_S", 0.01)
    output = LiveOutput(recorder, now=lambda: 1000)
    output.start()
    yield output
    await output.stop()


async def test_what_is_printed_gathers_and_is_written_in_one_go(shown: LiveOutput, recorder: Recorder) -> None:
    shown.take(PLACE, "stdout", b"a")
    shown.take(PLACE, "stdout", b"b\n")
    shown.take(PLACE, "stderr", b"c\n")
    await recorder.until("c")
    assert [(one.stream, one.text) for one in recorder.chunks] == [("stdout", "ab\n"), ("stderr", "c\n")]
    assert recorder.writes == 1
    first, second = recorder.chunks
    assert first.seq < second.seq


async def test_a_command_that_ends_at_once_writes_nothing(shown: LiveOutput, recorder: Recorder) -> None:
    shown.take(PLACE, "stdout", b"quick\n")
    shown.end(PLACE.step_id)
    await shown.stop()
    assert (recorder.writes, recorder.gone) == (0, [])


async def test_a_character_cut_in_two_is_shown_whole_and_control_characters_are_written_out(
    shown: LiveOutput, recorder: Recorder
) -> None:
    shown.take(PLACE, "stdout", b"\x1b[1m\xc3")
    await recorder.until("[1m")
    shown.take(PLACE, "stdout", b"\xa4 \xff\x00 1%\r2%\r\nend")
    await recorder.until("end")
    assert recorder.text() == "\\x1b[1mä \ufffd\\x00 1%\n2%\nend"


async def test_more_than_can_be_shown_is_counted_and_said(shown: LiveOutput, recorder: Recorder) -> None:
    shown.take(PLACE, "stdout", b"x" * (PENDING_BYTES + 5))
    shown.take(PLACE, "stdout", b"y" * 7)
    await recorder.until("shown live")
    assert recorder.text() == "x" * PENDING_BYTES + "\n… 12 bytes not shown live\n"
    shown.take(PLACE, "stdout", b"after\n")
    await recorder.until("after")


async def test_streams_that_alternate_without_end_are_bounded_too(shown: LiveOutput, recorder: Recorder) -> None:
    for _ in range(PIECES):
        shown.take(PLACE, "stdout", b"o")
        shown.take(PLACE, "stderr", b"e")
    await recorder.until("shown live")
    assert len(recorder.chunks) == PIECES + 1
    assert f"{PIECES} bytes not shown" in recorder.text()


async def test_the_oldest_goes_first_where_a_command_prints_for_long(shown: LiveOutput, recorder: Recorder) -> None:
    for number in range(2 * SHOWN_CHARS // PENDING_BYTES):
        shown.take(PLACE, "stdout", b"%03d" % number + b"." * (PENDING_BYTES - 3))
        await recorder.until(f"{number:03d}")
    await eventually(lambda: _is(len(recorder.text()) <= SHOWN_CHARS), lambda: len(recorder.text()))
    assert "000" not in recorder.text()


async def test_a_database_that_is_slow_keeps_no_command_waiting(shown: LiveOutput, recorder: Recorder) -> None:
    recorder.open.clear()
    shown.take(PLACE, "stdout", b"first\n")
    await eventually(lambda: _is(recorder.writes == 1), lambda: recorder.writes)
    shown.take(PLACE, "stdout", b"z" * (3 * PENDING_BYTES))
    recorder.open.set()
    await recorder.until(f"… {2 * PENDING_BYTES} bytes not shown live")


async def test_what_could_not_be_written_is_counted_as_not_shown(shown: LiveOutput, recorder: Recorder) -> None:
    recorder.fails = True
    shown.take(PLACE, "stdout", b"12345\n")
    await eventually(lambda: _is(recorder.writes > 0), lambda: recorder.writes)
    recorder.fails = False
    await recorder.until("… 6 bytes not shown live")
    shown.take(PLACE, "stdout", b"later\n")
    await recorder.until("later")


async def test_the_end_of_a_step_takes_away_what_is_being_written(shown: LiveOutput, recorder: Recorder) -> None:
    recorder.open.clear()
    shown.take(PLACE, "stdout", b"late\n")
    await eventually(lambda: _is(recorder.writes == 1), lambda: recorder.writes)
    shown.end(PLACE.step_id)
    recorder.open.set()
    await shown.stop()
    assert recorder.chunks == []
    assert len(recorder.gone) == 1


async def _is(value: bool) -> bool:
    return value


# Through the engine


@pytest.fixture
async def lab(open_lab: OpenLab) -> Lab:
    return await open_lab(**PATIENT)


async def printed(lab: Lab, run_id: RunId, key: str = "c") -> views.LiveOutput:
    return await lab.stack.queries.live_output(run_id, (await lab.step(run_id, key)).id, 0)


async def until_printed(lab: Lab, run_id: RunId, text: str) -> views.LiveOutput:
    found = [await printed(lab, run_id)]

    async def there() -> bool:
        found[0] = await printed(lab, run_id)
        return text in "".join(item.text for item in found[0].items)

    await eventually(there, lambda: found[0])
    return found[0]


async def until_forgotten(superuser: Any) -> None:
    async def empty() -> bool:
        return not await superuser.fetch("SELECT FROM stepgate.output_chunks")

    await eventually(empty, lambda: "chunks are left")


async def printing(lab: Lab) -> RunId:
    run_id = await lab.create([{"key": "c", "type": "run_command", "input": {"command": PRINTS}}])
    await lab.approve(run_id, "c")
    return run_id


async def test_a_running_command_is_shown_and_forgotten_when_it_ends(lab: Lab, superuser: Any) -> None:
    run_id = await printing(lab)
    found = await until_printed(lab, run_id, "red")
    assert not found.ended
    assert found.next == found.items[-1].seq
    by_stream = {
        stream: "".join(item.text for item in found.items if item.stream == stream) for stream in ("stdout", "stderr")
    }
    assert by_stream == {"stdout": "one\ntw\ufffd\\x1b[31mred\n", "stderr": "err\n"}
    step = await lab.step(run_id, "c")
    later = await lab.stack.queries.live_output(run_id, step.id, found.next)
    assert (later.items, later.next) == ([], found.next)
    await lab.engine.cancel(run_id, PERSON)
    await lab.until_status(run_id, "cancelled")
    await until_forgotten(superuser)
    assert (await printed(lab, run_id)).ended
    await lab.verify(run_id)


async def test_the_journal_holds_nothing_of_what_was_shown(lab: Lab, superuser: Any) -> None:
    run_id = await printing(lab)
    await until_printed(lab, run_id, "red")
    bodies = await superuser.fetch("SELECT body FROM stepgate.events")
    assert not any("tw\\u" in row["body"] or "one" in row["body"].split() for row in bodies)
    assert await superuser.fetchval(
        "SELECT relpersistence = 'u' FROM pg_class WHERE oid = 'stepgate.output_chunks'::regclass"
    )


async def test_another_process_sees_it_and_a_dead_workers_lines_are_swept(
    open_lab: OpenLab, begin: Begin, expire: Expire, superuser: Any
) -> None:
    watching = await open_lab(worker=False)
    victim = begin(**PATIENT)
    worker_id = await victim.ready()
    run_id = await printing(watching)
    await until_printed(watching, run_id, "red")
    victim.kill()
    await watching.engine.cancel(run_id, PERSON)
    await expire(worker_id)
    successor = await open_lab(**PATIENT)
    await successor.until_status(run_id, "cancelled")
    await until_forgotten(superuser)


async def test_a_worker_that_lost_the_run_shows_nothing_more(
    open_lab: OpenLab, lose_lease: LoseLease, superuser: Any
) -> None:
    lab = await open_lab(**PATIENT)
    run_id = await printing(lab)
    await until_printed(lab, run_id, "red")
    step = await lab.step(run_id, "c")
    (epoch,) = await superuser.fetchrow("SELECT lease_epoch FROM stepgate.runs")
    chunks = OutputChunks(lab.stack.database)
    try:
        for stale, text in ((epoch - 1, "stale"), (epoch, "fresh")):
            await chunks.write([Chunk(Place(run_id, step.id, stale, 1), epoch + 2, "stdout", text)])
    finally:
        await chunks.close()
    texts = [item.text for item in (await printed(lab, run_id)).items]
    assert "stale" not in texts
    assert "fresh" in texts
