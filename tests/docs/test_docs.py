"""The pages are true: links lead somewhere, examples run, commands parse, and nothing that they promise is missing."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from html.parser import HTMLParser
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import pytest
import typer.main
import yaml
from markdown_it import MarkdownIt

import hwsim
from hwsim.card import CardFile
from hwsim.cli import app
from hwsim.dtypes import DTYPES
from hwsim.errors import StudyError
from hwsim.kernel_ops import SPEC_OPS
from hwsim.precision import PRECISIONS
from hwsim.registry import plugins
from hwsim.study.schema import SECTIONS, CaseFile, MatrixFile, StudyFile, WorkloadFile
from hwsim.study.studyfile import read_study
from hwsim.study.tables import CASE_COLUMNS, KERNEL_COLUMNS
from hwsim.systemfile import load_system
from hwsim.workload import PHASES

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
GENERATED = (DOCS / "accuracy.md", DOCS / "accuracy-h100.md")
WRITTEN = [page for page in PAGES if page not in GENERATED]
EXAMPLES = [page for page in WRITTEN if "```python" in page.read_text("utf-8")]
CLI = "import sys; from hwsim.cli import main; sys.exit(main())"
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
PARSER = MarkdownIt("commonmark").enable("table")


class Fence(NamedTuple):
    """A fenced block: its language, the words after it (``file=NAME``, ``merge=NAME``), and its text."""

    language: str
    options: dict[str, str]
    text: str


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def fences(page: Path, *languages: str) -> Iterator[Fence]:
    for token in PARSER.parse(page.read_text("utf-8")):
        if token.type == "fence":
            language, *words = token.info.split() or [""]
            if not languages or language in languages:
                yield Fence(language, dict(word.split("=", 1) for word in words), token.content)


def inline_codes(page: Path) -> Iterator[str]:
    for token in PARSER.parse(page.read_text("utf-8")):
        yield from (part.content for part in token.children or () if part.type == "code_inline")


def links(page: Path) -> Iterator[str]:
    for token in PARSER.parse(page.read_text("utf-8")):
        for part in token.children or ():
            for attribute in ("href", "src"):
                target = part.attrGet(attribute)
                if target and not re.match(r"[a-z]+:", str(target)):
                    yield unquote(str(target))


def commands(page: Path) -> list[str]:
    """Every `hwsim ...` line of the console blocks."""
    lines = [line.strip() for fence in fences(page, "console") for line in fence.text.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def options_of(command: str) -> set[str]:
    """Every spelling of the options of a command, or of all commands of a group."""
    group = COMMANDS[command]
    below = getattr(group, "commands", {}).values()
    return {option for one in (group, *below) for p in one.params for option in (*p.opts, *p.secondary_opts)}


def builder() -> Any:
    spec = spec_from_file_location("docs_build", DOCS / "build.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def anchors(page: Path) -> set[str]:
    return {slug for _, slug in builder().slugs(PARSER.parse(page.read_text("utf-8")))}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name(page)}: {link}"
        assert target.is_relative_to(ROOT), f"{name(page)}: {link} leaves the repository"
        if anchor:
            assert anchor in anchors(target), f"{name(page)}: {link}: {target.name} has no such heading"


class _Links(HTMLParser):
    """The links and anchors of a built page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.ids: set[str] = set()
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.targets += [given[key] for key in ("href", "src") if given.get(key)]
        self.ids |= {given["id"]} if "id" in given else set()


def test_links_of_built_pages_lead_somewhere(tmp_path: Path) -> None:
    built = {page.resolve(): _Links(page) for page in builder().build(tmp_path)}
    assert len(built) == len(PAGES)
    for page, found in built.items():
        assert found.targets
        for link in found.targets:
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = unquote(link).partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{page.name}: {link}"
            assert target.suffix != ".md" or "docs" not in target.parts, f"{page.name}: {link} is not the built page"
            if anchor:
                assert anchor in built[target].ids, f"{page.name}: {link}"


def test_every_page_is_reached_from_the_readme() -> None:
    reached = {(ROOT / link.partition("#")[0]).resolve() for link in links(ROOT / "README.md")}
    assert set(DOCS.glob("*.md")) <= reached


