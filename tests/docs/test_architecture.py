"""docs/architecture.md against the tree: rooms, modules and names."""

import pytest
from documented_names import ROOT, blocks, is_folder, mistakes, rooms

PAGE = ROOT / "docs" / "architecture.md"


def test_every_folder_module_and_name_of_the_page_exists():
    assert mistakes(PAGE) == []


def test_every_room_of_the_tree_is_on_the_page():
    assert rooms() - {code for codes in blocks(PAGE) for code in codes if is_folder(code)} == set()


@pytest.mark.parametrize(
    "text",
    [
        "`compiler/rolluots/` holds rollouts",
        "`compiler/rollouts/tree.py` and `compiler/rollouts/nothing.py`",
        "`compiler/rollouts/tree.py`: `Forest`",
        "`compiler/rollouts/tree.py`: `Tree.plant`",
        "`Tree` without its module",
        "| `compiler/rollouts/tree.py` | trees |\n| `Tree` | in another row |",
        "`budc.compiler.rollouts.tree.Forest`",
        "`budc.plant_tree`",
    ],
)
def test_what_does_not_exist_is_found(text, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    assert len(mistakes(page)) == 1


def test_what_exists_is_accepted(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "`compiler/rollouts/` with `compiler/rollouts/tree.py`\n(`Tree`, `Tree.roll_out`), `budc compile --align`,\n"
        "`budc.compiler.rollouts.tree.Tree`, `budc.compiler.search` and `budc.apply`\n\n```python\n`nothing`\n```\n",
        encoding="utf-8",
    )
    assert mistakes(page) == []
