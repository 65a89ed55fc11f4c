"""Writing on: rows read in pieces against rows read from their beginning, the choice of tokens against its definition,
sliding against a naive loop, and text that grows without broken characters."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lexarium.evaluations.decoding import InPieces, Sampling, draw, settled
from lexarium.evaluations.scorer import Scorer
from lexarium.foundation import registry
from lexarium.foundation.types import Output, UserError
from lexarium.models.build import build_model
from toy import InMemory, toy_tokenizer

WORDS = [f"w{i}" for i in range(12)]
TOKENIZER = toy_tokenizer([" ".join(WORDS)])
LIMIT = 14
STACK = {"n_layers": 2, "n_heads": 2, "d_model": 8, "max_positions": LIMIT, "initialisation": "xavier"}
MODELS: dict[str, dict[str, Any]] = {
    "transformer sinusoidal": STACK,
    "transformer learned": {**STACK, "positions": "learned"},
    "transformer rotary": {**STACK, "positions": "rotary", "norm": "post"},
    "transformer none": {**STACK, "positions": "none"},
    "recurrent gru": {"cell": "gru", "d_model": 8, "final_norm": True},
    "recurrent lstm": {"cell": "lstm", "d_model": 8},
    "encoder_decoder": STACK,
}


def make(kind: str, name: str, *arguments: Any, **options: Any) -> Any:
    cls = registry.find(kind, name)
    return cls(cls.Config(**options), *arguments)


def scorer(name: str, direction: str = "forward", tokens: int = 4096, **options: Any) -> Scorer:
    objective = make("objective", "seq2seq" if name == "encoder_decoder" else "causal", TOKENIZER, **options)
    config = registry.find("model", name.split()[0]).Config(**MODELS[name])
    model = build_model(config, objective.vocab_size, seed=3).double()
    with (
        torch.no_grad()
    ):  # untrained weights are nearly uniform: spread the logits, so that an error cannot hide
        model.embedding.mul_(4)
        if getattr(model.unembedding, "weight", None) is not None:
            model.unembedding.weight.mul_(20)
    return Scorer(model.eval(), objective, make("direction", direction), TOKENIZER, batch_tokens=tokens)


def reference(s: Scorer) -> Scorer:
    """The same scorer, reading every row from its beginning at each step."""
    objective = make(
        "objective", s.objective.name, TOKENIZER, **s.objective.config.model_dump(exclude={"type"})
    )
    objective.appends = False
    return Scorer(s.model, objective, s._direction, TOKENIZER, batch_tokens=s._batch_tokens)


def way(s: Scorer, prefixes: list[Any]) -> set[type]:
    rows = [s._row(i, p) for i, p in enumerate(prefixes)]
    return {type(reading) for _, reading in s._readings(rows, 5)}


TEXTS = st.lists(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join), min_size=1, max_size=5
)
CHOICES = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.0, 0.7, 1.0, 2.0]),
    top_k=st.sampled_from([None, 1, 3, 100]),
    top_p=st.sampled_from([None, 0.5, 0.9]),
    key=st.integers(0, 50),
)

# --- the two ways of reading ------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=25)
@given(
    texts=TEXTS,
    sampling=CHOICES,
    n=st.integers(0, 25),
    slide=st.booleans(),
    budget=st.sampled_from([8, 30, 4096]),
    direction=st.sampled_from(["forward", "backward"]),
)
def test_pieces_and_whole_rows_give_the_same_tokens(
    name: str, texts: list[str], sampling: Sampling, n: int, slide: bool, budget: int, direction: str
) -> None:
    s = scorer(name, direction, budget)
    whole = reference(s)
    assert way(s, texts) == {InPieces} and InPieces not in way(whole, texts)
    prefixes = [(t, "w1 w2") for t in texts] if name == "encoder_decoder" else texts
    found = s.generate_ids(prefixes, n, sampling, slide)
    assert found == whole.generate_ids(prefixes, n, sampling, slide)
    end = s.roles["eos"]
    assert all(len(ids) <= n and end not in ids[:-1] for ids in found)
    if slide or s.model.max_length is None:
        assert all(len(ids) == n or ids[-1] == end for ids in found)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("slide", [False, True])
def test_pieces_and_whole_rows_give_the_same_scores(name: str, slide: bool) -> None:
    """Step by step, on rows of unequal length of which some end and some slide."""
    s = scorer(name)
    texts = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9 w1 w2", "w0 w0", "w9 w8 w7 w6"]
    rows = [s._row(i, p) for i, p in enumerate([(t, "w3") for t in texts])]
    ((going, pieces),) = s._readings(rows, 30)
    compared = 0
    for step in range(30):
        with torch.no_grad():
            (found, lengths), (expected, wanted) = pieces(going), s._whole(going)
        assert lengths == wanted
        assert torch.allclose(found, expected, rtol=0, atol=1e-6), (
            "log-probabilities are kept in single precision"
        )
        compared += len(going)
        for i, row in enumerate(going):
            row.ids.append((7 * step + 3 * i) % 12 + 1)
        full = [n >= LIMIT and s.model.max_length is not None for n in lengths]
        if slide:
            for row, is_full in zip(going, full, strict=True):
                if is_full:
                    row.slide(LIMIT)
        # rows end one by one, in no order of theirs
        going = [
            r
            for r, f in zip(going, full, strict=True)
            if (slide or not f) and (step, r.place) not in ((2, 1), (5, 4))
        ]
        if not going:
            break
    assert compared > (70 if slide else 30)


def test_a_prefix_is_read_once() -> None:
    """Tokens that pass the first layer: those of the prefix, then one per step; and n times all of them without."""
    s, seen = scorer("transformer learned"), []
    s.model.stack.blocks[0].register_forward_hook(lambda _, given, out: seen.append(len(given[0])))
    s.roles.ids["eos"] = -1  # nothing ends a row
    s.generate(["w1 w2 w3 w4"], 6)
    assert seen == [5, 1, 1, 1, 1, 1]
    seen.clear()
    reference(s).generate(["w1 w2 w3 w4"], 6)
    assert seen == [5, 6, 7, 8, 9, 10]


def test_what_cannot_be_read_in_pieces_is_read_from_its_beginning() -> None:
    s = scorer("transformer learned")
    read = s.objective.read

    def with_segments(contexts: Any) -> Any:
        batch, last = read(contexts)
        batch.inputs["segment"] = torch.zeros_like(batch.inputs["tokens"])
        return batch, last

    expected = s.generate(["w1 w2", "w3"], 5)
    s.objective.read = with_segments
    assert InPieces not in way(s, ["w1"]), "an input that `advance` does not take"
    assert s.generate(["w1 w2", "w3"], 5) == expected


def test_a_subclass_with_a_forward_or_a_read_of_its_own_does_not_inherit_the_promise() -> None:
    """What it changes would be left out of the pieces; unless it says that it is not."""
    s = scorer("recurrent gru")
    model, objective = type(s.model), type(s.objective)
    shifted = lambda self, tokens, **more: model.forward(self, (tokens + 1) % 12, **more)
    own = lambda self, prefixes: objective.read(self, prefixes)
    for part, base, method, promise in (
        (s.model, model, {"forward": shifted}, {"advances": model.advances}),
        (s.objective, objective, {"read": own}, {"appends": True}),
    ):
        for body, pieces in (({}, True), (method, False), ({**method, **promise}, True)):
            part.__class__ = type("Mine", (base,), body)
            assert (way(s, ["w1"]) == {InPieces}) == pieces
        part.__class__ = base


def test_groups_keep_to_the_budget() -> None:
    """A long way to go makes groups smaller, because what is carried grows; every row is in one group."""
    s = scorer("recurrent gru", tokens=64)
    rows = [s._row(i, " ".join(["w1"] * (1 + i % 7))) for i in range(40)]
    sizes = lambda n: [len(group) for group, _ in s._readings(rows, n)]
    assert sum(sizes(1)) == sum(sizes(1000)) == 40
    assert max(sizes(1)) > 8 and max(sizes(1000)) == 1
    assert all(sum((len(r.ids) + 1) for r in group) <= 64 for group, _ in s._readings(rows, 1))


# --- choosing a token -------------------------------------------------------------------------------


def shares(p: list[float], n: int = 4000, **cut: Any) -> np.ndarray:
    """Frequencies of the tokens drawn at n even places of [0, 1)."""
    with np.errstate(divide="ignore"):
        scores = np.log(np.array(p, dtype=np.float32))[None].repeat(n, 0)
    found = draw(scores, cut.pop("temperature", 1.0), (np.arange(n) + 0.5) / n, **cut)
    return np.bincount(found, minlength=len(p)) / n


def normal(weights: list[float]) -> list[float]:
    return [w / sum(weights) for w in weights]


def test_top_k_by_hand() -> None:
    p = [0.1, 0.4, 0.2, 0.3]
    for k, kept in [(1, [1]), (2, [1, 3]), (3, [1, 2, 3]), (4, [0, 1, 2, 3]), (9, [0, 1, 2, 3])]:
        expected = normal([x if i in kept else 0 for i, x in enumerate(p)])
        assert shares(p, top_k=k).tolist() == pytest.approx(expected, abs=1e-3)
    squared = normal([0, 0.16, 0, 0.09])
    assert shares(p, top_k=2, temperature=0.5).tolist() == pytest.approx(squared, abs=1e-3)


def test_ties_at_the_threshold_are_kept() -> None:
    p = [0.2, 0.4, 0.2, 0.2]
    assert shares(p, top_k=2).tolist() == pytest.approx(p, abs=1e-3)
    assert shares(p, top_p=0.5).tolist() == pytest.approx(p, abs=1e-3)
    assert shares([0.25] * 4, top_k=1).tolist() == pytest.approx([0.25] * 4, abs=1e-3)


def test_top_p_by_hand() -> None:
    """The smallest set of likeliest tokens whose share reaches p."""
    p = [0.1, 0.5, 0.15, 0.25]
    for share, kept in [
        (0.01, [1]),
        (0.49, [1]),
        (0.6, [1, 3]),
        (0.74, [1, 3]),
        (0.8, [1, 2, 3]),
        (1.0, [0, 1, 2, 3]),
    ]:
        expected = normal([x if i in kept else 0 for i, x in enumerate(p)])
        assert shares(p, top_p=share).tolist() == pytest.approx(expected, abs=1e-3), share
    both = normal([0, 0.5, 0, 0.25])  # of the two likeliest tokens, 0.7 lies within the second
    assert shares(p, top_k=2, top_p=0.7).tolist() == pytest.approx(both, abs=1e-3)


@given(
    weights=st.lists(st.integers(0, 9), min_size=2, max_size=8).filter(any),
    k=st.integers(1, 9),
    share=st.floats(0.01, 1),
)
def test_cuts_against_their_definition(weights: list[int], k: int, share: float) -> None:
    p = normal([float(w) for w in weights])
    least = sorted(p, reverse=True)[min(k, len(p)) - 1]
    kept = [x if x >= least else 0.0 for x in p]
    assert shares(p, 500, top_k=k).tolist() == pytest.approx(normal(kept), abs=5e-3)
    total, falling = 0.0, sorted(p, reverse=True)
    for x in falling:
        if total >= share - 1e-6:
            break
        total, least = total + x, x
    if not math.isclose(total, share, abs_tol=1e-5) and not any(
        math.isclose(c, share, abs_tol=1e-5) for c in itertools.accumulate(falling)
    ):
        kept = [x if x >= least * (1 - 1e-6) else 0.0 for x in p]
        assert shares(p, 500, top_p=share).tolist() == pytest.approx(normal(kept), abs=5e-3)


@given(weights=st.lists(st.floats(1e-6, 1), min_size=1, max_size=40), zeros=st.integers(0, 3))
def test_a_token_of_no_weight_is_never_drawn(weights: list[float], zeros: int) -> None:
    """Not even at the two ends of [0, 1), with tokens of no weight there."""
    none = [-math.inf] * zeros
    scores = np.array([none + [math.log(w) for w in weights] + none])
    ends = [int(draw(scores, 1.0, np.array([u]))[0]) for u in (0.0, np.nextafter(1.0, 0.0))]
    assert ends == [zeros, zeros + len(weights) - 1]


def test_samples_of_one_prefix_differ() -> None:
    s = scorer("recurrent gru")
    s.roles.ids["eos"] = -1
    found = s.generate(["w1 w2"] * 6, 12, temperature=2.0, key=1)
    assert len(set(found)) == 6 and found[:3] == s.generate(["w1 w2"] * 3, 12, temperature=2.0, key=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature: found -1.0"),
        ({"temperature": math.nan}, "temperature: found nan"),
        ({"top_k": 0}, "top_k: found 0"),
        ({"top_p": 0.0}, "top_p: found 0.0"),
        ({"top_p": 1.5}, "top_p: found 1.5"),
    ],
)
def test_choices_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        scorer("recurrent gru").generate(["w1"], 3, **options)


def test_the_options_of_generate_reach_the_draw() -> None:
    s = scorer("recurrent lstm")
    s.roles.ids["eos"] = -1  # nothing ends a row
    ask = lambda **more: s.generate(["w1", "w2 w3", "w4 w5 w6"], 20, temperature=3.0, key=5, **more)
    greedy = s.generate(["w1", "w2 w3", "w4 w5 w6"], 20)
    assert ask(top_k=1) == ask(top_p=1e-6) == greedy
    assert len({str(ask(**more)) for more in ({}, {"top_k": 3}, {"top_p": 0.4})} | {str(greedy)}) == 4


# --- full contexts ----------------------------------------------------------------------------------


def slid(s: Scorer, ids: list[int], n: int) -> list[int]:
    """Greedy, naively: bos and what the model still reads, from the beginning for every token."""
    bos, produced = [s.roles["bos"]] if s.objective.config.bos else [], []
    context = ids if len(bos + ids) <= LIMIT else ids[-(LIMIT // 2) :]
    for _ in range(n):
        row = torch.tensor([bos + context])
        with torch.no_grad():
            output = s.model(tokens=row)
            token = int(output.unembed(output.hidden[-1:]).argmax())
        produced.append(token)
        if token == s.roles["eos"]:
            break
        context = [*context, token] if row.shape[1] < LIMIT else [*context, token][-(LIMIT // 2) :]
    return produced


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("name", [n for n in MODELS if n.startswith("transformer")])
def test_sliding_reads_bos_and_the_last_half_again(name: str, bos: bool) -> None:
    s = scorer(name, bos=bos)
    s.roles.ids["eos"] = -1  # nothing ends a row
    for n_words in (1, 5, LIMIT - 2, LIMIT - 1, LIMIT, 40):
        text = " ".join(WORDS[(i * i) % 12] for i in range(n_words))
        ids = [TOKENIZER.id(w) for w in text.split()]
        ((found),) = s.generate_ids([text], 30, slide=True)
        assert found == slid(s, ids, 30)
        assert len(found) == 30


def test_without_sliding_a_full_context_ends_the_row() -> None:
    s = scorer("transformer rotary")
    s.roles.ids["eos"] = -1
    for n_words in (1, 6, LIMIT - 1):
        (found,) = s.generate_ids([" ".join(["w1"] * n_words)], 50)
        assert len(found) == LIMIT - n_words, "bos, the prefix and all but the last token fill the positions"
    with pytest.raises(UserError, match=f"a row of {LIMIT + 1} tokens"):
        s.generate([" ".join(["w1"] * LIMIT)], 3)


def test_a_recurrent_model_never_slides() -> None:
    s = scorer("recurrent gru")
    s.roles.ids["eos"] = -1
    assert s.generate_ids(["w1 w2"], 100, slide=True) == s.generate_ids(["w1 w2"], 100)


# --- text that grows --------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("name", ["transformer learned", "recurrent lstm"])
def test_text_is_told_as_it_grows(name: str, direction: str) -> None:
    s, told = scorer(name, direction), {0: [], 1: [], 2: []}
    texts = ["w1", "w2 w3", "w4 w5 w6"]
    final = s.generate(texts, 9, temperature=1.0, key=4, on_token=lambda i, text: told[i].append(text))
    ids = s.generate_ids(texts, 9, Sampling(1.0, key=4))
    for i in range(3):
        assert len(told[i]) == len(ids[i]), "once per token"
        assert told[i][-1] == final[i] == s.text(ids[i])
        grown = [t.split()[::-1] if direction == "backward" else t.split() for t in told[i]]
        assert all(b[: len(a)] == a for a, b in itertools.pairwise(grown))
        joined = [final[i], texts[i]] if direction == "backward" else [texts[i], final[i]]
        assert s.text(ids[i], texts[i]) == " ".join(x for x in joined if x)


class Bytes:
    """Ids 1 to 256 are bytes, 0 begins and ends; like byte-level BPE, ids need not be whole characters."""

    roles = {"pad": 0, "bos": 0, "eos": 0}
    vocab_size, joiner = 257, ""

    def encode(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        ids = np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64) + 1
        return ids, np.zeros(len(ids), dtype=np.int64)

    def decode(self, ids: Any) -> str:
        return bytes(int(i) - 1 for i in ids if i > 0).decode("utf-8", errors="replace")


class Recite(nn.Module):
    """Says a fixed sequence of ids, whatever it reads; place n of a row is followed by its n-th id."""

    consumes, max_length = frozenset({"tokens", "real"}), None

    def __init__(self, script: list[int], vocab_size: int = 257) -> None:
        super().__init__()
        self.script, self.vocab_size = torch.tensor(script), vocab_size

    def forward(self, tokens: torch.Tensor, real: Any = None) -> Output:
        place = torch.arange(tokens.shape[1]).repeat(tokens.shape[0])[:, None].float()
        unembed = lambda h: nn.functional.one_hot(self.script[h[:, 0].long()], self.vocab_size) * 50.0
        return Output(place, unembed)


TEXT = "aé漢字🙂 z\nü"


def subwords(name: str) -> Any:
    """`bytes` above, or a tokenizer of the package."""
    if name == "bytes":
        return Bytes()
    tokenizer = make("tokenizer", name, **({"vocab_size": 268} if name == "bpe" else {}))
    tokenizer.train(InMemory([TEXT * 3]))
    return tokenizer


@pytest.mark.parametrize("name", ["bytes", "byte", "bpe"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_characters_of_several_bytes_are_never_broken(name: str, direction: str) -> None:
    tokenizer, prompt = subwords(name), "¿é"
    objective = make("objective", "causal", tokenizer)
    ids, before = tokenizer.encode(TEXT)[0].tolist(), len(tokenizer.encode(prompt)[0])
    script = [*[1] * before, *(ids[::-1] if direction == "backward" else ids), objective.roles["eos"]]
    model = Recite(script, objective.vocab_size)
    s = Scorer(model, objective, make("direction", direction), tokenizer)
    told: list[str] = []
    assert s.generate([prompt], 100, on_token=lambda _, text: told.append(text)) == [TEXT]
    assert len(told) == len(ids) + 1 and "\ufffd" not in "".join(told)
    grows = str.endswith if direction == "backward" else str.startswith
    assert all(grows(TEXT, text) for text in told) and sorted(told, key=len) == told
    if name != "bpe":  # a token may hold several
        assert set(map(len, told)) >= set(range(1, len(TEXT) + 1)), "every character is told once it is whole"
    (found,) = s.generate_ids([prompt], 100)
    assert s.text(found, prompt) == (TEXT + prompt if direction == "backward" else prompt + TEXT)


def test_a_character_begun_by_the_prompt_is_decoded_with_it() -> None:
    """Ids of the prompt and of what follows are one text: é is two ids, here one of each."""
    tokenizer = Bytes()
    s = Scorer(Recite([1]), make("objective", "causal", tokenizer), make("direction", "forward"), tokenizer)
    first, second = tokenizer.encode("é")[0].tolist()
    s._read = lambda prefix: (np.array([first]), np.zeros(0, dtype=np.int64))
    assert s.text([second], "whatever") == "é"


def test_settled_text() -> None:
    assert settled("a\ufffdb\ufffd\ufffd", "forward") == "a\ufffdb"
    assert settled("\ufffda\ufffdb\ufffd", "backward") == "a\ufffdb\ufffd"
    assert settled("\ufffdab\ufffd", "permutation") == "ab"
