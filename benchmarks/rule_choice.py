"""Goal S17: rule choice against loops over sentences, in CPU-seconds per 10,000 questions.

* `rule-choice`: the best of four auxiliaries after a sentence.
* `rule-choice-written`: whole questions, greedily. Ours keeps keys and values and writes many questions together; the
  peer reads all that stands before each word.

Both sides have the same 6 x 512 model (GPT-2's layout, `seed_step.py`), trained for `--steps` steps of 8 pairs so that
it ends its sentences, and one thread; both ask about questions of `ood`. Parity: every word that was chosen, every
question that was written.

    python benchmarks/rule_choice.py [--rounds 5] [--items 500] [--written 200] [--steps 200]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import common
import goals
from lexarium.evaluations.evaluation import EvaluationData
from lexarium.evaluations.rule_choice import RuleChoice
from lexarium.evaluations.rule_outputs import AUXILIARY_WORDS, cut
from lexarium.evaluations.scorer import Scorer
from lexarium.foundation import registry
from lexarium.models.transformer import Transformer
from lexarium.objectives.causal import Causal
from lexarium.studies.assembly import make
from lexarium.tokens.prepare import open_tokenizer, prepare
from lexarium.training.host import settle
from peers import rule_choice_loop as peer
from peers.hf import gpt2
from seed_step import GPT2
from sides import trainer_of, work_for

BATCH, MOST = 8, 50


def both(folder: Path, steps: int) -> tuple[EvaluationData, Scorer, peer.Model]:
    """The questions, our scorer of a model trained for some steps, and transformers' model with the same weights."""
    component = lambda kind, name, **options: registry.find(kind, name).Config(**options)
    sizes = {"train": 8000, "val": 0, "test": 0, "ood": 1000}
    corpus, tokenizer = component("corpus", "question_formation", sizes=sizes), component("tokenizer", "word")
    store = prepare(corpus, tokenizer, folder / "stores")
    data = EvaluationData(store, open_tokenizer(tokenizer, store.folder))
    objective = Causal(Causal.Config(), data.tokenizer)
    config = Transformer.Config(**GPT2, dropout=0.0, feed_forward_dropout=0.0)
    how: dict[str, Any] = {"batch": BATCH, "lr": 3e-4, "eps": 1e-8}
    packing = make("packing", component("packing", "documents"))
    trainer, loader, model = trainer_of(config, store.view("train"), packing, objective, **how)
    for _ in range(steps):
        trainer.advance()
    work = work_for(config, model, loader, objective, steps=0, **how)
    theirs = gpt2(work).eval()
    forward = make("direction", component("direction", "forward"))
    return (
        data,
        Scorer(model, objective, forward, data.tokenizer),
        lambda ids: theirs(ids, use_cache=False).logits,
    )


def prefixes(data: EvaluationData, scorer: Scorer, n: int) -> list[list[int]]:
    """Ids of what stands before each of the first n answers, bos included."""
    bos = scorer.roles["bos"]
    items = RuleChoice(RuleChoice.Config(splits=("ood",), limit=n), data).prepared["ood"].items
    return [[bos, *data.tokenizer.encode(item.asked)[0].tolist()] for item in items]


def chosen(data: EvaluationData, scorer: Scorer, model: peer.Model, options: Any) -> bool:
    """Measure `rule-choice` and write; whether both chose the same words."""
    rows = prefixes(data, scorer, options.items)
    ids = [scorer.id(word) for word in AUXILIARY_WORDS]
    last: dict[str, list[str]] = {}

    def ours() -> None:
        config = RuleChoice.Config(splits=("ood",), limit=len(rows))
        last["ours"] = [str(w) for w in RuleChoice(config, data).run(scorer, 0).items["prediction"]]

    def theirs() -> None:
        last["theirs"] = [AUXILIARY_WORDS[ids.index(i)] for i in peer.choose(model, rows, ids)]

    return measured("rule-choice", ours, theirs, last, len(rows), options)


def written(data: EvaluationData, scorer: Scorer, model: peer.Model, options: Any) -> bool:
    """Measure `rule-choice-written` and write; whether both wrote the same questions."""
    rows = prefixes(data, scorer, options.written)
    last: dict[str, list[str]] = {}

    def ours() -> None:
        config = RuleChoice.Config(splits=("ood",), limit=len(rows), definition="greedy", full_sentence=True)
        last["ours"] = [str(text) for text in RuleChoice(config, data).run(scorer, 0).items["output"]]

    def theirs() -> None:
        texts = peer.write(model, rows, scorer.roles["eos"], MOST)
        last["theirs"] = [" ".join(cut(data.tokenizer.decode(ids))) for ids in texts]

    return measured("rule-choice-written", ours, theirs, last, len(rows), options)


def measured(name: str, ours: Any, theirs: Any, last: dict[str, list[str]], n: int, options: Any) -> bool:
    """Rounds of both sides in turn; the result is written."""
    ours()
    rounds = []
    for _ in range(options.rounds):
        values = {}
        for side, work in (("our", ours), ("their", theirs)):
            cpu, wall = common.timed(work)
            values |= {f"{side}_cpu": 10_000 / n * cpu, f"{side}_wall": 10_000 / n * wall}
        rounds.append(values)
    pairs = zip(last["ours"], last["theirs"], strict=True)
    same = float(np.mean([one.split() == other.split() for one, other in pairs]))
    words = float(np.mean([len(text.split()) for text in last["theirs"]]))
    parity = {"passed": same == 1, "bound": 1, "equal": same, "what": "share of equal answers"}
    middle = {side: common.median(rounds, f"{side}_cpu") for side in ("our", "their")}
    common.write(
        name, **goals.entry(name), ours=middle["our"], theirs=middle["their"], ratio=middle["their"] / middle["our"],
        rounds=rounds, questions=n, words=words, parity=parity, folder=options.output,
    )  # fmt: skip
    return same == 1


def main() -> None:
    """Measure and write the results."""
    parser = common.arguments(__doc__)
    parser.add_argument("--items", type=int, default=500, help="questions of which a word is chosen")
    parser.add_argument("--written", type=int, default=200, help="questions that are written")
    parser.add_argument("--steps", type=int, default=200, help="steps of training before")
    options = parser.parse_args()
    settle(1)
    with tempfile.TemporaryDirectory() as name:
        data, scorer, model = both(Path(name), options.steps)
        equal = [ask(data, scorer, model, options) for ask in (chosen, written)]
    if not all(equal):
        sys.exit("the answers differ")


if __name__ == "__main__":
    main()
