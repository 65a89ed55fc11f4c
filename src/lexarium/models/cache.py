"""Keys and values of the tokens read so far, for models that read rows in pieces.

Every attention layer has one pair of buffers (B, H, C, d). Row b has read `length[b]` tokens, whose keys lie at
places 0 .. length[b] - 1; new ones are written behind them, so rows of unequal length share a buffer without any
gap. What lies behind a row's end (padding of an earlier piece) is never looked at, and is overwritten by the
tokens that follow. Buffers double when they are full: reading n tokens copies O(n), and a new token costs its own
products and one attention over the tokens before it.

The first piece runs exactly as a whole row does. Refuses nothing: that a row fits the model's positions is seen to
by who asks (`evaluations/decoding.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lexarium.foundation.types import State
from lexarium.models.attention import Rule
from lexarium.models.layers import Layout


class Cache:
    """The buffers of one call of `advance`: opened from the state before, left as the state after."""

    def __init__(self, state: State | None, layout: Layout, device: torch.device) -> None:
        """`layout`: that of the new tokens (B, T)."""
        b, t = layout.batch, layout.length
        self.fresh, self.layer = state is None, 0
        self.state: State = {} if state is None else dict(state)
        start = self.state.get("length")
        if start is None:
            start = torch.zeros(b, dtype=torch.int64, device=device)
        first, last = (0, 0) if self.fresh else (int(start.min()), int(start.max()))
        self.end, self.start = last + t, first if first == last else None
        self.position = start[:, None] + torch.arange(t, device=device)  # (B, T)
        n_new = t if layout.real is None else torch.bincount(layout.real // t, minlength=b)
        self.state["length"] = start + n_new

    @property
    def rule(self) -> Rule:
        """New tokens attend to those before them and to themselves."""
        if self.start is not None:
            # one new token sees everything: no mask, which the library's kernels like best
            return Rule(causal=self.position.shape[1] > 1)
        seen = torch.arange(self.end, device=self.position.device) <= self.position[..., None]
        return Rule(causal=False, visible=seen[:, None])

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """New keys and values (B, H, T, d) of this layer -> those of all tokens so far (B, H, S, d)."""
        return self._extend("keys", k), self._extend("values", v)

    def _extend(self, name: str, new: Tensor) -> Tensor:
        name, t = f"{self.layer}.{name}", new.shape[2]
        buffer = self.state.get(name)
        if buffer is None or buffer.shape[2] < self.end:
            grown = new.new_zeros(*new.shape[:2], 1 << self.end.bit_length(), new.shape[3])
            if buffer is not None:
                grown[:, :, : buffer.shape[2]] = buffer
            self.state[name] = buffer = grown
        if self.start is not None:
            buffer[:, :, self.start : self.end] = new
        else:
            rows = torch.arange(new.shape[0], device=new.device)[:, None].expand(-1, t)
            buffer[rows, :, self.position] = new.transpose(1, 2)
        return new if self.fresh else buffer[:, :, : self.end]

    def keep(self, make: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Keys and values that stay what they are (an encoder's, as this layer sees them): made once."""
        names = f"{self.layer}.cross_keys", f"{self.layer}.cross_values"
        if self.fresh:
            self.state[names[0]], self.state[names[1]] = make()
        return self.state[names[0]], self.state[names[1]]
