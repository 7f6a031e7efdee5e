"""Everything that the site shows of the stand-in, made again from the weights that come with the package: `make results`.

    python tools/results.py                    # makes what is not of today; killed and called again it goes on
    python tools/results.py --only loop sft    # these parts, and what they need
    python tools/results.py --plan             # the parts, their minutes and their pages
    python tools/results.py --check            # in seconds: which tables are of other weights, language or programs than today's
    python tools/results.py --tell             # pages say so of the tables that they show; no other cell is run
    python tools/results.py --same loop        # these programs were changed, and their numbers were not

A table is of today if what decides it is what it was when it was made: the base's weights, what the expert says of a few scenes, what it says of mishaps,
60 episodes of the simulator, and the programs that made it, without their comments. `thinkact_nb/tables/made.json` keeps both (keep/store). Trainings lie in
`runs/results/`, in a folder for each base and language, so that nothing is taken up that began from another."""
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
import house
import tyro
from thinkact_nb.language import language_print
from thinkact_nb.env import UserError, get_profile
from thinkact_nb.files import read_json, write_json
from thinkact_nb.sim import LEVELS
from thinkact_nb.store import PACKAGE, fingerprint, outdated, outdated_note, table_file
from thinkact_nb.tasks import TASKS
from thinkact_nb.turns import turns_made_with

ROOT = Path(__file__).parent.parent
LOOKS, TURNS = ("base", "language", "physics"), ("base", "language", "physics", "turns")


@dataclass(frozen=True)
class Part:
    "Numbers that are made together: steps one after the other, the commands of a step two at a time."
    writes: tuple[str, ...]           # below thinkact_nb/, or below nbs/
    of: tuple[str, ...]               # what decides them, beside their programs
    minutes: float                    # of one core, estimated
    steps: tuple[tuple[str, ...], ...]
    pages: str                        # that show them
    needs: tuple[str, ...] = ()       # parts


def sft(seed, *some): return tuple(f"benchmark/sft.py --n {n} --seed {seed}" for n in some)


SEEDS = ("--updates 16 --seed 1", "--updates 16 --seed 2")
LONGER = tuple(f"benchmark/sft.py --n {n} --steps 1200 --seed 0" for n in (90, 180))
OTHERWISE = tuple(f"benchmark/sft.py --n 900 --seed 0 {one}" for one in ("--dropout .1", "--lang en_varied"))


def arms(*asked): return tuple(f"benchmark/arms.py {arm} --run {{run}}/arms" for arm in asked)


