"""What the stand-in sees: questions about tables it never saw, answered greedily, and counted.

    python tools/check_standin.py                  # the committed weights, in NF4 as loaded and in float32

Tables are scenes of level L0 with 3 to 6 things, drawn evenly from the nine tasks. "Where is the X?" is asked of every thing whose name is alone on
its table; a *twin* is one with another thing of its colour beside it. A list counts as many things as it names rightly (colour and kind)."""
import json
import math
import re
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
import numpy as np
import torch
import tyro
from transformers import AutoModelForImageTextToText
from standin_tables import Reasoner
from thinkact_nb.tasks import spread
from thinkact_nb.env import SPLITS, get_profile
from thinkact_nb.family import STANDIN, load_processor
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


ASKED = dict(count=30, differs=30, far=110, extreme=120, room=40, relation=60)  # skills that are computed, and the tokens that an answer may have
FAR = re.compile(rf"{NAME} is at {LOC}, (\d+) (in front|behind), (\d+) (right|left)(?:: (\d+) cm)?")


def marks(skill, question, answer, text, bodies):
    "What is right of an answer: lists of True and False by what is measured. `answer` is the true one."
    said, true = ([(" ".join(m[:2]), m[2:]) for m in FAR.findall(t)] for t in (text, answer))
    if skill == "far":
        away = {b.name: math.dist(b.place, next(o for o in bodies if f"from the {o.name}?" in question).place) for b in bodies}
        sign = lambda words: (int(words[2]) * (1 if words[3] == "in front" else -1), int(words[4]) * (1 if words[5] == "right" else -1))
        told, wrong = dict(said), [False] * (max(len(said), len(true)) - len(true))  # things said that are not asked for
        offsets = [name in told and max(abs(a - b) for a, b in zip(sign(told[name]), sign(t))) <= 1 for name, t in true]
        near = [name in told and abs(int(told[name][6] or 999) - 100 * away[name]) <= 2 for name, _ in true]
        return dict(offset=offsets + wrong, distance=near + wrong)
    if skill == "room":
        places = [re.findall(LOC, t)[-1:] for t in (text, answer)]
        return dict(room=[bool(places[0]) and all(abs(int(a) - int(b)) <= 1 for a, b in zip(*(p[0] for p in places)))])
    if skill == "count":
        kinds = [set(re.findall(rf"(one|two|three|four) {NAME}", t)) for t in (text, answer)]
        return dict(count=[kind in kinds[0] for kind in kinds[1]] + [False] * len(kinds[0] - kinds[1]))
    last = lambda t: re.split(r"(?<=\.) ", t.strip())[-1]
    chosen = lambda t: re.findall(NAME, last(t))[-1:] if skill == "extreme" else last(t)  # its distance may differ by what is seen
    return {skill: [chosen(text) == chosen(answer)]}


def reasoned(model, processor, scenes, images):
    "Share of right answers for each skill that is computed, and how many were judged."
    found = {}
    for skill, most in ASKED.items():
        asked = []
        for i, scene in enumerate(scenes):
            asker = Reasoner(np.random.default_rng([scene.seed, len(skill)]), scene.bodies)
            one = asker.ask(skill)
            if one:
                asked.append((i, *one))
        told = write(model, processor, [images[i] for i, *_ in asked], [question for _, question, _ in asked], max_new_tokens=most)
        for (i, question, answer), text in zip(asked, told):
            for name, right in marks(skill, question, answer, text, scenes[i].bodies).items():
                found.setdefault(name, []).extend(right)
    return {name: round(sum(right) / len(right), 4) for name, right in found.items()} | {f"{name}_n": len(right) for name, right in found.items()}


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
        table[name] = summary(answers(model.eval(), processor, scenes, images)) | reasoned(model, processor, scenes, images) | dict(seconds=round(time.time() - start))
        print(name, json.dumps(table[name]), flush=True)
    if settings.out:
        settings.out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Settings))
