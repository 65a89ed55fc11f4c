"""The evaluations of small phoneme models as their repositories are described: utterance by utterance, over strings.

Written from a description of codebyzeb/TransformerSegmentation and PhonemeTransformers; no code of theirs is here.
`stream_cues`: the stream in windows of 64 tokens that move by 10, batches of them through transformers' GPT-2; of each
window its new logits are concatenated to those before, which copies all of them every time. `scores`: for each of eight cues a bounded
scalar search of the threshold, every probe of which cuts every tenth utterance anew as a string and scores it with the
measures of `wordseg`, in Python loops; then all utterances are cut and scored at that threshold and at the peaks, as are
two votes. `sentences`: the log-probability of one text after another.

What the description leaves open is done the fast way: softmax, entropy and ranks are tensor operations over the whole
stream, and gold utterances are cut once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

UTTERANCE, WORD = "UTT_BOUNDARY", "WORD_BOUNDARY"
BASE = ("boundary", "entropy", "loss", "rank")
TITLE = "the original evaluation (re-created from its description)"
Model = Callable[[Tensor], Tensor]
"""(B, T) ids -> (B, T, V) logits."""


def logits_of(
    model: Model, ids: Sequence[int], mark: int, window: int, stride: int, batch: int = 64
) -> Tensor:
    """(N, V): the logits that predict each of N ids, an utterance boundary being read before the first."""
    read = [mark, *ids]
    starts = [0]
    while starts[-1] + window < len(read):
        starts.append(starts[-1] + stride)
    rows = [read[a : a + window] for a in starts]
    found: Tensor | None = None
    for i in range(0, len(rows), batch):
        padded = torch.tensor([row + [mark] * (window - len(row)) for row in rows[i : i + batch]])
        for row, values in zip(rows[i : i + batch], model(padded), strict=True):
            if found is None:
                found = values[: len(row) - 1]  # a window predicts its own tokens only
            else:
                new = (len(row) - window) + stride
                found = torch.cat([found, values[len(row) - 1 - new : len(row) - 1]])
    assert found is not None
    return found


def cues_of(logits: Tensor, ids: Sequence[int], mark: int) -> dict[str, list[float]]:
    """Eight cues, each (N,)."""
    scores = logits.log_softmax(-1)
    own = torch.tensor(ids)
    order = logits.argsort(dim=-1, descending=True, stable=True)
    base = {
        "boundary": scores[:, mark].exp(),
        "entropy": -(scores.exp() * scores).sum(-1),
        "loss": -scores.gather(1, own[:, None])[:, 0],
        "rank": torch.log2(1.0 + (order == own[:, None]).int().argmax(-1)),
    }
    rises = {f"increase_in_{n}": torch.cat([v.new_zeros(1), v[1:] - v[:-1]]) for n, v in base.items()}
    return {name: values.tolist() for name, values in (base | rises).items()}


def peaks_of(values: Sequence[float]) -> list[bool]:
    """Above both neighbours; beyond the stream they are 0."""
    around = [0.0, *values, 0.0]
    return [around[i - 1] < around[i] > around[i + 1] for i in range(1, len(around) - 1)]


def cut(symbols: Sequence[str], cuts: Sequence[bool]) -> list[str]:
    """The utterances of a stream as strings with word boundaries between their words."""
    pieces: list[str] = []
    for symbol, here in zip(symbols, cuts, strict=True):
        if here and symbol != UTTERANCE:
            pieces.append(WORD)
        pieces.append(symbol)
    return [part for part in (p.strip() for p in " ".join(pieces).split(UTTERANCE)) if part]


def words_of(utterance: str) -> list[str]:
    """The words of such a string, their symbols joined."""
    return [word for word in ("".join(w.split()) for w in utterance.split(WORD)) if word]


def evaluate(predicted: Sequence[str], gold: Sequence[str]) -> dict[str, float]:
    """Boundaries without edges, words and word types of all utterances."""
    boundaries, tokens, types = [0, 0, 0], [0, 0, 0], (set(), set())
    for one, other in zip(predicted, gold, strict=True):
        places, spans = [], []
        for side, utterance in enumerate((one, other)):
            found, start = [], 0
            for word in words_of(utterance):
                found.append((start, start + len(word)))
                types[side].add(word)
                start += len(word)
            spans.append(set(found))
            places.append({a for a, _ in found if a > 0})
        for counts, (a, b) in ((boundaries, places), (tokens, spans)):
            counts[0] += len(a & b)
            counts[1] += len(a)
            counts[2] += len(b)
    sets = [len(types[0] & types[1]), len(types[0]), len(types[1])]
    named = {"boundary": boundaries, "token": tokens, "type": sets}
    share = lambda part, whole: part / whole if whole else 0.0
    result = {}
    for name, (hits, all_of_one, all_of_other) in named.items():
        result[f"{name}.precision"] = share(hits, all_of_one)
        result[f"{name}.recall"] = share(hits, all_of_other)
        result[f"{name}.f"] = share(2 * hits, all_of_one + all_of_other)
    return result


def threshold(values: Sequence[float], symbols: Sequence[str], starts: Sequence[bool], aim: str) -> float:
    """The threshold a bounded search finds on utterances 0, 10, 20, ..."""
    number, chosen = 0, []
    for i, symbol in enumerate(symbols):
        if number % 10 == 0:
            chosen.append(i)
        number += symbol == UTTERANCE
    own = [values[i] for i in chosen]
    part = [symbols[i] for i in chosen]
    gold = cut(part, [starts[i] for i in chosen])
    loss = lambda theta: -evaluate(cut(part, [v > theta for v in own]), gold)[f"{aim}.f"]
    return float(minimize_scalar(loss, bounds=(min(own), max(own)), method="bounded").x)


def stream_cues(
    model: Model, ids: Sequence[int], mark: int, window: int, stride: int
) -> dict[str, list[float]]:
    """Eight cues of a stream."""
    with torch.inference_mode():
        return cues_of(logits_of(model, ids, mark, window, stride), ids, mark)


def scores(
    cues: dict[str, list[float]], symbols: Sequence[str], starts: Sequence[bool], aim: str = "boundary"
) -> dict[str, float]:
    """`<cue>.<strategy>.<measure>` of eight cues and two votes. The stream ends with an utterance boundary."""
    gold = cut(symbols, starts)
    cuts: dict[str, list[bool]] = {}
    for name, values in cues.items():
        theta = threshold(values, symbols, starts, aim)
        cuts[f"{name}.threshold"] = [v > theta for v in values]
        cuts[f"{name}.peak"] = peaks_of(values)
    for way in ("peak", "threshold"):
        decisions = [cuts[f"{name}.{way}"] for name in cues]
        if way == "peak":  # at the ends, without two neighbours, no cue votes
            decisions = [[False, *d[1:-1], False] for d in decisions]
        votes = [sum(at) / len(decisions) for at in zip(*decisions, strict=True)]
        cuts[f"vote_{way}.threshold"] = [v > 0.5 for v in votes]
        cuts[f"vote_{way}.peak"] = peaks_of(votes)
    found = {}
    for name, decision in cuts.items():
        found |= {f"{name}.{m}": v for m, v in evaluate(cut(symbols, decision), gold).items()}
    return found


def sentences(model: Model, rows: Sequence[Sequence[int]]) -> list[float]:
    """Summed log-probability of each row's tokens behind its first, one forward pass each."""
    found = []
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([row])
            scores = model(ids)[0, :-1].log_softmax(-1)
            found.append(float(scores.gather(1, ids[0, 1:, None]).sum()))
    return found
