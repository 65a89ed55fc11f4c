"""From a study file to its points: levels, whole components and dotted paths, exclusions, presets, stages, selections."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from lexarium.foundation.config import ConfigError, parse_yaml, validate
from lexarium.foundation.types import UserError
from lexarium.studies.study import Point, Study
from lexarium.studies.study_config import StudyConfig, catalog_names, find_study, flatten, load_study

BASE = """
study: small
claim: something is so
base:
  corpus: {type: question_formation, sizes: {train: 100, val: 10, test: 0, ood: 10}}
  model: {type: transformer, n_layers: 2, n_heads: 2, d_model: 16}
  optimizer: {type: adamw, lr: 1e-3}
  train: {max_steps: 20, global_batch_size: 4}
  evaluations: [{type: loss, every: 10}]
"""


def load(text: str = "", overrides: Any = (), seeds: Any = None) -> Study:
    source = parse_yaml(BASE + text, "s.yaml")
    return Study(validate(StudyConfig, source), source, None, overrides, seeds)


def points(text: str = "", only: Any = None, **more: Any) -> list[Point]:
    return load(text, **more).expand(Path("runs"), only)


def test_without_axes_there_is_one_point_per_seed() -> None:
    found = points("seeds: [4, 2]\n")
    assert [(p.name, p.seed, p.config.seed, p.levels, p.stage, p.parent) for p in found] == [
        ("seed=4", 4, 4, {}, "base", None),
        ("seed=2", 2, 2, {}, "base", None),
    ]
    assert [p.seed for p in points()] == [1]
    assert [p.seed for p in points("seeds: [4, 2]\n", seeds=[9, 8])] == [9, 8]


def test_a_list_axis_is_a_path_and_its_values() -> None:
    found = points("axes: {model.n_layers: [1, 3], direction.type: [forward, backward]}\nseeds: [1, 2]\n")
    combinations = list(itertools.product(["1", "3"], ["forward", "backward"], [1, 2]))
    assert [(p.levels["model.n_layers"], p.levels["direction.type"], p.seed) for p in found] == combinations
    assert [
        (str(p.config.model.n_layers), p.config.direction.type, p.config.seed) for p in found
    ] == combinations
    assert found[0].name == "model.n_layers=1/direction.type=forward/seed=1"
    assert len({p.run for p in found}) == 8
    assert all(
        p.run.endswith(p.run[-10:]) and p.run.startswith("question-formation-transformer-") for p in found
    )


def test_levels_of_every_plain_kind_have_names() -> None:
    found = points(
        "axes: {objective.bos: [true, false], model.d_ff: [null, 12], optimizer.lr: [0.1, 1e-4]}\n"
    )
    assert {axis: sorted({p.levels[axis] for p in found}) for axis in found[0].levels} == {
        "objective.bos": ["false", "true"],
        "model.d_ff": ["12", "none"],
        "optimizer.lr": ["0.0001", "0.1"],
    }


def test_a_mapping_axis_sets_several_things_and_whole_components_come_first() -> None:
    found = points(
        """
axes:
  family:
    small: {model.d_model: 8, model.n_heads: 1}
    gru: {model.d_model: 24, model: {type: recurrent, cell: gru}, optimizer.lr: 0.5}
    base: {}
    same: null
