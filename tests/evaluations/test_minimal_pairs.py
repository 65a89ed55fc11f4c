"""Minimal pairs against a plain loop over texts, a table of known probabilities, transformers, and a brute-force mean."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from builders import tiny_run
from lexarium.corpora.utterances import Utterances
from lexarium.evaluations.evaluation import EvaluationData
from lexarium.evaluations.minimal_pairs import MinimalPairs, summary
from lexarium.evaluations.pair_files import Pair, Text
from lexarium.evaluations.scorer import Scorer
from lexarium.foundation import registry
from lexarium.foundation.config import Source, validate
from lexarium.foundation.types import Incompatible, UserError
from lexarium.models.build import build_model
from lexarium.tokens.prepare import open_tokenizer, prepare
from lexarium.tokens.symbols import SymbolTokenizer
from lexarium.training.start import from_gpt2

SPOKEN = [
    "b a WORD_BOUNDARY d o ɡ WORD_BOUNDARY",
    "t̠ʃ i WORD_BOUNDARY b a WORD_BOUNDARY",
    "d̠ʒ o t WORD_BOUNDARY",
    "ɡ a d WORD_BOUNDARY o WORD_BOUNDARY",
] * 3


def component(kind: str, name: str, *given: Any, **options: Any) -> Any:
    cls = registry.find(kind, name)
    return cls(cls.Config(**options), *given)


def make(folder: Path, lines: list[str], tokenizer: Any = None, **options: Any) -> EvaluationData:
    folder.mkdir(exist_ok=True)
    (folder / "u.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    given = {"type": "utterances", "path": str(folder / "u.txt"), "split": {"val": 0}}
    corpus = validate(Utterances.Config, Source({**given, **options}))
    chosen = tokenizer or SymbolTokenizer.Config()
    store = prepare(corpus, chosen, folder / "stores")
    return EvaluationData(store, open_tokenizer(chosen, store.folder))


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> EvaluationData:
    return make(tmp_path_factory.mktemp("u"), SPOKEN)


def lines_of(path: Path, pairs: list[tuple[str, str]], **keys: Any) -> Path:
    rows = [json.dumps({"sentence_good": a, "sentence_bad": b, **keys}, ensure_ascii=False) for a, b in pairs]
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def table(path: Path, header: str, rows: list[list[Any]]) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header.split(), *rows])


WORDS = {
    "dog": ("d o ɡ", ["b o ɡ", "d a ɡ"]),
    "cheat": ("tʃ i t", ["dʒ i t"]),
    "bah": ("b a", ["a b", "o b"]),
}
SENTENCES = [
    ("order", "b a WORD_BOUNDARY d o ɡ WORD_BOUNDARY", "d o ɡ WORD_BOUNDARY b a WORD_BOUNDARY"),
    ("order", "tʃ i WORD_BOUNDARY", "i tʃ WORD_BOUNDARY"),
    ("number", "d o WORD_BOUNDARY", "d a WORD_BOUNDARY"),
]


def babyslm(folder: Path) -> Path:
    """A folder of BabySLM with invented words: two voices, text for one of them, a real word in several pairs."""
    stimuli, gold, number = [], [], 0
    for word, (real, fakes) in WORDS.items():
        for fake in fakes:
            number += 1
            for voice in "BI":
                names = f"{word}-{voice}", f"{fake.replace(' ', '_')}-{voice}"
                for name, text, correct in zip(names, (real, fake), (1, 0), strict=True):
                    own = word if correct else ""
                    gold.append([name, voice, 3, own, correct, text, number, len(text.split())])
                    if voice == "B":
                        stimuli.append([len(gold) - 1, text, name])
    table(folder / "lexical/dev/lexical_stimuli.csv", "index transcription filename", stimuli)
    table(folder / "lexical/dev/gold.csv", "filename voice frequency word correct phones id length", gold)
    stimuli, gold = [], []
    for number, (kind, *texts) in enumerate(SENTENCES):
        for voice in "IB":
            for text, correct in zip(texts, (1, 0), strict=True):
                name = f"s{number}-{correct}-{voice}"
                gold.append([number, name, voice, kind, kind, correct, text])
                if voice == "B":
                    stimuli.append([len(gold) - 1, text, name])
    for form in ("phono", "ortho"):
        table(folder / f"syntactic/dev/syntactic_stimuli_{form}.csv", "index transcription filename", stimuli)
    table(folder / "syntactic/dev/gold.csv", "id filename voice type subtype correct transcription", gold)
    return folder


class Table:
    """A scorer whose model is a table: log p(x | the token read before), of rows in reading order."""

    def __init__(self, data: EvaluationData, bos: bool = False, direction: str = "forward") -> None:
        n = data.tokenizer.vocab_size
        logits = np.random.default_rng(5).normal(size=(n, n))
        self.log = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        self.objective = component("objective", "causal", data.tokenizer, bos=bos, eos=False)
        self._direction = component("direction", direction)
        self.calls = 0

    def views(self) -> dict[str, Any]:
        return {"": self}

    def token_scores(self, examples: list[Any]) -> list[np.ndarray]:
        self.calls += len(examples)
        found = []
        for example in examples:
            row = [3, *example.ids.tolist()] if self.objective.config.bos else example.ids.tolist()
            own = [self.log[a, b] for a, b in zip(row[:-1], row[1:], strict=True)]
            found.append(np.array([*([] if self.objective.config.bos else [np.nan]), *own, np.nan]))
        return found

    def of(self, ids: list[int]) -> list[float]:
        """What it gives a text behind UTT_BOUNDARY (id 3), written out."""
        return [self.log[a, b] for a, b in zip([3, *ids[:-1]], ids, strict=True)]


def evaluation(data: EvaluationData, path: Path | str, **options: Any) -> MinimalPairs:
    source = Source({"type": "minimal_pairs", "path": str(path), **options})
    return MinimalPairs(validate(MinimalPairs.Config, source), data)


def ids(data: EvaluationData, text: str) -> list[int]:
    """Symbols as the model's data have them: no boundaries, affricates retracted."""
    kept = [s for s in text.split() if s != "WORD_BOUNDARY"]
    return [data.tokenizer.id({"tʃ": "t̠ʃ", "dʒ": "d̠ʒ"}.get(s, s)) for s in kept]