RIVALS = tuple(f"--updates 16 --arm {arm}" for arm in ("grpo", "ppo-nothink"))
PARTS = {
    "standin-check": Part(("standin/check.json",), ("base",), 20, (("tools/check_standin.py --out thinkact_nb/standin/check.json",),), "03 model/standin"),
    "demo": Part(("standin/run",), LOOKS, 30, (("thinkact demo --run {run}/demo --resume",), ("tools/ship_demo.py --run {run}/demo",)),
                 "index start 04 05 reinforce/ledger 06 reinforce/trainer 07 09"),
    "sft": Part(("tables/sft.json",), LOOKS, 45, (tuple(f"{run} --run {{run}}/sft" for run in sft(0, 90, 180, 900)),), "04 reinforce/what_pays"),
    "sft_more": Part(("tables/sft_more.json",), LOOKS, 105, (tuple(f"{run} --run {{run}}/sft --out thinkact_nb/tables/sft_more.json" for run in (*sft(0, 2700), *LONGER, *OTHERWISE)),),
                     "04 reinforce/what_pays"),
    "loop": Part(("tables/loop.json", "standin/turns"), TURNS, 100, (("benchmark/loop.py --ship --run {run}/loop",),), "index turns/turns start"),
    "loop_rl": Part(("tables/loop_rl",), TURNS, 115, (tuple(f"benchmark/loop_rl.py --seed {seed} --run {{run}}/loop_rl" for seed in (0, 1, 2)),), "turns/turn_rl", ("loop",)),
    "arms": Part(("tables/arms",), LOOKS, 30, (arms("--updates 16 --seed 0 --sampled 2"),), "06 reinforce/what_pays measure/results"),
    "arms_more": Part(("tables/arms_more",), LOOKS, 50, (arms(*SEEDS),), "reinforce/what_pays measure/results"),
    "rivals": Part(("tables/rivals",), LOOKS, 50, (arms(*RIVALS),), "reinforce/what_pays measure/results measure/think"),
    "rft": Part(("tables/rft",), LOOKS, 150, (tuple(f"benchmark/rft.py --seed {seed} --run {{run}}/rft" for seed in (0, 1, 2)),), "index reinforce/rft reinforce/what_pays measure/results"),
    "rft_90": Part(("tables/rft_90",), LOOKS, 45,
                   (tuple(f"benchmark/rft.py --start 90 --rounds 1 --seed {seed} --run {{run}}/rft" for seed in (0, 1, 2)),), "index reinforce/what_pays measure/results"),
    "rft_900": Part(("tables/rft_900",), LOOKS, 30, (("benchmark/rft.py --start 900 --rounds 1 --seed 0 --run {run}/rft",),), "reinforce/what_pays measure/results"),
    "new_task": Part(("tables/new_task",), LOOKS, 60, (tuple(f"benchmark/new_task.py --task {task} --run {{run}}/new_task" for task in ("stack", "match", "detour")),), "reinforce/what_pays"),
    "study": Part(("tables/study.db", "tables/study.parquet", "tables/trials.json"), LOOKS, 105, (("benchmark/study.py --run {run}/study",),), "08"),
    "policies": Part(("tables/episodes.parquet", "tables/interventions.parquet", "tables/policies"), LOOKS, 50,
                     (("benchmark/policies.py --own {run}/rft --run {run}/policies",),), "index 07 measure/think show/pictures 09 commands/stages", ("rft",)),
    "films": Part(("nbs/film.mp4", "nbs/repair.mp4"), TURNS, 6, (("tools/run_notebooks.py nbs/show/pictures.ipynb nbs/09_report.ipynb",),), "index show/pictures 09", ("demo", "loop", "policies")),
}
SHOWN = {  # what code of a page reads a table, and which
    r'table_file\("([^"]+)"\)': r"tables/\1",
    r'SHIPPED / "(?:eval|rl/ppo/log|config)': "standin/run",
    r'check\.json"': "standin/check.json"}
NOTE = re.compile(r"Markdown\(outdated_note\((.*)\)\)\s*$")


def program_print(file):
    "Which version of a program: a hash of its lines, without docstrings, comments and blank lines."
    text = re.sub(r'(?s)""".*?"""', "", file.read_text(encoding="utf-8"))
    lines = (re.sub(r"\s+# .*", "", line).rstrip() for line in text.splitlines())
    code = [line for line in lines if line.strip() and not re.fullmatch(r'\s*(#.*|"[^"]*")', line)]
    return hashlib.sha256("\n".join(code).encode()).hexdigest()[:12]


def programs(part):
    "The programs in benchmark/ that a part runs. What only ships or shows decides no number."
    return sorted({command.split()[0] for step in part.steps for command in step if command.startswith("benchmark/")})


def prints():
    "What decides the tables, now."
    tasks, levels = list(TASKS), list(LEVELS)
    turns = turns_made_with(1, tasks, levels, 0, 128)["turn_language"]
    physics = hashlib.sha256((ROOT / "tests" / "fingerprint.txt").read_bytes()).hexdigest()[:12]
    found = dict(base=fingerprint(get_profile("tiny")), language=language_print(tasks, levels), turns=turns, physics=physics)
    files = sorted({name for part in PARTS.values() for name in programs(part) if (ROOT / name).exists()})
    return found | {name: program_print(ROOT / name) for name in files}


def prints_of_files():
    "`prints` of what the files say now, whatever this process imported."
    code = "import json, results; print(json.dumps(results.prints()))"
    return json.loads(subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT / "tools", capture_output=True, encoding="utf-8").stdout.splitlines()[-1])


