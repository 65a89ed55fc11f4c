"""Minimal pairs: of two texts that differ in little, is the model more sure of the one that is right?

A pair counts 1 where the score of the good text is higher, 0.5 where the two are equal, 0 otherwise. The score is the
log-probability of a text's tokens in nats, summed (`sum`; BLiMP, Warstadt et al. 2020) or divided by their number
(`mean`; BabySLM, Lavechin et al. 2023). `score: auto` takes `sum` for JSON lines and `mean` for BabySLM; the files are
described in `pair_files.py`. The end of a text is not scored unless `end` says so; neither benchmark does.

What is predicted first follows training. With objective.bos every token is predicted. Without it, what the tokenizer
itself has for the boundary between texts (its role bos: `UTT_BOUNDARY`) is read first, as in running text; a tokenizer
without one leaves the first token read and not scored. A model that reads backwards begins at the other end, and one
that reads in both directions is asked in each: `forward.accuracy`, `backward.accuracy`, ...

    <paradigm>.accuracy     of JSON lines, the mean over pairs; of `lexical.dev`, the mean over the pseudo-words of a
                            word, then over words; of `syntactic.dev`, the mean over pairs
    <paradigm>.pairs        pairs that were scored
    <paradigm>.margin       the mean over pairs of the good text's score less the bad one's, in nats
    label.<name>.accuracy   the mean over the paradigms of a linguistic term; of syntactic stimuli
                            `syntactic.dev.<type>.accuracy`, over pairs
    accuracy                the plain mean over `paradigms` paradigms, as harnesses group BLiMP (there a tie is right)
    equal, unknown, skipped pairs whose texts are the same tokens; with tokens outside the vocabulary; left out
    replaced, dropped       symbols that were replaced in the distinct texts that are scored, and word boundaries that
                            were left out of them

Before they are scored, texts are edited as a whole symbol at a time: `replace` (of BabySLM by default tʃ and dʒ, which
transcribers of child speech write t̠ʃ and d̠ʒ), and word boundaries dropped for a model that never saw one. The lexical
task needs phonemes: it is left out where `stimuli` are words.

Files are read, and everything they may lack is told, when the evaluation is built, before training. Cost: one forward
pass over the distinct texts. Items: one row per pair, with the hash of the files. Refused: what `pair_files.py`
refuses, files of another hash than `sha256`, symbols outside the vocabulary unless `unknown` says otherwise, texts of
which nothing is predicted, and objectives that read a source.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, field_validator

from lexarium.evaluations.evaluation import EvaluationConfig, EvaluationData
from lexarium.evaluations.pair_files import Keys, Pair, Sources, Text, content, find
from lexarium.foundation.types import Example, Incompatible, Result, UserError
from lexarium.tokens.tokenizers import Vocabulary

BOUNDARY = "WORD_BOUNDARY"
"""The word boundary in stimuli; in vocabularies of characters it is a space."""
AFFRICATES = {"tʃ": "t̠ʃ", "dʒ": "d̠ʒ"}


class _Encoded(NamedTuple):
    """The tokens of a text (L,), and how many symbols were replaced, and word boundaries dropped."""

    ids: np.ndarray
    replaced: int
    dropped: int


class MinimalPairs:
    """The share of pairs in which the right text is the more probable one."""

    kind, name, version = "evaluation", "minimal_pairs", 1
    asks = frozenset({"token_scores"})
    whole_texts = True
    higher = ("accuracy", "margin")

    @classmethod
    def content(cls, config: Config) -> str:
        """Hash of the files that its options name; raises UserError where they are not there."""
        sources = find(config.path, config.tasks, config.parts)
        return content(
            [*sources.lines, *(f for _, _, folder in sources.folders for f in sorted(folder.glob("*.csv")))]
        )

    class Config(EvaluationConfig):
        """Options of `minimal_pairs`."""

        type: str = "minimal_pairs"
        path: tuple[str, ...] = Field(min_length=1)
        """Files, folders and patterns: JSON lines, or a folder of BabySLM."""
        sha256: str = ""
        """Hash that the files together must have, as the items of a result name it; empty = any."""
        tasks: tuple[Literal["lexical", "syntactic"], ...] = Field(("lexical", "syntactic"), min_length=1)
        """Tasks of BabySLM."""
        parts: tuple[Literal["dev", "test"], ...] = Field(("dev",), min_length=1)
        """Parts of BabySLM."""
        stimuli: Literal["auto", "phono", "ortho"] = "auto"
        """BabySLM's texts in phonemes or in words; auto = phonemes where tokens are symbols between spaces."""
        score: Literal["auto", "sum", "mean"] = "auto"
        """Log-probability of a text, or of its token in the mean; auto = sum, of BabySLM mean."""
        end: bool = False
        """Score the end of a text (eos) too."""
        replace: dict[str, str] | None = None
        """Symbols (between spaces) to be replaced; empty = of BabySLM in phonemes tʃ and dʒ, where the vocabulary has
        them as t̠ʃ and d̠ʒ, else none."""
        boundaries: Literal["auto", "keep", "drop"] = "auto"
        """Word boundaries of the texts; auto = drop where tokens are symbols and the run's text has none."""
        joined: bool = False
        """Write phonemes as corpus utterances does with `joined`: without spaces, a space for a word boundary."""
        normalise: Literal["NFC", "NFD", "none"] = "NFC"
        """Unicode form of the texts."""
        case: Literal["keep", "lower"] = "keep"
        """Lower-case the texts (WORD_BOUNDARY excepted)."""
        unknown: Literal["refuse", "skip", "allow"] = "refuse"
        """Of pairs with a symbol outside the vocabulary: refuse, leave out, or score as the unknown token."""
        limit: int = Field(0, ge=0)
        """At most so many pairs of each paradigm, the first ones; 0 = all."""
        good_key: str = "sentence_good"
        """Key of the right text in JSON lines."""
        bad_key: str = "sentence_bad"
        """Key of the wrong one."""
        paradigm_key: str = "UID"
        """Key of the paradigm."""
        label_key: str = "linguistics_term"
        """Key by which paradigms are averaged too."""

        @field_validator("path", mode="before")
        @classmethod
        def _one_or_many(cls, value: Any) -> Any:
            return (value,) if isinstance(value, str) else value

    def __init__(self, config: Config, data: EvaluationData) -> None:
        self.config, self.tokenizer = config, data.tokenizer
        sources = find(config.path, config.tasks, config.parts)
        self._phonemes = self._in_phonemes()
        pairs, self._content = self._read(sources)
        self._drop = self._drops(data, pairs)
        self.counts = {"equal": 0, "unknown": 0, "skipped": 0, "replaced": 0, "dropped": 0}
        self._ids: list[np.ndarray] = []
        known: dict[tuple[str, bool], _Encoded | None] = {}
        numbers: dict[tuple[str, bool], int] = {}
        self.pairs: list[Pair] = []
        places: list[list[int]] = []
        for pair in pairs:
            keys = [(text.text, pair.task != "sentences") for text in (pair.good, pair.bad)]
            for key, text in zip(keys, (pair.good, pair.bad), strict=True):
                if key not in known:
                    known[key] = self._encoded(text, of_babyslm=key[1])
            found = {key: known[key] for key in keys}
            if None in found.values():
                self.counts["skipped"] += 1
                continue
            for key, one in found.items():
                if one and key not in numbers:
                    numbers[key] = len(self._ids)
                    self._ids.append(one.ids)
                    self.counts["replaced"] += one.replaced
                    self.counts["dropped"] += one.dropped
            self.pairs.append(pair)
            places.append([numbers[key] for key in keys])
        if not self.pairs:
            raise UserError("evaluation minimal_pairs: every pair has a symbol outside the vocabulary")
        self._places = np.array(places)
        self._equal = np.array([np.array_equal(self._ids[a], self._ids[b]) for a, b in places])
        odd = np.array([self._has_unknown(ids) for ids in self._ids])
        self.counts["equal"] = int(self._equal.sum())
        self.counts["unknown"] = int(odd[self._places].any(axis=1).sum())

    # -- reading -------------------------------------------------------------------------------------

    def _in_phonemes(self) -> bool:
        if self.config.stimuli != "auto":
            return self.config.stimuli == "phono"
        return self.config.joined or getattr(self.tokenizer.config, "unit", "") == "symbol"

    def _read(self, sources: Sources) -> tuple[list[Pair], str]:
        """The pairs wanted, and the hash of the files."""
        c = self.config
        writing = "phono" if self._phonemes else "ortho"
        if not self._phonemes:
            sources = Sources(sources.lines, [f for f in sources.folders if f[0] != "lexical"])
        if not sources.lines and not sources.folders:
            raise UserError(
                "evaluation minimal_pairs: the lexical task needs phonemes, and this tokenizer reads words; choose"
                " other tasks, or say stimuli: phono"
            )
        files = sources.files(writing)
        pairs = list(sources.read(Keys(c.good_key, c.bad_key, c.paradigm_key, c.label_key), writing))
        if not pairs:
            raise UserError(f"{', '.join(map(str, files))}: no pairs; expected one per line")
        found = content(files)
        if c.sha256 and found != c.sha256:
            raise UserError(
                f"evaluation minimal_pairs: the files have the hash {found}, expected sha256 {c.sha256}"
                f" ({', '.join(map(str, files[:3]))}{', ...' if len(files) > 3 else ''})"
            )
        seen: dict[str, int] = {}
        kept = []
        for pair in pairs:
            seen[pair.paradigm] = seen.get(pair.paradigm, 0) + 1
            if not c.limit or seen[pair.paradigm] <= c.limit:
                kept.append(pair)
        return kept, found

    def _drops(self, data: EvaluationData, pairs: Sequence[Pair]) -> bool:
        """Whether word boundaries are left out."""
        c, closed = self.config, isinstance(self.tokenizer, Vocabulary)
        marked = next((t for p in pairs for t in (p.good, p.bad) if BOUNDARY in t.text.split()), None)
        characters = closed and self.tokenizer.joiner == ""
        if marked is not None and not c.joined and (characters or (not closed and c.boundaries == "auto")):
            raise UserError(
                f"{marked.where}: holds {BOUNDARY}, which is no symbol of this vocabulary; say joined: true where"
                " spaces stand for it, or, of pieces of words, boundaries: keep or drop"
            )
        if c.boundaries != "auto" or not closed:
            return c.boundaries == "drop"
        marks = [i for i, symbol in enumerate(self.tokenizer.symbols) if symbol in (BOUNDARY, " ")]
        return not (marks and _occurs(data, marks))

    # -- one text ------------------------------------------------------------------------------------

    def _encoded(self, text: Text, of_babyslm: bool) -> _Encoded | None:
        """The tokens of a text; None where pairs are left out for it."""
        edited, replaced, dropped = self._edited(text.text, of_babyslm)
        try:
            ids = self.tokenizer.encode(edited)[0] if edited else np.zeros(0, np.int64)
        except UserError as error:
            self._check_skipped(text, str(error))
            return None
        if not len(ids):
            raise UserError(f"{text.where}: nothing is left of {text.text!r}; expected a symbol")
        if self.config.unknown != "allow" and self._has_unknown(ids):
            self._check_skipped(text, f"a symbol of {edited!r} is not in the vocabulary")
            return None
        return _Encoded(np.asarray(ids, dtype=np.int64), replaced, dropped)

    def _has_unknown(self, ids: np.ndarray) -> bool:
        unknown = self.tokenizer.roles.get("unk")
        return unknown is not None and bool((ids == unknown).any())

    def _check_skipped(self, text: Text, problem: str) -> None:
        """Raise UserError unless pairs with a symbol outside the vocabulary are left out."""
        why = "the tokenizer allows none" if self.config.unknown == "allow" else "unknown: refuse"
        if self.config.unknown != "skip":
            raise UserError(
                f"{text.where}: {problem} ({why}); replace it (option replace), or say unknown: skip, or allow where"
                " the tokenizer has a token for them (symbol with min_count)"
            )

    def _edited(self, text: str, of_babyslm: bool) -> tuple[str, int, int]:
        """The text as it is encoded, and how many symbols were replaced, and word boundaries dropped."""
        c = self.config
        table = c.replace
        if table is None:
            known = set(self.tokenizer.symbols)  # one that is written as the stimuli are stays
            wanted = AFFRICATES if of_babyslm and self._phonemes else {}
            table = {old: new for old, new in wanted.items() if new in known and old not in known}
        text = text if c.normalise == "none" else unicodedata.normalize(c.normalise, text)
        pieces = text.split(" ") if not c.joined else text.split()
        if c.case == "lower":
            pieces = [p if p == BOUNDARY else p.lower() for p in pieces]
        replaced = sum(p in table for p in pieces)
        pieces = [table.get(p, p) for p in pieces]
        if not (c.joined or self.tokenizer.joiner == " " or BOUNDARY in pieces):  # a space is the boundary
            if not self._drop:
                return " ".join(pieces), replaced, 0
            return "".join(pieces), replaced, len(pieces) - 1
        dropped = pieces.count(BOUNDARY) if self._drop else 0
        pieces = [p for p in pieces if p != BOUNDARY] if self._drop else pieces
        if not c.joined:
            return " ".join(pieces), replaced, dropped
        return "".join(" " if p == BOUNDARY else p for p in pieces).strip(), replaced, dropped

    # -- scoring -------------------------------------------------------------------------------------

    def run(self, scorer: Any, key: int) -> Result:
        """Metrics per paradigm; one item per pair. Nothing is random: `key` is not used."""
        metrics: dict[str, float | int] = {}
        items: dict[str, list[Any]] = {}
        for view, asked in scorer.views().items():
            sums, counts = self._scores(asked)
            values = np.where(self._by_mean()[:, None], (sums / counts)[self._places], sums[self._places])
            right = 0.5 * (values[:, 0] == values[:, 1]) + (values[:, 0] > values[:, 1])
            right[self._equal] = 0.5  # equal tokens may differ in the last bits, by batch
            name = f"{view}." if view else ""
            broken = ~np.isfinite(values).all(
                axis=1
            )  # a model whose predictions are no numbers knows nothing
            known = np.where(broken[:, None], np.nan, values)
            margins = np.where(self._equal & ~broken, 0.0, known[:, 0] - known[:, 1])
            right[broken] = np.nan
            metrics |= {f"{name}{k}": v for k, v in summary(self.pairs, right, margins).items()}
            self._items(view, values, right, items)
        return Result(metrics | self.counts, items)

    def _by_mean(self) -> np.ndarray:
        """(n,) bool: pairs whose texts are compared by their mean token."""
        if self.config.score != "auto":
            return np.full(len(self.pairs), self.config.score == "mean")
        return np.array([pair.task != "sentences" for pair in self.pairs])

    def _scores(self, scorer: Any) -> tuple[np.ndarray, np.ndarray]:
        """Of every text: the summed log-probability (nats) of what is predicted, and how many tokens that are."""
        if "source" in getattr(scorer.objective, "produces", ()):
            raise Incompatible(
                "evaluation minimal_pairs scores every token of a text, and this objective predicts only a target;"
                " use objective causal"
            )
        asked = []
        before = self.tokenizer.roles.get("bos")
        read = not getattr(scorer.objective.config, "bos", False) and before is not None
        for number, ids in enumerate(self._ids):
            row = scorer._direction.apply(_example(ids, number))
            if read:
                front = _example(np.concatenate([[before], row.ids]), number)
                front.start = row.start
                row = front
            asked.append(row)
        found = scorer.token_scores(asked)
        if self.config.end and any(np.isnan(values[-1]) for values in found):
            raise UserError(
                "evaluation minimal_pairs: end: true scores eos, which this run never predicts (objective.eos is off)"
            )
        scores = [values if self.config.end else values[:-1] for values in found]
        counts = np.array([int((~np.isnan(values)).sum()) for values in scores])
        if not counts.all():
            short = self.tokenizer.decode(self._ids[int(counts.argmin())])
            raise UserError(
                f"evaluation minimal_pairs: nothing of {short!r} is predicted: it is one token, and nothing is read"
                " before it (objective.bos is off)"
            )
        return np.array([np.nansum(values) for values in scores]), counts

    def _items(self, view: str, values: np.ndarray, right: np.ndarray, items: dict[str, list[Any]]) -> None:
        decoded = [self.tokenizer.decode(ids) for ids in self._ids]
        columns: dict[str, list[Any]] = {
            **({"direction": [view] * len(self.pairs)} if view else {}),
            "paradigm": [p.paradigm for p in self.pairs],
            "label": [p.label for p in self.pairs],
            "word": [p.word for p in self.pairs],
            "id": [p.id for p in self.pairs],
            "good": [decoded[a] for a, _ in self._places.tolist()],
            "bad": [decoded[b] for _, b in self._places.tolist()],
            "score_good": values[:, 0].tolist(),
            "score_bad": values[:, 1].tolist(),
            "correct": right.tolist(),
            "file": [p.good.path.name for p in self.pairs],
            "sha256": [self._content] * len(self.pairs),
        }
        for column, cells in columns.items():
            items.setdefault(column, []).extend(cells)


