"""The house rules of CONTRIBUTING.md: words, dimension letters, sizes and layers."""

import ast
import re
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

from jft import batch

REPO = Path(__file__).parent.parent
FILES = sorted((REPO / "jft").rglob("*.py"))
TREES = {file: ast.parse(file.read_text(encoding="utf-8")) for file in FILES}

# A docstring begins with a verb in the imperative or with a noun phrase, never with these.
NO_OPENING = {
    *("Of", "What", "Where", "Which", "As", "By", "In", "That", "Those", "Its", "How", "Whether"),
    *("When", "Who", "Whose", "Whom", "With", "For", "From", "To", "On", "At", "After", "Before"),
    *("Beside", "Between", "If", "It", "This", "These", "There", "Such", "So"),
}
# Private words of before; the field says gradient, shared prefix, visibility and decoding.
NO_WORDS = re.compile(r"\b(slopes?|trunks?|sight|onwards)\b", re.IGNORECASE)
DIMENSIONS = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*_([A-Z0-9]*[A-Z][A-Z0-9]*)")
MAX_FILES, MAX_LINES, MAX_FUNCTION, MAX_MODULES, MAX_SHARED_NAMES = 169, 350, 60, 12, 5


def docstrings(tree):
    """Yield the docstring of everything in a module that has one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text


def badly_opened(tree):
    """List docstrings that open with a word that makes no sentence and heads no entry."""
    return [text for text in docstrings(tree) if re.split(r"\W", text, maxsplit=1)[0] in NO_OPENING]


def legend():
    """Read the dimension letters from the docstring of batch.py, with their meanings."""
    found = re.findall(r"^    ([A-Z])  (.+)$", batch.__doc__, re.MULTILINE)
    assert len(found) == len(dict(found)), "a letter has two meanings"
    return dict(found)


def dimension_letters(tree):
    """Collect the letters at the end of names, such as B and T of `tokens_BT`."""
    found = set()
    for node in ast.walk(tree):
        name = (
            node.id
            if isinstance(node, ast.Name)
            else node.attr
            if isinstance(node, ast.Attribute)
            else node.arg
            if isinstance(node, ast.arg | ast.keyword)
            else None
        )
        match = DIMENSIONS.fullmatch(name or "")
        if match:
            found |= set(re.sub(r"\d", "", match[1]))
    return found


def public_names(tree):
    """List the classes and functions of a module that others may use."""
    kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return {x.name for x in tree.body if isinstance(x, kinds) and not x.name.startswith("_")}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(REPO)))
def test_words(file):
    assert badly_opened(TREES[file]) == []
    assert NO_WORDS.findall(file.read_text(encoding="utf-8")) == []


def test_a_bad_opening_and_a_private_word_are_found():
    planted = 'def f():\n    """Of the slots of a shard."""\nclass C:\n    """By head."""\n'
    assert len(badly_opened(ast.parse(planted))) == 2
    assert badly_opened(ast.parse('def f():\n    """Often used."""\n')) == []
    assert NO_WORDS.findall("the Slope of a trunk, not slopes_of") == ["Slope", "trunk"]


def test_every_dimension_letter_is_in_the_legend():
    known = legend()
    unknown = {
        str(file.relative_to(REPO)): sorted(letters - known.keys())
        for file, tree in TREES.items()
        if (letters := dimension_letters(tree)) - known.keys()
    }
    assert unknown == {}
    assert dimension_letters(ast.parse("x_BTD = f(query_1QY=a.b_LV)")) == set("BTDQYLV")


def test_a_letter_without_use_leaves_the_legend():
    used = set().union(*map(dimension_letters, TREES.values()))
    assert sorted(legend().keys() - used) == []


def test_files_and_functions_are_short():
    assert len(FILES) <= MAX_FILES
    assert len(list((REPO / "jft").glob("*.py"))) <= MAX_MODULES
    lengths = {str(file): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    assert [name for name, length in lengths.items() if length > MAX_LINES] == []
    functions = [
        f"{file.name}: {node.name}"
        for file, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno >= MAX_FUNCTION
    ]
    assert functions == []


def test_few_public_names_stand_in_several_modules():
    modules = defaultdict(list)
    for file, tree in TREES.items():
        for name in public_names(tree):
            modules[name].append(str(file.relative_to(REPO)))
    shared = {name: found for name, found in modules.items() if len(found) > 2}
    assert len(shared) <= MAX_SHARED_NAMES, shared


def test_the_tree_in_readme_names_every_module():
    tree = (REPO / "README.md").read_text(encoding="utf-8").partition("## The tree")[2]
    names = {file.name for file in FILES} - {"__init__.py"}
    assert sorted(name for name in names if name not in tree) == []


def test_nine_layers():
    contracts = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = [x["layers"] for x in contracts["contracts"] if x["type"] == "layers"]
    assert len(layers) <= 9
