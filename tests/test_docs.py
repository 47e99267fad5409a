"""The documents say what the program does: generated pages fresh, links alive, options and requirements listed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "changes").glob("*.md")])


def test_generated_pages_are_fresh() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "docs"), "--check"]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT / "src")}
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_local_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_option_is_documented() -> None:
    tree = ast.parse((ROOT / "src/comity/config/sections.py").read_text(encoding="utf-8"))
    silent = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            for part, following in zip(node.body, [*node.body[1:], None], strict=True):
                documented = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and not documented:
                    silent.append(f"{node.name}.{part.target.id}")
    assert not silent


def test_the_path_of_a_message_names_files_that_exist() -> None:
    text = (ROOT / "docs/topics/path-of-a-message.md").read_text(encoding="utf-8")
    for name in re.findall(r"`((?:bindings|service|store|net|cpim)/[\w/]+\.py)`", text):
        assert (ROOT / "src/comity" / name).exists(), name


def test_the_readme_fits_two_screens() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 100


def test_every_example_is_short() -> None:
    for example in (ROOT / "examples").glob("*.py"):
        assert len(example.read_text(encoding="utf-8").splitlines()) < 60, example.name