def summary(pairs: Sequence[Pair], right: np.ndarray, margins: np.ndarray) -> dict[str, float | int]:
    """Accuracies by paradigm, label and over all, from the (n,) scores 0, 0.5, 1 of pairs and their margins (nats)."""
    found: dict[str, float | int] = {}
    accuracy: dict[str, float] = {}
    labels: dict[str, dict[str, None]] = {}
    for paradigm, places in _groups([p.paradigm for p in pairs]).items():
        own = [pairs[i] for i in places]
        values = right[places]
        if own[0].task == "lexical":
            by_word = [values[x].mean() for x in _groups([p.word for p in own]).values()]
            accuracy[paradigm] = float(np.mean(by_word))
            found[f"{paradigm}.words"] = len(by_word)
        else:
            accuracy[paradigm] = float(values.mean())
        found[f"{paradigm}.accuracy"], found[f"{paradigm}.pairs"] = accuracy[paradigm], len(own)
        found[f"{paradigm}.margin"] = float(margins[places].mean())
        for label, x in _groups([p.label for p in own]).items():
            if own[0].task == "syntactic":
                found[f"{paradigm}.{label}.accuracy"] = float(values[x].mean())
                found[f"{paradigm}.{label}.pairs"] = len(x)
            elif label:
                labels.setdefault(label, {})[paradigm] = None
    for label, paradigms in labels.items():
        found[f"label.{label}.accuracy"] = float(np.mean([accuracy[p] for p in paradigms]))
    return {
        "accuracy": float(np.mean(list(accuracy.values()))),
        "paradigms": len(accuracy),
        "pairs": len(pairs),
        **found,
    }


def _groups(values: Sequence[str]) -> Mapping[str, np.ndarray]:
    """value -> (k,) places, in the order of first appearance."""
    places: dict[str, list[int]] = {}
    for i, value in enumerate(values):
        places.setdefault(value, []).append(i)
    return {value: np.array(found) for value, found in places.items()}


def _example(ids: np.ndarray, number: int) -> Example:
    zeros = np.zeros(len(ids), dtype=np.int64)
    return Example(ids, np.arange(len(ids)), zeros, {}, (number,), number)


def _occurs(data: EvaluationData, marks: Sequence[int]) -> bool:
    """Whether any of some ids occurs in the tokens of the store's train split."""
    ids = data.view("train").split.joined("ids")
    return any(
        bool(np.isin(ids.flat[a : a + n], marks).any())
        for a, n in zip(ids.first.tolist(), ids.lengths.tolist(), strict=True)
    )