def made(): return read_json(table_file("made.json"), {str: dict})


def entry(name, now):
    "What is kept of a table that a part has just made."
    part = PARTS[name]
    return dict(part=name, day=str(date.today()), of={key: now[key] for key in (*part.of, *programs(part)) if key in now})


def write_made(now, tables): write_json(table_file("made.json"), dict(now=now, tables=dict(sorted(tables.items()))))


def stale_parts(tables):
    "Parts of which a table is outdated or not there."
    former = outdated()
    return [name for name, part in PARTS.items() if any(table in former or table not in tables for table in part.writes)]


def shown(cell):
    "The tables that a page's cell shows: none, if the cell is exported."
    source = "".join(cell["source"])
    if cell["cell_type"] != "code" or source.startswith("#| export"): return set()
    return {match.expand(name) for pattern, name in SHOWN.items() for match in re.finditer(pattern, source)}


def note_of(cell):
    "The tables of which a cell tells whether they are outdated; None: it is no such cell."
    match = NOTE.search("".join(cell["source"]))
    return re.findall(r'"([^"]+)"', match[1]) if match and cell["cell_type"] == "code" else None


def output(text):
    "As a notebook keeps what such a cell gives."
    data = {"text/markdown": text.splitlines(True), "text/plain": ["<IPython.core.display.Markdown object>"]}
    return [dict(output_type="execute_result", data=data, metadata={}, execution_count=None)]


