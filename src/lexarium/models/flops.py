"""How many floating-point operations a forward pass takes, counted while it happens.

Counted are the products of matrices, two operations per multiply and add: linear maps, recurrences, attention
(4 B T S D per layer, rows as padded, the causal half not subtracted: the convention of Chowdhery et al. 2022,
appendix B) and the unembedding. Norms, activations, dropout and embeddings are not: they are a few per cent. A
backward pass takes twice the forward pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lexarium.models.attention import Attention

Rule = Callable[[Any, tuple[Any, ...]], int]


class Counter:
    """Counts the operations of every forward pass of a model while it is entered."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.flops = model, 0
        self._handles: list[Any] = []

    def __enter__(self) -> Counter:
        for module in self.model.modules():
            for kind, rule in _RULES.items():
                if isinstance(module, kind):
                    self._handles.append(module.register_forward_hook(functools.partial(self._count, rule)))
                    break
        self._handles.append(self.model.register_forward_hook(self._head))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _head(self, model: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        """The unembedding, which a loss may carry out in pieces without calling the module."""
        if getattr(output, "head", None) is not None:
            self.flops += 2 * int(output.hidden.numel()) * int(output.head[0].shape[0])

    def _count(self, rule: Rule, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        self.flops += rule(module, arguments)


def _linear(module: Any, arguments: tuple[Any, ...]) -> int:
    x: Tensor = arguments[0]
    return 2 * x.numel() * int(module.out_features)


def _attention(module: Any, arguments: tuple[Any, ...]) -> int:
    """The two products with the rows; the projections are linear maps of their own."""
    x, layout = arguments[:2]
    source = arguments[6] if len(arguments) > 6 and arguments[6] is not None else layout
    return 4 * int(layout.batch) * int(layout.length) * int(source.length) * int(x.shape[-1])


def _recurrence(module: Any, arguments: tuple[Any, ...]) -> int:
    x: Tensor = arguments[0]
    weights = sum(p.numel() for name, p in module.named_parameters() if name.startswith("weight"))
    return 2 * weights * (x.numel() // x.shape[-1])


_RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: _linear,
    nn.RNNBase: _recurrence,
    Attention: _attention,
}
