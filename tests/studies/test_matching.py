"""Arms of equal size: the number found is the nearest there is, counted independently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lexarium.foundation import registry
from lexarium.foundation.config import ConfigError, parse_yaml, validate
from lexarium.models.build import build_model
from lexarium.studies.matching import _bisect, size
from lexarium.studies.study import Study
from lexarium.studies.study_config import StudyConfig

STUDY = """
study: sizes
base:
  corpus: {type: question_formation, sizes: {train: 50, val: 10, test: 0, ood: 0}}
  model: {type: transformer, n_layers: 3, n_heads: 4, d_model: 64, d_ff: 256}
  train: {max_steps: 5}
axes:
  family:
    gpt: {}
    gru: {model: {type: recurrent, cell: gru, n_layers: 2, d_model: 8}}
    wide: {model: {type: transformer, n_layers: 1, n_heads: 4, d_model: 64}}
  direction.type: [forward, backward]
seeds: [1, 2]
match: {axis: family, to: gpt, %s}
"""
VOCABULARY = 71
"""Words of question formation, padding and the two frame tokens."""


def expand(folder: Path, match: str) -> dict[str, Any]:
    """Model configs by family, one for all seeds and directions."""
    source = parse_yaml(STUDY % match, "s.yaml")
    found: dict[str, set] = {}
    for p in Study(validate(StudyConfig, source), source).expand(folder):
        found.setdefault(p.levels["family"], set()).add(p.config.model)
    assert {family: len(models) for family, models in found.items()} == {"gpt": 1, "gru": 1, "wide": 1}
    return {family: models.pop() for family, models in found.items()}


def parameters(config: Any, embeddings: bool) -> int:
    """In closed form: three gates per recurrence; four projections, two maps and two norms per block."""
    d, rest = config.d_model, 0
    if config.type == "recurrent":
        body = config.n_layers * 3 * (2 * d * d + 2 * d)
        rest = VOCABULARY * d + VOCABULARY  # output of its own, with a bias
    else:
        f = config.d_ff or 4 * d
        body = config.n_layers * (4 * d * d + 2 * d * f + f + d + 2 * 2 * d) + 2 * d
    return body + (VOCABULARY * d + rest if embeddings else 0)


@pytest.mark.parametrize("quantity", ["parameters", "non_embedding"])
def test_the_nearest_width_within_one_percent(tmp_path: Path, quantity: str) -> None:
    found = expand(tmp_path, f"quantity: {quantity}, adjust: {{gru: model.d_model, wide: model.d_ff}}")
    count = lambda config: parameters(config, quantity == "parameters")
    target = count(found["gpt"])
    for family, field in (("gru", "d_model"), ("wide", "d_ff")):
        config = found[family]
        error = abs(count(config) - target)
        assert error <= 0.01 * target
        for step in (-1, 1):  # no neighbour is nearer
            neighbour = config.model_copy(update={field: getattr(config, field) + step})
            assert error <= abs(count(neighbour) - target)


def test_flops_of_a_forward_pass(tmp_path: Path) -> None:
    found = expand(tmp_path, "quantity: flops, tolerance: 0.02, adjust: {wide: model.d_ff}")
    assert found["wide"].d_ff > 256 * 2, "one layer must be much wider to do the work of three"


def test_a_size_that_steps_over_what_the_model_refuses(tmp_path: Path) -> None:
    """d_model must be a multiple of the four heads: most whole numbers are refused."""
    found = expand(tmp_path, "tolerance: 0.05, adjust: {wide: model.d_model}")
    assert found["wide"].d_model % 4 == 0
    target = parameters(found["gpt"], embeddings=False)
    assert abs(parameters(found["wide"], embeddings=False) - target) <= 0.05 * target


@pytest.mark.parametrize(
    ("match", "message"),
    [
        ("adjust: {gru: model.d_model}, tolerance: 1e-5", r"match: no model\.d_model makes family=gru equal to gpt \([\d,]+ non_embedding\) within 0\.0%; the nearest is [\d,]+ at \d+"),
        ("adjust: {lstm: model.d_model}", "match: axis 'family' has no level 'lstm'"),
        ("adjust: {gru: model.d_modle}", "axis match: model.d_modle: unknown key; did you mean 'd_model'"),
        ("adjust: {gru: model.d_model}, quantity: weights", "match.quantity"),
        ("adjust: {gru: model.d_model}, tolerance: 0", "match.tolerance"),
        ("adjst: {gru: model.d_model}", "match.adjst: unknown key; did you mean 'adjust'"),
    ],
    ids=lambda x: x[:40],
)  # fmt: skip
def test_what_cannot_be_matched(tmp_path: Path, match: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        expand(tmp_path, match)


def test_an_unknown_target_level(tmp_path: Path) -> None:
    source = parse_yaml((STUDY % "adjust: {}").replace("to: gpt", "to: gpt2"), "s.yaml")
    with pytest.raises(ConfigError, match="match: axis 'family' has no level 'gpt2'"):
        Study(validate(StudyConfig, source), source).expand(tmp_path)


def test_counting_builds_no_weights(tmp_path: Path) -> None:
    source = parse_yaml(
        (STUDY % "adjust: {}").replace("d_model: 64, d_ff: 256", "d_model: 16384, d_ff: 65536"), "s.yaml"
    )
    point = Study(validate(StudyConfig, source), source).expand(tmp_path)[0]
    assert size(point.config, "parameters", tmp_path) > 9e9, "36 GB if it stood in memory"
    frozen = point.config.model_copy(
        update={"train": point.config.train.model_copy(update={"parameters": ("embedding",)})}
    )
    assert size(frozen, "trainable", tmp_path) == VOCABULARY * 16384


@pytest.mark.parametrize("target", [1, 7, 100, 12_345, 10**9])
@pytest.mark.parametrize("refused", [lambda n: False, lambda n: n % 8 != 0, lambda n: n < 16])
def test_bisection_finds_the_nearest(target: int, refused: Any) -> None:
    asked = []

    def measure(n: int) -> float | None:
        asked.append(n)
        return None if refused(n) else float(n * n)

    number, nearest = _bisect(measure, target)
    best = min((n for n in range(1, 40_000) if not refused(n)), key=lambda n: abs(n * n - target))
    assert nearest == best * best and number == best
    assert len(set(asked)) < 1000


def test_nothing_fits() -> None:
    number, nearest = _bisect(lambda n: None, 5.0)
    assert number is None and nearest != nearest


def test_every_model_can_be_counted() -> None:
    for name in registry.names("model"):
        config = registry.find("model", name).Config(n_layers=1, d_model=16)
        assert build_model(config, 50, device="meta") is not None
