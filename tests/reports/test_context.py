"""Configuration differences, provenance, and what is missing."""

from __future__ import annotations

from pathlib import Path

from tests.reports.synthetic import OOD, contrast, make_study

from lexarium.reports.context import config_differences, flatten, missing, provenance, run_records
from lexarium.studies.compare import Contrast, RunRow, Table, collect, compare, contrasts_of


def table(configs: dict[tuple[str, str, int], dict]) -> Table:
    runs = [
        RunRow(f"{a}/{b}/{s}", "d", {"a": a, "b": b}, s, "done", 1, 1, "", config)
        for (a, b, s), config in configs.items()
    ]
    axes = {"a": sorted({k[0] for k in configs}), "b": sorted({k[1] for k in configs})}
    return Table("s", axes, runs)


def test_flatten() -> None:
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}


def test_keys_that_follow_one_axis_are_listed_under_that_axis() -> None:
    configs = {
        (a, b, s): {
            "data": {"kind": a},
            "model": {"n": {"x": 2, "y": 4}[b]},
            "both": a + b,
            "seed": s,
            "same": 1,
        }
        for a in ("p", "q")
        for b in ("x", "y")
        for s in (1, 2)
    }
    found = config_differences(table(configs))
    rows = {row["key"]: row for row in found["rows"]}
    assert rows["data.kind"]["values"] == [{"of": {"a": "p"}, "value": "p"}, {"of": {"a": "q"}, "value": "q"}]
    assert rows["model.n"]["axis"] == "b"
    assert len(rows["both"]["values"]) == 4
    assert found["varies"] == ["seed"]
    assert found["base"] == "same: 1\n"


def test_keys_only_some_arms_have_are_shown_as_absent() -> None:
    configs = {("p", "x", 1): {"model": {"heads": 4}}, ("q", "x", 1): {"model": {}}}
    rows = {row["key"]: row["values"] for row in config_differences(table(configs))["rows"]}
    assert [v["value"] for v in rows["model.heads"]] == ["4", "(absent)"]


def test_provenance_is_optional_in_every_part(tmp_path: Path) -> None:
    assert provenance(tmp_path / "nowhere") == {}
    (tmp_path / "provenance.json").write_text('{"code": null, "hardware": {"processor": "P"}}')
    assert provenance(tmp_path) == {"hardware": "P"}
    (tmp_path / "timing.jsonl").write_text('{"elapsed": 2.0}\n{"elapsed": 5.5}\n{"unfinished')
    assert provenance(tmp_path)["seconds"] == 5.5
    (tmp_path / "provenance.json").write_text("[1, 2")
    assert provenance(tmp_path) == {}


def test_run_records_hold_commit_versions_and_duration(tmp_path: Path) -> None:
    make_study(tmp_path, seeds=2)
    first, second = run_records(tmp_path, collect(tmp_path, "hierarchy"))[:2]
    assert first["provenance"]["commit"] == "0123456789"
    assert second["provenance"]["commit"] == "0123456789 with changes"
    assert first["provenance"]["torch"] == "2.13.0"
    assert abs(first["provenance"]["seconds"] - 21 * 1.6) < 1e-9


def test_missing_lists_unfinished_runs_and_unmeasured_metrics_once(tmp_path: Path) -> None:
    states = {"data=questions_only/seed=1": "failed", "data=subject_rc/seed=2": "waiting"}
    make_study(
        tmp_path,
        seeds=2,
        states=states,
        compare=[contrast(), contrast(metric="probe.x"), contrast(metric=OOD)],
    )
    data = collect(tmp_path, "hierarchy")
    found = missing(data, compare(contrasts_of(data), data))
    assert [(m["run"], m["why"]) for m in found] == [
        ("data=questions_only/seed=1", "failed at step 900 of 2,000"),
        ("data=subject_rc/seed=2", "waiting"),
        ("data=questions_only/seed=2", "probe.x: this metric was not measured"),
        ("data=subject_rc/seed=1", "probe.x: this metric was not measured"),
    ]
    assert found[0]["message"] == "loss is not finite at step 900"


def test_contrast_helper_is_valid() -> None:
    assert Contrast.model_validate(contrast()).expect == "higher"
