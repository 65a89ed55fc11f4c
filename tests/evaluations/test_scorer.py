"""The scorer against naive loops over the model: batching, order, direction, framing and generation change nothing."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lexarium.evaluations.decoding import draw
from lexarium.evaluations.scorer import Scorer
from lexarium.foundation import registry
from lexarium.foundation.types import Document, UserError
from lexarium.models.build import build_model
from toy import example, toy_tokenizer

WORDS = [f"w{i}" for i in range(12)]
TOKENIZER = toy_tokenizer([" ".join(WORDS)])
SMALL = {"n_layers": 2, "n_heads": 2, "d_model": 8, "max_positions": 24, "initialisation": "xavier"}
TEXTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9 w1 w2", "w0 w0", "w3 w2 w1", "w9 w8 w7 w6"]
PAIRS = [("w1 w2 w3", "w4 w5"), ("w6", "w7"), ("w8 w9 w1", ""), ("w2 w2", "w3 w4 w5 w6")]


def scorer(
    model: str = "transformer",
    objective: str = "causal",
    direction: str = "forward",
    tokens: int = 4096,
    **options: Any,
) -> Scorer:
    make = lambda kind, name, *given, **more: registry.find(kind, name)(
        registry.find(kind, name).Config(**more), *given
    )
    framing = make("objective", objective, TOKENIZER, **options)
    config = registry.find("model", model).Config(**(SMALL if model != "recurrent" else {"d_model": 8}))
    # untrained weights are nearly uniform: spread the logits, so that an error cannot hide
    built = build_model(config, framing.vocab_size, seed=3).double()
    with torch.no_grad():
        built.embedding.mul_(4)
    return Scorer(built.eval(), framing, make("direction", direction), TOKENIZER, batch_tokens=tokens)


def ids(text: str) -> list[int]:
    return [TOKENIZER.id(w) for w in text.split()]


def after(s: Scorer, row: list[int], source: list[int] | None = None) -> Tensor:
    """Log-probabilities of every token after one unpadded row, asked of the model itself."""
    given: dict[str, Tensor] = {"tokens": torch.tensor([row])}
    if source is not None:
        given |= {
            "source": torch.tensor([source]),
            "source_mask": torch.ones(1, len(source), dtype=torch.bool),
        }
    with torch.no_grad():
        output = s.model(**given)
        return output.unembed(output.hidden[-1:])[0].log_softmax(-1)


def naive_scores(
    s: Scorer, reading: list[int], bos: bool = True, eos: bool = True, source: list[int] | None = None
) -> list[float]:
    """log p of every token given those before it, and of eos, one forward pass per token."""
    row, found = [s.roles["bos"]] if bos else [], []
    for token in [*reading, *([s.roles["eos"]] if eos else [])]:
        found.append(float(after(s, row, source)[token]) if row else math.nan)
        row = [*row, token]
    return found if eos else [*found, math.nan]


CASES = [
    ("transformer", "forward", {}),
    ("transformer", "backward", {}),
    ("recurrent", "forward", {}),
    ("recurrent", "backward", {"eos": False}),
    ("transformer", "forward", {"bos": False}),
    ("transformer", "backward", {"bos": False, "eos": False}),
]


@pytest.mark.parametrize(("model", "direction", "options"), CASES)
def test_token_scores_are_the_chain_rule(model: str, direction: str, options: dict) -> None:
    s = scorer(model, direction=direction, **options)
    found = s.token_scores([Document(t) for t in TEXTS])
    for text, scores in zip(TEXTS, found, strict=True):
        assert scores.dtype == np.float64 and len(scores) == len(text.split()) + 1
        reading = ids(text)[::-1] if direction == "backward" else ids(text)
        naive = naive_scores(s, reading, options.get("bos", True), options.get("eos", True))
        expected = [*(naive[:-1][::-1] if direction == "backward" else naive[:-1]), naive[-1]]
        assert scores.tolist() == pytest.approx(expected, abs=2e-6, nan_ok=True)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_backward_score_belongs_to_the_word_it_stands_on(direction: str) -> None:
    """In corpus order: score i is log p(word i | the words on the side already read)."""
    s = scorer(direction=direction)
    (scores,) = s.token_scores([Document("w1 w2 w3")])
    context = ["w2", "w3"] if direction == "backward" else []
    row = [s.roles["bos"], *ids(" ".join(context))[::-1]]
    assert scores[0] == pytest.approx(float(after(s, row)[TOKENIZER.id("w1")]), abs=2e-6)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_pairs_are_scored_on_their_target(direction: str) -> None:
    s = scorer("encoder_decoder", "seq2seq", direction)
    turn = (lambda x: x[::-1]) if direction == "backward" else (lambda x: x)
    documents, expected = [], []
    for source, target in PAIRS:
        if target:
            text = f"{source} {target}"
            documents.append(Document(text, {}, {"half": [0] * (len(source) + 1) + [1] * len(target)}))
            naive = naive_scores(s, turn(ids(target)), source=turn(ids(source)))
            expected.append([math.nan] * len(source.split()) + turn(naive[:-1]) + naive[-1:])
    for scores, wanted in zip(s.token_scores(documents), expected, strict=True):
        assert scores.tolist() == pytest.approx(wanted, abs=2e-6, nan_ok=True)


def test_examples_are_scored_as_documents() -> None:
    s = scorer(direction="backward")
    examples = [example(ids(t)[::-1], index=i) for i, t in enumerate(TEXTS)]
    for a, b in zip(s.token_scores(examples), s.token_scores([Document(t) for t in TEXTS]), strict=True):
        assert np.array_equal(a, b)


# --- next word --------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_next_scores(direction: str) -> None:
    """After a prefix in corpus order; a backward model has read it from its end and predicts what stands before."""
    s = scorer(direction=direction)
    prefixes = [*TEXTS, ""]
    found = s.next_scores(prefixes)
    assert found.shape == (7, s.vocab_size) and found.dtype == np.float32
    for text, scores in zip(prefixes, found, strict=True):
        reading = ids(text)[::-1] if direction == "backward" else ids(text)
        assert scores.tolist() == pytest.approx(after(s, [s.roles["bos"], *reading]).tolist(), abs=2e-6)
        assert float(np.exp(scores.astype(np.float64)).sum()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_next_scores_of_a_begun_target(direction: str) -> None:
    s = scorer("encoder_decoder", "seq2seq", direction)
    turn = (lambda x: x[::-1]) if direction == "backward" else (lambda x: x)
    for (source, begun), scores in zip(PAIRS, s.next_scores(PAIRS), strict=True):
        expected = after(s, [s.roles["bos"], *turn(ids(begun))], turn(ids(source)))
        assert scores.tolist() == pytest.approx(expected.tolist(), abs=2e-6)
    alone = s.next_scores([source for source, _ in PAIRS])
    assert alone.tolist() == s.next_scores([(source, "") for source, _ in PAIRS]).tolist(), (
        "a text is a source"
    )


def test_a_language_model_reads_given_and_begun_one_after_the_other() -> None:
    s = scorer()
    both, joined = s.next_scores([("w1 w2", "w3")]), s.next_scores(["w1 w2 w3"])
    assert np.array_equal(both, joined)


def test_choosing_is_the_highest_next_score() -> None:
    s = scorer()
    scores = s.next_scores(TEXTS)
    words = ["w4", "w7", "w2"]
    expected = [max(range(3), key=lambda j: scores[i, TOKENIZER.id(words[j])]) for i in range(len(TEXTS))]
    assert s.choose(TEXTS, words).tolist() == expected
    lists = [list(c) for c in itertools.islice(itertools.permutations(words, 2), len(TEXTS))]
    expected = [max(range(2), key=lambda j: scores[i, TOKENIZER.id(lists[i][j])]) for i in range(len(TEXTS))]
    assert s.choose(TEXTS, lists).tolist() == expected
    assert s.choose(TEXTS, ["w4", "w4"]).tolist() == [0] * len(TEXTS), "a tie goes to the first"


def test_words_that_are_no_single_token() -> None:
    s = scorer()
    assert s.id("w3") == TOKENIZER.id("w3")
    with pytest.raises(UserError, match="'w1 w2' is 2 tokens under this tokenizer; one is needed"):
        s.choose(TEXTS, ["w1 w2"])
    with pytest.raises(UserError, match="'zzz' is not in the vocabulary"):
        s.choose(TEXTS, ["zzz"])


# --- batching ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["transformer", "recurrent"])
def test_results_do_not_depend_on_the_batch_size_or_company(kind: str) -> None:
    large, small, single = scorer(kind), scorer(kind, tokens=16), scorer(kind, tokens=1)
    documents = [Document(t) for t in TEXTS]
    for a, b, c in zip(*(s.token_scores(documents) for s in (large, small, single)), strict=True):
        assert a.tolist() == pytest.approx(b.tolist(), abs=1e-6)
        assert a.tolist() == pytest.approx(c.tolist(), abs=1e-6)
    assert np.allclose(large.next_scores(TEXTS), single.next_scores(TEXTS), atol=1e-6)
    assert large.generate(TEXTS, 5) == single.generate(TEXTS, 5)
    order = [3, 0, 5, 1, 4, 2]
    shuffled = large.token_scores([documents[i] for i in order])
    for i, scores in zip(order, shuffled, strict=True):
        assert scores.tolist() == pytest.approx(large.token_scores([documents[i]])[0].tolist(), abs=1e-6)


def test_batches_cover_everything_once_within_the_budget() -> None:
    s = scorer(tokens=20)
    lengths = [3, 9, 1, 40, 2, 2, 8, 5]
    batches = list(s._batches(lengths))
    assert sorted(i for batch in batches for i in batch) == list(range(8))
    assert all(
        len(batch) == 1 or len(batch) * (max(lengths[i] for i in batch) + 1) <= 20 for batch in batches
    )


def test_nothing_asked_nothing_answered() -> None:
    s = scorer()
    assert s.token_scores([]) == [] and s.generate([], 3) == [] and s.hidden([]) == []
    assert s.next_scores([]).shape == (0, s.vocab_size)


# --- generation -------------------------------------------------------------------------------------


def naive_greedy(s: Scorer, reading: list[int], limit: int, source: list[int] | None = None) -> list[int]:
    row, produced = [s.roles["bos"], *reading], []
    for _ in range(limit):
        token = int(after(s, row, source).argmax())
        produced.append(token)
        if token == s.roles["eos"]:
            break
        row = [*row, token]
    return produced


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("limit", [0, 1, 6])
def test_greedy_generation(direction: str, limit: int) -> None:
    s = scorer(direction=direction)
    turn = (lambda x: x[::-1]) if direction == "backward" else (lambda x: x)
    for text, found in zip(TEXTS, s.generate(TEXTS, limit), strict=True):
        assert found == TOKENIZER.decode(turn(naive_greedy(s, turn(ids(text)), limit)))


def test_generation_from_a_source() -> None:
    s = scorer("encoder_decoder", "seq2seq")
    for (source, begun), found in zip(PAIRS, s.generate(PAIRS, 6), strict=True):
        assert found == TOKENIZER.decode(naive_greedy(s, ids(begun), 6, ids(source)))


def test_generation_stops_at_eos() -> None:
    s = scorer()
    with torch.no_grad():
        s.model.embedding.mul_(0.01)
        s.model.embedding[s.roles["eos"]] = 0
        s.model.unembedding.bias = torch.nn.Parameter(torch.zeros(s.vocab_size, dtype=torch.float64))
        s.model.unembedding.bias[s.roles["eos"]] = 50.0
    assert s.generate(TEXTS, 5) == [""] * len(TEXTS)


def test_samples_depend_on_key_place_and_position_only() -> None:
    s = scorer()
    found = s.generate(TEXTS, 5, temperature=1.0, key=7)
    assert found == scorer(tokens=1).generate(TEXTS, 5, temperature=1.0, key=7), "not on batching"
    assert found[:2] == s.generate(TEXTS[:2], 5, temperature=1.0, key=7), "not on the others"
    assert found != s.generate(TEXTS, 5, temperature=1.0, key=8)
    assert s.generate(TEXTS, 5, temperature=1e-4, key=7) == s.generate(TEXTS, 5), "cold is greedy"


def test_drawing_inverts_the_distribution() -> None:
    p = np.array([0.1, 0.0, 0.6, 0.3])
    with np.errstate(divide="ignore"):
        scores = np.log(p)[None].repeat(2000, 0)
    uniform = (np.arange(2000) + 0.5) / 2000
    counts = np.bincount(draw(scores, 1.0, uniform), minlength=4) / 2000
    assert counts.tolist() == pytest.approx(p.tolist(), abs=1e-3)
    sharp = np.bincount(draw(scores, 0.5, uniform), minlength=4) / 2000
    assert sharp.tolist() == pytest.approx((p**2 / (p**2).sum()).tolist(), abs=1e-3)
    assert draw(scores[:1], 1.0, np.array([np.nextafter(1.0, 0.0)])).tolist() == [3]
    assert draw(scores[:1], 1.0, np.array([0.0])).tolist() == [0]


# --- states -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["transformer", "recurrent"])
@pytest.mark.parametrize("bos", [True, False])
def test_states_of_every_token_of_a_prefix(kind: str, bos: bool) -> None:
    s = scorer(kind, bos=bos, tokens=12)
    found = s.hidden(TEXTS)
    for text, states in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            output = s.model(tokens=torch.tensor([([s.roles["bos"]] if bos else []) + ids(text)]), layers=[])
        expected = torch.stack(output.layers).float().numpy()[:, int(bos) :]
        assert states.shape == (3, len(text.split()), 8) == expected.shape
        assert np.allclose(states, expected, atol=1e-6)


def test_states_of_a_decoder() -> None:
    s = scorer("encoder_decoder", "seq2seq", tokens=6)
    for (source, begun), states in zip(PAIRS, s.hidden(PAIRS), strict=True):
        mask = torch.ones(1, len(source.split()), dtype=torch.bool)
        with torch.no_grad():
            output = s.model(
                tokens=torch.tensor([[s.roles["bos"], *ids(begun)]]),
                source=torch.tensor([ids(source)]),
                source_mask=mask,
                layers=[],
            )
        expected = torch.stack(output.layers).float().numpy()[:, 1:]
        assert states.shape == (3, len(begun.split()), 8)
        assert np.allclose(states, expected, atol=1e-6)


def test_layers_of_different_width_cannot_be_stacked() -> None:
    cls, causal = registry.find("model", "recurrent"), scorer().objective
    model = build_model(cls.Config(d_model=8, d_embedding=4), causal.vocab_size, 1)
    with pytest.raises(UserError, match="differ in width"):
        Scorer(model, causal, scorer()._direction, TOKENIZER).hidden(["w1"])


# --- limits -----------------------------------------------------------------------------------------


def test_rows_longer_than_the_model_are_refused() -> None:
    s, long = scorer(), " ".join(["w1"] * 24)
    assert len(s.token_scores([Document(long[:-3])])[0]) == 24
    for ask in (
        lambda: s.token_scores([Document("w1"), Document(long)]),
        lambda: s.next_scores([long]),
        lambda: s.generate([long], 5),
        lambda: scorer("encoder_decoder", "seq2seq").next_scores([(long + " w1", "w1")]),
    ):
        with pytest.raises(
            UserError, match=r"a row of 25 tokens \(frame included\) is longer than model.max_positions 24"
        ):
            ask()
    for given in (long[:-3], " ".join(["w1"] * 20)):
        produced = s.generate([given], 50)[0].split()  # ends where the model can read no further
        assert len(produced) in (25 - 1 - len(given.split()), *range(25 - 1 - len(given.split())))
    assert scorer("recurrent").next_scores([long]).shape == (1, 15), "a recurrent model has no limit"


def test_an_unknown_word_names_the_text() -> None:
    with pytest.raises(UserError, match=r"'zzz' is not in the vocabulary .*\(in: 'w1 zzz'\)"):
        scorer().next_scores(["w1 zzz"])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_precision_is_the_runs(precision: str) -> None:
    s = scorer()
    s.model.float()
    s.precision = precision
    exact, found = scorer().next_scores(TEXTS), s.next_scores(TEXTS)
    error = np.abs(found - exact).max()
    assert error < (1e-4 if precision == "fp32" else 0.3)
    assert precision == "fp32" or error > 1e-4, "the narrow type is really used"


def test_a_model_that_answers_no_number_is_told_from_what_is_not_predicted() -> None:
    s = scorer(bos=False)
    with torch.no_grad():
        s.model.embedding[TOKENIZER.id("w2")] = math.nan
    (scores,) = s.token_scores([Document("w1 w2 w3")])
    assert math.isnan(scores[0]) and np.isneginf(scores[1:]).all()


def test_labels_left_out_of_the_loss_have_no_score() -> None:
    """An objective that predicts every second token: the scores of the others stay what they are."""
    whole, part = scorer(), scorer()
    collate = part.objective.collate

    def every_second(examples: Any, *more: Any) -> Any:
        batch = collate(examples, *more)
        labels, start = batch.targets["labels"], 0
        for one in examples:
            labels[start : start + len(one) + 1 : 2] = -100
            start += len(one) + 1
        return batch

    part.objective.collate = every_second
    part.objective.scored = lambda example: np.append(np.arange(len(example)), -1)[1::2]
    documents = [Document("w1 w2 w3"), Document("w4 w1 w2 w2"), Document("w2")]
    for found, expected in zip(part.token_scores(documents), whole.token_scores(documents), strict=True):
        assert np.isnan(found[::2]).all()
        np.testing.assert_allclose(found[1::2], expected[1::2], rtol=1e-12)
