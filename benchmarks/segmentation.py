"""Goal S17: evaluations of small phoneme models against the originals' loops, in CPU-seconds per 10,000 utterances or pairs.

* `segmentation`: eight cues and two votes of the stream of all utterances (windows of 64, stride 10), cut at peaks and at
  thresholds that the original's bounded search finds, scored. Both sides tune for F of boundaries, on the stream that is
  scored. The peer is `peers/segmentation_loop.py` with transformers' GPT-2. `segmentation-scores` is the part of it
  behind the cues: what no model is asked for.
* `minimal-pairs`: utterances against themselves with two neighbouring symbols changed round; the peer asks one text
  after another.

Both have the same untrained `gpt2_400k` and one thread. Parity of `segmentation`: precision, recall and F of boundaries, F of
words and of types at the peaks of the four base cues, and of thresholds where both searches ended at the same place; of
pairs: every score. `--text` names utterances, one letter for each symbol and spaces between words; without, 10,000 are made
up.

    python benchmarks/segmentation.py [--rounds 5] [--text FILE] [--only segmentation minimal-pairs]
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import common
import goals
from lexarium.corpora.utterances import Utterances
from lexarium.evaluations.evaluation import EvaluationData
from lexarium.evaluations.minimal_pairs import MinimalPairs
from lexarium.evaluations.scorer import Scorer
from lexarium.evaluations.segmentation.cues import cues_in_stream
from lexarium.evaluations.segmentation.gold import gold_stream
from lexarium.evaluations.segmentation.scores import score
from lexarium.evaluations.segmentation.segmentation import Segmentation
from lexarium.evaluations.segmentation.stream import END
from lexarium.foundation import registry, rng
from lexarium.foundation.config import Source, validate
from lexarium.models.build import build_model
from lexarium.models.transformer import Transformer
from lexarium.tokens.prepare import open_tokenizer, prepare
from lexarium.tokens.symbols import SymbolTokenizer
from lexarium.training.host import settle
from peers import PeerWork
from peers import segmentation_loop as peer
from sides import to_gpt2

WINDOW, STRIDE, UTTERANCES = 64, 10, 10_000
MEASURES = ("boundary.precision", "boundary.recall", "boundary.f", "token.f", "type.f")
CLOCKS = [(side, clock) for side in ("our", "their") for clock in ("cpu", "wall")]
BOUND = 1e-3
"""Of scores: near-equal values may swap ranks by rounding, which moves a cut."""
LETTERS = "abcdefghijklmnopqrstuvwyzADEGILMNOQRSTUWZ%&()*3679#~"


def made_up(path: Path) -> Path:
    """Utterances of 1 to 6 words out of 1,300 with the frequencies of Zipf's law."""
    draw = rng.generator(1, "utterances")
    words = ["".join(draw.choice(list(LETTERS), n)) for n in draw.integers(1, 7, 1300)]
    shares = 1 / np.arange(1, len(words) + 1)
    lines = [
        " ".join(draw.choice(words, n, p=shares / shares.sum())) for n in draw.integers(1, 7, UTTERANCES)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(path: Path, folder: Path) -> EvaluationData:
    """The utterances as a token store."""
    given = {"type": "utterances", "path": str(path), "form": "letters", "split": {"val": 0}}
    corpus = validate(Utterances.Config, Source(given))
    tokenizer = SymbolTokenizer.Config(unit="character")
    store = prepare(corpus, tokenizer, folder / "stores")
    return EvaluationData(store, open_tokenizer(tokenizer, store.folder))


def models(data: EvaluationData) -> tuple[Scorer, peer.Model]:
    """Ours, and transformers' with the same weights."""
    from peers.hf import gpt2

    make = lambda kind, name, *given, **options: (cls := registry.find(kind, name))(
        cls.Config(**options), *given
    )
    objective = make("objective", "causal", data.tokenizer, bos=False, eos=False)
    config = validate(Transformer.Config, Source({"type": "transformer", "preset": "gpt2_400k"}))
    model = build_model(config, objective.roles.vocab_size, seed=1).eval()
    work = PeerWork(
        n_layers=config.n_layers, n_heads=config.n_heads, d_model=config.d_model, d_ff=config.d_ff or 4 * config.d_model,
        vocab_size=objective.roles.vocab_size, max_positions=config.max_positions, activation=config.activation,
        norm=config.norm, positions=config.positions, weights=to_gpt2(model, config.n_layers), batches=[], lr=0, eps=0,
        clip=0,
    )  # fmt: skip
    theirs = gpt2(work).eval()
    scorer = Scorer(model, objective, make("direction", "forward"), data.tokenizer)
    return scorer, lambda ids: theirs(ids, use_cache=False).logits


def segmentation(data: EvaluationData, scorer: Scorer, model: peer.Model, options: Any) -> bool:
    """Measure and write; whether the scores are equal."""
    stream = gold_stream(data, "train", asks="segmentation")
    mark = int(scorer.roles["eos"])
    ids = [mark if s == END else s for s in stream.symbols.tolist()]
    symbols = [peer.UTTERANCE if s == END else data.tokenizer.symbols[s] for s in stream.symbols.tolist()]
    starts, n = stream.starts.tolist(), stream.n_utterances
    config = Segmentation.Config(
        splits=("train",), contexts=("stream",), window=WINDOW, stride=STRIDE, tune="oracle", search="bounded", items=False
    )  # fmt: skip
    last: dict[str, Any] = {}

    def our_cues() -> None:
        last["evaluation"] = Segmentation(config, data)
        last["stream"] = last["evaluation"]._streams["train"]
        last["our_cues"] = cues_in_stream(scorer, last["stream"], WINDOW, STRIDE)

    def our_scores() -> None:
        evaluation, cues, stream = last["evaluation"], last["our_cues"], last["stream"]
        for cue, ways in evaluation._cuts(cues, stream, evaluation._thetas(cues, stream)).items():
            for way, cuts in ways.items():
                last["ours", cue, way] = score(last["stream"], cuts)

    def their_cues() -> None:
        last["their_cues"] = peer.stream_cues(model, ids, mark, WINDOW, STRIDE)

    def their_scores() -> None:
        last["theirs"] = peer.scores(last["their_cues"], symbols, starts)

    parts = {"cues": (our_cues, their_cues), "scores": (our_scores, their_scores)}
    rounds = alternate(parts, options.rounds, 10_000 / n)
    apart = lambda cue, way: max(
        abs(last["ours", cue, way][m] - last["theirs"][f"{cue}.{way}.{m}"]) for m in MEASURES
    )
    peaks = max(apart(cue, "peak") for cue in peer.BASE)
    same = [cue for cue in peer.BASE if apart(cue, "threshold") <= BOUND]
    parity = {
        "passed": peaks <= BOUND, "bound": BOUND, "worst_at_peaks": peaks, "equal_thresholds": same,
        "what": f"{', '.join(MEASURES)} at peaks of {', '.join(peer.BASE)}",
    }  # fmt: skip
    whole = [
        {f"{side}_{clock}": r[f"cues_{side}_{clock}"] + r[f"scores_{side}_{clock}"] for side, clock in CLOCKS}
        | r
        for r in rounds
    ]
    only = [{f"{side}_{clock}": r[f"scores_{side}_{clock}"] for side, clock in CLOCKS} for r in rounds]
    for name, own in (("segmentation", whole), ("segmentation-scores", only)):
        write(name, own, options, utterances=n, symbols=len(stream), parity=parity)
    return peaks <= BOUND


def minimal_pairs(
    data: EvaluationData, scorer: Scorer, model: peer.Model, options: Any, folder: Path
) -> bool:
    """Measure and write; whether the scores are equal."""
    view, before = data.view("train"), data.tokenizer.roles["bos"]
    draw = rng.generator(2, "pairs")
    pairs, rows = [], []
    for i in range(len(view)):
        good = view.tokens(i)
        if len(good) < 2:
            continue
        bad, place = good.copy(), int(draw.integers(len(good) - 1))
        bad[[place, place + 1]] = good[[place + 1, place]]
        texts = ["".join(data.tokenizer.symbols[t] for t in ids.tolist()) for ids in (good, bad)]
        pairs.append({"sentence_good": texts[0], "sentence_bad": texts[1], "UID": "exchanged"})
        rows += [[before, *good.tolist()], [before, *bad.tolist()]]
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    last: dict[str, np.ndarray] = {}

    def ours() -> None:
        items = MinimalPairs(MinimalPairs.Config(path=(str(path),)), data).run(scorer, 0).items
        last["ours"] = np.stack([items["score_good"], items["score_bad"]], axis=1).reshape(-1)

    def theirs() -> None:
        last["theirs"] = np.array(peer.sentences(model, rows))

    found = alternate({"pairs": (ours, theirs)}, options.rounds, 10_000 / len(pairs))
    rounds = [{k.removeprefix("pairs_"): v for k, v in r.items()} for r in found]
    worst = float(np.abs(last["ours"] / last["theirs"] - 1).max())
    passed = worst <= 1e-4
    write(
        "minimal-pairs", rounds, options, pairs=len(pairs),
        parity={"passed": passed, "bound": 1e-4, "worst_relative": worst, "what": "log-probability of every text"},
    )  # fmt: skip
    return passed


def alternate(parts: dict[str, tuple[Any, Any]], rounds: int, scale: float) -> list[dict[str, float]]:
    """CPU and wall seconds of ours and theirs in turn, times `scale`, by part: `<part>_our_cpu`, ...; ours run once
    before, to warm up."""
    for ours, _ in parts.values():
        ours()
    found = []
    for _ in range(rounds):
        values = {}
        for place, side in enumerate(("our", "their")):
            for part, works in parts.items():
                cpu, wall = common.timed(works[place])
                values |= {f"{part}_{side}_cpu": scale * cpu, f"{part}_{side}_wall": scale * wall}
        found.append(values)
    return found


def write(name: str, rounds: list[dict[str, float]], options: Any, **more: Any) -> None:
    """The result of one comparison."""
    ours, theirs = common.median(rounds, "our_cpu"), common.median(rounds, "their_cpu")
    text = options.text.name if options.text else "made up"
    common.write(
        name, **goals.entry(name), ours=ours, theirs=theirs, ratio=theirs / ours, rounds=rounds, text=text,
        folder=options.output, **more,
    )  # fmt: skip


def main() -> None:
    """Measure and write the results."""
    parser = common.arguments(__doc__)
    names = ("segmentation", "minimal-pairs")
    parser.add_argument("--text", type=Path, help="utterances: letters are symbols, spaces between words")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    options = parser.parse_args()
    settle(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = read(options.text or made_up(folder / "utterances.txt"), folder)
        scorer, model = models(data)
        equal = []
        if "segmentation" in options.only:
            equal.append(segmentation(data, scorer, model, options))
        if "minimal-pairs" in options.only:
            equal.append(minimal_pairs(data, scorer, model, options, folder))
    if not all(equal):
        sys.exit("the scores differ")


if __name__ == "__main__":
    main()
