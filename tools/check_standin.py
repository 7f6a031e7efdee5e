"""What the stand-in sees: questions about tables it never saw, answered greedily, and counted.

    python tools/check_standin.py                  # the committed weights, in NF4 as loaded and in float32

Tables are scenes of level L0 with 3 to 6 things, drawn evenly from the nine tasks. "Where is the X?" is asked of every thing whose name is alone on
its table; a *twin* is one with another thing of its colour beside it. A list counts as many things as it names rightly (colour and kind)."""
import json
import re
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
import torch
import tyro
from transformers import AutoModelForImageTextToText
from thinkact_nb.tasks import spread
from thinkact_nb.env import SPLITS, get_profile
from thinkact_nb.words import STANDIN, load_processor
from thinkact_nb.model import load_base, write
from thinkact_nb.sim import COLOURS, SIZES, to_bins
from thinkact_nb.pool import draw_scene

NAME = rf"({'|'.join(COLOURS)}) ({'|'.join(SIZES)})"
LOC = r"<loc(\d\d)><loc(\d\d)>"


def unseen_tables(n, seed=SPLITS["validation"]):
    "So many L0 scenes with 3 to 6 things, and their images."
    scenes = [s for s in spread(2 * n + 200, seed=seed) if 3 <= len(s.bodies) <= 6][:n]
    with ProcessPoolExecutor(2) as pool:
        return scenes, list(pool.map(draw_scene, [(s, 128) for s in scenes], chunksize=25))


def answers(model, processor, scenes, images):
    "One row for each named question and one for each list: what was right."
    asked = [(i, b) for i, s in enumerate(scenes) for b in s.bodies if sum(o.name == b.name for o in s.bodies) == 1]
    told = write(model, processor, [images[i] for i, _ in asked], [f"Where is the {b.name}?" for _, b in asked], max_new_tokens=16)
    rows = []
    for (i, body), text in zip(asked, told):
        said, true = re.search(LOC, text), to_bins(*body.place)
        errors = [abs(int(a) - b) for a, b in zip(said.groups(), true)] if said else [99, 99]
        twin = any(o is not body and o.colour == body.colour for o in scenes[i].bodies)
        rows.append(dict(question="where", kind=body.kind, twin=twin, within_1=sum(e <= 1 for e in errors) / 2, found=max(errors) <= 2, said=text))
    lists = write(model, processor, images, ["List what is on the table."] * len(scenes), max_new_tokens=110)
    for scene, text in zip(scenes, lists):
        said, true = [" ".join(m) for m in re.findall(NAME, text)], [b.name for b in scene.bodies]
        right = sum(min(said.count(name), true.count(name)) for name in set(true))
        rows.append(dict(question="list", right=right, of=max(len(true), len(said)), whole=sorted(said) == sorted(true), said=text))
    return rows


def summary(rows):
    "Shares of right answers."
    where = [r for r in rows if r["question"] == "where"]
    lists = [r for r in rows if r["question"] == "list"]
    share = lambda key, some: round(sum(r[key] for r in some) / len(some), 4) if some else None
    twins = [r for r in where if r["twin"]]
    return dict(coordinates_within_1=share("within_1", where), found=share("found", where), twins=share("found", twins),
                twin_blocks=share("found", [r for r in twins if r["kind"] == "block"]), list_right=round(sum(r["right"] for r in lists) / sum(r["of"] for r in lists), 4),
                lists_whole=share("whole", lists), questions=len(where), twin_questions=len(twins), lists=len(lists))


@dataclass
class Settings:
    "What to measure."
    folder: Path = STANDIN      # the weights
    tables: int = 500
    out: Path | None = None     # JSON to write the table to


def main(settings: Settings):
    from dataclasses import replace
    profile = replace(get_profile("tiny"), model=str(settings.folder)) if settings.folder != STANDIN else get_profile("tiny")
    scenes, images = unseen_tables(settings.tables)
    processor, table = load_processor(profile), {}
    for name in ("NF4 as loaded", "float32"):
        start = time.time()
        model = load_base(profile) if name != "float32" else AutoModelForImageTextToText.from_pretrained(settings.folder, dtype=torch.float32).eval()
        table[name] = summary(answers(model.eval(), processor, scenes, images)) | dict(seconds=round(time.time() - start))
        print(name, json.dumps(table[name]), flush=True)
    if settings.out:
        settings.out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Settings))
