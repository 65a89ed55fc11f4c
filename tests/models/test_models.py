"""What every model promises: no look ahead, no trace of padding or neighbours, every parameter used and filled by name."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lexarium.foundation import registry
from lexarium.foundation.rng import torch_generator
from lexarium.models.build import build_model
from lexarium.models.layers import count_parameters

V = 11
SMALL = {"n_layers": 2, "n_heads": 2, "d_model": 8, "d_ff": 12, "max_positions": 32}
MODELS: dict[str, dict[str, Any]] = {
    "transformer": SMALL,
    "transformer post": {
        **SMALL,
        "norm": "post",
        "activation": "relu",
        "embedding_scale": True,
        "initialisation": "xavier",
    },
    "transformer rotary": {
        **SMALL,
        "positions": "rotary",
        "norm_type": "rms",
        "activation": "swiglu",
        "tied": False,
    },
    "transformer learned": {**SMALL, "positions": "learned", "attention_bias": True, "output_bias": True},
    "transformer none": {**SMALL, "positions": "none", "norm_bias": False, "feed_forward_bias": False},
    "transformer library": {**SMALL, "positions": "learned", "tied": False, "initialisation": "library"},
    "recurrent lstm": {"cell": "lstm", "n_layers": 2, "d_model": 8},
    "recurrent norm": {"cell": "gru", "d_model": 8, "final_norm": True, "initialisation": "library"},
    "recurrent gru": {"cell": "gru", "n_layers": 1, "d_model": 8, "d_embedding": 6},
    "recurrent tanh": {"cell": "tanh", "n_layers": 2, "d_model": 8, "tied": True, "output_bias": False},
    "recurrent relu": {"cell": "relu", "n_layers": 1, "d_model": 8},
}
ALL = pytest.mark.parametrize("name", MODELS)
BOTH_SIDES: dict[str, dict[str, Any]] = {
    "encoder_decoder": SMALL,
    "encoder_decoder post": {**SMALL, "norm": "post", "n_encoder_layers": 1, "initialisation": "xavier"},
    "encoder_decoder rotary": {**SMALL, "positions": "rotary"},
}


def model(name: str, seed: int = 1, **more: Any) -> nn.Module:
    cls = registry.find("model", name.split()[0])
    options = {**(MODELS | BOTH_SIDES)[name], **more}
    return build_model(cls.Config(**options), V, seed).double()


def ids(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, V, shape, generator=torch_generator(seed, "ids"))


def keys(*shape: int) -> Tensor:
    return (torch.arange(math.prod(shape)) * 2654435 % 2**31).to(torch.int32).view(shape)


def inputs(rows: list[Tensor], key_rows: list[Tensor] | None = None) -> dict[str, Tensor]:
    """Right-padded rows with the flat indices of their real tokens."""
    table = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    real = torch.cat([torch.arange(len(r)) + i * table.shape[1] for i, r in enumerate(rows)])
    found = {"tokens": table, "real": real}
    if key_rows is not None:
        found["token_key"] = nn.utils.rnn.pad_sequence(key_rows, batch_first=True)
    return found


def logits(m: nn.Module, **given: Tensor) -> Tensor:
    output = m(**{k: v for k, v in given.items() if k in m.consumes})
    return output.unembed(output.hidden)


# --- causality --------------------------------------------------------------------------------------


@ALL
def test_no_token_sees_a_later_one(name: str) -> None:
    m, rows = model(name), ids(2, 7)
    before = logits(m, tokens=rows).view(2, 7, V)
    for place in range(7):
        changed = rows.clone()
        changed[0, place] = (changed[0, place] + 1) % V
        after = logits(m, tokens=changed).view(2, 7, V)
        assert torch.equal(after[0, :place], before[0, :place])
        assert not torch.allclose(after[0, place], before[0, place])
        assert torch.equal(after[1], before[1])
        if place < 6 and "none" not in name:
            assert not torch.allclose(after[0, -1], before[0, -1]), "and every later one does see it"


# --- layout -----------------------------------------------------------------------------------------


@ALL
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_padded_rows_are_the_rows_alone(name: str, dropout: float) -> None:
    m = model(name, dropout=dropout)
    rows, key_rows = [ids(n, seed=n) for n in (5, 1, 7, 3)], [keys(7)[:n] + n for n in (5, 1, 7, 3)]
    together = logits(m, **inputs(rows, key_rows)).split([5, 1, 7, 3])
    for row, key, found in zip(rows, key_rows, together, strict=True):
        assert torch.allclose(found, logits(m, **inputs([row], [key])), rtol=1e-10, atol=1e-12)
    backwards = logits(m, **inputs(rows[::-1], key_rows[::-1])).split([3, 7, 1, 5])[::-1]
    for found, other in zip(together, backwards, strict=True):
        assert torch.allclose(found, other, rtol=1e-10, atol=1e-12)


@ALL
def test_what_stands_on_padding_does_not_matter(name: str) -> None:
    m, given = model(name), inputs([ids(5), ids(2)])
    before = logits(m, **given)
    given["tokens"][1, 2:] = 7
    assert torch.equal(logits(m, **given), before)


@pytest.mark.parametrize("name", [n for n in MODELS if n.startswith("transformer")])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_packed_row_is_its_documents_alone(name: str, dropout: float) -> None:
    m, lengths = model(name, dropout=dropout), [4, 2, 5]
    rows, key_rows = [ids(n, seed=n) for n in lengths], [keys(9)[:n] + n for n in lengths]
    packed = {
        "tokens": torch.cat(rows)[None],
        "token_key": torch.cat(key_rows)[None],
        "position": torch.cat([torch.arange(n) for n in lengths])[None],
        "segment": torch.cat([torch.full((n,), i) for i, n in enumerate(lengths)])[None],
    }
    alone = torch.cat([logits(m, **inputs([r], [k])) for r, k in zip(rows, key_rows, strict=True)])
    assert torch.allclose(logits(m, **packed), alone, rtol=1e-10, atol=1e-12)


@ALL
def test_gradients_do_not_depend_on_the_layout(name: str) -> None:
    """With dropout on: one padded batch, single rows, and rows in reverse order (promise 9)."""
    m = model(name, dropout=0.3)
    rows, key_rows = [ids(n, seed=n) for n in (5, 1, 7)], [keys(7)[:n] + n for n in (5, 1, 7)]
    order = [[0, 1, 2], [2], [1], [0], [2, 1, 0]]

    def gradients(groups: list[list[int]]) -> list[Tensor]:
        m.zero_grad()
        for group in groups:
            logits(m, **inputs([rows[i] for i in group], [key_rows[i] for i in group])).logsumexp(
                -1
            ).sum().backward()
        return [p.grad.clone() for p in m.parameters()]

    whole = gradients(order[:1])
    for other in (gradients(order[1:4]), gradients(order[4:])):
        for a, b in zip(whole, other, strict=True):
            assert torch.allclose(a, b, rtol=1e-9, atol=1e-11)


# --- encoder and decoder ----------------------------------------------------------------------------


def pairs(sources: list[Tensor], targets: list[Tensor], drop: bool = False) -> dict[str, Tensor]:
    table = nn.utils.rnn.pad_sequence(sources, batch_first=True)
    mask = torch.arange(table.shape[1]) < torch.tensor([len(s) for s in sources])[:, None]
    given = inputs(targets, [keys(9)[: len(t)] + len(t) for t in targets] if drop else None)
    given |= {"source": table, "source_mask": mask, "source_real": mask.reshape(-1).nonzero()[:, 0]}
    if drop:
        given["source_key"] = nn.utils.rnn.pad_sequence(
            [keys(9)[: len(s)] + 77 * len(s) for s in sources], batch_first=True
        )
    return given


@pytest.mark.parametrize("name", BOTH_SIDES)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_pairs_are_the_pairs_alone(name: str, dropout: float) -> None:
    m, drop = model(name, dropout=dropout), dropout > 0
    sources, targets = [ids(n, seed=n) for n in (3, 6, 1)], [ids(n, seed=n + 9) for n in (4, 2, 5)]
    together = logits(m, **pairs(sources, targets, drop)).split([4, 2, 5])
    for source, target, found in zip(sources, targets, together, strict=True):
        assert torch.allclose(found, logits(m, **pairs([source], [target], drop)), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", BOTH_SIDES)
def test_a_decoder_sees_the_whole_source_and_no_later_target(name: str) -> None:
    m, source, target = model(name), ids(5), ids(4, seed=1)
    before = logits(m, **pairs([source], [target]))
    for place in range(5):
        changed = source.clone()
        changed[place] = (changed[place] + 1) % V
        assert not torch.isclose(logits(m, **pairs([changed], [target])), before).all(-1).any()
    for place in range(4):
        changed = target.clone()
        changed[place] = (changed[place] + 1) % V
        after = logits(m, **pairs([source], [changed]))
        assert torch.equal(after[:place], before[:place]) and not torch.allclose(after[place], before[place])


@pytest.mark.parametrize("name", BOTH_SIDES)
def test_the_order_of_the_source_matters(name: str) -> None:
    m, source, target = model(name), torch.arange(5), ids(4)
    before, after = (logits(m, **pairs([s], [target])) for s in (source, source.flip(0)))
    assert not torch.allclose(before, after)


# --- parameters -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*MODELS, *BOTH_SIDES])
def test_every_parameter_is_used(name: str) -> None:
    m = model(name)
    given = pairs([ids(5)], [ids(6, seed=1)]) if name in BOTH_SIDES else {"tokens": ids(1, 6)}
    logits(m, **given).log_softmax(-1)[:, 0].sum().backward()
    unused = [n for n, p in m.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    tolerated = [
        n for n in unused if n.endswith(".k.bias")
    ]  # its true gradient is zero: softmax ignores a shift
    assert unused == tolerated


@pytest.mark.parametrize("name", [*MODELS, *BOTH_SIDES])
def test_the_seed_and_the_name_make_the_values(name: str) -> None:
    one, again, other = model(name), model(name), model(name, seed=2)
    for (n, a), b, c in zip(one.named_parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.isfinite(a).all()
        assert torch.equal(a, b)
        constant = "norm" in n or (n.endswith("bias") and torch.equal(a, torch.zeros_like(a)))
        assert torch.equal(a, c) == constant


def test_arms_share_the_values_of_what_they_share() -> None:
    shallow, deep = model("transformer"), model("transformer", n_layers=3, norm="post")
    ours, theirs = dict(shallow.named_parameters()), dict(deep.named_parameters())
    shared = [n for n in ours if n in theirs and not n.endswith((".out.weight", ".down.weight"))]
    assert len(shared) > 10, "the spread of projections into the residual stream depends on the depth"
    assert all(torch.equal(ours[n], theirs[n]) for n in shared)


def test_building_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    model("recurrent lstm")
    model("transformer")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", [*MODELS, *BOTH_SIDES])
def test_counting_on_the_meta_device(name: str) -> None:
    config = registry.find("model", name.split()[0]).Config(**(MODELS | BOTH_SIDES)[name])
    meta = build_model(config, V, device="meta")
    assert {p.device.type for p in meta.parameters()} == {"meta"}
    assert count_parameters(meta) == count_parameters(model(name))
    assert count_parameters(meta, non_embedding=True) < count_parameters(meta)
    with pytest.raises(ValueError, match="without a seed"):
        build_model(config, V, device="cpu")


def test_a_model_that_forgets_a_parameter_is_noticed(tmp_path: Any) -> None:
    path = tmp_path / "forgetful.py"
    path.write_text(
        "from lexarium.models.recurrent import Recurrent\n"
        "class Forgetful(Recurrent):\n"
        "    def initialise_parameter(self, name, parameter, generator):\n"
        "        if 'bias' not in name:\n"
        "            super().initialise_parameter(name, parameter, generator)\n"
    )
    cls = registry.find("model", f"{path}:Forgetful")
    with pytest.raises(RuntimeError, match=r"parameter layers\.0\.bias_ih_l0 was not initialised"):
        build_model(cls.Config(type=f"{path}:Forgetful", d_model=4), V, 1)


def spread(parameter: Tensor) -> float:
    return float(parameter.detach().std())


def test_gpt2_initialisation() -> None:
    """N(0, 0.02); projections into the residual stream 1/sqrt(2 n_layers) of it; biases zero (Radford et al. 2019)."""
    config = registry.find("model", "transformer").Config(
        preset="gpt2", n_layers=2, d_model=96, n_heads=4, max_positions=50
    )
    for name, parameter in build_model(config, 60, 1).named_parameters():
        if "norm" in name:
            assert torch.equal(parameter, torch.full_like(parameter, float(name.endswith("weight"))))
        elif name.endswith("bias"):
            assert not parameter.any()
        else:
            expected = 0.02 / math.sqrt(4) if name.endswith((".out.weight", ".down.weight")) else 0.02
            assert spread(parameter) == pytest.approx(expected, rel=0.05), name


def test_xavier_initialisation() -> None:
    config = registry.find("model", "transformer").Config(
        preset="hierarchical_generalization", n_layers=1, d_model=96, n_heads=4, d_ff=200
    )
    for name, parameter in build_model(config, 60, 1).named_parameters():
        if parameter.ndim == 2:
            gain = math.sqrt(2) if ".up." in name else 1.0
            bound = gain * math.sqrt(6 / sum(parameter.shape))
            assert 0.97 * bound < float(parameter.detach().abs().max()) <= bound, name
        elif "feed_forward" in name and name.endswith("bias") and "norm" not in name:
            bound = 1 / math.sqrt(96 if ".up." in name else 200)
            assert 0.9 * bound < float(parameter.detach().abs().max()) <= bound, name


def test_recurrent_initialisation() -> None:
    for name, parameter in build_model(
        registry.find("model", "recurrent").Config(d_model=64), 60, 1
    ).named_parameters():
        if name.startswith("layers"):
            assert 0.95 / 8 < float(parameter.detach().abs().max()) <= 1 / 8, name


def test_states_of_every_layer() -> None:
    for name in (*MODELS, *BOTH_SIDES):
        m = model(name)
        given = pairs([ids(5)], [ids(6, seed=1)]) if name in BOTH_SIDES else {"tokens": ids(2, 6)}
        output = m(**{k: v for k, v in given.items() if k in m.consumes}, layers=[])
        assert len(output.layers) == m.config.n_layers + 1
        assert {len(states) for states in output.layers} == {output.hidden.shape[0]}
        final = output.layers[-1]
        norm = getattr(getattr(m, "stack", getattr(m, "decoder", m)), "final_norm", None)
        assert torch.allclose(norm(final) if norm is not None else final, output.hidden)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("transformer", {"d_model": 10, "n_heads": 4}, "d_model 10 is not a multiple of n_heads 4"),
        (
            "transformer",
            {"d_model": 6, "n_heads": 2, "positions": "rotary"},
            "rotary positions need an even width per head",
        ),
        (
            "transformer",
            {"preset": "gpt3"},
            "unknown preset 'gpt3'; presets are hierarchical_generalization, gpt2",
        ),
        ("encoder_decoder", {"preset": "x"}, "unknown preset 'x'"),
        ("transformer", {"dropout": 1.0}, "less than 1"),
        (
            "recurrent",
            {"tied": True, "d_embedding": 4, "d_model": 8},
            "tied output needs d_embedding equal to d_model",
        ),
        ("recurrent", {"cell": "elman"}, "cell"),
    ],
)
def test_sizes_that_do_not_fit(kind: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        registry.find("model", kind).Config(**options)


def test_a_value_beside_a_preset_wins() -> None:
    config = registry.find("model", "transformer").Config(preset="gpt2", n_layers=3, dropout=0)
    assert (config.n_layers, config.dropout, config.d_model, config.activation) == (3, 0.0, 768, "gelu_tanh")


def test_dropout_by_place() -> None:
    cls = registry.find("model", "transformer")
    config = cls.Config(dropout=0.1, attention_dropout=0.0, residual_dropout=0.5)
    rates = {place: config.rate(place) for place in ("embedding", "attention", "feed_forward", "residual")}
    assert rates == {"embedding": 0.1, "attention": 0.0, "feed_forward": 0.1, "residual": 0.5}
    built = build_model(cls.Config(**SMALL, dropout=0.1, attention_dropout=0.0, residual_dropout=0.5), V, 1)
    found = {
        path.rpartition(".")[2] + "@" + path.rpartition(".")[0].rpartition(".")[2]: m.p
        for path, m in built.named_modules()
        if hasattr(m, "site")
    }
    assert found == {
        "dropout@stack": 0.1,
        "dropout@attention": 0.0,
        "dropout@feed_forward": 0.1,
        "attention_residual@0": 0.5,
        "feed_forward_residual@0": 0.5,
        "attention_residual@1": 0.5,
        "feed_forward_residual@1": 0.5,
    }


def test_attention_kinds_differ() -> None:
    """No two of the position kinds give the same function."""
    rows = ids(1, 6)
    found = [
        logits(model("transformer", positions=kind), tokens=rows)
        for kind in ("sinusoidal", "learned", "rotary", "none")
    ]
    assert all(not torch.allclose(a, b) for a, b in itertools.combinations(found, 2))
    assert np.isfinite(found[0].detach().numpy()).all()
