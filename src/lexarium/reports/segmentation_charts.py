"""Figures of word segmentation: scores of cues and baselines, a map of arms and cues, utterances with their cues,
scores against thresholds, and learning curves against tokens read.

TP is transitional probability; a counter's cue is boundary probability where no other is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lexarium.reports.figures import DASHES, Figure, Spec, encode, layer, row_axis, slug, title_lines, wrap
from lexarium.reports.words import Words, number
from lexarium.studies.segmentation import BASE, BASELINE, CUES

Row = Mapping[str, Any]
CUE_WORDS = {
    "boundary": "boundary probability",
    "entropy": "entropy",
    "loss": "loss",
    "rank": "rank",
    "feature_boundary": "boundary feature",
    "feature_entropy": "feature entropy",
    "feature_loss": "feature loss",
    "feature_deviation": "deviation of feature losses",
}
CUE_WORDS |= {f"increase_in_{name}": f"increase in {words}" for name, words in CUE_WORDS.items()}
CUE_WORDS |= {"vote_peak": "vote of all peaks", "vote_threshold": "vote of all thresholds"}
MEASURE_WORDS = {"ftp": "forward TP", "btp": "backward TP"}
MEASURE_WORDS |= {"mi": "mutual information"}
BASELINE_WORDS = {
    "utterance": "no boundary at all",
    "symbol": "a boundary everywhere",
    "random_half": "random, half of all positions",
    "random_oracle": "random, words per symbol",
    "random_true": "random, the true rate",
    **{f"{m}_relative": f"{words}, minima" for m, words in MEASURE_WORDS.items()},
    **{f"{m}_absolute": f"{words}, below the mean" for m, words in MEASURE_WORDS.items()},
    "dibs_phrasal": "diphones, phrasal",
    "dibs_lexical": "diphones, lexical",
    "dibs_gold": "diphones, supervised",
    "puddle": "growing lexicon (PUDDLE)",
    "puddle_folds": "growing lexicon (PUDDLE), folds",
    "puddle_legacy": "growing lexicon (PUDDLE), edges as in wordseg",
    "puddle_folds_legacy": "growing lexicon (PUDDLE), as in wordseg",
    "ftp_relative_legacy": "forward TP, minima, as in wordseg",
    "multicue_14": "vote of cues and lexicon (2014)",
    "multicue_17": "vote of successor variety (2017)",
    "multicue_23": "vote of cues and lexicon (2023)",
}
PALETTE = {"cue": "cue of the model", BASELINE: "baseline"}


def cue_words(name: str) -> str:
    """A cue or a baseline in words."""
    parts = name.split("_")
    if parts[0] == "ngram" and len(parts) >= 3:
        how = ", threshold" if parts[-1] == "threshold" else ""
        cue = "" if parts[2] == "boundary" else f", {parts[2]}"
        return f"counter after {parts[1]} symbol{'s' if parts[1] != '1' else ''}{cue}{how}"
    return CUE_WORDS.get(name) or BASELINE_WORDS.get(name, name)


def segmentation_figures(found: Mapping[str, Any] | None, words: Words) -> list[Figure]:
    """Every figure there are data for; the first stream is drawn, in each direction of models of both, all of them are
    in the tables."""
    if not found or not found["streams"]:
        return []
    stream = next(row["base"] for row in found["scores"] if row["stream"] == found["streams"][0])
    split = stream.split(" ")[0].split(".")[0]
    of = lambda row: split if row["strategy"] == BASELINE else stream
    scores = _seen([row for row in found["scores"] if row["base"] == of(row)])
    missing = found["missing"].get(found["streams"][0])
    figures = [_bars(scores, stream, words, missing), _precision_recall(scores, stream, words)]
    if found["left_out"]:
        named = "; ".join(words.levels(levels) for levels in found["left_out"])
        figures[0] = replace(
            figures[0],
            caption=f"{figures[0].caption} Left out, for their predictions are no numbers: {named}.",
        )
    figures.append(_map(scores, stream, words, found["tune"][stream]))
    curves = [row for row in found["curves"] if row["base"] == stream]
    if len({row["tokens"] for row in curves}) > 1:
        figures.append(_curves(curves, stream, words))
    figures += [f for i, one in enumerate(found["utterances"]) for f in _utterances(f"utt{i}", one, words)]
    if found["thresholds"]:
        figures.append(_thresholds(found["thresholds"], words))
    return figures


def _beside(name: str) -> bool:
    """Whether a baseline is in the tables only: of counters, the boundary probability at peaks is drawn."""
    return name.startswith("ngram_") and not name.endswith("_boundary")


def _arm(row: Row, words: Words) -> str:
    arm = words.levels(row["levels"], named=False) or "all runs"
    return f"{arm}, {row['view']}" if row["view"] else arm


def _seen(rows: Sequence[Row]) -> list[Row]:
    """The same; baselines beside each direction of a model of both."""
    views: dict[str, list[str]] = {}
    for row in rows:
        if row["strategy"] != BASELINE:
            own = views.setdefault(str(row["levels"]), [])
            own += [row["view"]] * (row["view"] not in own)
    return [
        {**row, "view": view}
        for row in rows
        for view in (views.get(str(row["levels"]), [""]) if row["strategy"] == BASELINE else [row["view"]])
    ]


def _arms(rows: Sequence[Row], words: Words) -> list[str]:
    return list(dict.fromkeys(_arm(row, words) for row in rows))


def _bars(rows: Sequence[Row], stream: str, words: Words, missing: Mapping[str, int] | None = None) -> Figure:
    """Boundary F of every cue and baseline with its interval, one panel per arm."""
    # thresholds are drawn where nothing is cut at peaks
    strategy = "peak" if any(row["strategy"] == "peak" for row in rows) else "threshold"
    shown = [row for row in rows if row["strategy"] in (strategy, BASELINE) and not _beside(row["cue"])]
    shown = [row for row in shown if "boundary.f" in row["scores"]]
    arms = _arms([row for row in shown if row["strategy"] != BASELINE], words)
    panels = [
        _bars_panel(f"seg{i}", arm, [row for row in shown if _arm(row, words) == arm])
        for i, arm in enumerate(arms)
    ]
    caption = (
        "Dot: mean over seeds at the end of training; bar: its 95% t interval, where there are several."
        + {
            "peak": " Cues of models and counters are cut at their peaks, which needs no parameter; thresholds are in"
            " the tables.",
            "threshold": " Cues of models are cut above tuned thresholds, counters at their peaks.",
        }[strategy]
        + " TP: transitional probability. Counters: boundary probability."
    )
    if missing:
        caption += (
            f" Symbols that no model can know: {missing['unknown']:,} outside the vocabulary,"
            f" {missing['unseen']:,} that training never has."
        )
    title = f"Boundaries found ({stream}): cues of models beside baselines"
    legend = [(name, i) for i, name in enumerate(PALETTE.values())]
    return Figure("segmentation-scores", title, caption, panels, legend, dots=True)


def _bars_panel(name: str, arm: str, rows: Sequence[Row]) -> Spec:
    data = []
    for row in sorted(rows, key=lambda row: -row["scores"]["boundary.f"]["mean"]):
        score = row["scores"]["boundary.f"]
        ends = {
            k: score["mean"] if score[k] is None else min(1.0, max(0.0, score[k])) for k in ("low", "high")
        }
        kind = PALETTE[BASELINE if row["strategy"] == BASELINE else "cue"]
        data.append({"row": cue_words(row["cue"]), "kind": kind, "mean": score["mean"], **ends})
    y = encode("row", "N", sort=[d["row"] for d in data], title=None, axis=row_axis())
    title = "F of boundaries inside utterances"
    x = encode("mean", title=title, scale={"domain": [0, 1]}, axis={"tickCount": 6})
    color = encode("kind", "N", scale={"domain": list(PALETTE.values())}, title=None)
    tips = [encode("row", "N"), *(encode(k, format=".3f") for k in ("mean", "low", "high"))]
    bar, low = {"type": "rule", "strokeWidth": 2.2}, {**x, "field": "low"}
    layers = [
        layer(name, bar, x=low, x2={"field": "high"}, y=y, color=color),
        layer(name, {"type": "circle", "size": 70, "opacity": 1}, x=x, y=y, color=color, tooltip=tips),
    ]
    return {"title": title_lines(arm), "height": 21 * len(data), "layer": layers, "datasets": {name: data}}


SHORT = {"boundary": "boundary p"}
"""Names of cues where there is little room."""
STRATEGIES = {"peak": "at peaks", "threshold": "above a threshold"}


def _precision_recall(rows: Sequence[Row], stream: str, words: Words) -> Figure:
    """Precision and recall of the four cues under both strategies, with intervals, one panel per arm."""
    shown = [row for row in rows if row["cue"] in BASE and "boundary.f" in row["scores"]]
    panels = [
        _precision_panel(f"pr{i}", arm, [row for row in shown if _arm(row, words) == arm])
        for i, arm in enumerate(_arms(shown, words))
    ]
    caption = (
        "Circles: cut at peaks. Triangles: cut above a tuned threshold. Mean over seeds with 95% t intervals;"
        " boundaries inside utterances."
    )
    legend = [(cue_words(cue), i) for i, cue in enumerate(BASE)]
    title = f"Precision and recall of every cue ({stream})"
    return Figure("segmentation-precision-recall", title, caption, panels, legend, dots=True)


def _precision_panel(name: str, arm: str, rows: Sequence[Row]) -> Spec:
    data = []
    for row in rows:
        one = {"cue": cue_words(row["cue"]), "strategy": STRATEGIES[row["strategy"]]}
        for measure in ("precision", "recall"):
            score = row["scores"][f"boundary.{measure}"]
            one[measure] = score["mean"]
            for k in ("low", "high"):
                one[f"{measure}_{k}"] = score["mean"] if score[k] is None else min(1.0, max(0.0, score[k]))
        data.append(one)
    x = encode("recall", title="recall of boundaries", scale={"domain": [0, 1]}, axis={"tickCount": 5})
    y = encode("precision", title="precision", scale={"domain": [0, 1]}, axis={"tickCount": 5})
    color = encode("cue", "N", scale={"domain": [cue_words(cue) for cue in BASE]}, title=None)
    shapes = {"domain": list(STRATEGIES.values()), "range": ["circle", "triangle-up"]}
    shape = encode("strategy", "N", scale=shapes, title=None)
    tips = [encode("cue", "N"), encode("strategy", "N"), encode("precision", format=".3f")]
    tips += [encode("recall", format=".3f")]
    bar = {"type": "rule", "strokeWidth": 1.4, "opacity": 0.7}
    point = {"type": "point", "filled": True, "size": 75, "opacity": 1}
    across, up = {**x, "field": "recall_low"}, {**y, "field": "precision_low"}
    layers = [
        layer(name, bar, x=across, x2={"field": "recall_high"}, y=y, color=color),
        layer(name, bar, x=x, y=up, y2={"field": "precision_high"}, color=color),
        layer(name, point, x=x, y=y, color=color, shape=shape, tooltip=tips),
    ]
    return {"title": title_lines(arm), "height": 240, "layer": layers, "datasets": {name: data}}


def _map(rows: Sequence[Row], stream: str, words: Words, tune: str) -> Figure:
    """Arms by cues, one panel per strategy."""
    panels = []
    for strategy in ("peak", "threshold"):
        own = [row for row in rows if row["strategy"] == strategy and "boundary.f" in row["scores"]]
        if not own:
            continue
        data = [
            {
                "arm": wrap(_arm(row, words), 24),
                "cue": cue_words(row["cue"]),
                "f": row["scores"]["boundary.f"]["mean"],
            }
            for row in own
        ]
        for one in data:
            one["text"] = f"{100 * one['f']:.0f}"
        present = {row["cue"] for row in own}
        order = [cue_words(cue) for cue in CUES if cue in present]
        tilted = {
            "labelAngle": -65,
            "labelAlign": "left",
            "orient": "top",
            "labelLimit": 220,
            "domain": False,
        }
        x = encode("cue", "N", sort=order, title=None, axis={**tilted, "ticks": False})
        y = encode("arm", "N", sort=list(dict.fromkeys(d["arm"] for d in data)), title=None, axis=row_axis())
        ramp = {"domain": [0, 1], "range": ["#f3f6fa", "#0b4f8a"]}
        name = f"map{strategy}"
        parts = {"light": [d for d in data if d["f"] > 0.5], "dark": [d for d in data if d["f"] <= 0.5]}
        layers = [layer(name, {"type": "rect"}, x=x, y=y, color=encode("f", scale=ramp, legend=None))]
        for ink, colour in (("light", "#ffffff"), ("dark", "#20242a")):
            mark = {"type": "text", "fontSize": 11, "color": colour}
            layers.append(layer(f"{name}{ink}", mark, x=x, y=y, text=encode("text", "N")))
        datasets = {name: data} | {f"{name}{ink}": rows for ink, rows in parts.items()}
        told = {"peak": "cut at peaks", "threshold": "cut above a tuned threshold"}[strategy]
        height = 40 * len({d["arm"] for d in data})
        panels.append({"title": told, "height": height, "layer": layers, "datasets": datasets})
    how = {
        "crossed": "Thresholds of each half of the utterances are chosen on the other half.",
        "oracle": "Thresholds are chosen on the very utterances that are scored: no fair score.",
    }
    caption = "F of boundaries inside utterances, percent, mean over seeds. " + how[tune]
    return Figure("segmentation-map", f"Which cue, in which arm ({stream})", caption, panels)


def _curves(rows: Sequence[Row], stream: str, words: Words) -> Figure:
    """Boundary F at peaks against tokens read, one panel per arm."""
    panels = []
    domain = [cue_words(cue) for cue in BASE]
    for i, arm in enumerate(_arms(rows, words)):
        own = [
            {
                "cue": cue_words(row["cue"]),
                "run": row["run"],
                "seed": row["seed"],
                "tokens": row["tokens"],
                "f": row["value"],
            }
            for row in rows
            if _arm(row, words) == arm
        ]
        means: dict[tuple[str, int], list[float]] = {}
        for row in own:
            means.setdefault((row["cue"], row["tokens"]), []).append(row["f"])
        mean = [{"cue": cue, "tokens": t, "f": sum(v) / len(v)} for (cue, t), v in means.items()]
        color = encode("cue", "N", scale={"domain": domain}, title=None)
        x = encode("tokens", title="tokens read", axis={"format": "~s", "grid": False, "tickCount": 5})
        # one axis for all panels: what is noise in one of its own looks like learning
        y = encode("f", title="boundary F at peaks", scale={"domain": [0, 1]}, axis={"tickCount": 6})
        dashes = {"domain": domain, "range": DASHES[: len(domain)]}
        layers = [
            layer(
                f"tok{i}",
                {"type": "line", "strokeWidth": 1, "opacity": 0.35},
                x=x,
                y=y,
                color=color,
                detail=encode("run", "N"),
            ),
            layer(
                f"tok{i}mean",
                {"type": "line", "strokeWidth": 2.6},
                x=x,
                y=y,
                color=color,
                strokeDash=encode("cue", "N", scale=dashes, legend=None),
            ),
        ]
        data = {f"tok{i}": own, f"tok{i}mean": mean}
        if len({row["tokens"] for row in own}) == 1:  # no line has one point
            layers.append(layer(f"tok{i}mean", {"type": "circle", "size": 40}, x=x, y=y, color=color))
        panels.append({"title": title_lines(arm), "height": 230, "layer": layers, "datasets": data})
    caption = "Thin: one run each. Thick: mean of the seeds."
    if min(row["tokens"] for row in rows) == 0:
        caption += " The first point is the untrained model."
    legend = [(name, i) for i, name in enumerate(domain)]
    return Figure(
        "segmentation-tokens", f"Boundaries found against tokens read ({stream})", caption, panels, legend
    )


def _utterances(name: str, one: Row, words: Words) -> list[Figure]:
    """One figure per arm: every shown utterance a panel with the four cues below each other."""
    panels = [_utterance(f"{name}u{u}", shown) for u, shown in enumerate(one["utterances"])]
    if not panels:
        return []
    caption = (
        "One bar per symbol: the cue of the boundary before it, as a share of its largest value here. A grey line"
        " stands where a word begins; dashed: the tuned threshold. Above: a green dot for a boundary found, a grey one"
        f" for a boundary missed, an orange plus where there is none. Boundaries at peaks; {one['stream']}, seed"
        f" {one['seed']}."
    )
    title = f"What the model sees: {_arm(one, words)}"
    return [Figure(f"segmentation-utterances-{slug(_arm(one, words))}", title, caption, panels)]


def _utterance(name: str, shown: Row) -> Spec:
    """The four cues below each other, each a row of stems; rows are heights of one scale, so that stems stand."""
    symbols = shown["symbols"]
    words = [""]
    for symbol, gold in zip(symbols[:-1], shown["gold"], strict=False):
        words += [""] * gold
        words[-1] += symbol
    x = encode("place", title=None, axis=None, scale={"domain": [-0.6, len(symbols) - 0.4], "nice": False})
    y = encode("base", axis=None, scale={"domain": [-4.5, 1.5], "nice": False})
    at, edge = {**y, "field": "at"}, {**x, "field": "edge"}
    kinds = {"domain": ["right", "missed", "wrong"], "range": ["#009E73", "#8a919c", "#D55E00"]}
    shapes = {"domain": ["right", "missed", "wrong"], "range": ["circle", "circle", "cross"]}
    marked = {
        "color": encode("kind", "N", scale=kinds, legend=None),
        "shape": encode("kind", "N", scale=shapes, legend=None),
    }
    tips = [encode("symbol", "N"), encode("cue", "N"), encode("value", "N")]
    stem, dot = {"type": "rule", "strokeWidth": 5, "color": "#3A9BD0"}, {"type": "point", "filled": True}
    small = {"type": "text", "style": "reference-text", "align": "left"}
    dashed = {"type": "rule", "style": "reference", "strokeDash": [4, 3], "strokeWidth": 1.2}
    told = [encode("cue", "N"), encode("theta", "N")]
    letter = {"type": "text", "style": "ink-text", "baseline": "top"}
    layers = [
        layer(f"{name}gold", {"type": "rule", "style": "reference", "strokeWidth": 1}, x=edge),
        layer(f"{name}stems", stem, x=x, y=y, y2={"field": "top"}, tooltip=tips),
        layer(f"{name}thetas", dashed, x=x, x2={"field": "until"}, y=at, tooltip=told),
        layer(f"{name}marks", {**dot, "size": 42, "opacity": 1}, x=edge, y=at, **marked),
        layer(f"{name}names", small, x={"value": 0}, y=at, text=encode("cue", "N")),
        layer(f"{name}letters", letter, x=x, y={"value": 264}, text=encode("symbol", "N")),
    ]
    data = {f"{name}{kind}": rows for kind, rows in _utterance_rows(shown).items()}
    return {"title": title_lines(" ".join(words), 60), "height": 260, "layer": layers, "datasets": data}


def _utterance_rows(shown: Row) -> dict[str, list[dict[str, Any]]]:
    """Stems, marks, names of cues, gold boundaries and letters of one utterance."""
    symbols = shown["symbols"]
    stems, marks, names, thetas = [], [], [], []
    for row, cue in enumerate(BASE):
        base, values = -1.45 * row, shown["cues"][cue]
        top = max(values) if max(values) > 0 else 1.0
        names.append({"cue": SHORT.get(cue, cue), "at": base + 1.28})
        theta = shown["thetas"][cue]
        if theta is not None and 0 < theta <= top:
            ends = {"place": -0.5, "until": len(symbols) - 0.5}
            thetas.append({**ends, "cue": cue_words(cue), "theta": number(theta), "at": base + theta / top})
        for k, (symbol, value) in enumerate(zip(symbols, values, strict=True)):
            one = {"place": k, "symbol": symbol, "cue": cue_words(cue), "value": number(value)}
            stems.append({**one, "base": base, "top": base + max(0.0, value) / top})
            gold, cut = shown["gold"][k], shown["cuts"][cue][k]
            if gold or cut:
                kind = "right" if gold and cut else "missed" if gold else "wrong"
                marks.append({"edge": k - 0.5, "at": base + 1.1, "kind": kind})
    golds = [{"edge": k - 0.5} for k, gold in enumerate(shown["gold"]) if gold]
    letters = [{"place": k, "symbol": symbol} for k, symbol in enumerate(symbols)]
    return {
        "gold": golds, "stems": stems, "marks": marks, "names": names, "letters": letters, "thetas": thetas
    }  # fmt: skip


def _thresholds(found: Sequence[Row], words: Words) -> Figure:
    """Precision, recall and F against the share of positions below the threshold, one panel per arm and cue."""
    panels = []
    names = {"f": "F", "precision": "precision", "recall": "recall"}
    for i, one in enumerate(found):
        for cue in ("boundary", "entropy"):
            rows = [
                {"share": row["share"], "theta": number(row["theta"]), "measure": names[m], "value": row[m]}
                for row in one["rows"]
                for m in names
                if row["cue"] == cue and row[m] is not None
            ]
            color = encode("measure", "N", scale={"domain": list(names.values())}, title=None)
            x = encode(
                "share", title="share of positions below the threshold", axis={"format": "%", "grid": False}
            )
            y = encode("value", title=None, scale={"domain": [0, 1]}, axis={"tickCount": 6})
            tips = [encode("measure", "N"), encode("theta", "N"), encode("value", format=".3f")]
            dashes = {"domain": list(names.values()), "range": DASHES[: len(names)]}
            dash = encode("measure", "N", scale=dashes, legend=None)
            name = f"theta{i}{cue}"
            mark = {"type": "line", "strokeWidth": 2.2}
            panels.append(
                {
                    "title": title_lines(f"{_arm(one, words)} | {cue_words(cue)}"),
                    "height": 210,
                    "layer": [layer(name, mark, x=x, y=y, color=color, strokeDash=dash, tooltip=tips)],
                    "datasets": {name: rows},
                }
            )
    caption = (
        f"Boundaries inside utterances of {found[0]['stream'].split('.')[0]}, of the first seed of each arm; the"
        " threshold stands in the tooltip."
    )
    legend = [(name, i) for i, name in enumerate(names.values())]
    return Figure("segmentation-thresholds", "Scores against the threshold", caption, panels, legend)
