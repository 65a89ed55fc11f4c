"""Promise 25: backward is forward on reversed tokens; every token is counted once; exact models agree on every sum."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lexarium.evaluations.scorer import Scorer
from lexarium.foundation import registry
from lexarium.foundation.rng import generator
from lexarium.foundation.types import Document, Example, Output
from lexarium.models.build import build_model
from lexarium.tokens.block import Block
from lexarium.tokens.direction import views_of
from toy import example, toy_tokenizer

WORDS = ["a", "b", "c"]
TOKENIZER = toy_tokenizer([" ".join(WORDS)])
segments = st.lists(st.integers(1, 4), min_size=0, max_size=4)


def direction(name: str, **options: Any) -> Any:
    cls = registry.find("direction", name)
    return cls(cls.Config(**options))


def causal(**options: Any) -> Any:
    cls = registry.find("objective", "causal")
    return cls(cls.Config(**options), TOKENIZER)


def make_example(lengths: list[int], seed: int) -> Example:
    """An example of several documents with two channels."""
    random, n = generator(seed, "example"), sum(lengths)
    numbers = lambda: random.integers(0, 100, n).tolist()
    segment = [i for i, length in enumerate(lengths) for _ in range(length)]
    return example(numbers(), segment=segment, one=numbers(), two=numbers())


# --- re-ordering ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.names("direction"))
@given(lengths=segments, seed=st.integers(0, 9))
def test_undoing_gives_back_the_ids(name: str, lengths: list[int], seed: int) -> None:
    e = make_example(lengths, seed)
    for view in views_of(direction(name)).values():
        assert np.array_equal(view.undo(view.apply(e).ids), e.ids)


@given(segments, st.integers(0, 9))
def test_backward_turns_every_aligned_array_alike(lengths: list[int], seed: int) -> None:
    e = make_example(lengths, seed)
    turned = direction("backward").apply(e)
    rows = lambda x: list(
        zip(
            x.ids.tolist(),
            x.segment.tolist(),
            x.channels["one"].tolist(),
            x.channels["two"].tolist(),
            strict=True,
        )
    )
    assert rows(turned) == rows(e)[::-1]
    expected = [place for length in reversed(lengths) for place in range(length)]
    assert turned.position.tolist() == expected, "positions count from where reading a document starts"
    assert (turned.documents, turned.index, turned.epoch) == (e.documents, e.index, e.epoch)
    again = direction("backward").apply(turned)
    assert rows(again) == rows(e) and np.array_equal(again.position, e.position)
    assert e.ids.tolist() == [row[0] for row in rows(e)], "the example itself is left alone"


@given(segments, st.integers(0, 9))
def test_forward_changes_nothing(lengths: list[int], seed: int) -> None:
    e = make_example(lengths, seed)
    assert direction("forward").apply(e) is e


@given(st.lists(st.integers(1, 3), min_size=1, max_size=6))
def test_a_backward_batch_is_a_forward_batch_of_reversed_ids(ids: list[int]) -> None:
    backward = causal().collate([direction("backward").apply(example(ids))], dropout_key=5)
    forward = causal().collate([example(ids[::-1])], dropout_key=5)
    for name in forward.inputs:
        assert torch.equal(backward.inputs[name], forward.inputs[name])
    assert torch.equal(backward.targets["labels"], forward.targets["labels"])


def test_three_tokens_by_hand() -> None:
    """c b a after bos, then eos: what a backward model reads and predicts."""
    a, b, c, eos, bos = 1, 2, 3, 4, 5
    batch = causal().collate([direction("backward").apply(example([a, b, c]))])
    assert batch.inputs["tokens"].tolist() == [[bos, c, b, a]]
    assert batch.targets["labels"].tolist() == [c, b, a, eos]


def test_documents_of_a_window_are_read_each_backwards_with_the_separator_before() -> None:
    a, b, c, eos, bos = 1, 2, 3, 4, 5
    window = example([a, b, eos, c, eos], segment=[0, 0, 0, 1, 1])
    batch = causal(document_mask=True).collate([direction("backward").apply(window)])
    assert batch.inputs["tokens"].tolist() == [[bos, eos, c, eos, b, a]]
    assert batch.inputs["segment"].tolist() == [[1, 1, 1, 0, 0, 0]]
    assert batch.inputs["position"].tolist() == [[0, 1, 2, 0, 1, 2]]


# --- exact models -------------------------------------------------------------------------------------


class Table(nn.Module):
    """The exact conditional probabilities of a distribution over finitely many sentences."""

    consumes = frozenset({"tokens", "real"})
    max_length = None

    def __init__(
        self, sentences: dict[tuple[int, ...], float], eos: int, vocab_size: int, start: int | str = ""
    ) -> None:
        """`start`: the token every row must begin with, where it is not bos."""
        super().__init__()
        self.vocab_size, self.start = vocab_size, start
        self.counts: dict[tuple[int, ...], dict[int, float]] = defaultdict(lambda: defaultdict(float))
        for sentence, p in sentences.items():
            row = [*sentence, eos]
            for i, token in enumerate(row):
                self.counts[tuple(row[:i])][token] += p

    def forward(self, tokens: torch.Tensor, real: torch.Tensor | None = None) -> Output:
        states = []
        for row in tokens.tolist():
            assert self.start in ("", row[0])
            for n in range(1, len(row) + 1):
                found = self.counts.get(tuple(row[1:n]), {})
                total = sum(found.values()) or 1.0
                states.append(
                    [
                        math.log(found.get(v, 0.0) / total) if found.get(v) else -1e30
                        for v in range(self.vocab_size)
                    ]
                )
        hidden = torch.tensor(states, dtype=torch.float64)
        return Output(hidden if real is None else hidden[real], lambda h: h)


sentences_ = st.lists(
    st.lists(st.integers(1, 3), min_size=1, max_size=4).map(tuple), min_size=1, max_size=6, unique=True
)


@given(sentences_, st.lists(st.integers(1, 9), min_size=6, max_size=6))
def test_the_two_exact_models_agree_on_every_sentence(
    sentences: list[tuple[int, ...]], weights: list[int]
) -> None:
    """Chain rule: the sum of log-probabilities of all tokens and eos is log p(sentence), in either direction."""
    total = sum(weights[: len(sentences)])
    p = {s: w / total for s, w in zip(sentences, weights, strict=False)}
    documents = [Document(" ".join(WORDS[i - 1] for i in s)) for s in p]
    for name in ("forward", "backward"):
        turned = {s[:: -1 if name == "backward" else 1]: q for s, q in p.items()}
        objective = causal()
        model = Table(turned, objective.roles["eos"], objective.vocab_size)
        scores = Scorer(model, objective, direction(name), TOKENIZER).token_scores(documents)
        for (s, q), values in zip(p.items(), scores, strict=True):
            assert len(values) == len(s) + 1, "every token counts once, and eos"
            assert float(values.sum()) == pytest.approx(math.log(q), abs=1e-5)


def test_the_hand_computed_case() -> None:
    """p(abc) = 1/2, p(ab) = 1/4, p(bc) = 1/4: every conditional probability written out."""
    sentences = {(1, 2, 3): 0.5, (1, 2): 0.25, (2, 3): 0.25}
    expected = {
        "forward": [3 / 4, 1, 2 / 3, 1],  # a | start, b | a, c | a b, end | a b c
        "backward": [2 / 3, 1, 3 / 4, 1],  # in corpus order: a | c b, b | c, c | start, end | c b a
    }
    for name, probabilities in expected.items():
        turned = {s[:: -1 if name == "backward" else 1]: q for s, q in sentences.items()}
        objective = causal()
        scorer = Scorer(
            Table(turned, objective.roles["eos"], objective.vocab_size), objective, direction(name), TOKENIZER
        )
        (values,) = scorer.token_scores([Document("a b c")])
        assert np.exp(values).tolist() == pytest.approx(probabilities, abs=1e-6)


windows_ = st.integers(2, 5).flatmap(
    lambda n: st.tuples(
        st.lists(st.lists(st.integers(1, 3), min_size=n, max_size=n).map(tuple), min_size=1, max_size=8),
        st.permutations(range(n)),
    )
)


@given(windows_)
def test_exact_models_of_all_directions_agree_on_every_window(
    case: tuple[list[tuple[int, ...]], Any],
) -> None:
    """The model of each direction is the empirical joint distribution of the windows, read in that direction: the sum
    over all positions, the first included, is log p(window) for forward, backward, any permutation and both."""
    windows, order = case
    n, objective = len(windows[0]), causal(eos=False)
    roles = objective.roles.extended(("forward", "backward"))
    objective.roles, objective.vocab_size = roles, roles.vocab_size
    p: dict[tuple[int, ...], float] = defaultdict(float)
    for w in windows:
        p[w] += 1 / len(windows)
    block = Block.of([example(w, index=i) for i, w in enumerate(windows)])
    asked = {
        "forward": direction("forward"),
        "backward": direction("backward"),
        "permutation": direction("permutation", order=order),
        **{f"both.{k}": v for k, v in direction("both").views().items()},
    }
    for name, one in asked.items():
        read: dict[tuple[int, ...], float] = defaultdict(float)
        for w, q in p.items():
            read[tuple(one.apply(example(w)).ids.tolist())] += q
        model = Table(
            dict(read), 0, objective.vocab_size, start=getattr(one, "start", "") and roles[one.start]
        )
        scores = Scorer(model, objective, one, TOKENIZER).window_scores(block)
        assert scores.shape == (len(windows), n), "every token is predicted once, the first too"
        expected = [math.log(p[w]) for w in windows]
        assert scores.sum(1).tolist() == pytest.approx(expected, abs=1e-5), name


# --- any model ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["transformer", "recurrent"])
def test_backward_scores_are_forward_scores_of_the_reversed_text(kind: str) -> None:
    options = {"d_model": 8, "n_layers": 1, **({"n_heads": 2} if kind == "transformer" else {})}
    model = build_model(registry.find("model", kind).Config(**options), causal().vocab_size, seed=1).double()
    ask = lambda name: Scorer(model, causal(), direction(name), TOKENIZER)
    texts = [" ".join(w) for n in (1, 2, 3) for w in itertools.product(WORDS, repeat=n)]
    reverse = lambda text: " ".join(text.split()[::-1])
    forward = ask("forward").token_scores([Document(reverse(t)) for t in texts])
    backward = ask("backward").token_scores([Document(t) for t in texts])
    for f, b in zip(forward, backward, strict=True):
        assert b[:-1].tolist() == pytest.approx(f[:-1][::-1].tolist(), abs=1e-6) and b[-1] == pytest.approx(
            f[-1], abs=1e-6
        )
    assert np.allclose(
        ask("backward").next_scores(texts), ask("forward").next_scores([reverse(t) for t in texts]), atol=1e-6
    )
    assert [reverse(t) for t in ask("forward").generate([reverse(t) for t in texts], 4)] == ask(
        "backward"
    ).generate(texts, 4)
