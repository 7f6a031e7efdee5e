"""What a policy teaches itself: texts that it drew, that succeeded in the simulator and claimed nothing false, learned beside the demonstrations.

    python benchmark/rft.py --seed 0

One command is one seed, on one thread. Stopped and called again it goes on; what it found goes to thinkact_nb/tables/, rft/, rft_90/ or rft_900/, which reinforce/what_pays reads. A round is that of `thinkact rft`.

The plan, written before the first run. Rejection sampling, or expert iteration with the policy as its own expert: PPO reads an episode once, and a text that
succeeded can be read as often as a demonstration.

- Start: SFT on 180 demonstrations as benchmark/sft.py has it, seed 0.
- A round: the policy draws four texts at temperature 1 about each of 1,024 scenes of L0 of the RL split (4,096 episodes). Of a scene's texts that succeed and
  whose claims are all true the first is kept: the simulator says both, no expert is asked. SFT begins from the base again, on the 180 demonstrations and all
  texts kept so far, for as many steps as benchmark/sft.py has for so many rows, to the last. Rounds: one, then as many as time allows; each is judged.
- Seeds 0, 1 and 2: of the scenes, of the drawing and of the training.
- Judged greedily by the 306 test scenes, against the start: exact McNemar for each seed, a t interval of the mean difference over the seeds. That it does not
  pay is said if the mean is below 5 points or the interval holds 0.
- Amended on 1 December, before a second round was judged: each seed has two rounds, the second begun by the policy of the first (`thinkact rft --round 2`).
- Amended on 1 December, before it ran, after a pilot of the demo's size (90 demonstrations, 2,048 texts, seeds 0 and 1: 62 to 102 and 58 to 91 of 180): the
  same from 90 demonstrations, seeds 0, 1 and 2, one round (`--start 90 --rounds 1`).
- Amended on 1 December, before it ran: the same from 900 demonstrations, seed 0, two rounds; 510 steps where there are more than 900 rows.
- Amended on 1 December, later: from 900 demonstrations one round; the second was stopped while it drew, for want of hours, and nothing of it was judged.
- Controls: the start, which is trained out (more steps on the same demonstrations add nothing: benchmark/sft.py); `ppo` from the same start (benchmark/arms.py)."""
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
import torch
import tyro
from sft import STEPS, TO_THE_END, taught
from thinkact_nb.env import SPLITS, hardware
from thinkact_nb.evaluate import compare, evaluate
from thinkact_nb.pool import SimPool
from thinkact_nb.rft import draw, drawn_with, of_round, train_rft, yields
from thinkact_nb.store import ROUNDS, Store, table_file
from thinkact_nb.tasks import spread

BATCH = 128  # texts written at once
TEST = 306


@dataclass
class Settings:
    "Which run."
    start: int = 180     # demonstrations
    seed: int = 0
    rounds: int = 2
    scenes: int = 1024   # of a round
    texts: int = 4       # of a scene
    run: Path = Path("runs/results/rft")  # beside it, in sft/, the SFT of benchmark/sft.py


def begun(settings):
    "A run folder with the demonstrations and the SFT from which this run begins."
    source, stage = taught(settings.run.parent / "sft", settings.start)
    store = Store(settings.run / f"{settings.start}-seed{settings.seed}", source.profile, seed=0)
    for name in ("data", stage):
        if not store.has(name, tell=False):
            shutil.copytree(source.run / name, store.run / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("checkpoints"))
    return store


def learned(settings, store, told, pool):
    "The round after those that were told of: what it earned, task by task, and of how many rows it was learned."
    number = len(told) + 1
    drawn = drawn_with(store, number, settings.scenes, settings.texts, settings.seed)
    earned = yields(store, draw(store, pool, drawn, True, BATCH))
    rows = (told[-1]["rows"] if told else store.profile.demonstrations) + int(earned.kept.sum())
    if not store.has(of_round(number), tell=False): train_rft(store, pool, drawn, True, STEPS[rows > 900], batch=BATCH, **TO_THE_END)
    return dict(round=number, rows=rows, texts=int(earned.texts.sum()), succeeded=int(earned.succeeded.sum()), wholly_true=int(earned.good.sum()),
                kept=earned.kept.to_dict())


def main(settings: Settings):
    torch.set_num_threads(1)
    store, told = begun(settings), []
    scenes = spread(TEST, seed=SPLITS["test"])
    with SimPool(0) as pool:
        for number in range(1, settings.rounds + 1):
            told.append(learned(settings, store, told, pool))
            arm = ROUNDS[number - 1]
            table = evaluate(store, ["sft", *ROUNDS[:number]], scenes, pool, resume=True)
            told[-1] |= dict(arm=arm, compared=asdict(compare(table, "sft", arm)), true_claims=table.groupby("arm").grounding.mean().round(4).to_dict())
            by = table.pivot_table(index="task", columns="arm", values="success", aggfunc="sum").astype(int)
            found = dict(asdict(settings) | dict(run=None, rounds=number), machine=hardware(), told=told, solved_by_task=by.to_dict("index"))
            out = table_file("rft" if settings.start == 180 else f"rft_{settings.start}") / f"{settings.start}-seed{settings.seed}.json"
            out.parent.mkdir(exist_ok=True)
            out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            print(told[-1], flush=True)


if __name__ == "__main__":
    main(tyro.cli(Settings))
