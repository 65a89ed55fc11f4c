"""What a model's predictions say about word boundaries: eight cues, each with a value for every position of a stream.

Let p_t be the model's distribution over what stands at position t, before it is read.

    entropy             H_t = - sum p_t(v) ln p_t(v)                                   nats
    loss                - ln p_t(x_t)                                                  nats
    rank                log2(1 + r_t), r_t symbols being more probable than x_t        bits
    boundary            p_t(utterance boundary)                                        probability
    increase_in_C       C_t less C at the position read before; 0 where none was       as C

A model that predicts features has `feature_loss`, `feature_entropy`, `feature_deviation` and `feature_boundary`
too, each with its increase: see `evaluations/predictability.py`.

All point up where a word begins. A forward model's cue at x_t belongs to the cut before x_t. A backward model reads
x_t after what follows it, so its cue at x_t belongs to the cut BEHIND x_t: its values are shifted by one position,
and the value of an utterance's first cut is that of the boundary before it, which scores never look at.

Two contexts. `stream`: utterances one after the other, an utterance boundary before, between and behind them; windows
of `window` tokens move by `stride`; the first gives all its predictions, each later one its last `stride`.
`utterance`: each utterance alone between its boundaries.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lexarium.evaluations.segmentation.stream import END, Stream

BASE = ("boundary", "entropy", "loss", "rank")
CUES = (*BASE, *(f"increase_in_{name}" for name in BASE))
"""Of every model; these vote."""
FEATURES = ("feature_loss", "feature_entropy", "feature_deviation", "feature_boundary")
"""Of models that predict features."""
DIRECTIONS = ("forward", "backward")


def cues_in_stream(scorer: Any, stream: Stream, window: int, stride: int) -> dict[str, np.ndarray]:
    """(M,) values of every cue, with the context of the utterances before (of a backward model, behind)."""
    ids = _ids(scorer, stream)
    read = np.concatenate([[ids[-1]], ids])  # an utterance boundary before the first utterance
    turned = _backward(scorer)
    read = read[::-1].copy() if turned else read
    framed = int(_reads_bos(scorer))
    starts = _window_starts(len(read), window, stride)
    rows = [read[a : a + window] for a in starts]
    targets = [np.append(row if framed else row[1:], -1) for row in rows]
    predicted = scorer.predictions(rows, targets, int(ids[-1]))
    values = np.empty((len(read), predicted[0].shape[1]))
    done = 0
    for start, found in zip(starts, predicted, strict=True):
        # state j (bos not counted) predicts the token at start + j + 1
        own = found[framed:-1]
        first = max(done, start + 1)
        values[first : start + 1 + len(own)] = own[first - start - 1 :]
        done = start + 1 + len(own)
    values[0] = values[1]  # the boundary read first is not predicted
    return _aligned(values, turned)


def cues_alone(scorer: Any, stream: Stream) -> dict[str, np.ndarray]:
    """The same with no context but the utterance's own."""
    ids = _ids(scorer, stream)
    turned, mark = _backward(scorer), int(ids[-1])
    edges = np.flatnonzero(stream.ends)
    begins = np.concatenate([[0], edges[:-1] + 1])
    framed = _reads_bos(scorer)
    rows, targets = [], []
    for a, b in zip(begins.tolist(), edges.tolist(), strict=True):
        own = ids[a:b][::-1] if turned else ids[a:b]
        rows.append(own.copy() if framed else np.concatenate([[mark], own]))
        targets.append(np.append(own, mark))
    parts = scorer.predictions(rows, targets, mark)
    if not turned:
        first = np.flatnonzero(stream.first)
        return _named(np.concatenate(parts), first)
    # predicted: x_n, ..., x_1, the boundary before them; their cuts: behind x_n, ..., behind x_1, before x_1
    first = np.cumsum([0, *map(len, parts[:-1])])
    values = _named(np.concatenate(parts), first)
    place = np.concatenate([np.arange(b, a - 1, -1) for a, b in zip(begins, edges, strict=True)])
    return {name: of_cue[place] for name, of_cue in values.items()}  # turning round twice changes nothing


def _ids(scorer: Any, stream: Stream) -> np.ndarray:
    """The stream as ids, utterance boundaries as the token that ends an utterance."""
    return np.where(stream.symbols == END, int(scorer.roles["eos"]), stream.symbols)


def _backward(scorer: Any) -> bool:
    return str(scorer.direction) == "backward"


def _reads_bos(scorer: Any) -> bool:
    return bool(getattr(scorer.objective.config, "bos", False))


def _window_starts(n: int, window: int, stride: int) -> list[int]:
    """Where windows begin: so far that every token behind the first is a target of the last `stride` of some window."""
    starts = [0]
    while starts[-1] + window < n:
        starts.append(starts[-1] + stride)
    return starts


def _aligned(values: np.ndarray, turned: bool) -> dict[str, np.ndarray]:
    """From values of the boundary read first and of M positions, in reading order, to the cues of M cuts."""
    found = _named(values, np.array([0]))
    if not turned:
        return {name: v[1:] for name, v in found.items()}
    # read: x_M-1 (a boundary), ..., x_0, the boundary before them; the cue of x_t is that of the cut before x_t+1
    return {name: v[1:][::-1] for name, v in found.items()}


def _named(values: np.ndarray, first: np.ndarray) -> dict[str, np.ndarray]:
    """The cues from loss, rank, entropy and boundary probability, and what is known of features, (N, 4) or (N, 8);
    `first`: rows before which none was read."""
    base = {
        "boundary": values[:, 3],
        "entropy": values[:, 2],
        "loss": values[:, 0],
        "rank": np.log2(1 + values[:, 1]),
        **dict(zip(FEATURES, values.T[4:], strict=False)),
    }
    found = dict(base)
    for name, value in base.items():
        with np.errstate(invalid="ignore"):  # of a model whose predictions are no numbers
            step = np.diff(value, prepend=value[:1])
        step[first] = 0.0
        found[f"increase_in_{name}"] = step
    return found