@pytest.mark.parametrize("bos", [True, False])
def test_babyslm_is_the_mean_of_means(spoken: EvaluationData, tmp_path: Path, bos: bool) -> None:
    """Every number from the table of probabilities, by a loop of its own; UTT_BOUNDARY is read first either way."""
    asked, found = Table(spoken, bos), evaluation(spoken, babyslm(tmp_path))
    metrics = (result := found.run(asked, 0)).metrics
    score = lambda text: float(np.mean(asked.of(ids(spoken, text))))
    right = lambda a, b: float(score(a) > score(b)) + 0.5 * (score(a) == score(b))
    by_word = [np.mean([right(real, fake) for fake in fakes]) for real, fakes in WORDS.values()]
    by_pair = [right(a, b) for _, a, b in SENTENCES]
    assert metrics["lexical.dev.accuracy"] == pytest.approx(np.mean(by_word))
    assert np.mean(by_word) != np.mean([right(r, f) for r, fakes in WORDS.values() for f in fakes])
    assert metrics["syntactic.dev.accuracy"] == pytest.approx(np.mean(by_pair))
    assert metrics["syntactic.dev.order.accuracy"] == np.mean(by_pair[:2])
    assert (
        metrics["syntactic.dev.number.accuracy"] == by_pair[2] and metrics["syntactic.dev.order.pairs"] == 2
    )
    assert metrics["accuracy"] == pytest.approx((np.mean(by_word) + np.mean(by_pair)) / 2)
    assert (metrics["lexical.dev.pairs"], metrics["lexical.dev.words"], metrics["pairs"]) == (5, 3, 8)
    # words: cheat and its pseudo-word; sentences: order 2 twice. Boundaries: 2 + 2 + 1 + 1 + 1 + 1
    assert (metrics["replaced"], metrics["dropped"], metrics["equal"], metrics["skipped"]) == (4, 8, 0, 0)
    assert result.items["good"][2] == "t̠ʃ i t" and result.items["bad"][5] == "d o ɡ b a"
    assert result.items["score_good"][0] == pytest.approx(score("d o ɡ"))
    assert {len(column) for column in result.items.values()} == {8}
    assert asked.calls == 3 + 5 + 6  # a real word of several pairs is read once


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=30)
)
def test_lexical_accuracy_is_a_group_by(rows: list[tuple[str, float]]) -> None:
    text = Text("x", Path("f"), 1)
    pairs = [Pair("lexical", "lexical.dev", "", word, str(i), text, text) for i, (word, _) in enumerate(rows)]
    sums: dict[str, list[float]] = {}
    for word, value in sorted(rows):
        sums[word] = [*sums.get(word, []), value]
    wanted = sum(sum(v) / len(v) for v in sums.values()) / len(sums)
    right = np.array([value for _, value in rows])
    found = summary(pairs, right, right * 3 - 1)
    assert found["lexical.dev.margin"] == pytest.approx(
        sum(3 * v - 1 for _, v in rows) / len(rows), abs=1e-12
    )
    assert found["lexical.dev.accuracy"] == pytest.approx(wanted, abs=1e-12)
    assert found["accuracy"] == found["lexical.dev.accuracy"] and found["lexical.dev.words"] == len(sums)


