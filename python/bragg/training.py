# SPDX-License-Identifier: Apache-2.0
"""Memory in training: what workers, and the server about a robust rule, keep from round to round.

>>> import bragg.training, numpy
>>> momentum = bragg.training.WorkerMomentum(0.5)
>>> momentum.step(numpy.array([4.0, 0.0])), momentum.step(numpy.array([0.0, 4.0]))
(array([2., 0.]), array([1., 2.]))

Gradients, models and aggregates are an array, or trees of arrays as in `bragg.aggregate`, of NumPy, PyTorch, JAX or CuPy.
Integers, booleans and what is no array take no part, and come back as they were given; arrays of other dtypes than
float16, bfloat16, float32 and float64, such as complex ones, are a TypeError. float16 and bfloat16 are computed with, and
kept, in float32. Nothing that is given is written to. The choices in their order: docs/training.md.

Raises: ValueError where trees, or shapes in them, differ from those before (a layer without a gradient sends zeros), where
an argument is out of its range, and where finite values would overflow what is kept; TypeError where an argument is no
number, and of arrays of dtypes that are not taken. Where one is raised, what is kept is as before.
"""

from __future__ import annotations

import importlib
import inspect
import math
import secrets
from collections.abc import Callable, Iterable
from typing import Any

from . import _bragg, _trees
from ._aggregate import _rule_text, aggregate
from ._agreement import OF_MOST, form_of_most, leaf_form
from ._arguments import finite, integer, number
from ._arrays import dtype_name, library_of
from ._report import Report
from .rules import Pipeline, Rule

__all__ = [
    "AboutLast",
    "GaussianNoise",
    "ServerAdam",
    "ServerSgd",
    "ServerYogi",
    "VarianceReduction",
    "WorkerMomentum",
    "clipped",
    "epsilon",
    "staleness_weights",
]

_SHORT = ("float16", "bfloat16")
_FLOATS = (*_SHORT, "float32", "float64")
_NOT_TAKEN = ("float", "bfloat", "longdouble", "complex", "clongdouble", "object")
"""What the names of dtypes begin with that could be taken for ones without values to compute with."""


def _is_float(leaf: Any) -> bool:
    return isinstance(leaf, float) or hasattr(leaf, "dtype") and dtype_name(leaf) in _FLOATS


def _wide(leaf: Any) -> Any:
    """What is computed with: at least float32."""
    if hasattr(leaf, "detach"):
        leaf = leaf.detach()
    if isinstance(leaf, float) or dtype_name(leaf) not in _SHORT:
        return leaf
    return leaf.float() if hasattr(leaf, "float") else leaf.astype("float32")


def _narrow(value: Any, like: Any) -> Any:
    """A copy in the dtype of `like`."""
    if isinstance(like, float):
        return float(value)
    if hasattr(value, "to"):
        return value.to(like.dtype, copy=True)
    return _module_of(like).asarray(value.astype(like.dtype))  # of no axes, NumPy computes with scalars


def _module_of(leaf: Any) -> Any:
    library: Any = library_of(leaf, "")
    return library.module


def _filled(leaf: Any, value: float) -> Any:
    return value if isinstance(leaf, float) else _module_of(leaf).full_like(_wide(leaf), value)


def _is_finite(leaf: Any) -> bool:
    return math.isfinite(leaf) if isinstance(leaf, float) else bool(_module_of(leaf).isfinite(leaf).all())


def _map(function: Callable[..., Any], like: Any, **others: Any) -> Any:
    """`function` of each floating-point leaf, and of those of other trees in its place, which `_check` has seen."""
    rows = [_trees.leaves(tree, like, name, "the others") for name, tree in others.items()]
    made = []
    for name, leaf, *rest in zip(_trees.names(like), _trees.leaves(like, like, ""), *rows):
        if _is_float(leaf):
            made.append(function(leaf, *rest))
            continue
        if _trees.is_numbers(leaf):
            raise TypeError(f"{name or 'it'}: a list of numbers; needs arrays")
        dtype = "complex" if isinstance(leaf, complex) else dtype_name(leaf) if hasattr(leaf, "dtype") else ""
        if dtype.startswith(_NOT_TAKEN):
            raise TypeError(f"{name or 'it'}: dtype {dtype}; needs {', '.join(_FLOATS[:-1])} or {_FLOATS[-1]}")
        made.append(leaf)
    return _trees.rebuild(like, iter(made))