"""
    )
    by_level = {p.levels["family"]: p.config for p in found}
    assert (by_level["small"].model.d_model, by_level["small"].model.n_layers) == (8, 2)
    gru = by_level["gru"]
    assert (gru.model.type, gru.model.cell, gru.model.d_model, gru.model.n_layers) == (
        "recurrent",
        "gru",
        24,
        2,
    )
    assert gru.optimizer.lr == 0.5
    runs = {p.levels["family"]: p.run for p in found}
    assert runs["base"] == runs["same"] != runs["small"], "points with the same science are the same run"


def test_a_component_of_one_axis_and_a_path_into_it_of_another() -> None:
    for axes in (
        "family: {gru: {model: {type: recurrent, cell: gru}}}, model.d_model: [8, 12]",
        "model.d_model: [8, 12], family: {gru: {model: {type: recurrent, cell: gru}}}",
    ):
        found = points(f"axes: {{{axes}}}\n")
        assert [(p.config.model.cell, p.config.model.d_model) for p in found] == [("gru", 8), ("gru", 12)]


def test_a_wider_path_applies_before_a_narrower_one_whatever_their_order() -> None:
    for axes in (
        "view: {half: {view: {fraction: 0.5}}}, view.splits: [[train], [val]]",
        "view.splits: [[train], [val]], view: {half: {view: {fraction: 0.5}}}",
    ):
        found = points(f"axes: {{{axes}}}\n")
        assert {(p.config.view.fraction, p.config.view.splits) for p in found} == {
            (0.5, ("train",)),
            (0.5, ("val",)),
        }


def test_nested_settings_of_a_level_are_paths() -> None:
    (found,) = points("axes: {size: {tiny: {model: {d_model: 8, n_heads: 1}, train: {max_steps: 3}}}}\n")
    assert (found.config.model.d_model, found.config.model.n_layers, found.config.train.max_steps) == (
        8,
        2,
        3,
    )
    assert found.config.train.global_batch_size == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("axes: {a: {x: {model.d_model: 8}}, model.d_model: [8, 16]}", r"model\.d_model: set by both a=x and model\.d_model=8"),
        ("axes: {a: {x: {model.d_model: 8, model: {d_model: 9}}}}", r"model\.d_model: set twice in one place"),
        ("axes: {model.n_layers: [1, 1]}", r"axis 'model\.n_layers': a level appears twice"),
        ("axes: {model.n_layers: [1, '1']}", r"axis 'model\.n_layers': a level appears twice"),
        ("axes: {model.n_layers: []}", r"axes: axis 'model\.n_layers': expected a list of values or a mapping of levels"),
        ("axes: {model.n_layers: 3}", r"axes: axis 'model\.n_layers': expected a list"),
        ("axes: {a: {x: 3}}", r"axes: axis 'a', level 'x': expected a mapping of paths, found 3"),
        ("seeds: [1, 1]", "seeds: a seed appears twice"),
        ("seeds: []", "seeds"),
        ("axes: {model.depth: [1]}", r"point model\.depth=1/seed=1: axis model\.depth=1: model\.depth: unknown key; did you mean "),
        ("axes: {a: {x: {model.n_layer: 1}}}", r"point a=x/seed=1: axis a=x: model\.n_layer: unknown key; did you mean 'n_layers'"),
        ("axes: {a: {x: {model.n_layers.deep: 1}}}", r"axis a=x: model\.n_layers\.deep: model\.n_layers is not a mapping"),
        ("axes: {a: {gru: {model: {type: recurrent}}, t: {}}, model.n_heads: [1, 2]}", r"point a=gru/model\.n_heads=1/seed=1: axis model\.n_heads=1: model\.n_heads: unknown key"),
        ("axes: {objective.type: [seq2seq]}", "point objective.type=seq2seq/seed=1: objective 'seq2seq' gives a source to read"),
        ("exclude: [{direction: x}]", r"exclude: no axis 'direction' \(axes: "),
        ("axes: {direction.type: [forward]}\nexclude: [{direction.type: backwards}]", r"exclude: axis 'direction\.type' has no level 'backwards' \(levels: forward\)"),
        ("axes: {direction.type: [forward]}\nexclude: [{direction.type: forward}]", "no point is left"),
        ("stuyd: x", "stuyd: unknown key; did you mean 'study'"),
        ("match: {axis: a, to: b, adjust: {}}", "match.axis: no axis 'a'"),
    ],
    ids=lambda x: x[:45],
)  # fmt: skip
def test_what_cannot_be_meant(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        points(text + "\n")


def test_an_error_names_the_line_of_the_base() -> None:
    with pytest.raises(ConfigError, match=r"point seed=1: s\.yaml:10: plan: .*found 3"):
        points("  plan: 3\n")


# --- exclusions and selections ----------------------------------------------------------------------

GRID = (
    "axes: {direction.type: [forward, backward], model.n_layers: [1, 2, 3], objective.bos: [true, false]}\n"
)


COMPARE = "axes: {model.n_layers: [1, 2]}\ncompare: [{metric: %s, axis: model.n_layers, from: 1, to: 2, as: difference}]\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            COMPARE % "los.val",
            r"compare\.0\.metric: 'los\.val' .* no evaluation is named 'los' \(evaluations: loss\)",
        ),
        (
            COMPARE % "loss.vall",
            r"'loss\.vall' .*: evaluation 'loss' looks at val, so .* loss\.val and so on",
        ),
        ("report: {curves: [loss.val, rule_choice.val.other]}\n", r"report\.curves: .* named 'rule_choice'"),
        ("report: {stability: loss.test}\n", r"report\.stability: 'loss\.test'"),
    ],
)
def test_a_metric_that_nothing_measures_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        points(text)
    points(COMPARE % "loss.val.perplexity")


def test_exclusions() -> None:
    found = points(
        GRID
        + "exclude: [{direction.type: backward, model.n_layers: [1, 3]}, {objective.bos: false, model.n_layers: 2}]\n"
    )
    kept = [(d, n, b) for d in ("forward", "backward") for n in "123" for b in ("true", "false")
            if not (d == "backward" and n in "13") and not (b == "false" and n == "2")]  # fmt: skip
    assert [tuple(p.levels.values()) for p in found] == kept


def test_a_combination_that_makes_no_sense_can_be_excluded() -> None:
    text = "axes: {family: {gru: {model: {type: recurrent}}, gpt: {}}, model.n_heads: [1, 2]}\nexclude: [{family: gru, model.n_heads: 2}, {family: gru, model.n_heads: 1}]\n"
    assert [p.name for p in points(text)] == [
        "family=gpt/model.n_heads=1/seed=1",
        "family=gpt/model.n_heads=2/seed=1",
    ]


def test_only() -> None:
    found = points(GRID, only={"direction.type": ["backward"], "model.n_layers": ["1", "3"]})
    assert [tuple(p.levels.values()) for p in found] == list(
        itertools.product(["backward"], "13", ["true", "false"])
    )
    everything = {p.name: p.run for p in points(GRID)}
    assert all(everything[p.name] == p.run for p in found), "a selection does not change what is selected"


@pytest.mark.parametrize(
    ("only", "message"),
    [
        (
            {"directon": ["x"]},
            r"--only directon: the study has no such axis \(axes: direction\.type, model\.n_layers, objective\.bos\)",
        ),
        ({"model.n_layers": ["4"]}, r"--only model\.n_layers=4: no such level \(levels: 1, 2, 3\)"),
    ],
)
def test_only_what_there_is(only: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        points(GRID, only=only)


# --- overrides --------------------------------------------------------------------------------------


def test_overrides_change_the_base() -> None:
    found = points(GRID, overrides=["train.max_steps=7", "model.d_model=8", "evaluations.0.every=3"])
    assert {
        (p.config.train.max_steps, p.config.model.d_model, p.config.evaluations[0].every) for p in found
    } == {(7, 8, 3)}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "model.n_layers=5",
            r"override model\.n_layers: the axis 'model\.n_layers' sets it; choose a level with `lexarium study run \.\.\. --only model\.n_layers=LEVEL` \(levels: 1, 2, 3\)",
        ),
        ("model={type: recurrent}", r"override model: the axis 'model\.n_layers' sets it"),
        ("direction.type=backward", r"override direction\.type: the axis 'direction\.type' sets it"),
        ("seed=5", r"override seed: a study's seeds are set with --seeds, for example --seeds 1,2,3"),
        ("model.n_layer=5", r"command line: model\.n_layer: unknown key; did you mean 'n_layers'"),
        ("train.max_steps=many", r"command line: train\.max_steps: input should be a valid integer"),
        (
            "evaluations.3.every=5",
            r"command line: evaluations\.3\.every: there is no evaluations\.3 to change",
        ),
        ("seeds=[1]", r"override seeds: a study's seeds are set with --seeds"),
        (
            "base.train.max_steps=3",
            r"override base\.train\.max_steps: overrides leave `base` out",
        ),
        ("axes.model.n_layers=[9]", r"override axes\.model\.n_layers: .* --only"),
    ],
)
def test_overrides_that_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        points(GRID, overrides=[override])


def test_an_override_below_a_replaced_component_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"override model\.dropout: the axis 'family' sets it"):
        points("axes: {family: {gru: {model: {type: recurrent}}}}\n", overrides=["model.dropout=0.1"])


@pytest.mark.parametrize("seeds", [[1, 1], [], [-1]])
def test_seeds_from_the_command_line_are_checked_too(seeds: list[int]) -> None:
    with pytest.raises(ConfigError, match="seed"):
        points(seeds=seeds)


# --- presets ----------------------------------------------------------------------------------------


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "s.yaml"
    path.write_text(BASE + text)
    return str(path)


PRESETS = """
axes: {model.n_layers: [1, 2, 3]}
seeds: [1, 2, 3]
presets:
  quick: {base.train.max_steps: 2, seeds: [5], axes: {model.n_layers: [1]}}
  nested: {base: {train: {max_steps: 3}, model: {type: recurrent, cell: gru}}, axes: {model.n_layers: [2]}}
  nothing: {}