def test_paradigms_count_alike_and_terms_are_means_of_paradigms(
    spoken: EvaluationData, tmp_path: Path
) -> None:
    asked = Table(spoken)
    pairs = {
        "one": [("b a", "a b")],
        "two": [("d o", "o d"), ("b o", "o b"), ("d i", "d i")],
        "three": [("a d", "d a")],
    }
    lines_of(tmp_path / "one.jsonl", pairs["one"], UID="one", linguistics_term="t")
    lines_of(tmp_path / "deep/two.jsonl", pairs["two"], linguistics_term="t")  # named by its file
    lines_of(tmp_path / "three.jsonl", pairs["three"], UID="three", linguistics_term="other")
    (tmp_path / "README.md").write_text("not a pair")
    score = lambda text: sum(asked.of(ids(spoken, text)))
    right = lambda a, b: 0.5 if a == b else float(score(a) > score(b))
    wanted = {name: np.mean([right(a, b) for a, b in own]) for name, own in pairs.items()}
    metrics = evaluation(spoken, tmp_path).run(asked, 0).metrics
    assert {name: metrics[f"{name}.accuracy"] for name in wanted} == pytest.approx(wanted)
    assert metrics["accuracy"] == pytest.approx(np.mean(list(wanted.values()))) and metrics["paradigms"] == 3
    assert metrics["label.t.accuracy"] == pytest.approx((wanted["one"] + wanted["two"]) / 2)
    assert metrics["label.other.accuracy"] == wanted["three"]
    gaps = [score(a) - score(b) for a, b in pairs["two"]]
    assert metrics["two.margin"] == pytest.approx(np.mean(gaps)) and gaps[2] == 0
    assert metrics["equal"] == 1 and metrics["pairs"] == 5 and metrics["two.pairs"] == 3
    assert evaluation(spoken, tmp_path, limit=1).run(asked, 0).metrics["pairs"] == 3


def test_equal_tokens_are_a_tie_whatever_the_rounding(spoken: EvaluationData, tmp_path: Path) -> None:
    """Without its word boundaries a pair may be twice the same; the scores of two rows may differ in the last bit."""
    pairs = [("b a WORD_BOUNDARY d", "b WORD_BOUNDARY a d"), ("b WORD_BOUNDARY o", "b o")]
    asked = Table(spoken)
    exact = asked.token_scores
    asked.token_scores = lambda rows: [v + 1e-13 * i for i, v in enumerate(exact(rows))]
    found = evaluation(spoken, lines_of(tmp_path / "p.jsonl", pairs)).run(asked, 0)
    assert found.items["correct"] == [0.5, 0.5] and found.metrics["p.margin"] == 0
    assert found.metrics["equal"] == 2 and found.items["score_good"][0] != found.items["score_bad"][0]


