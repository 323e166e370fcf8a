"""Write docs/api.md from the docstrings of the package: ``python docs/api.py``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nni_warmstart

PAGE = Path(__file__).resolve().parent / 'api.md'

INTRODUCTION = """# API reference

Made from the docstrings by `python docs/api.py`. These are the names that `from nni_warmstart import ...` gives, and their
public methods; everything else may change. The strategies take all arguments of NNI's strategy of the same name besides.

In signatures, `Source` is a `Supernet`, a path or a name; `Data` a loader, a torch dataset or two tensors; `Labelled` the
same or two arrays; `Task` images as `nni_warmstart.data` reads them; `Embedding` a function of images that has a name;
`Annotated[int, Range(1)]` a whole number, 1 or more, and `Annotated[float, Range(0, 1)]` a number from 0 to 1.
"""

GROUPS = {
    'Strategies': ('WarmStartDARTS', 'WarmStartGumbelDARTS', 'WarmStartProxyless'),
    'What is remembered': ('Supernet', 'SupernetZoo', 'Ranked'),
    'Distances between datasets': ('DatasetSketch', 'dataset_distance', 'DatasetDistance'),
    'Mapping supernets': ('transfer', 'TransferReport'),
    'Several datasets': ('JointClassification',),
    'Errors': (
        'WarmStartError',
        'ConfigError',
        'DataError',
        'DivergenceError',
        'SupernetFileError',
        'TransferError',
        'ZooError',
    ),
}
"""Every public name, in the order of the page."""

_TITLE = re.compile(r'^(\w[\w ]*)\n-{3,}\n', re.MULTILINE)
_ROLE = re.compile(r':(?:class|meth|func|mod|data|attr|exc):`~?([^`]+)`')


def main() -> None:
    PAGE.write_text(page())


def page() -> str:
    """The whole page as Markdown.

    Raises
    ------
    ValueError
        If a public name is in no group.
    """
    left_out = set(nni_warmstart.__all__) - {name for names in GROUPS.values() for name in names}
    if left_out:
        raise ValueError(f'GROUPS lacks {", ".join(sorted(left_out))}; add them to docs/api.py.')
    parts = [INTRODUCTION]
    for title, names in GROUPS.items():
        parts.append(f'## {title}\n')
        for name in names:
            parts += described(name, getattr(nni_warmstart, name), '###')
    return re.sub(r'\n{3,}', '\n\n', '\n'.join(parts))


def described(name: str, thing: Any, heading: str) -> Iterator[str]:
    """A class with its public methods, or a function."""
    is_error = inspect.isclass(thing) and issubclass(thing, Exception)
    yield f'{heading} {name}\n'
    if not is_error:
        yield f'```text\n{signature(name, thing)}\n```\n'
    yield markdown(inspect.getdoc(thing) or '')
    if not inspect.isclass(thing) or is_error:
        return
    for member, raw in vars(documented(thing)).items():
        if member.startswith('_') or not doc_of(raw):
            continue
        called = f'{name}.{member}'
        if isinstance(raw, property):
            yield f'#### {called}\n'
            yield f'Property, {annotation(inspect.signature(raw.fget).return_annotation)}.\n'
        elif callable(raw) or isinstance(raw, classmethod | staticmethod):
            yield f'#### {called}\n'
            yield f'```text\n{signature(called, getattr(thing, member))}\n```\n'
            if isinstance(raw, classmethod):
                yield 'Class method.\n'
        else:
            continue
        yield markdown(doc_of(raw))


def documented(thing: type) -> type:
    """The class that holds the methods: NNI wraps traced ones."""
    return next((cls for cls in thing.__mro__ if cls.__module__.startswith('nni_warmstart')), thing)


def doc_of(raw: Any) -> str:
    """Docstring of a member as it stands in its class; '' for what is inherited or has none."""
    function = raw.fget if isinstance(raw, property) else getattr(raw, '__func__', raw)
    text = function.__doc__ if inspect.isfunction(function) else None
    return inspect.cleandoc(text) if text else ''


def signature(name: str, thing: Any) -> str:
    """The call with its annotations and defaults, one argument a line where it is long."""
    target = getattr(thing, '_init_wrapped', thing)  # NNI's trace hides the constructor there
    target = getattr(target, '__wrapped__', target)  # Python 3.13 does not see through a class that NNI traces
    found = inspect.signature(target)
    arguments = [text for text in written(found.parameters.values()) if text != 'self']
    returned = found.return_annotation
    arrow = '' if inspect.isclass(thing) or returned is inspect.Signature.empty else f' -> {annotation(returned)}'
    line = f'{name}({", ".join(arguments)}){arrow}'
    if len(line) <= 100:
        return line
    return f'{name}(\n' + ''.join(f'    {argument},\n' for argument in arguments) + f'){arrow}'


def written(parameters: Any) -> Iterator[str]:
    """Arguments as in a definition."""
    starred = False
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            starred = True
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            starred = True
            yield '*'
        text = {parameter.VAR_POSITIONAL: '*', parameter.VAR_KEYWORD: '**'}.get(parameter.kind, '') + parameter.name
        if parameter.annotation is not parameter.empty:
            text += f': {annotation(parameter.annotation)}'
        if parameter.default is not parameter.empty:
            default = '...' if repr(parameter.default).startswith('<') else repr(parameter.default)
            text += f' = {default}' if ':' in text else f'={default}'
        yield text


def annotation(value: Any) -> str:
    """An annotation as it is written in the source."""
    if isinstance(value, str):
        return value
    return value.__forward_arg__ if hasattr(value, '__forward_arg__') else getattr(value, '__name__', str(value))


def markdown(text: str) -> str:
    """A NumPy docstring as Markdown."""
    pieces = _TITLE.split(text)
    parts = [prose(pieces[0])]
    for title, body in zip(pieces[1::2], pieces[2::2], strict=True):
        parts.append(f'**{title}**\n\n{prose(body) if title in ("References", "Notes") else entries(body)}')
    return '\n'.join(part for part in parts if part.strip()) + ('\n' if len(parts) > 1 else '')


def entries(body: str) -> str:
    """Names at the margin, what they mean indented below them, as a list."""
    lines: list[str] = []
    for line in body.strip('\n').splitlines():
        if line and not line.startswith(' '):
            lines.append(f'- `{line}`:')
        elif line.strip():
            lines[-1] += f' {line.strip()}'
    return inline('\n'.join(lines)) + '\n'


def prose(text: str) -> str:
    """Paragraphs."""
    return inline(text.strip('\n')) + '\n'


def inline(text: str) -> str:
    """reStructuredText's roles and literals in Markdown."""
    text = re.sub(r':math:`([^`]+)`', r'$\1$', text)
    text = _ROLE.sub(lambda role: f'`{role[1].removeprefix("nni_warmstart.")}`', text)
    return text.replace('``', '`')


if __name__ == '__main__':
    main()
