"""Forms of the files of a search: a file of another form is refused before anything of it is drawn."""

from __future__ import annotations

from typing import Any, NamedTuple

NUMBER: Any = (int, float)

MAYBE_NUMBER: Any = (int, float, type(None))


class Values(NamedTuple):
    """Form of a mapping of any text to values of one form, of which there are ``least`` at least."""

    form: Any
    least: int = 0


class Row(NamedTuple):
    """Form of a list whose values have a form each."""

    forms: tuple[Any, ...]


class Within(NamedTuple):
    """Form of a number within bounds; one that is NaN fits."""

    low: float
    high: float


class Needed(NamedTuple):
    """Form of a value of a mapping that may not be missing."""

    form: Any


ALPHAS = [Values(Values((Within(0, 1), type(None)), least=1))]
"""Form of the probabilities by epoch."""

WARM_START = {
    'source': Needed(str),
    'head': Needed(str),
    'share_inherited': Needed(NUMBER),
    'zero_shot_accuracy': MAYBE_NUMBER,
    'seconds': Needed(Values(MAYBE_NUMBER)),
    'ranking': [Row((str, MAYBE_NUMBER))],
    'chosen': str,
    'blocks': Values(object),
    'cells': [Row((str, str, int, int))],
    'share_by_cell': Values(NUMBER),
    'share_by_op': Values(NUMBER),
    'tensors': Needed([Row((str, str, object, int, object))]),
}
"""Form of the report of a warm start, see :meth:`~nni_warmstart.TransferReport.to_dict`."""

COSTS = {
    'parameters': Needed(int),
    'multiply_adds': Needed(int),
    'latency_ms': Needed(NUMBER),
    'latency_ms_quartiles': Needed(Row((NUMBER, NUMBER))),
}
"""Form of the costs of a network."""

RESULT = {
    'costs': (COSTS, type(None)),
    'architecture': Needed(Values(object)),
    'curve': Needed([Values(object)]),
    'alphas': ALPHAS,
    'final': (dict, type(None)),
    'warm_start': (WARM_START, type(None)),
    'stop_at': ({'accuracy': Needed(NUMBER), 'epoch': Needed((int, type(None)))}, type(None)),
    'versions': Values(object),
    'run': (dict, type(None)),
}
"""Form of ``result.json``; what is not named here is shown as it is."""

RETRAINED = {
    'architecture': Needed(Values(object)),
    'curve': Needed([MAYBE_NUMBER]),
    'final': Needed(MAYBE_NUMBER),
    'measured_on': Needed(str),
    'parameters': Needed(int),
    'weights': Needed(str),
    'costs': (COSTS, type(None)),
    'seconds': MAYBE_NUMBER,
}
"""Form of ``result.json`` of a retraining."""

RECORD = {'curve': Needed([Values(object)]), 'samples': [Values(object)], 'alphas': ALPHAS}
"""Form of the record in a checkpoint."""

SETTINGS = {
    'data': dict,
    'space': {'arguments': dict},
    'evaluator': dict,
    'strategy': {'arguments': dict},
}
"""Form of ``settings.json``."""


def misfit(value: Any, form: Any, where: str = '') -> str | None:
    """Return the name of the first value that has another form, None if all fit.

    Parameters
    ----------
    value
        Plain data, as read from JSON.
    form
        A type; a tuple of forms, of which one has to fit; a list with the form of all its items; a :class:`Row`; a
        :class:`Values`; a :class:`Within`; or a dict with forms of values, which may be missing unless they are
        :class:`Needed`.
    where
        Name of the value.
    """
    if isinstance(form, Row):
        if not isinstance(value, list) or len(value) != len(form.forms):
            return where
        return _first(zip(range(len(value)), value, form.forms, strict=True), where)
    if isinstance(form, Values):
        if not isinstance(value, dict) or len(value) < form.least:
            return where
        return _first(((key, item, form.form) for key, item in value.items()), where)
    if isinstance(form, Within):
        return where if misfit(value, NUMBER) is not None or value < form.low or value > form.high else None
    if isinstance(form, dict):
        if not isinstance(value, dict):
            return where
        missing = [key for key, each in form.items() if isinstance(each, Needed) and key not in value]
        if missing:
            return _name(where, missing[0])
        return _first(((key, value[key], form[key]) for key in form if key in value), where)
    if isinstance(form, list):
        if not isinstance(value, list):
            return where
        return _first(((index, item, form[0]) for index, item in enumerate(value)), where)
    if isinstance(form, Needed):
        return misfit(value, form.form, where)
    if isinstance(form, tuple):
        wrong = [misfit(value, each, where) for each in form]
        return None if None in wrong else max(wrong, key=lambda name: len(name or ''))
    fits = isinstance(value, form) and not (form is int and isinstance(value, bool))
    return None if fits else where


def _first(items: Any, where: str) -> str | None:
    return next((wrong for key, item, form in items if (wrong := misfit(item, form, _name(where, key))) is not None), None)


def _name(where: str, key: Any) -> str:
    return f'{where}.{key}'.lstrip('.')