def test_sum_and_mean_differ_by_length(spoken: EvaluationData, tmp_path: Path) -> None:
    """A longer text has the lower sum; the mean does not care."""
    path = lines_of(tmp_path / "p.jsonl", [("b a b a b a", "b")])
    for name, of in (("sum", np.sum), ("mean", np.mean), ("auto", np.sum)):
        asked = Table(spoken)
        items = evaluation(spoken, path, score=name).run(asked, 0).items
        assert items["score_good"] == pytest.approx([of(asked.of(ids(spoken, "b a b a b a")))])
        assert items["correct"] == [
            float(of(asked.of(ids(spoken, "b a b a b a"))) > asked.of(ids(spoken, "b"))[0])
        ]


CASES = [("forward", True, True, False), ("backward", True, True, True), ("forward", False, False, False),
         ("backward", False, True, True), ("both", True, True, True)]  # fmt: skip


@pytest.mark.parametrize("direction, bos, eos, end", CASES)
def test_a_model_is_asked_as_it_was_trained(
    spoken: EvaluationData, tmp_path: Path, direction: str, bos: bool, eos: bool, end: bool
) -> None:
    """Against one forward pass per token of a transformer, written out."""
    texts = [("b a d o ɡ", "b a"), ("i", "o t"), ("t̠ʃ i b a b a", "d̠ʒ i b a b o")]
    turn = component("direction", direction)
    base = component("objective", "causal", spoken.tokenizer, bos=bos, eos=eos)
    base.roles = base.roles.extended(turn.extra_tokens)
    config = registry.find("model", "transformer").Config(
        n_layers=1, d_model=8, n_heads=2, max_positions=32, initialisation="xavier"
    )
    model = build_model(config, base.roles.vocab_size, seed=3).double().eval()
    with torch.no_grad():
        model.embedding.mul_(4)
    scorer = Scorer(model, base, turn, spoken.tokenizer, batch_tokens=20)
    result = evaluation(spoken, lines_of(tmp_path / "p.jsonl", texts), end=end).run(scorer, 0)

    def log_p(text: str, view: str) -> float:
        own = ids(spoken, text)[:: -1 if view == "backward" else 1] + ([3] if end else [])
        row, total = [base.roles[view] if direction == "both" else 3], 0.0
        for token in own:
            with torch.no_grad():
                output = model(tokens=torch.tensor([row]))
                total += float(output.unembed(output.hidden)[-1].log_softmax(-1)[token])
            row = [*row, token]
        return total

    views = ["forward", "backward"] if direction == "both" else [direction]
    for i, view in enumerate(views):
        rows = slice(3 * i, 3 * i + 3)
        assert result.items["score_good"][rows] == pytest.approx([log_p(a, view) for a, _ in texts], abs=1e-5)
        assert result.items["score_bad"][rows] == pytest.approx([log_p(b, view) for _, b in texts], abs=1e-5)
        name = f"{view}." if direction == "both" else ""
        assert result.metrics[f"{name}accuracy"] == pytest.approx(
            np.mean([log_p(a, view) > log_p(b, view) for a, b in texts])
        )
    assert result.items.get("direction", []) == (
        [v for v in views for _ in range(3)] if direction == "both" else []
    )