def _form(leaf: Any) -> str:
    """What floating-point leaves in one place must have the same: shape and library."""
    if _is_float(leaf):
        library = "numpy" if isinstance(leaf, float) else _module_of(leaf).__name__
        return f"floating-point numbers of shape {tuple(getattr(leaf, 'shape', ()))} ({library})"
    return f"{dtype_name(leaf)} of shape {tuple(leaf.shape)}" if hasattr(leaf, "dtype") else type(leaf).__name__


def _check(name: str, tree: Any, like: Any, source: str) -> None:
    """@raises ValueError: the floating-point leaves are not those of `like`, which is `source`'s."""
    try:
        leaves = _trees.leaves(tree, like, name, source)
    except TypeError as error:
        raise ValueError(str(error)) from None
    for place, leaf, wanted in zip(_trees.names(like), leaves, _trees.leaves(like, like, "")):
        if (_is_float(leaf) or _is_float(wanted)) and _form(leaf) != _form(wanted):
            raise ValueError(f"{name}{place}: {_form(leaf)}; needs {_form(wanted)}, as in {source}")


def _all_finite(tree: Any) -> bool:
    return all(_is_finite(leaf) for leaf in _trees.leaves(tree, tree, "") if _is_float(leaf))


def _copy(leaf: Any) -> Any:
    if _is_float(leaf):
        return _narrow(_wide(leaf), leaf)
    return type(leaf)(leaf) if _trees.is_numbers(leaf) else leaf


def _map_all(function: Callable[[Any], Any], tree: Any) -> Any:
    return _trees.rebuild(tree, map(function, _trees.leaves(tree, tree, "")))


def _copied(tree: Any) -> Any:
    return _map_all(_copy, tree)


def _share(name: str, value: float) -> float:
    value = number(name, value)
    if not 0 <= value < 1:
        raise ValueError(f"{name} = {value!r}; needs a number in [0, 1)")
    return value


def _positive(name: str, value: float) -> float:
    value = finite(name, value)
    if value <= 0:
        raise ValueError(f"{name} = {value!r}; needs a number above 0")
    return value