"""


def test_presets(tmp_path: Path) -> None:
    path = written(tmp_path, PRESETS)
    quick = Study.load(path, "quick").expand(tmp_path)
    assert [(p.seed, p.config.model.n_layers, p.config.train.max_steps) for p in quick] == [(5, 1, 2)]
    nested = Study.load(path, "nested").expand(tmp_path)
    assert [
        (p.seed, p.config.model.cell, p.config.model.n_layers, p.config.train.max_steps) for p in nested
    ] == [(s, "gru", 2, 3) for s in (1, 2, 3)]
    assert [p.run for p in Study.load(path, "nothing").expand(tmp_path)] == [
        p.run for p in Study.load(path).expand(tmp_path)
    ]
    with pytest.raises(UserError, match=r"has no preset 'quik' \(presets: quick, nested, nothing\)"):
        Study.load(path, "quik")


def test_a_preset_is_named_in_errors(tmp_path: Path) -> None:
    path = written(tmp_path, "presets: {bad: {base.train.max_step: 2}}\n")
    with pytest.raises(
        ConfigError, match="preset bad: train.max_step: unknown key; did you mean 'max_steps'"
    ):
        Study.load(path, "bad").expand(tmp_path)


def test_where_studies_are_found(tmp_path: Path) -> None:
    assert find_study(written(tmp_path, "")) == tmp_path / "s.yaml"
    with pytest.raises(UserError, match=r"none\.yaml: no such study file"):
        find_study(str(tmp_path / "none.yaml"))
    with pytest.raises(
        UserError,
        match=r"unknown study 'hierarchical-generalisation'; did you mean 'hierarchical-generalization'\?",
    ):
        find_study("hierarchical-generalisation")
    (tmp_path / "run.yaml").write_text("corpus: {type: x}\n")
    with pytest.raises(ConfigError, match="not a study file: the key `study` is missing"):
        load_study(str(tmp_path / "run.yaml"))


@pytest.mark.parametrize("name", catalog_names())
def test_every_study_of_the_catalog_expands_with_every_preset(name: str, tmp_path: Path) -> None:
    presets = [None, *(load_study(name)[0].presets)]
    (tmp_path / "texts").mkdir()
    for language in ("en", "fr"):
        (tmp_path / "texts" / f"{language}.txt").write_text("some text\n" * 10)
    assert {"demo", "smoke"} <= set(presets)
    for preset in presets:
        files = load_study(name, preset)[0].base["corpus"]["type"] in ("text_files", "utterances")
        given = [f"corpus.path={tmp_path / 'texts'}"] if files else []
        found = Study.load(name, preset, given).expand(tmp_path)
        assert found and len({p.name for p in found}) == len(found)
        assert len(find_study(name).read_text()) > 0


def test_what_is_said_about_a_folder_is_no_level_of_it(tmp_path: Path) -> None:
    for name in ("en.txt", "fr.txt", "SOURCE.md", "README", "LICENSE.txt", ".hidden"):
        (tmp_path / name).write_text("some text\n" * 10)
    found = Study.load("arrow-of-time", "languages", [f"corpus.path={tmp_path}"]).expand(tmp_path)
    assert {p.levels["language"] for p in found} == {"en", "fr"}


# --- stages -----------------------------------------------------------------------------------------

STAGES = """
axes: {model.n_layers: [1, 2]}
stages:
  tune: {start: {steps: [10, 20], parts: ['stack\\..*']}, train.max_steps: 5, direction: {type: backward}}
  more: {start: {stage: tune, steps: [5]}, optimizer.lr: 0.5}