def test_agrees_with_transformers(spoken: EvaluationData, tmp_path: Path) -> None:
    """A random GPT-2 asked by transformers' own loss: summed over the texts behind UTT_BOUNDARY."""
    transformers = pytest.importorskip("transformers")
    v = spoken.tokenizer.vocab_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=v, n_positions=24, n_embd=16, n_layer=2, n_head=2)
        ).double()
        for parameter in theirs.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.2)
    config = registry.find("model", "transformer").Config(
        preset="gpt2", n_layers=2, n_heads=2, d_model=16, max_positions=24
    )
    ours = build_model(config, v, seed=1).double()
    ours.load_state_dict(from_gpt2(theirs.state_dict()), strict=True)
    objective = component("objective", "causal", spoken.tokenizer)
    scorer = Scorer(ours.eval(), objective, component("direction", "forward"), spoken.tokenizer)
    pairs = [("b a d o ɡ", "b a"), ("d̠ʒ o t", "t o d̠ʒ"), ("i", "a")]
    path = lines_of(tmp_path / "p.jsonl", pairs)
    for how in ("sum", "mean"):
        result = evaluation(spoken, path, score=how).run(scorer, 0)
        wanted = []
        for text in [t for pair in pairs for t in pair]:
            row = torch.tensor([[3, *ids(spoken, text)]])
            with torch.no_grad():
                mean = -theirs.eval()(row, labels=row).loss.item()
            wanted.append(mean * (row.shape[1] - 1 if how == "sum" else 1))
        assert result.items["score_good"] == pytest.approx(wanted[::2], abs=1e-5)
        assert result.items["score_bad"] == pytest.approx(wanted[1::2], abs=1e-5)


# --- edits --------------------------------------------------------------------------------------------


def test_word_boundaries_are_kept_where_the_model_saw_them(spoken: EvaluationData, tmp_path: Path) -> None:
    path = lines_of(tmp_path / "p.jsonl", [("b a WORD_BOUNDARY d o WORD_BOUNDARY", "a WORD_BOUNDARY")])
    saw = make(tmp_path / "saw", SPOKEN, boundaries="token")
    whole, bare = "b a WORD_BOUNDARY d o WORD_BOUNDARY", "b a d o"
    for data, option, wanted, dropped in (
        (spoken, "auto", bare, 3), (saw, "auto", whole, 0), (spoken, "keep", whole, 0), (saw, "drop", bare, 3)
    ):  # fmt: skip
        found = evaluation(data, path, boundaries=option)
        asked = Table(data)
        result = found.run(asked, 0)
        assert result.metrics["dropped"] == dropped
        marks = [2 if s == "WORD_BOUNDARY" else data.tokenizer.id(s) for s in wanted.split()]
        assert result.items["score_good"] == pytest.approx([sum(asked.of(marks))])


@pytest.mark.parametrize("tokenizer", ["character", "symbol"])
def test_spaces_are_the_boundaries_of_letters(tmp_path: Path, tokenizer: str) -> None:
    config = registry.find("tokenizer", tokenizer).Config(
        **({"unit": "character"} if tokenizer == "symbol" else {})
    )
    path = lines_of(tmp_path / "p.jsonl", [("The dog", "dog the")])
    for boundaries, wanted in (("channel", "thedog"), ("token", "the dog")):
        data = make(
            tmp_path / boundaries, ["the dog", "dog the"], config, form="letters", boundaries=boundaries
        )
        found = evaluation(data, path, case="lower")
        assert data.tokenizer.decode(found._ids[0]) == wanted


def test_pieces_of_words_read_joined_phonemes(tmp_path: Path) -> None:
    config = registry.find("tokenizer", "bpe").Config(vocab_size=262)
    data = make(tmp_path / "bpe", SPOKEN, config, joined=True, boundaries="token")
    path = lines_of(tmp_path / "p.jsonl", [("b a WORD_BOUNDARY d o WORD_BOUNDARY", "a WORD_BOUNDARY")])
    with pytest.raises(UserError, match=r"p.jsonl:1: holds WORD_BOUNDARY, which is no symbol.*joined: true"):
        evaluation(data, path)
    decoded = lambda **o: data.tokenizer.decode(evaluation(data, path, **o)._ids[0])
    assert decoded(joined=True) == "ba do"
    assert decoded(joined=True, boundaries="drop") == "bado"
    assert decoded(boundaries="drop") == "b a d o"


def test_only_whole_symbols_are_replaced(spoken: EvaluationData, tmp_path: Path) -> None:
    path = lines_of(tmp_path / "p.jsonl", [("b a", "o d")])
    found = evaluation(spoken, path, replace={"a": "o", "b a": "i", "": "i"})
    assert found._ids[0].tolist() == ids(spoken, "b o") and found.counts["replaced"] == 1
    words = evaluation(spoken, babyslm(tmp_path / "b"), tasks=["lexical"])
    assert words.counts["replaced"] == 2
    with pytest.raises(UserError, match="'tʃ' is not in the vocabulary"):
        evaluation(spoken, tmp_path / "b", tasks=["lexical"], replace={})