class _Memory:
    """Trees that are kept, by name; None before there is one."""

    def __init__(self, *names: str) -> None:
        self._kept: dict[str, Any] = dict.fromkeys(names)

    def state_dict(self) -> dict[str, Any]:
        """Copies of what is kept."""
        return {name: None if tree is None else _copied(tree) for name, tree in self._kept.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What `state_dict` returned."""
        if not isinstance(state, dict) or state.keys() != self._kept.keys():
            found = sorted(map(str, state)) if isinstance(state, dict) else type(state).__name__
            raise ValueError(f"state: {found}; needs {sorted(self._kept)}")
        first, *others = state
        for name, tree in state.items():
            if (tree is None) != (state[first] is None):
                raise ValueError(f"state[{name!r}]: {type(tree).__name__}, and {first!r} not; needs both or neither")
            if tree is not None and not any(map(_takes_part, _trees.leaves(tree, tree, ""))):
                raise ValueError(f"state[{name!r}]: holds no arrays; needs what state_dict returned")
            if tree is not None and not _all_finite(tree):
                raise ValueError(f"state[{name!r}]: holds NaN or infinity; load a state of before")
        for name in others if state[first] is not None else ():
            _check(f"state[{name!r}]", state[name], state[first], f"state[{first!r}]")
        self._kept = {name: None if tree is None else _copied(tree) for name, tree in state.items()}

    def _check_as_before(self, name: str, tree: Any) -> None:
        """@raises ValueError: it has not the form of what is kept."""
        for kept in self._kept.values():
            if kept is not None:
                _check(name, tree, kept, "the rounds before")


# Workers ---------------------------------------------------------------------------------------------------


class WorkerMomentum(_Memory):
    """m ← βm + (1−β)g, from 0, which a worker sends in the place of its gradient g (Karimireddy et al. 2021, Algorithm 2).

    Attackers who add a little in every round are held by it, since honest workers differ by less and less. An array with
    NaN or infinity is sent as it is, and its m stays. The optimizer is to have no momentum besides.
    """

    def __init__(self, beta: float = 0.9) -> None:
        super().__init__("momentum")
        self._beta = _share("beta", beta)

    def step(self, gradient: Any) -> Any:
        """What to send."""
        self._check_as_before("gradient", gradient)
        if self._kept["momentum"] is None:
            self._kept["momentum"] = _map(lambda g: _filled(g, 0.0), gradient)

        def moved(g: Any, m: Any) -> Any:
            return self._beta * m + (1 - self._beta) * _wide(g) if _is_finite(_wide(g)) else m

        self._kept["momentum"] = _map(moved, gradient, momentum=self._kept["momentum"])
        return _sent(gradient, self._kept["momentum"])


class VarianceReduction(_Memory):
    """Momentum-based variance reduction: m ← g + β(m − g′), at first g, where g′ is the gradient of the same batch at the
    model of the round before: STORM (Cutkosky & Orabona 2019) with a = 1 − β fixed, on each worker, which Karimireddy et
    al. (2021, section 6.3) put in the place of worker momentum.

    It takes a second gradient in each round. As m ← βm + (1−β)g + β(g − g′) it is worker momentum less its delay. An array
    of g or g′ with NaN or infinity, or for which m would overflow, leaves m as it is; of g it is sent as it is. m is
    about the model of the last round that went into it: after rounds that a worker missed, or in which m stayed as it was, g′ is
    the gradient at that model.
    """

    def __init__(self, beta: float = 0.9) -> None:
        super().__init__("momentum")
        self._beta = _share("beta", beta)

    def step(self, gradient: Any, previous: Any = None) -> Any:
        """What to send. `previous`: g′; left out in the first round alone."""
        self._check_as_before("gradient", gradient)
        if self._kept["momentum"] is None:
            if _all_finite(gradient):  # else the next round is the first
                self._kept["momentum"] = _map(lambda g: _narrow(_wide(g), _wide(g)), gradient)
            return _map(_copy, gradient)
        if previous is None:
            raise ValueError("previous: None; needs the gradient of this batch at the model of the round before")
        _check("previous", previous, gradient, "gradient")

        def moved(g: Any, m: Any, before: Any) -> Any:
            g, before = _wide(g), _wide(before)
            made = g + self._beta * (m - before)
            return made if _is_finite(g) and _is_finite(before) and _is_finite(made) else m

        self._kept["momentum"] = _map(moved, gradient, momentum=self._kept["momentum"], previous=previous)
        return _sent(gradient, self._kept["momentum"])


def _sent(gradient: Any, momentum: Any) -> Any:
    return _map(lambda g, m: _narrow(m if _is_finite(_wide(g)) else _wide(g), g), gradient, momentum=momentum)


# The server ------------------------------------------------------------------------------------------------


_NO_OPTIONS = ("updates", "rule", "base", "out", "return_report")


class AboutLast(_Memory):
    """A rule about its last result: `bragg.aggregate` with the last result as `base`, at first none.

    With `centered_clipping` it is that of Karimireddy et al. (2021); any rule after `clip`, or by norms, has what is honest
    near to where it measures from.

    Updates have the form of the first round's, in every round, and the last result is taken as one of their dtypes. What is
    no array is of each round anew: what most updates share, else it is left out.
    """

    def __init__(self, rule: str | Rule | Pipeline, **options: Any) -> None:
        """`options`: of `bragg.aggregate`, but for `base`, `out` and `return_report`. ParseError: the rule is none."""
        super().__init__("last")
        self._rule = _rule_text(rule)
        _bragg.pivot_of(self._rule)  # raises where it is no rule
        self._options = self._checked(options)
        self.report: Report | tuple[Report, ...] | None = None
        """Of the last call."""

    def aggregate(self, updates: Any, **options: Any) -> Any:
        """The robust aggregate, which is kept. `options`: of this round, such as `weights`."""
        given = self._options | self._checked(options)
        last = self._kept["last"]
        base = None if last is None else _map_all(lambda leaf: leaf if _takes_part(leaf) else OF_MOST, last)
        result, self.report = aggregate(updates, self._rule, base=base, return_report=True, **given)
        like = form_of_most(updates) if last is None else last
        found = dict(zip(_trees.names(result), _trees.leaves(result, result, "")))
        leaves = zip(_trees.names(like), _trees.leaves(like, like, ""))
        kept = _trees.rebuild(like, (_as_base(found.get(name), leaf) for name, leaf in leaves))
        if _all_finite(kept):  # else, with allow_nonfinite, the one before stays
            self._kept["last"] = kept
        return result

    @staticmethod
    def _checked(options: dict[str, Any]) -> dict[str, Any]:
        for name in options:
            if name not in inspect.signature(aggregate).parameters or name in _NO_OPTIONS:
                raise TypeError(f"{name}: AboutLast takes no such option")
        return options


def _takes_part(leaf: Any) -> bool:
    return leaf_form(leaf, False)[0] != "no array"


def _as_base(value: Any, like: Any) -> Any:
    """Of the result's leaf, what is kept; of what is no array, nothing."""
    if not _takes_part(value):
        return None
    return _narrow(_wide(value), like) if _is_float(value) else _copy(value)


class _Server(_Memory):
    """Makes the next model of the last one and an aggregate of workers' models. Δ is their difference."""

    def __init__(self, lr: float, *names: str) -> None:
        super().__init__(*names)
        self._lr = _positive("lr", lr)

    def _change(self, model: Any, aggregate: Any) -> Any:
        self._check_as_before("model", model)
        _check("aggregate", aggregate, model, "model")
        for name, tree in (("model", model), ("aggregate", aggregate)):
            if not _all_finite(tree):
                raise ValueError(f"{name}: it holds NaN or infinity; go on from a model, and an aggregate, without")
        return _map(lambda x, out: _wide(out) - _wide(x), model, aggregate=aggregate)

    def _next(self, model: Any, aggregate: Any, step: Any, kept: dict[str, Any]) -> Any:
        """The model, of what is no floating-point array the aggregate's. Keeps `kept` if all is finite."""
        made = _map(lambda out, x, s: _narrow(_wide(x) + self._lr * s, x), aggregate, model=model, step=step)
        for name, tree in {"the next model": made, **kept}.items():
            if tree is not None and not _all_finite(tree):
                raise ValueError(
                    f"aggregate: too far from the model, {name} would overflow; leave this round out, or take a smaller lr"
                )
        self._kept = kept
        return made


class ServerSgd(_Server):
    """v ← μv + Δ; model + lr·v (Hsu et al. 2019). Without momentum μ: model + lr·(aggregate − model)."""

    def __init__(self, lr: float, momentum: float = 0) -> None:
        super().__init__(lr, "momentum")
        self._mu = _share("momentum", momentum)

    def step(self, model: Any, aggregate: Any) -> Any:
        """The next model. `aggregate`: of workers' models; where workers send differences, the model plus theirs."""
        change = self._change(model, aggregate)
        if self._kept["momentum"] is not None:
            change = _map(lambda c, v: self._mu * v + c, change, momentum=self._kept["momentum"])
        return self._next(model, aggregate, change, {"momentum": change if self._mu > 0 else None})


class _Adaptive(_Server):
    """m ← β₁m + (1−β₁)Δ, from 0; v, from τ²; model + lr·m/(√v + τ) (Reddi et al. 2021, Algorithm 2)."""

    def __init__(self, lr: float, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3) -> None:
        super().__init__(lr, "first", "second")
        self._beta1, self._beta2, self._tau = _share("beta1", beta1), _share("beta2", beta2), _positive("tau", tau)

    def _second(self, v: Any, square: Any) -> Any:
        raise NotImplementedError

    def step(self, model: Any, aggregate: Any) -> Any:
        """The next model. `aggregate`: of workers' models; where workers send differences, the model plus theirs."""
        change = self._change(model, aggregate)
        first, second = self._kept["first"], self._kept["second"]
        if first is None:
            first = _map(lambda c: _filled(c, 0.0), change)
            second = _map(lambda c: _filled(c, self._tau**2), change)
        first = _map(lambda c, m: self._beta1 * m + (1 - self._beta1) * c, change, first=first)
        second = _map(lambda c, v: self._second(v, c * c), change, second=second)
        step = _map(lambda m, v: m / (v**0.5 + self._tau), first, second=second)
        return self._next(model, aggregate, step, {"first": first, "second": second})


class ServerAdam(_Adaptive):
    """As Adam: v ← β₂v + (1−β₂)Δ² from τ², m ← β₁m + (1−β₁)Δ from 0; model + lr·m/(√v + τ), without a correction of what
    they begin with (Reddi et al. 2021, FedAdam)."""

    def _second(self, v: Any, square: Any) -> Any:
        return self._beta2 * v + (1 - self._beta2) * square


class ServerYogi(_Adaptive):
    """As ServerAdam, with v ← v − (1−β₂)·Δ²·sgn(v − Δ²), which forgets large changes slowly (Reddi et al. 2021, FedYogi)."""

    def _second(self, v: Any, square: Any) -> Any:
        if isinstance(v, float):  # NumPy's float64 is one, whose comparisons cannot be subtracted
            return v - (1 - self._beta2) * square * (float(v > square) - float(v < square))
        return v - (1 - self._beta2) * square * _module_of(v).sign(v - square)


# Privacy ---------------------------------------------------------------------------------------------------


def clipped(update: Any, norm: float) -> Any:
    """The update, where all its floating-point arrays together are longer than `norm` scaled to that Euclidean norm.

    What is stored, in its dtype, is no longer, but for the rounding of a float32 sum of squares: what float16 and
    bfloat16 would round up beyond it is scaled further.
    """
    norm = _positive("norm", norm)
    made = _map(_copy, update)
    if not _all_finite(update):
        raise ValueError("update: holds NaN or infinity, and has no norm; leave it out")
    most, ratio = _norm(update)
    goal, margin, length = norm, 2.0**-24, most * ratio
    while length > norm:
        made = _map(lambda leaf: _narrow(_scaled(_wide(leaf), most, goal / ratio), leaf), update)
        length = math.prod(_norm(made))
        if length > norm:  # rounded up
            goal, margin = goal * min(norm / length, 1 - margin), 2 * margin
    return made


def _largest(leaf: Any) -> float:
    if isinstance(leaf, float):
        return abs(leaf)
    return 0.0 if math.prod(leaf.shape) == 0 else float(abs(_wide(leaf)).max())


def _norm(tree: Any) -> tuple[float, float]:
    """The largest value, and the Euclidean norm as a multiple of it: their product may be no float64."""
    leaves = [leaf for leaf in _trees.leaves(tree, tree, "") if _is_float(leaf)]
    largest = [_largest(leaf) for leaf in leaves]
    most = max(largest, default=0.0)
    if most == 0:
        return 0.0, 1.0

    def length(leaf: Any, own: float) -> float:
        parts = _wide(leaf) / own
        return own / most * math.sqrt(parts * parts if isinstance(leaf, float) else float((parts * parts).sum()))

    return most, math.hypot(*(length(leaf, own) for leaf, own in zip(leaves, largest) if own > 0))


def _scaled(leaf: Any, most: float, scale: float) -> Any:
    """leaf / most · scale. Nothing on the way is larger than the leaf's own largest value."""
    own = _largest(leaf)
    return leaf / own * (own / most * scale) if own > 0 else leaf


class GaussianNoise:
    """Adds N(0, (noise_multiplier·sensitivity)²) to each coordinate, for (ε, δ)-differential privacy: see `epsilon`.

    `sensitivity` is how far what is added to can move when one record changes, in Euclidean norm. Of a worker's update
    `clipped` to C it is 2C, whatever the other workers and the server do; of the mean of n such updates, 2C/n, when a
    worker changes; of a rule whose result is within the updates' convex hull, 2C: then noise of the workers' own is the
    choice.

    Noise is drawn with NumPy's Philox, by `seed`, `worker` and the round: the same again in a run that is repeated. Who
    knows the seed can take the noise off: keep it secret. Without one it is drawn by the system, which is the choice but
    for experiments. What has the same noise twice hides nothing, since the difference is exact: beside a seed, each of
    its users needs a `worker` of its own, and rounds go up; who starts again from a state of before needs a new seed.
    Noise in floating point has gaps that an attacker who sees single values may use (Mironov 2012).
    """

    def __init__(
        self, noise_multiplier: float, sensitivity: float, seed: int | None = None, worker: int | None = None
    ) -> None:
        """
        Raises:
            ValueError: Also of a seed without a worker, and where noise_multiplier · sensitivity is no float64 above 0.
        """
        multiplier, sensitivity = _positive("noise_multiplier", noise_multiplier), _positive("sensitivity", sensitivity)
        self._deviation = _positive("noise_multiplier * sensitivity", multiplier * sensitivity)
        self._seed = secrets.randbits(64) if seed is None else integer("seed", seed, most=2**64 - 1)
        if seed is not None and worker is None:
            raise ValueError("worker: None; needs a number of its own for each that has this seed: 0, 1, …")
        self._worker = integer("worker", worker or 0, most=2**64 - 1)
        self._round = -1

    def add(self, update: Any, round: int) -> Any:
        """The update with the noise of this round: all its arrays in one call, as a tree. Of what is no floating-point
        array nothing is hidden: leave it out.

        @raises ValueError: there was such a call for this round, or a later one.
        """
        import numpy

        round = integer("round", round, most=2**64 - 1)
        if round <= self._round:
            raise ValueError(
                f"round = {round}; needs one above {self._round}: what has the same noise twice hides nothing. Give all "
                "arrays of a round in one call, as a tree"
            )
        key = numpy.array([self._seed, self._worker], numpy.uint64)
        counter = numpy.array([0, 0, 0, round], numpy.uint64)
        random = numpy.random.Generator(numpy.random.Philox(key=key, counter=counter))

        def noisy(leaf: Any) -> Any:
            noise = self._deviation * random.standard_normal(getattr(leaf, "shape", ()))
            if isinstance(leaf, float):
                return leaf + float(noise)
            wide = _wide(leaf)
            if hasattr(wide, "to"):
                return _narrow(wide + _module_of(wide).as_tensor(noise).to(wide), leaf)
            return _narrow(wide + _module_of(wide).asarray(noise).astype(wide.dtype), leaf)

        made = _map(noisy, update)
        self._round = round
        return made


def epsilon(noise_multiplier: float, rounds: int, delta: float, sampling: float = 1) -> float:
    """The ε for which `rounds` rounds of `GaussianNoise` are (ε, δ)-differentially private, by the Rényi accountant of
    dp-accounting (`pip install dp-accounting`).

    `sampling`: the probability with which each record takes part in a round, drawn anew for each record and round
    (Poisson); below 1 the sensitivity is that of adding or removing a record, such as C of a sum.
    """
    multiplier = _positive("noise_multiplier", noise_multiplier)
    rounds = integer("rounds", rounds, 1)
    delta, sampling = finite("delta", delta), finite("sampling", sampling)
    for name, value in (("delta", delta), ("sampling", sampling)):
        if not 0 < value <= 1:
            raise ValueError(f"{name} = {value!r}; needs a number above 0, and at most 1")
    try:
        accounting = importlib.import_module("dp_accounting")
        accountant = importlib.import_module("dp_accounting.rdp").RdpAccountant()
    except ImportError as error:
        raise ImportError("bragg.training.epsilon needs dp-accounting: pip install dp-accounting") from error
    event = accounting.GaussianDpEvent(multiplier)
    if sampling < 1:
        event = accounting.PoissonSampledDpEvent(sampling, event)
    return float(accountant.compose(event, rounds).get_epsilon(delta))


# Workers that are late -------------------------------------------------------------------------------------


def staleness_weights(rounds: Iterable[float], exponent: float = 0.5) -> list[float]:
    """(1 + s)^−exponent for each worker that is s rounds late (Xie et al. 2019, FedAsync): `weights` of
    `bragg.aggregate`. A cap (`max_weight_share`) keeps workers who pretend to be early from having more.
    """
    exponent = finite("exponent", exponent)
    if exponent < 0:
        raise ValueError(f"exponent = {exponent!r}; needs at least 0")
    late = [finite("rounds", value) for value in rounds]
    if any(value < 0 for value in late):
        raise ValueError(f"rounds: {min(late)!r}; needs at least 0")
    return [(1 + value) ** -exponent for value in late]