@pytest.mark.slow
@pytest.mark.parametrize("page", EXAMPLES, ids=name)
def test_examples_run(page: Path, tmp_path: Path) -> None:
    """The files that a page shows are written; its Python blocks run in order as one program, then its commands."""
    program = "\n".join(_written(page, tmp_path))
    _install(tmp_path)
    _make_onnx(tmp_path / "net.onnx")
    assert _run(tmp_path, program).strip()
    if page.name.startswith("add-"):
        for command in commands(page):
            _run(tmp_path, CLI, *shlex.split(command, comments=True)[1:])


def _written(page: Path, folder: Path) -> Iterator[str]:
    """Write the blocks that name a file, merge those that change one, and yield the Python of the others."""
    for fence in fences(page, "python", "yaml", "toml", "json"):
        if "merge" in fence.options:
            target = folder / fence.options["merge"]
            target.write_text(yaml.safe_dump({**_yaml(target.read_text()), **_yaml(fence.text)}))
        elif "file" in fence.options:
            target = folder / fence.options["file"]
            target.parent.mkdir(exist_ok=True)
            (target.parent / "__init__.py").touch()
            target.write_text(fence.text)
        elif fence.language == "python":
            yield fence.text


def _yaml(text: str) -> dict[str, Any]:
    data = yaml.safe_load(text)
    assert isinstance(data, dict)
    return data


def _install(folder: Path) -> None:
    """Announce the entry points of a page's pyproject.toml, as pip would."""
    if not (folder / "pyproject.toml").exists():
        return
    lines = []
    for group, entries in tomllib.loads((folder / "pyproject.toml").read_text())["project"]["entry-points"].items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items())]
    info = folder / "mylab-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mylab\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(lines))


def _make_onnx(path: Path) -> None:
    """A linear layer over a free batch."""
    from onnx import TensorProto, helper, save

    info = helper.make_tensor_value_info
    x, y = (info(name, TensorProto.FLOAT, ["batch", size]) for name, size in (("x", 64), ("y", 32)))
    weight = helper.make_tensor("w", TensorProto.FLOAT, [64, 32], [0.0] * 2048)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    save(helper.make_model(helper.make_graph([node], "net", [x], [y], [weight])), path)