"""


def test_child_runs_start_from_checkpoints() -> None:
    found = points(STAGES)
    base, tune, more = ([p for p in found if p.stage == s] for s in ("base", "tune", "more"))
    assert [len(x) for x in (base, tune, more)] == [2, 4, 4]
    assert [(p.levels["model.n_layers"], p.levels["start_step"]) for p in tune] == [
        ("1", "10"),
        ("1", "20"),
        ("2", "10"),
        ("2", "20"),
    ]
    for p in tune:
        start = p.config.start
        assert p.parent in {b.run for b in base} and start.path == str(Path("runs") / p.parent)
        assert (start.type, str(start.step), start.parts) == ("run", p.levels["start_step"], ("stack\\..*",))
        assert (p.config.train.max_steps, p.config.direction.type, p.config.optimizer.lr) == (
            5,
            "backward",
            1e-3,
        )
        assert p.name.startswith("tune/model.n_layers=")
    assert {p.parent for p in more} == {p.run for p in tune}
    assert {p.config.optimizer.lr for p in more} == {0.5} and {p.config.train.max_steps for p in more} == {5}
    assert len({p.run for p in found}) == 10 == len({p.name for p in found})
    assert more[0].levels == {"model.n_layers": "1", "tune_start_step": "10", "start_step": "5"}
    assert [p.stage for p in found] == ["base"] * 2 + ["tune"] * 4 + ["more"] * 4, "parents come first"


def test_where_the_runs_lie_does_not_name_the_children() -> None:
    here, there = (load(STAGES).expand(Path(folder)) for folder in ("runs", "elsewhere"))
    assert [p.run for p in here] == [p.run for p in there]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "stages: {a: {start: {steps: [30]}}}",
            r"stages\.a\.start\.steps: 30 is beyond max_steps 20 of seed=1",
        ),
        ("stages: {a: {start: {steps: []}}}", r"stages\.a\.start: steps"),
        ("stages: {a: {train.max_steps: 3}}", r"stages\.a\.start: steps: missing"),
        ("stages: {a: {start: {stage: b, steps: [3]}}}", r"stages\.a\.start\.stage: no runs of stage 'b'"),
        ("stages: {a: {start: {step: [3]}}}", r"unknown key; did you mean 'steps'"),
        (
            "stages: {a: {start: {steps: [3]}, train.max_step: 3}}",
            r"stages\.a: train\.max_step: unknown key; did you mean 'max_steps'",
        ),
    ],
)
def test_stages_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        points(text + "\n")


# --- index and settings -----------------------------------------------------------------------------


def test_the_index_lists_every_point(tmp_path: Path) -> None:
    study = load(GRID + "seeds: [1, 2]\n")
    found = study.expand(tmp_path)
    index = json.loads(study.write_index(tmp_path, found).read_text())
    assert index["study"] == "small" and index["claim"] == "something is so" and index["seeds"] == [1, 2]
    assert index["axes"]["model.n_layers"] == ["1", "2", "3"]
    assert [(r["name"], r["dir"], r["levels"], r["seed"], r["stage"]) for r in index["runs"]] == [
        (p.name, p.run, p.levels, p.seed, p.stage) for p in found
    ]
    assert index["runs"][0]["config"]["model"]["n_layers"] == 1


def test_flatten() -> None:
    assert flatten(
        {"a": {"b": 1, "c.d": 2}, "e": {"type": "x", "f": 1}, "g": {}, "h": [1], "i.0.j": None}
    ) == {
        ("a", "b"): 1,
        ("a", "c", "d"): 2,
        ("e",): {"type": "x", "f": 1},
        ("g",): {},
        ("h",): [1],
        ("i", 0, "j"): None,
    }
    assert flatten({"axes": {"m": {"x": 1}}}, keep=("axes",)) == {("axes",): {"m": {"x": 1}}}
    with pytest.raises(ConfigError, match=r"a\.b: set twice"):
        flatten({"a.b": 1, "a": {"b": 2}})


@pytest.mark.parametrize("name", ["", "a b", "../x", ".x", "a/b"])
def test_the_name_of_a_study_is_a_folder(name: str) -> None:
    with pytest.raises(ConfigError, match="study"):
        validate(StudyConfig, parse_yaml(BASE.replace("study: small", f"study: '{name}'"), "s.yaml"))


def test_parents_keep_the_checkpoints_that_their_children_start_from() -> None:
    text = "stages: {ft: {start: {steps: [15, 20]}}, more: {start: {stage: ft, steps: [5]}}}\n"
    at = {p.stage: p.config.checkpoint.at for p in points(text)}
    assert at == {"base": (15, 20), "ft": (5,), "more": ()}


# --- data redrawn for every seed --------------------------------------------------------------------

REDRAWN = "axes: {direction.type: [forward, backward]}\nseeds: [3, 4]\n"


def test_redrawn_paths_take_the_seed_in_every_point() -> None:
    found = points(REDRAWN + "redraw: [corpus.seed]\n")
    assert [(p.seed, p.config.corpus.seed, p.config.seed) for p in found] == [(3, 3, 3), (4, 4, 4)] * 2
    assert {p.config.corpus.seed for p in points(REDRAWN)} == {0}
    assert [p.config.corpus.seed for p in points(REDRAWN + "redraw: [corpus.seed]\n", seeds=[9])] == [9, 9]


def test_the_index_tells_what_is_redrawn(tmp_path: Path) -> None:
    made = load(REDRAWN + "redraw: [corpus.seed]\n")
    index = json.loads(made.write_index(tmp_path, made.expand(tmp_path)).read_text())
    assert index["redraw"] == ["corpus.seed"]


def test_redrawing_is_the_same_as_writing_the_seed_down() -> None:
    redrawn = {p.seed: p.run for p in points("seeds: [3, 4]\nredraw: [corpus.seed]\n")}
    for seed, run in redrawn.items():
        (written_out,) = points("", overrides=[f"corpus.seed={seed}"], seeds=[seed])
        assert written_out.run == run


def test_redrawn_paths_reach_a_component_that_an_axis_replaces() -> None:
    text = "axes: {cell: {a: {corpus: {type: linear_language, m: 8}}, b: {corpus: {type: markov_chain}}}}\n"
    found = points(text + "seeds: [5]\nredraw: [corpus.matrix_seed]\n")
    assert [(p.config.corpus.type, p.config.corpus.matrix_seed, p.config.corpus.seed) for p in found] == [
        ("linear_language", 5, 0),
        ("markov_chain", 5, 0),
    ]


COMPARED = (
    "compare: [{metric: loss.val, axis: direction.type, from: forward, to: backward, as: relative%s}]\n"
)


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("axes: {corpus.seed: [1, 2]}\nredraw: [corpus.seed]", [], r"redraw: corpus\.seed takes the run's seed in every point, but axis corpus\.seed=1 sets it too"),
        ("axes: {cell: {a: {corpus: {type: linear_language, seed: 4}}}}\nredraw: [corpus.seed]", [], r"but axis cell=a sets it too"),
        ("redraw: [corpus.seed]", ["corpus.seed=3"], r"but base, or an override of it, sets it too"),
        ("redraw: [corpus.matrix_seed]", [], r"point seed=1: redraw: corpus\.matrix_seed: unknown key"),
        ("redraw: [corpos.seed]", [], r"point seed=1: .*corpos.*: unknown key; did you mean 'corpus'"),
        ("redraw: [model.d_model]", [], r"redraw: 'model\.d_model' is not the path of a data seed"),
        ("redraw: [seed]", [], r"'seed' is not the path of a data seed"),
        ("redraw: [corpus.seed, corpus.seed]", [], r"redraw: a path appears twice"),
        (REDRAWN + COMPARED % "" + "redraw: [corpus.seed]", [], r"compare\.0\.redrawn: `redraw` draws new data for every seed; say `redrawn: true`"),
    ],
)  # fmt: skip
def test_what_cannot_be_redrawn(text: str, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        points(text + "\n", overrides=overrides)


def test_contrasts_say_that_data_are_redrawn() -> None:
    assert len(points(REDRAWN + COMPARED % ", redrawn: true" + "redraw: [corpus.seed]\n")) == 4


def test_an_override_may_change_a_level_that_leaves_it_alone() -> None:
    axes = "axes: {family: {gpt: {}, gru: {model: {type: recurrent}}}}\n"
    with pytest.raises(ConfigError, match=r"levels: gpt \(leaves it\), gru\)"):
        points(axes, overrides=["model.dropout=0.2"])
    study = lambda: load(axes, ["model.dropout=0.2"])
    found = study().expand(Path("runs"), {"family": ["gpt"]})
    assert {(p.levels["family"], p.config.model.dropout) for p in found} == {("gpt", 0.2)}
    with pytest.raises(ConfigError, match="the axis 'family' sets it"):
        study().expand(Path("runs"), {"family": ["gru"]})
