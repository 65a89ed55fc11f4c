"""Cohorts: several runs of equal shape trained as one stacked program.

A cohort takes ordinary trainers, fresh or resumed, and moves their tensors into shared storage:

    weights, gradients and each quantity of the optimiser    one (M, P) matrix each, a row per member
    a member's parameters and optimiser state                views of its row

so that evaluations and checkpoints of a member work on its own model and optimiser as if it were alone, without a
copy. A step is one vectorised pass (torch.func.vmap) of model and loss over the members, each with its own inputs,
dropout rate and loss factors, then one norm, one verdict and one elementwise update over the matrices, with every
option of the optimiser a column. Members may differ in seeds, data, schedule, length and in everything that is a
number (learning rate, weight decay, betas, dropout, clipping); what makes the shape of the program must be equal.

A member that ends, stops or fails leaves: its tensors become its own again and the others are stacked anew. A step
that is not finite in one member is held (or not) for that member alone.

A member's numbers equal those of its solo run within rounding, dropout included, because dropout belongs to the
token. On CUDA the step is compiled, captured and replayed like a solo run's (captured.py).
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lexarium.foundation.types import Batch, UserError
from lexarium.training.captured import (
    Layout,
    Replays,
    Ring,
    common_lengths,
    flat_values,
    lay_out,
    rectangular,
)
from lexarium.training.program import AHEAD, Program, StepResult, means, weights_of
from lexarium.training.program import compiled as compiled_form
from lexarium.training.step import TrainStep, autocast, factors_of
from lexarium.training.trainer import Trainer

ALIGNMENT = 64
"""Every parameter begins at a multiple of so many elements of its row."""


class Member:
    """A trainer's program while it is part of a cohort: its own model and optimiser, but no step of its own."""

    name = "stacked"

    def __init__(self, cohort: Cohort, number: int, alone: Program) -> None:
        self._cohort, self._number = cohort, number
        self.step, self.optimizer, self.device = alone.step, alone.optimizer, alone.device

    def update(self, batches: list[Batch], lr_scale: float) -> None:
        """A member does not step alone."""
        raise RuntimeError("a member of a cohort steps with the others: call Cohort.advance")

    def collect(self) -> list[StepResult]:
        """Results of this member's steps since the last call."""
        return self._cohort.collect(self._number)

    def state(self) -> dict[str, Any]:
        """Nothing beside weights and optimiser."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


class Cohort:
    """Trainers with stacked tensors. rules: the members' optimizer components (see `training.optimizers`).
    template: a model of their shape without content (see `models.build.template_of`)."""

    def __init__(
        self,
        trainers: Sequence[Trainer],
        rules: Sequence[Any],
        *,
        template: nn.Module,
        device: torch.device,
        precision: str = "fp32",
        longest: int | None = None,
        compiled: bool = False,
    ) -> None:
        # rows of a matrix are what we want: the advice is for exchanging gradients between processes
        warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")
        self.trainers, self.device, self.precision = list(trainers), device, precision
        self._rule, self._longest = type(rules[0]), longest
        self._alone = [t.program for t in self.trainers]
        self._policy = self.trainers[0].config.non_finite
        self._stack(rules)
        self._template = TrainStep(template, self._alone[0].step.objective).train()
        faster = compiled_form if compiled else lambda function: function
        self._losses, self._move = faster(self._each), faster(self._rule.stacked_step)
        self._replays, self._layouts = Replays(device), dict[Hashable, Layout]()
        self._ring: Ring | None = None
        self._terms: list[str] = []
        self._pending: list[list[tuple[dict[str, float], int]]] = []
        self._results: list[list[StepResult]] = [[] for _ in self.trainers]
        for i, trainer in enumerate(self.trainers):
            trainer.program = Member(self, i, self._alone[i])

    def __len__(self) -> int:
        return len(self.trainers)

    # -- stacking ------------------------------------------------------------------------------------

    def _stack(self, rules: Sequence[Any]) -> None:
        """Move weights and optimiser state of every member into rows of matrices."""
        m, first = len(self.trainers), self._alone[0].step
        self._dtype = next(first.parameters()).dtype
        used = probe(self.trainers[0])
        self._places: dict[str, tuple[int, torch.Size]] = {}
        width = 0
        for name, parameter in first.named_parameters():
            if name in used:
                self._places[name] = (width, parameter.shape)
                width += -(-parameter.numel() // ALIGNMENT) * ALIGNMENT
        matrix = lambda: torch.zeros(m, width, dtype=self._dtype, device=self.device)
        self._weight, self._gradient = matrix(), matrix()
        self._state = {quantity: matrix() for quantity in self._rule.stacked_state}
        self._steps = torch.zeros(m, 1, device=self.device)  # float32, as the library counts
        self._held = torch.zeros(m, 1, device=self.device)
        self._one = torch.ones((), dtype=self._dtype, device=self.device)
        column = lambda values: torch.tensor([[v] for v in values], dtype=torch.float64, device=self.device)
        self._clip = column(t.config.clip_norm for t in self.trainers).to(self._dtype)
        self._columns = {k: column(r.columns()[k] for r in rules) for k in rules[0].columns()}
        for row, program in enumerate(self._alone):
            self._adopt(row, program)
        self._columns["weight_decay"] = self._decays()
        self._parameters = {name: self._leaf(name) for name in self._places}
        self._constants = self._stack_constants()

    def _view(self, matrix: Tensor, row: int, name: str) -> Tensor:
        """A parameter's place in a row."""
        start, shape = self._places[name]
        return matrix[row, start : start + shape.numel()].view(shape)

    def _adopt(self, row: int, program: Program) -> None:
        """Copy one member's tensors into its row, and let the member use them there."""
        optimizer, counts = program.optimizer, set[float]()
        for name, parameter in program.step.named_parameters():
            if name not in self._places:
                continue
            place = self._view(self._weight, row, name)
            place.copy_(parameter.detach())
            parameter.data, parameter.grad = place, None
            state = optimizer.state[parameter]
            for quantity, matrix in self._state.items():
                place = self._view(matrix, row, name)
                if state.get(quantity) is not None:
                    place.copy_(state[quantity])
                state[quantity] = place
            counts.add(float(state["step"]) if "step" in state else 0.0)
            if self._rule.stacked_count:
                state["step"] = self._steps[row, 0]
        if len(counts) != 1:
            raise UserError(
                "parameters of one run have seen different numbers of updates; it is trained alone"
            )
        self._steps[row] = counts.pop()

    def _decays(self) -> Tensor:
        """(M, P): the weight decay of every weight, as its member's parameter groups have it."""
        found = torch.zeros_like(self._weight)
        for row, program in enumerate(self._alone):
            own = program.optimizer.param_groups
            rate = {id(p): group.get("weight_decay", 0.0) for group in own for p in group["params"]}
            for name, parameter in program.step.named_parameters():
                if name in self._places:
                    self._view(found, row, name).fill_(rate[id(parameter)])
        return found

    def _leaf(self, name: str) -> nn.Parameter:
        """(M, *shape): one parameter of all members; its gradient is a part of the gradient matrix."""
        start, shape = self._places[name]
        part = lambda matrix: matrix[:, start : start + shape.numel()].view(len(self), *shape)
        leaf = nn.Parameter(part(self._weight))
        leaf.grad = part(self._gradient)
        return leaf

    def _stack_constants(self) -> dict[str, Tensor]:
        """What the members read and nobody changes: buffers and frozen parameters."""
        steps = [program.step for program in self._alone]
        frozen = [n for n, _ in steps[0].named_parameters() if n not in self._places]
        found = {n: torch.stack([dict(s.named_parameters())[n].detach() for s in steps]) for n in frozen}
        buffers = [dict(s.named_buffers()) for s in steps]
        return found | {n: torch.stack([b[n] for b in buffers]) for n in buffers[0]}

    # -- stepping ------------------------------------------------------------------------------------

    def advance(self, batches: Sequence[list[Batch]]) -> None:
        """One step of every member on its own micro-batches."""
        if self._ring is not None and self._ring.waiting == AHEAD:
            self._read()
        weights = [weights_of(b) for b in batches]
        lengths = common_lengths([b for own in batches for b in own], self._longest)
        values = stacked([flat_values([rectangular(b, lengths) for b in own]) for own in batches])
        rates = [t.program.optimizer.param_groups[0]["base_lr"] * t.lr_scale for t in self.trainers]
        values["lr"] = torch.tensor(rates, dtype=torch.float64)[:, None]
        factors = [
            factors_of(w, coefficients=b[0].coefficients) for w, b in zip(weights, batches, strict=True)
        ]
        for name in weights[0]:
            values[f"factor/{name}"] = torch.tensor([f[name] for f in factors], dtype=torch.float64)
        shape = tuple((k, tuple(v.shape), v.dtype) for k, v in values.items())
        if shape not in self._layouts:
            self._layouts[shape] = lay_out(values, len(batches[0]), list(weights[0]), self.device)
        layout = self._layouts[shape]
        layout.staging.fill(values)
        self._replays(shape, lambda: self._carry_out(layout))
        assert self._ring is not None
        self._ring.count()
        self._pending.append(
            [(w, sum(b.n_tokens for b in own)) for w, own in zip(weights, batches, strict=True)]
        )
        for trainer in self.trainers:
            trainer.step += 1

    def _each(
        self, inputs: dict[str, Tensor], targets: dict[str, Tensor], factors: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(M,) what each member differentiates, and (M,) sums of its loss terms."""

        def one(parameters: Any, constants: Any, own: Any, wanted: Any, weights: Any) -> Any:
            return functional_call(self._template, (parameters, constants), (Batch(own, wanted, {}), weights))

        found: tuple[Tensor, dict[str, Tensor]] = vmap(one)(
            self._parameters, self._constants, inputs, targets, factors
        )
        return found

    def _carry_out(self, layout: Layout) -> None:
        """What is captured."""
        self._gradient.zero_()
        sums: dict[str, Tensor] = {}
        for batch in layout.batches:
            with autocast(self.device, self.precision), _plain_attention(self.device):
                losses, terms = self._losses(batch.inputs, batch.targets, layout.factors)
            losses.sum().backward()
            for name, value in terms.items():
                sums[name] = sums[name] + value if name in sums else value
        norm = torch.linalg.vector_norm(self._gradient, dim=1, keepdim=True, dtype=torch.float64)
        norm = norm.to(self._dtype)  # a norm that a solo run could not hold is not finite here either
        numbers = torch.cat([torch.stack([v.double() for v in sums.values()], 1), norm.double()], 1)
        finite = torch.isfinite(numbers).all(1, keepdim=True)
        self._apply(layout.lr, norm, finite)
        if self._ring is None:
            self._terms = list(sums)
            self._ring = Ring(len(self) * (numbers.shape[1] + 1), self.device)
        self._ring.write(torch.cat([numbers, finite.double()], 1).flatten())

    @torch.no_grad()
    def _apply(self, lr: Tensor, norm: Tensor, finite: Tensor) -> None:
        """Clipping and update of the members whose step may count."""
        go = torch.ones_like(finite)
        if self._policy == "stop":
            self._held.copy_(torch.maximum(self._held, (~finite).float()))
            go = self._held == 0
        elif self._policy == "skip":
            go = finite
        over = (self._clip > 0) & (norm > self._clip)
        gradient = self._gradient / torch.where(over, (norm + 1e-6) / self._clip, self._one)
        self._steps.add_(go)
        weight, state = self._move(
            self._weight, gradient, self._state, self._steps.double(), lr, self._columns
        )
        self._weight.copy_(torch.where(go, weight, self._weight))
        for quantity, value in state.items():
            self._state[quantity].copy_(torch.where(go, value, self._state[quantity]))

    # -- results -------------------------------------------------------------------------------------

    def collect(self, number: int) -> list[StepResult]:
        """Results of one member's steps since the last call; waits for the device."""
        self._read()
        found, self._results[number] = self._results[number], []
        return found

    def _read(self) -> None:
        rows = self._ring.read() if self._ring is not None else []
        pending, self._pending = self._pending, []
        width = len(self._terms) + 2
        for row, about in zip(rows, pending, strict=True):
            for i, (weights, tokens) in enumerate(about):
                *sums, norm, finite = row[i * width : (i + 1) * width]
                losses = means(dict(zip(self._terms, sums, strict=True)), weights)
                held = not finite and self._policy == "skip"
                self._results[i].append(StepResult(losses, norm, tokens, held, bool(finite)))

    def dissolve(self) -> None:
        """Give every member its own tensors and program back. Results must have been taken in (`Trainer.settle`)."""
        for trainer, program in zip(self.trainers, self._alone, strict=True):
            optimizer = program.optimizer
            for name, parameter in program.step.named_parameters():
                if name in self._places:
                    parameter.data = parameter.data.clone()
                    state = optimizer.state[parameter]
                    for quantity in (*self._state, *(["step"] if "step" in state else [])):
                        state[quantity] = state[quantity].clone()
            trainer.program = program
        vars(self).clear()  # it refers to itself: matrices and graphs would stay until garbage is collected


def probe(trainer: Trainer) -> set[str]:
    """Names of the parameters of a step that get a gradient from its next batch. Changes nothing."""
    program = trainer.program
    batch = trainer.batches()[0]
    step, device = program.step, program.device
    named = [(n, p) for n, p in step.named_parameters() if p.requires_grad]
    loss, _ = step.forward(batch.to(device), factors_of(weights_of([batch])))
    found = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
    return {n for (n, _), g in zip(named, found, strict=True) if g is not None}


def stacked(members: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """One tensor (M, ...) for every name. A member without dropout has no keys: it gets zeros, and drops nothing."""
    names = max(members, key=len)
    found = {}
    for name, like in names.items():
        values = [m[name] if name in m else torch.zeros_like(like) for m in members]
        missing = [m for m in members if name not in m]
        if missing and not name.endswith("_key"):
            raise UserError(f"some members of a cohort have no {name}")
        found[name] = torch.stack(values)
    return found


def _plain_attention(device: torch.device) -> Any:
    """The library's fused attention for CPUs has no stacked form; its plain one has."""
    if device.type != "cpu":
        return nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(SDPBackend.MATH)


# --- training together ------------------------------------------------------------------------------

How = bool | Exception
"""True = trained to the end, false = a listener ended it, or the error that did."""


def fit_together(
    trainers: Sequence[Trainer],
    stack: Callable[[list[Trainer]], Cohort],
    ended: Callable[[Trainer, How], None],
) -> None:
    """Train all members to their ends; `ended` is told how each one ended, after it has left the cohort."""
    going, cohort = list(trainers), None
    while going:
        leaving = _leavers(going, Trainer.boundary)
        batches: dict[Trainer, list[Batch]] = {}
        leaving |= _leavers([t for t in going if t not in leaving], functools.partial(_fetch, batches))
        if leaving and cohort is not None:
            # results are taken in before the cohort is gone; a step that was not finite may be known only now
            leaving |= _leavers(
                [t for t in going if not isinstance(leaving.get(t), Exception)], Trainer.settle
            )
            cohort.dissolve()
            cohort = None
        going = [t for t in going if t not in leaving]
        for trainer, how in leaving.items():
            ended(trainer, how)
        if going:
            cohort = cohort or stack(going)
            cohort.advance([batches[t] for t in going])


def _fetch(batches: dict[Trainer, list[Batch]], trainer: Trainer) -> None:
    batches[trainer] = trainer.batches()


def _leavers(trainers: Sequence[Trainer], ask: Callable[[Trainer], Any]) -> dict[Trainer, How]:
    """Trainers that answer with anything but None, or with an error."""
    found: dict[Trainer, How] = {}
    for trainer in trainers:
        try:
            answer = ask(trainer)
        except Exception as error:
            answer = error
        if answer is not None:
            found[trainer] = answer
    return found