def _run(folder: Path, code: str, *arguments: str) -> str:
    """What Python prints for ``code`` in ``folder``."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, (*arguments, done.stderr)
    return done.stdout


def test_readme_example_is_short() -> None:
    (example,) = fences(ROOT / "README.md", "python")
    assert 5 <= len([line for line in example.text.splitlines() if line.strip()]) <= 10


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_yaml_examples_are_valid(page: Path, tmp_path: Path) -> None:
    base = {"study": "base", "models": ["llama-3.2-1b"], "systems": ["nvidia-h200"]}
    for fence in fences(page, "yaml"):
        data = _yaml(fence.text)
        if "card" in data:
            CardFile.model_validate(data)
        elif "system" in data:
            (tmp_path / "system.yaml").write_text(fence.text)
            load_system(tmp_path / "system.yaml")
        elif set(data) <= set(StudyFile.model_fields):
            text = fence.text if "study" in data and "models" in data else yaml.safe_dump({**base, **data})
            (tmp_path / "study.yaml").write_text(text)
            read_study(tmp_path / "study.yaml")
        else:
            assert fence.options, f"{name(page)}: neither a study, a card, a system nor a named file:\n{fence.text}"


def test_the_mistakes_shown_are_what_a_wrong_study_says(tmp_path: Path) -> None:
    texts = [fence.text for fence in fences(DOCS / "write-a-study.md", "text")]
    place = next(index for index, text in enumerate(texts) if text.startswith("study: bad"))
    (tmp_path / "bad.yaml").write_text(texts[place])
    with pytest.raises(StudyError) as caught:
        read_study(tmp_path / "bad.yaml")
    said = "".join(f"hwsim: {line}\n" for line in str(caught.value).replace(f"{tmp_path}/", "").splitlines())
    assert said == texts[place + 1]


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_commands_parse(page: Path) -> None:
    for line in commands(page):
        words = shlex.split(line, comments=True)
        words = words[: next((place for place, word in enumerate(words) if word in (">", "|")), len(words))]
        assert words[0] in ("hwsim", "make"), f"{name(page)}: {line}"
        if words[0] == "make":
            continue
        if words[1].startswith("-"):
            assert words[1] in ("--help", "--version"), line
            continue
        assert words[1] in COMMANDS, f"{name(page)}: {line}"
        command, arguments = COMMANDS[words[1]], words[2:]
        if hasattr(command, "commands") and not arguments[0].startswith("-"):
            assert arguments[0] in command.commands, f"{name(page)}: {line}"
            command, arguments = command.commands[arguments[0]], arguments[1:]
        with suppress(typer.Exit):  # of --help
            command.make_context(words[1], arguments)


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_options_and_commands_in_the_text_exist(page: Path) -> None:
    every = {option for command in COMMANDS for option in options_of(command)}
    for code in inline_codes(page):
        if code.startswith("hwsim "):
            words = code.split()
            assert words[1] in COMMANDS or words[1] == "--version", f"{name(page)}: {code}"
            known = options_of(words[1])
            assert {word for word in words if word.startswith("--")} <= {*known, "--help"}, f"{name(page)}: {code}"
        elif re.match(r"--\w", code):
            assert code.split()[0] in every | {"--help", "--version", "--debug"}, f"{name(page)}: {code}"


def test_make_targets_in_the_text_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in WRITTEN:
        for target in re.findall(r"(?:`|^    )make ([a-z]+)", page.read_text("utf-8"), re.MULTILINE):
            assert target in targets, f"{name(page)}: make {target}"


def test_every_command_has_its_section_with_every_option() -> None:
    text = (DOCS / "cli.md").read_text("utf-8")
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert set(COMMANDS) <= set(sections)
    shared = text.partition("\n## ")[0]
    for command, section in sections.items():
        if command not in COMMANDS:
            continue
        assert f"hwsim {command}" in section
        for option in options_of(command):
            if option.startswith("--") and option != "--help":
                assert option in section + shared, f"hwsim {command} {option}"


def test_python_page_lists_the_public_names() -> None:
    table = (DOCS / "python.md").read_text("utf-8").partition("\n## ")[0]
    assert sorted(re.findall(r"^\| `hwsim\.(\w+)`", table, re.MULTILINE)) == sorted(hwsim.__all__)


def test_python_page_knows_the_arguments_of_estimate() -> None:
    from inspect import signature

    section = (DOCS / "python.md").read_text("utf-8").partition("## Estimates")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE)
    listed = [word for row in rows for word in re.findall(r"`(\w+)`", row)]
    assert sorted(listed) == sorted(signature(hwsim.estimate).parameters)


def _codes(page: str) -> set[str]:
    """Words of the inline code of a page."""
    return {word for code in inline_codes(DOCS / page) for word in re.findall(r"[\w.\[\]-]+", code)}


def test_concepts_name_every_mapper_phase_and_format() -> None:
    codes, text = _codes("concepts.md"), (DOCS / "concepts.md").read_text("utf-8")
    own = {mapper for mapper, entry in plugins("hwsim.mappers").items() if entry.value.startswith("hwsim.")}
    assert own | set(PHASES) | set(PRECISIONS) <= codes
    assert [fmt for fmt in DTYPES if not re.search(rf"\b{fmt}\b", text)] == []
    families = {family for family, entry in plugins("hwsim.devices").items() if entry.value.startswith("hwsim.")}
    assert families <= codes


def test_study_page_names_every_key_section_and_column() -> None:
    codes = _codes("write-a-study.md")
    text = (DOCS / "write-a-study.md").read_text("utf-8")
    assert set(StudyFile.model_fields) | set(SECTIONS) <= codes
    for model in (WorkloadFile, MatrixFile, CaseFile):
        assert [key for key in model.model_fields if not re.search(rf"\b{key}:", text) and key not in codes] == []
    assert set(CASE_COLUMNS) | set(KERNEL_COLUMNS) <= codes


def test_device_page_names_every_key_of_a_card() -> None:
    keys = {code.partition(".")[0].removesuffix("[]") for code in _codes("add-a-device.md")}
    assert set(CardFile.model_fields) <= keys


def test_kernel_page_names_every_op_of_the_interchange() -> None:
    assert set(SPEC_OPS) <= _codes("add-a-kernel.md")
    for spec in SPEC_OPS.values():
        assert set(spec.fields) <= _codes("add-a-kernel.md")


def test_examples_of_the_interchange_are_json() -> None:
    for page in WRITTEN:
        for fence in fences(page, "json"):
            assert json.loads(fence.text)