def test_unicode_forms_are_the_corpus_s(tmp_path: Path) -> None:
    data = make(tmp_path / "u", ["\u1ebd b WORD_BOUNDARY"])
    path = lines_of(tmp_path / "p.jsonl", [("e\u0303 b", "b e\u0303")])
    assert len(evaluation(data, path)._ids[0]) == 2
    with pytest.raises(UserError, match="not in the vocabulary"):
        evaluation(data, path, normalise="none")


def test_symbols_outside_the_vocabulary(spoken: EvaluationData, tmp_path: Path) -> None:
    path = lines_of(tmp_path / "p.jsonl", [("b a", "a b"), ("b q", "q b"), ("d o", "o d")])
    with pytest.raises(UserError, match=r"p.jsonl:2: 'q' is not in the vocabulary.*unknown: skip"):
        evaluation(spoken, path)
    metrics = evaluation(spoken, path, unknown="skip").run(Table(spoken), 0).metrics
    assert metrics["skipped"] == 1 and metrics["pairs"] == 2
    with pytest.raises(UserError, match=r"p.jsonl:2: .*\(the tokenizer allows none\)"):
        evaluation(spoken, path, unknown="allow")
    few = make(tmp_path / "few", SPOKEN, SymbolTokenizer.Config(min_count=8))  # a and o occur nine times
    with pytest.raises(UserError, match=r"p.jsonl:1: a symbol of 'b a' is not in the vocab.*unknown: refuse"):
        evaluation(few, path)
    metrics = evaluation(few, path, unknown="allow").run(Table(few), 0).metrics
    assert metrics["unknown"] == 3 and metrics["pairs"] == 3
    with pytest.raises(UserError, match="every pair has a symbol outside"):
        evaluation(spoken, lines_of(tmp_path / "q.jsonl", [("q", "x")]), unknown="skip")


# --- what is refused ----------------------------------------------------------------------------------


def test_bad_lines_are_named(spoken: EvaluationData, tmp_path: Path) -> None:
    good = json.dumps({"sentence_good": "b a", "sentence_bad": "a b"})
    for i, (line, told) in enumerate(
        (
            ("{", r"bad\d.jsonl:3: not JSON"),
            ("[1]", r"bad\d.jsonl:3: found '\[1\]'; expected an object"),
            ('{"sentence_good": "b"}', r"bad\d.jsonl:3: 'sentence_bad' is None; expected a text"),
            ('{"sentence_good": "b", "sentence_bad": 3}', r"bad\d.jsonl:3: 'sentence_bad' is 3"),
            ('{"sentence_good": " ", "sentence_bad": "b"}', r"bad\d.jsonl:3: 'sentence_good' is ' '"),
            (
                '{"sentence_good": "WORD_BOUNDARY", "sentence_bad": "b"}',
                r"bad\d.jsonl:3: nothing is left of 'WORD_BOUNDARY'",
            ),
        )
    ):
        path = tmp_path / f"bad{i}.jsonl"
        path.write_text(f"{good}\n\n{line}\n")
        with pytest.raises(UserError, match=told):
            evaluation(spoken, path)
    path.write_bytes(b"\xff\n")
    with pytest.raises(UserError, match="not UTF-8"):
        evaluation(spoken, path)
    path.write_text("\n")
    with pytest.raises(UserError, match="no pairs"):
        evaluation(spoken, path)


