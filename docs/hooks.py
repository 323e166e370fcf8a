"""Hooks of MkDocs: the site is docs/ and, from where they are, the pages and files of benchmarks/ and examples/."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
SHOWN = ('.md', '.png', '.jsonl', '.py', '.yml')

_UPWARDS = re.compile(r'(?<=\]\()\.\./[^)\s#]+')
_ROLE = re.compile(r':(?:class|meth|func|mod|data|attr):<code>~?(?:nni_warmstart\.)?([^<]+)</code>')


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add what lies beside docs/, and the pages of benchmarks to the navigation."""
    found = [path for folder in ('benchmarks', 'examples') for path in sorted((ROOT / folder).rglob('*'))]
    beside = [path.relative_to(ROOT).as_posix() for path in found if path.suffix in SHOWN]
    for name in ('CHANGELOG.md', *beside):
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    (results,) = (section['Results'] for section in config.nav or () if 'Results' in section)
    results += [name for name in beside if name.endswith('.md') and name not in str(results)]


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn links upwards, which lead somewhere among the files, into those of the site, which has no folder docs/."""
    folder = Path(str(page.file.abs_src_path)).parent

    def of_site(link: re.Match[str]) -> str:
        target = os.path.relpath(folder / link[0], ROOT).removeprefix('docs/')
        return os.path.relpath(target, Path(page.file.src_uri).parent)

    return _UPWARDS.sub(of_site, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Turn the roles of reStructuredText in docstrings into links where the reference has what they name."""
    return _ROLE.sub(r'<autoref optional identifier="nni_warmstart.\1"><code>\1</code></autoref>', html)
