"""The stand-in where no model is configured: it picks sentences out of the material and says that it is no model.

TextRank (Mihalcea and Tarau 2004) on the standard library: sentences vote for the sentences they share words with;
the votes count more for those near the goal and the instruction, and for those that tell of success or failure.
"""

import asyncio
import math
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from stepgate.domain.errors import ModelFailure, ModelUnavailable
from stepgate.llm.prompts import Material, materials_in
from stepgate.llm.protocol import CostSource, ModelAnswer, ModelRequest, OnText, Purpose, Role, RouterHealth

MODEL = "offline-extractive-v1"
NOTICE = f"[{MODEL}] No model was called: these lines are picked out of the material."

_MAX_SENTENCES = 300
_MAX_CHARS = 240
_PICKED = 24
_PICKED_PER_PIECE = 4
_DAMPING = 0.85
_ROUNDS = 30
_WORD = re.compile(r"[A-Za-z0-9]+(?:_[A-Za-z0-9]+)*")
_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_TELLING = re.compile(
    r"\b(error|errors|fail|failed|failures?|exception|assert\w*|bug|wrong|ok|passed)\b", re.IGNORECASE
)
_COMMON = frozenset(
    _WORD.findall(
        "an and are as at be by did does for from goal how if in instruction is it its no not of on or run so that "
        "the then this to was were what when where which who why will with you"
    )
)
_NAMES = {Purpose.EDIT: "an edit", Purpose.PLAN: "a plan"}
_EXIT_CODE = re.compile(r"exit_code: -?\d+")
_FENCE = re.compile(r"^<<<MATERIAL ", re.MULTILINE)


class OfflineModel:
    """A `ModelRouter` without network: deterministic, free, and honest about what it is."""

    name = "offline"
    default_model: str | None = MODEL

    def blocked(self) -> ModelFailure | None:
        """Never."""
        return None

    def asks(self, request: ModelRequest) -> str | None:
        """Itself, whatever is asked for."""
        return MODEL

    async def complete(self, request: ModelRequest, on_text: OnText | None = None) -> ModelAnswer:
        """Lines from the material; raises ModelUnavailable `offline_cannot_write` for edits, plans and JSON."""
        if request.purpose in (Purpose.EDIT, Purpose.PLAN) or request.schema is not None:
            raise ModelUnavailable(
                f"the offline model cannot write {_NAMES.get(request.purpose, 'JSON for a schema')}",
                code="offline_cannot_write",
                fix="set STEPGATE_MODEL_URL to a model router, or write it in the plan yourself",
            )
        started = time.monotonic()
        prompt = "\n".join(message.content for message in request.messages if message.role is Role.USER)
        text = await asyncio.to_thread(_answer, prompt)
        latency_ms = round((time.monotonic() - started) * 1000)
        return ModelAnswer(
            text=text,
            model=MODEL,
            latency_ms=latency_ms,
            finish_reason="stop",
            cost_usd=Decimal(0),
            cost_source=CostSource.OFFLINE,
        )

    async def check(self) -> RouterHealth:
        return RouterHealth("offline", "no model router is configured; analyses only quote their material")

    async def aclose(self) -> None:
        return None


@dataclass(frozen=True, slots=True)
class _Sentence:
    piece: int
    text: str
    words: frozenset[str]


def _answer(prompt: str) -> str:
    pieces = list(materials_in(prompt))
    question = _FENCE.split(prompt, maxsplit=1)[0]
    sentences = _sentences(pieces)
    if not sentences:
        return f"{NOTICE}\n\nThe material holds no sentence to pick."
    scores = _rank(sentences, _words(question))
    best = _best(sentences, scores)
    lines = [NOTICE]
    piece = None
    for index in best:
        sentence = sentences[index]
        if sentence.piece != piece:
            piece = sentence.piece
            outcome = _EXIT_CODE.match(pieces[piece].text)
            ended = f", {outcome[0]}" if outcome else ""
            lines += ["", f"{pieces[piece].number}. {pieces[piece].label}{ended}"]
        lines.append(f"- {sentence.text}")
    return "\n".join(lines)


def _best(sentences: Sequence[_Sentence], scores: Sequence[float]) -> list[int]:
    """The best few of every piece, so that a long one does not silence the others; in order of reading."""
    taken: Counter[int] = Counter()
    best: list[int] = []
    for index in sorted(range(len(sentences)), key=lambda index: (-scores[index], index)):
        piece = sentences[index].piece
        if taken[piece] < _PICKED_PER_PIECE and len(best) < _PICKED:
            taken[piece] += 1
            best.append(index)
    return sorted(best)


def _sentences(pieces: Sequence[Material]) -> list[_Sentence]:
    """Lines and sentences of three words or more, each once, evenly from all pieces."""
    most = max(20, _MAX_SENTENCES // max(len(pieces), 1))
    found: list[_Sentence] = []
    seen: set[str] = set()
    for number, piece in enumerate(pieces):
        taken = 0
        for line in piece.text.splitlines():
            for part in _END.split(line.strip()):
                text, words = part.strip()[:_MAX_CHARS], _words(part[:_MAX_CHARS])
                if len(words) >= 3 and text not in seen and taken < most and len(found) < _MAX_SENTENCES:
                    seen.add(text)
                    found.append(_Sentence(number, text, words))
                    taken += 1
    return found


def _words(text: str) -> frozenset[str]:
    return frozenset(word for word in map(str.lower, _WORD.findall(text)) if len(word) > 1 and word not in _COMMON)


def _rank(sentences: Sequence[_Sentence], question: frozenset[str]) -> list[float]:
    count = len(sentences)
    links: list[list[tuple[int, float]]] = [[] for _ in range(count)]
    for one in range(count):
        for other in range(one + 1, count):
            left, right = sentences[one].words, sentences[other].words
            if shared := len(left & right):
                weight = shared / (math.log(len(left)) + math.log(len(right)))
                links[one].append((other, weight))
                links[other].append((one, weight))
    totals = [sum(weight for _, weight in row) for row in links]
    scores = [1.0] * count
    for _ in range(_ROUNDS):
        scores = [
            1 - _DAMPING + _DAMPING * sum(weight / totals[other] * scores[other] for other, weight in row)
            for row in links
        ]
    # Rounded, so that the order does not hang on the last bit.
    return [
        round(score * (1 + 2 * len(sentence.words & question)) * (4 if _TELLING.search(sentence.text) else 1), 9)
        for score, sentence in zip(scores, sentences, strict=True)
    ]
