"""Building a model: construct, number its dropout sites, fill every parameter by name.

The values of a parameter depend on the init seed and the parameter's name alone, so arms that share a
part start from equal values of it, whatever else differs.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from lexarium.foundation import registry, rng
from lexarium.foundation.config import ComponentConfig
from lexarium.foundation.types import UserError
from lexarium.models.dropout import Dropout, assign_sites


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
    _refuse_hidden_state(model, config.type)
    assign_sites(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(float("nan"))
            model.initialise_parameter(name, parameter, rng.torch_generator(seed, "init", name))
            if not torch.isfinite(parameter).all():
                raise RuntimeError(f"{config.type}: parameter {name} was not initialised")
    return model.to(device)


def _refuse_hidden_state(model: nn.Module, name: str) -> None:
    """Layers that draw from the global generator, or learn outside their parameters, break resuming."""
    for path, module in model.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            raise UserError(
                f"model {name!r}: {path} is torch's own dropout, whose randomness a checkpoint does not hold; use"
                " lexarium.models.dropout.Dropout with the input token_key"
            )
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats:
            raise UserError(f"model {name!r}: {path} keeps running statistics of batches; use a layer norm")
        if isinstance(module, nn.RNNBase) and module.dropout > 0:
            raise UserError(f"model {name!r}: {path} has torch's own dropout between layers; set it to 0")


def template_of(models: Sequence[nn.Module]) -> nn.Module:
    """A model of the shape of all of these, without content (on the meta device), for passes with other tensors in
    place of its own. Its dropout sites are active where any model's is."""
    template = copy.deepcopy(models[0]).to("meta")
    for sites in zip(template.modules(), *(model.modules() for model in models), strict=True):
        if isinstance(sites[0], Dropout):
            sites[0].p = max(site.p for site in sites[1:])
    return template