def test_bad_paths_are_named(spoken: EvaluationData, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    path = lines_of(tmp_path / "p.jsonl", [("b a", "a b")])
    folder = babyslm(tmp_path / "b")
    for given_path, options, told in (
        (tmp_path / "empty", {}, "empty: holds no minimal pairs"),
        (tmp_path / "none.jsonl", {}, "is no file and no pattern"),
        (folder / "lexical/dev/lexical_stimuli.csv", {}, "a table by itself holds no pairs"),
        (folder, {"parts": ["test"]}, r"no pairs of lexical or syntactic in test \(there is: lexical/dev, syntactic/dev"),
        (folder, {"tasks": ["lexical"], "stimuli": "ortho"}, "the lexical task needs phonemes"),
        (path, {"sha256": "00"}, "the files have the hash [0-9a-f]{64}, expected sha256 00"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=told):
            evaluation(spoken, given_path, **options)
    config = MinimalPairs.Config(path=(str(path), str(tmp_path / "*.jsonl")))
    with pytest.raises(UserError, match="is named twice"):
        MinimalPairs(config, spoken)
    found = evaluation(spoken, path).run(Table(spoken), 0).items["sha256"][0]
    assert evaluation(spoken, path, sha256=found).pairs
    lines_of(path, [("b a", "a d")])
    with pytest.raises(UserError, match="expected sha256"):
        evaluation(spoken, path, sha256=found)


def test_bad_tables_are_named(spoken: EvaluationData, tmp_path: Path) -> None:
    def change(name: str, old: str, new: str, told: str) -> None:
        folder = babyslm(tmp_path / "b")
        path = folder / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
        with pytest.raises(UserError, match=told):
            evaluation(spoken, folder)

    lexical, gold = "lexical/dev/lexical_stimuli.csv", "lexical/dev/gold.csv"
    syntactic = "syntactic/dev/gold.csv"
    change(lexical, "transcription", "text", r"lexical_stimuli.csv:1: no column 'transcription'; found index")
    change(lexical, "0,d o ɡ,", "0,,", r"lexical_stimuli.csv:2: no transcription")
    change(lexical, "0,d o ɡ,", "0,d o,", r"'dog-B' is 'd o ɡ' here and 'd o' in line 2")
    change(lexical, "0,d o ɡ,dog-B", "0,d o ɡ", r"lexical_stimuli.csv:2: 2 cells; expected 3")
    change(lexical, "b_o_ɡ-B", "other", r"gold.csv:3: .*lexical_stimuli.csv has no stimulus 'b_o_ɡ-B'")
    change(gold, "cheat-B,B,3,cheat,1", "cheat-B,B,3,cheat,yes", r"gold.csv:10: correct is 'yes'")
    change(gold, "cheat-B,B,3,cheat,1", "cheat-B,B,3,,1", r"gold.csv:10: no word")
    change(gold, "cheat-B,B,3,cheat,1", "cheat-B,B,3,cheat,0", r"gold.csv:10: 3 has 0 right and 2 wrong")
    change(syntactic, "order,1,t", "order,0,t", r"gold.csv:8: order order 1 has 0 right and 2 wrong")
    change(lexical, "b o ɡ", "b q ɡ", r"lexical_stimuli.csv:3: 'q' is not in the vocabulary")
    (tmp_path / "b" / lexical).unlink()
    with pytest.raises(UserError, match="lexical_stimuli.csv: No such file"):
        evaluation(spoken, tmp_path / "b")


def test_what_a_run_cannot_answer(spoken: EvaluationData, tmp_path: Path) -> None:
    path = lines_of(tmp_path / "p.jsonl", [("b", "a b")])
    with pytest.raises(UserError, match="end: true scores eos, which this run never predicts"):
        evaluation(spoken, path, end=True).run(Table(spoken), 0)
    asked = Table(spoken)
    asked.objective = component("objective", "seq2seq", spoken.tokenizer)
    with pytest.raises(Incompatible, match="this objective predicts only a target"):
        evaluation(spoken, path).run(asked, 0)
    words = make(
        tmp_path / "w", ["ba dog", "ti a"], registry.find("tokenizer", "character").Config(), form="letters"
    )
    asked = Table(words)
    with pytest.raises(UserError, match="nothing of 'b' is predicted: it is one token"):
        evaluation(words, path).run(asked, 0)


# --- a run --------------------------------------------------------------------------------------------


def test_bad_files_are_told_before_training(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("{\n")
    run = tiny_run(tmp_path, evaluations=[{"type": "minimal_pairs", "path": str(path)}])
    with pytest.raises(UserError, match=r"p.jsonl:1: not JSON"):
        run.train()
    assert not list((run.path / "checkpoints").glob("step-*"))


@pytest.mark.parametrize("direction", ["forward", "both"])
def test_training_teaches_the_right_one(tmp_path: Path, direction: str) -> None:
    """Word order: sentences of the corpus against the same words in the order of the alphabet."""
    sentences = [
        "some vulture doesn't eat . decl some vulture doesn't eat .",
        "my ravens do smile . quest do my ravens smile ?",
    ]
    path = lines_of(tmp_path / "p.jsonl", [(s, " ".join(sorted(s.split()))) for s in sentences], UID="order")
    run = tiny_run(
        tmp_path,
        direction={"type": direction},
        model={"type": "recurrent", "cell": "gru", "n_layers": 1, "d_model": 32},
        optimizer={"type": "adamw", "lr": 1e-2},
        train={"max_steps": 150},
        evaluations=[{"type": "minimal_pairs", "path": str(path), "every": 150}],
    )
    assert run.train() == "done"
    results = {step: metrics for _, step, metrics in run.files.evaluations()}
    for name in ("",) if direction == "forward" else ("forward.", "backward."):
        assert results[150][f"{name}order.accuracy"] == results[150][f"{name}accuracy"] == 1.0
    assert math.isfinite(results[0]["accuracy" if direction == "forward" else "forward.accuracy"])


def test_a_file_that_changed_asks_another_question(tmp_path: Path) -> None:
    """Its content belongs to what an evaluation asks, so old answers are not taken for new ones."""
    from lexarium.studies.run_config import evaluation_identity

    path = tmp_path / "pairs.jsonl"
    path.write_text('{"sentence_good": "a b", "sentence_bad": "b a"}\n')
    config = MinimalPairs.Config(path=(str(path),))
    before = evaluation_identity(config)
    assert evaluation_identity(config) == before and len(before["content"]) == 64
    path.write_text('{"sentence_good": "a b", "sentence_bad": "b b"}\n')
    assert evaluation_identity(config) != before
    path.unlink()
    assert "content" not in evaluation_identity(config)


def test_edits_are_counted_in_the_texts_that_are_scored(spoken: EvaluationData, tmp_path: Path) -> None:
    """Once for each distinct text, and none of pairs that are left out."""
    path = lines_of(tmp_path / "p.jsonl", [("b a", "q a"), ("b a", "a b"), ("q a", "a a"), ("b a", "a b")])
    found = evaluation(spoken, path, unknown="skip", replace={"b": "d"})
    assert (found.counts["skipped"], found.counts["replaced"], len(found._ids)) == (2, 2, 2)


def test_the_marker_keeps_its_case(tmp_path: Path) -> None:
    data = make(tmp_path / "u", SPOKEN, boundaries="token")
    path = lines_of(tmp_path / "p.jsonl", [("B A WORD_BOUNDARY", "A B WORD_BOUNDARY")])
    found = evaluation(data, path, case="lower", boundaries="keep")
    assert data.tokenizer.decode(found._ids[0]) == "b a WORD_BOUNDARY"


def test_a_model_whose_predictions_are_no_numbers_is_not_at_chance(
    spoken: EvaluationData, tmp_path: Path
) -> None:
    path = lines_of(tmp_path / "p.jsonl", [("b a", "a b"), ("d o", "o d")])
    objective = component("objective", "causal", spoken.tokenizer, bos=False, eos=False)
    config = registry.find("model", "transformer").Config(n_layers=1, d_model=8, n_heads=2)
    model = build_model(config, objective.roles.vocab_size, seed=1)
    with torch.no_grad():
        next(iter(model.parameters())).fill_(float("nan"))
    scorer = Scorer(model.eval(), objective, component("direction", "forward"), spoken.tokenizer)
    metrics = evaluation(spoken, path).run(scorer, 0).metrics
    assert np.isnan(metrics["accuracy"]) and metrics["pairs"] == 2