def pages():
    "{path: notebook} in the order of the sidebar"
    nbs = ROOT / "nbs"
    paths = [house.path_of(name, nbs) for name in house.names(nbs)]
    return {path: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def page_of(path): return house.name_of(path, ROOT / "nbs")


def unsaid():
    "One line for each page that shows an outdated table and does not say so, or says so of one that is not."
    lines, former = [], outdated()
    for path, nb in pages().items():
        notes = [(names, cell) for cell in nb["cells"] if (names := note_of(cell)) is not None]
        told = {name for names, _ in notes for name in names}
        for name in set().union(*map(shown, nb["cells"])) & former.keys() - told:
            lines.append(f"{page_of(path)} shows {name}, which is outdated: give it a cell with outdated_note(\"{name}\")")
        if any(said(cell) != outdated_note(*names) for names, cell in notes): lines.append(f"{page_of(path)} does not say what is outdated: run tools/results.py --tell")
    return lines


def said(cell): return "".join("".join(out.get("data", {}).get("text/markdown", "")) for out in cell["outputs"])


def tell():
    "Writes into every page's note, and into the front page, which of its tables are outdated."
    write_made(prints(), made()["tables"])
    for path, nb in pages().items():
        old = [said(cell) for cell in nb["cells"] if note_of(cell)]
        for cell in nb["cells"]:
            if note_of(cell): cell["outputs"] = output(outdated_note(*note_of(cell)))
        if old != [said(cell) for cell in nb["cells"] if note_of(cell)]:
            path.write_text(json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
            print(page_of(path))
    for tool in ("front.py", "readme.py"): subprocess.run([sys.executable, ROOT / "tools" / tool], check=True, cwd=ROOT)


def check():
    "One line for each table that is not of today."
    now = prints()
    kept_now = made()["now"]
    tables = made()["tables"]
    lines = [f"{key} is {now.get(key)} and was {kept_now.get(key)} when pages were told: run tools/results.py --tell" for key in now | kept_now if now.get(key) != kept_now.get(key)]
    for name, kinds in outdated().items():
        if tables[name].get("part"): lines.append(f"{name} ({tables[name]['day']}): of {' and '.join(kinds)}; part {tables[name]['part']}")
    lines += [f"{table}: not made yet; part {name}" for name, part in PARTS.items() for table in part.writes if table not in tables]
    return lines + unsaid()


def plan(names):
    "The parts as a table."
    tables = made()["tables"]
    stale = stale_parts(tables)
    for name in names:
        part = PARTS[name]
        commands = sum(map(len, part.steps))
        print(f"{name:14} {part.minutes:5.0f} minutes of a core  {commands:2} commands  {'to make' if name in stale else 'of today':8}  pages {part.pages}"
              + (f"  needs {', '.join(part.needs)}" if part.needs else ""))
    todo = [PARTS[name].minutes for name in names if name in stale]
    print(f"to make: {sum(todo):.0f} minutes of a core, {sum(todo) / 120:.1f} hours on two that are idle")


def ordered(names):
    "Parts with what they need before them."
    return list(dict.fromkeys(one for name in names for one in (*ordered(PARTS[name].needs), name)))


def run_command(command, log):
    "Runs a command on one thread; what it prints goes to a file. Raises `UserError` if it fails."
    first, *rest = shlex.split(command)
    words = [sys.executable, first, *rest] if first.endswith(".py") else [str(Path(sys.executable).with_name(first)), *rest]
    env = os.environ | dict(OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT), TQDM_DISABLE="1")
    print(" ", command, flush=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {command}\n")
        file.flush()
        done = subprocess.run(words, cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT)
    if done.returncode: raise UserError(f"{command} ended with {done.returncode}: see {log}; called again, it goes on")


def make(name, now, jobs):
    "Makes a part and keeps what it was made of."
    part, begun = PARTS[name], time.time()
    run = f"runs/results/{now['base'][:6]}-{now['language'][:6]}"
    (ROOT / run).mkdir(parents=True, exist_ok=True)
    print(f"{name}: about {part.minutes:.0f} minutes of a core", flush=True)
    for step in part.steps:
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(lambda command: run_command(command.format(run=run), ROOT / run / f"{name}.log"), step))
    then = prints_of_files()
    if entry(name, then) != entry(name, now): raise UserError(f"weights, language or programs changed while {name} was made: call it again")
    for table in part.writes:
        folder = PACKAGE / table
        for file in folder.glob("*.json") if folder.parent == PACKAGE / "tables" else ():
            if file.stat().st_mtime < begun: file.unlink()  # of a former plan
    write_made(then, made()["tables"] | {table: entry(name, now) for table in part.writes})
    print(f"{name}: {(time.time() - begun) / 60:.0f} minutes", flush=True)


def same(names):
    "Keeps that programs changed and numbers did not. Raises `UserError` where weights or language did."
    now, tables = prints(), made()["tables"]
    for table in (table for name in names for table in PARTS[name].writes if table in tables):
        of = tables[table]["of"]
        other = [key for key in PARTS[tables[table]["part"]].of if of.get(key) != now[key]]
        if other: raise UserError(f"{table} is of another {other[0]}: make it again")
        tables[table]["of"] = of | {key: value for key, value in now.items() if key in of}
    write_made(now, tables)


@dataclass
class Settings:
    "What to do; with nothing, what is not of today is made."
    only: tuple[str, ...] = ()  # parts, and what they need
    same: tuple[str, ...] = ()  # parts whose programs changed and whose numbers did not
    plan: bool = False
    check: bool = False
    tell: bool = False
    jobs: int = 2               # commands at a time


def main(settings: Settings):
    unknown = [name for name in (*settings.only, *settings.same) if name not in PARTS]
    if unknown: raise UserError(f"no part {unknown[0]}: choose from {', '.join(PARTS)}")
    if settings.check: return check()
    if settings.same: same(settings.same)
    if settings.tell or settings.same: return tell()
    names = ordered(settings.only or PARTS)
    if settings.plan: return plan(names)
    now = prints()
    write_made(now, made()["tables"])
    for name in names:
        if name in stale_parts(made()["tables"]): make(name, now, settings.jobs)
        else: print(f"{name}: of today")
    tell()
    print("now `make notebooks` and `make export`: pages show what was made")


if __name__ == "__main__":
    try: sys.exit("\n".join(main(tyro.cli(Settings)) or []) or None)
    except UserError as e: sys.exit(f"results: {e}")
