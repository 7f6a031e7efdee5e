"""A task that no demonstration shows: does a policy find it out from success alone?

    python benchmark/new_task.py --task match

One command is one task, on one thread. Stopped and called again it goes on; what it found goes to thinkact_nb/tables/new_task/, which reinforce/what_pays reads.

The plan, written before the first run. For each of *stack*, *match* and *detour*, whose words and skills the other tasks have: SFT on 180 demonstrations of the
other eight tasks, as benchmark/sft.py has it (340 steps, rate 5e-3, seed 0); then one round of `thinkact rft` on the new task alone, four texts about each of
1,024 scenes of L0, and SFT again, as benchmark/rft.py has it. Nobody shows the new task: the simulator says what succeeds, and each claim of a kept text is
true. Judged greedily by 102 test scenes of the new task and by 306 of the others, before and after: exact McNemar. It is found out if the new task gains,
p < .05; it costs something if the others lose, p < .05. Where no drawn text is good, that is the result."""
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal
import torch
import tyro
from rft import BATCH
from sft import STEPS, TO_THE_END, others, taught
from thinkact_nb.env import SPLITS, hardware
from thinkact_nb.evaluate import compare, evaluate
from thinkact_nb.pool import SimPool
from thinkact_nb.rft import draw, drawn_with, train_rft, yields
from thinkact_nb.store import table_file
from thinkact_nb.tasks import spread


@dataclass
class Settings:
    "Which run."
    task: Literal["stack", "match", "detour"] = "match"  # that is not shown
    start: int = 180     # demonstrations of the others
    scenes: int = 1024   # of the new task, that are drawn about
    new: int = 102       # test scenes of it
    others: int = 306    # test scenes of the others
    run: Path = Path("runs/results/new_task")


def judged(store, arms, scenes, pool):
    "How RL differs from SFT in some scenes; before there is RL, what SFT solves."
    table = evaluate(store, arms, scenes, pool, resume=True)
    return asdict(compare(table, *arms)) if len(arms) > 1 else dict(n=len(scenes), a_successes=int(table.success.sum()))


def main(settings: Settings):
    torch.set_num_threads(1)
    store, _ = taught(settings.run, settings.start, without=settings.task)
    with SimPool(0) as pool:
        drawn = drawn_with(store, 1, settings.scenes, tasks=(settings.task,))
        earned = yields(store, draw(store, pool, drawn, True, BATCH))
        arms = ["sft"]
        if earned.good.sum():
            if not store.has("rl/rft", tell=False): train_rft(store, pool, drawn, True, STEPS[False], batch=BATCH, **TO_THE_END)
            arms.append("rft")
        scenes = dict(new=spread(settings.new, (settings.task,), seed=SPLITS["test"]), others=spread(settings.others, others(settings.task), seed=SPLITS["test"]))
        found = {name: judged(store, arms, some, pool) for name, some in scenes.items()}
    told = {name: int(earned[name].sum()) for name in ("texts", "succeeded", "good", "kept")}
    out = table_file("new_task") / f"{settings.task}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(asdict(settings) | dict(run=None, machine=hardware()) | told | found, indent=1) + "\n", encoding="utf-8")
    print(told, found)


if __name__ == "__main__":
    main(tyro.cli(Settings))
