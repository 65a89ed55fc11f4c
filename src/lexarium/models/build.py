"""Building a model: construct, number its dropout sites, fill every parameter by name.

The values of a parameter depend on the init seed and the parameter's name alone, so arms that share a
part start from equal values of it, whatever else differs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lexarium.foundation import registry, rng
from lexarium.foundation.config import ComponentConfig
from lexarium.models.dropout import assign_sites


def build_model(
    config: ComponentConfig, vocab_size: int, seed: int | None = None, device: Any = "cpu"
) -> nn.Module:
    """A model on `device`; with `seed` its parameters are filled, without it they are left unset."""
    cls: Any = registry.find("model", config.type)
    if seed is None:
        with torch.device("meta"):
            model = cls(config, vocab_size)
        if str(device) != "meta":
            raise ValueError(
                "a model without a seed exists on the meta device only (to count its parameters)"
            )
        return model
    with torch.random.fork_rng(devices=[]):  # library layers draw their own defaults, which are overwritten
        model = cls(config, vocab_size)
    assign_sites(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(float("nan"))
            model.initialise_parameter(name, parameter, rng.torch_generator(seed, "init", name))
            if not torch.isfinite(parameter).all():
                raise RuntimeError(f"{config.type}: parameter {name} was not initialised")
    return model.to(device)
