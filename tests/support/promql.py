"""Alert rules on made-up series, as Prometheus evaluates them.

The part of PromQL that the rules use. Whatever else an expression has raises NotImplementedError. Where promtool is on the
machine, tests ask it the same (`tests/deploy/test_alerts.py`).
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import promql_parser
from promql_parser import (
    AggregateExpr,
    BinaryExpr,
    Call,
    Expr,
    MatchOp,
    MatrixSelector,
    NumberLiteral,
    ParenExpr,
    VectorSelector,
)

NAME = "__name__"

# A series that has no sample for this time has no value any more.
LOOKBACK_SECONDS = 300.0

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]

# Times in seconds, and values.
Samples = list[tuple[float, float]]

AGGREGATIONS: Mapping[str, Callable[[Iterable[float]], float]] = {"sum": sum, "max": max, "min": min}
COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    "==": lambda a, b: a == b,
}


def labels_of(series: str) -> Labels:
    """The name and the labels of a series as it is written: nern_jobs{state="queued"}."""
    selector = promql_parser.parse(series)
    assert isinstance(selector, VectorSelector)
    return frozenset({(NAME, selector.name or ""), *((each.name, each.value) for each in selector.matchers.matchers)})


def without(labels: Labels, *names: str) -> Labels:
    return frozenset((name, value) for name, value in labels if name not in names)


def only(labels: Labels, names: Sequence[str]) -> Labels:
    return frozenset((name, value) for name, value in labels if name in names)


def selectors(expression: Expr) -> Iterator[VectorSelector]:
    """All selectors of series in an expression."""
    found: list[VectorSelector] = []

    def visit(part: Expr) -> bool:
        if isinstance(part, MatrixSelector):
            found.append(part.vector_selector)
        elif isinstance(part, VectorSelector):
            found.append(part)
        return True

    promql_parser.walk(expression, visit)
    yield from found


class Storage:
    """Series, and expressions on them."""

    def __init__(self, series: Mapping[Labels, Samples]) -> None:
        self.series = dict(series)

    def evaluate(self, expression: Any, at: float) -> Vector | float:
        """The value of an expression (text, or parsed) at a time in seconds."""
        match promql_parser.parse(expression) if isinstance(expression, str) else expression:
            case NumberLiteral() as number:
                return number.val
            case ParenExpr() as inner:
                return self.evaluate(inner.expr, at)
            case VectorSelector() as selector:
                found = {labels: self._window(samples, at, LOOKBACK_SECONDS) for labels, samples in self._chosen(selector)}
                return {labels: samples[-1][1] for labels, samples in found.items() if samples}
            case AggregateExpr() as aggregate:
                return self._aggregated(aggregate, at)
            case Call() as call:
                return self._called(call, at)
            case BinaryExpr() as binary:
                return self._combined(binary, at)
            case other:
                raise NotImplementedError(other)

    def vector(self, expression: Any, at: float) -> Vector:
        found = self.evaluate(expression, at)
        assert isinstance(found, dict)
        return found

    def _chosen(self, selector: VectorSelector) -> Iterable[tuple[Labels, Samples]]:
        assert not selector.offset
        for labels, samples in self.series.items():
            values = dict(labels)
            if values[NAME] == selector.name and all(
                _matches(each, values.get(each.name, "")) for each in selector.matchers.matchers
            ):
                yield labels, samples

    def _window(self, samples: Samples, at: float, seconds: float) -> Samples:
        return [(time, value) for time, value in samples if at - seconds < time <= at]

    def _aggregated(self, aggregate: AggregateExpr, at: float) -> Vector:
        [name] = [name for name in AGGREGATIONS if aggregate.prettify().startswith(name)]
        by = aggregate.modifier.labels if aggregate.modifier else []
        groups: dict[Labels, list[float]] = {}
        for labels, value in self.vector(aggregate.expr, at).items():
            groups.setdefault(only(labels, by), []).append(value)
        return {labels: AGGREGATIONS[name](values) for labels, values in groups.items()}

    def _called(self, call: Call, at: float) -> Vector:
        match call.func.name, call.args:
            case ("rate" | "increase") as name, [MatrixSelector() as matrix]:
                seconds = matrix.range.total_seconds()
                per = seconds if name == "rate" else 1.0
                found: Vector = {}
                for labels, samples in self._chosen(matrix.vector_selector):
                    # Before Prometheus 3, a sample at the very start of the range counted too. The rules do not depend on it.
                    if len(window := self._window(samples, at, seconds)) > 1:
                        found[without(labels, NAME)] = increase(window, at - seconds, at) / per
                return found
            case "absent", [argument]:
                return {} if self.vector(argument, at) else {frozenset(): 1.0}
            case "histogram_quantile", [NumberLiteral() as quantile, argument]:
                buckets: dict[Labels, list[tuple[float, float]]] = {}
                for labels, count in self.vector(argument, at).items():
                    buckets.setdefault(without(labels, NAME, "le"), []).append((float(dict(labels)["le"]), count))
                return {labels: quantile_of(sorted(counts), quantile.val) for labels, counts in buckets.items()}
            case other:
                raise NotImplementedError(other)

    def _combined(self, binary: BinaryExpr, at: float) -> Vector:
        left, right = self.vector(binary.lhs, at), self.evaluate(binary.rhs, at)
        operator = str(binary.op)
        if isinstance(right, float):
            return {labels: value for labels, value in left.items() if COMPARISONS[operator](value, right)}
        matching = binary.modifier.matching if binary.modifier else None
        on = matching.labels if matching else None
        key: Callable[[Labels], Labels] = (
            (lambda labels: only(labels, on)) if on is not None else (lambda labels: without(labels, NAME))
        )
        others = {key(labels): value for labels, value in right.items()}
        if operator == "unless":
            return {labels: value for labels, value in left.items() if key(labels) not in others}
        if operator == "/":
            return {
                key(labels): _divided(value, others[key(labels)]) for labels, value in left.items() if key(labels) in others
            }
        raise NotImplementedError(operator)


def increase(samples: Samples, start: float, end: float) -> float:
    """How much a counter has grown between two times, extrapolated from the samples between as Prometheus does it."""
    grown, before = 0.0, samples[0][1]
    for _, value in samples[1:]:
        grown += value - before if value >= before else value
        before = value
    (first, value), last = samples[0], samples[-1][0]
    sampled = last - first
    between = sampled / (len(samples) - 1)
    to_start, to_end = first - start, end - last
    if grown > 0 and value >= 0:
        to_start = min(to_start, sampled * value / grown)  # a counter was never below zero
    reach = [edge if edge < between * 1.1 else between / 2 for edge in (to_start, to_end)]
    return grown * (sampled + sum(reach)) / sampled


def quantile_of(buckets: Sequence[tuple[float, float]], quantile: float) -> float:
    """A quantile of a histogram: its upper bounds, ascending, and how many values are at or below each."""
    total = buckets[-1][1]
    if not total:
        return math.nan
    rank = quantile * total
    place = next(index for index, (_, count) in enumerate(buckets) if count >= rank)
    if place == len(buckets) - 1:
        return buckets[-2][0]
    start, below = buckets[place - 1] if place else (0.0, 0.0)
    end, count = buckets[place]
    return start + (end - start) * (rank - below) / (count - below)


@dataclass(frozen=True)
class Alert:
    """An alert rule. It fires when the expression has been true for `pending` seconds. `labels` are those that it adds."""

    name: str
    expression: str
    pending: float
    labels: Mapping[str, str]


def firing(alerts: Sequence[Alert], storage: Storage, at: float, interval: float) -> set[Labels]:
    """The labels of the alerts that fire at a time, if the rules are evaluated from time 0 on."""
    fire: set[Labels] = set()
    for alert in alerts:
        expression = promql_parser.parse(alert.expression)
        since: dict[Labels, float] = {}
        moment = 0.0
        while moment <= at:
            active = {without(labels, NAME) for labels in storage.vector(expression, moment)}
            since = {labels: since.get(labels, moment) for labels in active}
            moment += interval
        last = moment - interval
        added = frozenset({("alertname", alert.name), *alert.labels.items()})
        fire |= {labels | added for labels, start in since.items() if last - start >= alert.pending}
    return fire


def _matches(matcher: promql_parser.Matcher, value: str) -> bool:
    if matcher.op in (MatchOp.Equal, MatchOp.NotEqual):
        found, wanted = value == matcher.value, matcher.op == MatchOp.Equal
    else:
        found, wanted = re.fullmatch(matcher.value, value) is not None, matcher.op == MatchOp.Re
    return bool(found == wanted)


def _divided(value: float, by: float) -> float:
    return value / by if by else math.nan if not value else math.copysign(math.inf, value)
