"What the tables of the package were made of, what pages say of those that are outdated, and the plan that makes them again."
import json
import re
import sys
from pathlib import Path

import pytest

from thinkact_nb import store
from thinkact_nb.env import UserError

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import results


@pytest.fixture
def table(tmp_path, monkeypatch):
    "`made.json` of a package of one table, and whether it is outdated, once `now` differs."
    (tmp_path / "tables").mkdir()
    of = dict(base="aa", language="bb")
    monkeypatch.setattr(store, "PACKAGE", tmp_path)

    def write(now=of, **more):
        about = dict(day="2026-11-28", of=of) | more
        results.write_made(of | now, {"tables/x.json": about})
        return store.outdated(), store.outdated_note("tables/x.json")
    return write


def test_a_table_is_outdated_by_what_decides_it_and_by_nothing_else(table):
    "Guard: numbers of former weights stand on a page as if they were today's."
    assert table() == ({}, "") == table(dict(physics="cc"))
    found, note = table(dict(base="dd", language="ee"), part="loop")
    assert found == {"tables/x.json": ["former weights of the stand-in", "a former language"]}
    assert note == "*Numbers from `tables/x.json` are of former weights of the stand-in and a former language (base aa, 28 November 2026); `make results` makes them again.*"
    assert "stand here as history" in table(dict(base="dd"))[1]
    assert "a former program" in table(part="loop", of=dict(base="aa", **{"benchmark/loop.py": "ff"}))[1]


def test_pages_say_which_of_their_tables_are_outdated():
    "Guard: what decides a table changed, and a page shows it and does not say so. `python tools/results.py --tell` mends it."
    now = results.prints()
    assert now == results.made()["now"], "run tools/results.py --tell, or --same PART if a program's numbers are the same"
    assert results.unsaid() == []


def test_a_page_that_does_not_say_so_is_found(tmp_path, monkeypatch):
    note = store.outdated_note("tables/swaps.parquet")
    cells = [dict(cell_type="code", source=['swaps = pd.read_parquet(table_file("swaps.parquet"))'], outputs=[])]
    file = tmp_path / "nbs" / "06_page.ipynb"
    file.parent.mkdir()
    monkeypatch.setattr(results, "ROOT", tmp_path)

    def found():
        file.write_text(json.dumps(dict(cells=cells)), encoding="utf-8")
        return results.unsaid()
    assert "tables/swaps.parquet, which is outdated" in found()[0]
    cells.append(dict(cell_type="code", source=["#| echo: false\n", 'Markdown(outdated_note("tables/swaps.parquet"))'], outputs=[]))
    assert found() == ["06_page does not say what is outdated: run tools/results.py --tell"]
    cells[-1]["outputs"] = results.output(note)
    assert note and found() == []
    cells[0]["source"] = ["#| export\n", *cells[0]["source"]]
    assert results.shown(cells[0]) == set()


def test_every_table_says_what_it_was_made_of():
    "Guard: a table comes to the package and nobody knows of which weights."
    there = {f"tables/{path.name}" for path in (ROOT / "thinkact_nb/tables").iterdir()} - {"tables/made.json"}
    tables = results.made()["tables"]
    assert there <= set(tables) and {name for name in tables if name.startswith("tables/")} == there
    assert all(re.fullmatch(r"2026-\d\d-\d\d", about["day"]) and about.get("part", "loop") in results.PARTS for about in tables.values())


def test_a_print_of_a_program_is_of_its_code(tmp_path):
    "Guard: a comment makes hours of tables outdated, or a number does not."
    file = tmp_path / "program.py"

    def print_of(text):
        file.write_text(text, encoding="utf-8")
        return results.program_print(file)
    plain = print_of('STEPS = 5\ndef main():\n    return STEPS\n')
    assert plain == print_of('"""The plan.\n\nIn words."""\nSTEPS = 5  # of SFT\n\n\ndef main():\n    "What it does."\n    # here\n    return STEPS\n')
    assert plain != print_of('STEPS = 6\ndef main():\n    return STEPS\n')


def test_the_plan_takes_ten_hours_of_two_cores_and_its_parts_come_after_what_they_need():
    parts = results.PARTS
    assert sum(part.minutes for part in parts.values()) / 120 <= 10
    assert results.ordered(["loop_rl"]) == ["loop", "loop_rl"] and sorted(results.ordered(parts)) == sorted(parts)
    assert len({table for part in parts.values() for table in part.writes}) == sum(len(part.writes) for part in parts.values())
    named = {command.split()[0] for part in parts.values() for step in part.steps for command in step}
    assert {name for name in named if not (ROOT / name).exists()} <= {"thinkact", "benchmark/sft.py"}


def test_a_part_is_kept_only_if_nothing_changed_while_it_was_made(tmp_path, monkeypatch):
    "Guard: weights are exchanged while a run takes hours, and its table passes for one of the new ones."
    program = tmp_path / "write.py"
    program.write_text("import sys\nopen(sys.argv[1], 'w', encoding='utf-8').write('{}')\n", encoding="utf-8")
    out = tmp_path / "package" / "tables" / "x" / "new.json"
    out.parent.mkdir(parents=True)
    (out.parent / "old.json").write_text("{}", encoding="utf-8")
    (out.parent / "old.json").touch()
    monkeypatch.setattr(store, "PACKAGE", tmp_path / "package")
    monkeypatch.setattr(results, "PACKAGE", tmp_path / "package")
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setattr(results, "PARTS", dict(x=results.Part(("tables/x",), ("base",), 1, ((f"{program} {out}",),), "04")))
    now, later = dict(base="aa", language="bb"), dict(base="cc", language="bb")
    results.write_made(now, {})
    monkeypatch.setattr(results, "prints_of_files", lambda: later)
    with pytest.raises(UserError, match="changed while x was made"): results.make("x", now, 2)
    assert results.stale_parts(results.made()["tables"]) == ["x"]
    monkeypatch.setattr(results, "prints_of_files", lambda: now | dict(language="dd"))
    results.make("x", now, 2)
    assert results.made()["tables"]["tables/x"]["of"] == dict(base="aa") and not results.stale_parts(results.made()["tables"])
    assert [file.name for file in out.parent.iterdir()] == ["new.json"]


def test_a_table_that_is_not_made_yet_is_not_outdated(table):
    "Guard: a page that names the table of a part that nobody has run stopped with a KeyError."
    table(dict(base="dd"))
    assert list(store.outdated("tables/x.json", "tables/later.json")) == ["tables/x.json"] and store.outdated("tables/later.json") == {}
