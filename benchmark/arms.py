"""The runs behind the pages on RL: SFT on some demonstrations, RL from there, all judged on the same test scenes.

    python benchmark/arms.py --start 180 --arm ppo --seed 0

One command is one run, on one thread. Stopped and called again it goes on; what it found goes to thinkact_nb/tables/, arms/, arms_more/ or rivals/, which reinforce/what_pays reads.

The plan, written before the first run of it with this base and this language.

- Starts: SFT as benchmark/sft.py has it, seed 0: 180 demonstrations, where much is left to do, and 900; 340 steps, rate 5e-3, no dropout.
- Arms: those of `ARMS`, 48 updates of 256 episodes (12,288) on level L0, four texts a scene, rate 4e-4, λ .95. `ppo` from both starts with seeds 0, 1 and 2 of RL; from 180, seed 0:
  `grpo`, `rloo`, `ppo+credit`, and `ppo-nothink` (from SFT on the same demonstrations with empty thinks).
- Why four texts: before the first run, gradients of four independent rollouts of 256 texts from the 180 start had a cosine of .054 with the critic and four
  texts a scene, in 60 seconds a rollout, and of .009 with GRPO's baseline and eight; with one text a scene a rollout took 78 seconds (`moving.signs`).
- Amended on 30 November, when 16 updates of the first run had taken 17 minutes and its rollouts stood where they had begun (nothing was judged), and a round of
  benchmark/rft.py had been judged: `ppo` with its three seeds is first judged after 16 updates (`--updates 16`), as many episodes as such a round draws, 4,096;
  48 updates are lines of their own.
- Amended on 1 December, before any of these had run: from 900 demonstrations benchmark/rft.py goes on, which had gained three times as much from 180; `ppo`
  from there and 48 updates are left to whoever has the hours. The other arms have 16 updates.
- Amended on 1 December, later, before any of these had run: of the other arms `grpo` and `ppo-nothink`, for want of hours; `rloo` and `ppo+credit` are left to
  whoever has them.
- Judged greedily by 306 test scenes of L0; the first seed of `ppo` also by two drawn texts a scene (`--sampled 2`) and by the mean of its later adapters.
- Tests: exact McNemar on scenes for each seed; a t interval of the mean difference over the three seeds. The family for Holm: `ppo` from 180 and from 900,
  each by the seed with the median difference. All else is description.
- What would say that RL does not pay here: a mean difference below 5 points, or an interval over seeds that holds 0.

What runs on a former base said: from 900 demonstrations trained out, 16 and 48 updates at λ 1 added nothing to greedy texts; from 180, 48 updates at λ .95 added
10 points (one seed, by a bare loop). Gradients of independent rollouts agreed with a cosine of .025 to .045, whatever λ, mask or baseline."""
import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal
import numpy as np
import pandas as pd
import torch
import tyro
from safetensors.torch import load_file, save_file
from sft import taught
from transformers import TrainerCallback
from thinkact_nb.env import SPLITS, hardware
from thinkact_nb.evaluate import Comparison, compare, evaluate, mean_interval
from thinkact_nb.model import free_memory, load_model
from thinkact_nb.pool import SimPool
from thinkact_nb.trainer import train_rl
from thinkact_nb.reward import rollout
from thinkact_nb.store import Store, table_file
from thinkact_nb.tasks import spread
from thinkact_nb.family import load_processor

TEST = 306
LOOK = 198
PPO = dict(algo="ppo", lam=.95, num_generations=4)
WEIGHTS = "adapter_model.safetensors"
ARMS = {
    "ppo": PPO,
    "ppo+true": PPO | dict(algo="ppo+true"),
    "ppo+credit": PPO | dict(algo="ppo+credit"),
    "ppo, blind critic": PPO | dict(privileged=False),
    "ppo, one text": PPO | dict(num_generations=1),
    "ppo-nothink": PPO | dict(think=False),
    "grpo": dict(algo="grpo"),
    "rloo": dict(algo="rloo")}


@dataclass
class Settings:
    "Which run."
    start: Literal[90, 180, 300, 900, 2700] = 180  # demonstrations
    arm: str = "ppo"                               # a name in ARMS
    seed: int = 0                                  # of RL
    updates: int = 48
    rate: float = 4e-4                    # of RL
    levels: tuple[str, ...] = ("L0",)     # judged
    look: bool = False                    # True: on validation scenes, to choose a rate
    run: Path = Path("runs/results/arms")  # beside it, in sft/, the SFT of benchmark/sft.py: made if it is not there
    mean: bool = False                    # also judge the mean of the adapters of the later half of updates, every fourth one's
    sampled: int = 0                      # texts for each test scene that are also drawn at temperature 1, before and after


class Keep(TrainerCallback):
    "Keeps the adapter of every checkpoint; of checkpoints a run keeps the last two."
    def __init__(self, folder): self.folder = folder

    def on_train_begin(self, args, state, control, **kwargs):
        if not state.global_step: shutil.rmtree(self.folder, ignore_errors=True)  # else a mean is over two trainings

    def on_save(self, args, state, control, **kwargs):
        self.folder.mkdir(exist_ok=True)
        shutil.copy(Path(args.output_dir) / f"checkpoint-{state.global_step}" / WEIGHTS, self.folder / f"{state.global_step:05d}.safetensors")


def averaged(settings, store, algo, pool):
    "The mean of adapters of the later half of a run, judged as its last one was."
    files = sorted((store.run / "kept").glob("*.safetensors"))
    later = [load_file(file) for file in files if int(file.stem) > int(files[-1].stem) / 2]
    other = Store(store.run.with_name(f"{store.run.name}-mean"), store.profile, seed=0)
    for stage in ("sft", f"rl/{algo}"): shutil.copytree(store.run / stage, other.path(stage), dirs_exist_ok=True, ignore=shutil.ignore_patterns("checkpoints"))
    folder = other.begin(f"rl/{algo}")  # no longer sealed
    save_file({name: sum(part[name] for part in later) / len(later) for name in later[0]}, folder / WEIGHTS, metadata=dict(format="pt"))
    split, n = ("validation", LOOK) if settings.look else ("test", TEST)
    rows = evaluate(other, ["sft", algo], spread(n, seed=SPLITS[split]), pool, resume=True)
    solved = rows.pivot_table(index="task", columns="arm", values="success", aggfunc="sum").astype(int)
    return dict(adapters=len(later), compared=asdict(compare(rows, "sft", algo)), solved_by_task=solved.to_dict("index"))


def drawn(settings, store, algo, pool):
    "What sampled texts solve, before and after RL: shares of each policy, and their difference with scenes as units."
    scenes = spread(TEST, seed=SPLITS["test"])
    processor = load_processor(store.profile)
    shares = {}
    for arm, folder in (("sft", "sft"), (algo, f"rl/{algo}")):
        model = load_model(store.profile, str(store.run / folder))
        found = rollout(model, processor, store.profile, scenes, pool, arm, temperature=1., samples=settings.sampled, seed=7)
        shares[arm] = np.reshape([e.success for e in found], (len(scenes), -1)).mean(1)
        del model
        free_memory()
    change = shares[algo] - shares["sft"]
    low, high = mean_interval(change, 0)
    return dict(samples=settings.sampled, n=len(scenes), low=low, high=high, difference=float(change.mean()), **{arm: float(share.mean()) for arm, share in shares.items()})


def name(settings): return f"{settings.start}-{settings.arm}-{settings.rate:g}-{settings.updates}-seed{settings.seed}{'-look' * settings.look}".replace(", ", "-")


def folder(settings):
    "Where a run's numbers go, each a part of `make results` of its own: the first run of `ppo` from 180 demonstrations, more of them, `ppo` from others, and other arms."
    if settings.arm != "ppo": return table_file("rivals")
    if settings.start != 180: return table_file(f"arms_{settings.start}")
    return table_file("arms" if (settings.seed, settings.updates) == (0, 16) else "arms_more")


def main(settings: Settings):
    torch.set_num_threads(1)
    out = folder(settings) / f"{name(settings)}.json"
    arm = dict(ARMS[settings.arm])
    think = arm.pop("think", True)
    sft, stage = taught(settings.run.parent / "sft", settings.start, think=think)
    algo = arm.pop("algo")
    store = Store(settings.run / name(settings).removesuffix("-look"), replace(sft.profile, rl_learning_rate=settings.rate), seed=0)
    if not store.has("sft", "adapter_config.json"):
        shutil.copytree(sft.run / stage, store.run / "sft", dirs_exist_ok=True, ignore=shutil.ignore_patterns("checkpoints"))
    with SimPool(0) as pool:
        log = train_rl(store, pool, algo, seed=settings.seed, resume=True, updates=settings.updates, callbacks=[Keep(store.run / "kept")], **arm)
        minutes = log.filter(like="seconds_").sum().sum() / 60  # of all its parts, if it was stopped and called again
        split, n = ("validation", LOOK) if settings.look else ("test", TEST)
        rows = {level: evaluate(store, ["sft", algo], spread(n, levels=(level,), seed=SPLITS[split]), pool, resume=True) for level in settings.levels}
    found = dict(asdict(settings) | dict(run=None), minutes=round(minutes, 1), machine=hardware(), levels={})
    for level, table in rows.items():
        means = table.groupby("arm")[["grounding", "think_tokens"]].mean().round(4)
        solved = table.pivot_table(index="task", columns="arm", values="success", aggfunc="sum").astype(int)
        found["levels"][level] = dict(compared=asdict(compare(table, "sft", algo)), means=means.to_dict("index"), solved_by_task=solved.to_dict("index"))
    with SimPool(0) as pool:
        if not think:  # what the think is worth to SFT, on the same demonstrations and scenes
            both = [evaluate(sft, ["sft"], spread(n, seed=SPLITS[split]), pool, resume=True), rows["L0"][rows["L0"].arm == "sft"].assign(arm="sft-nothink")]
            found["think"] = asdict(compare(pd.concat(both, ignore_index=True), "sft-nothink", "sft"))
        if settings.mean: found["mean"] = averaged(settings, store, algo, pool)
        if settings.sampled: found["sampled"] = drawn(settings, store, algo, pool)
    found["rollouts"] = [round(float(s), 4) for s in log.success]
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for extra in ("think", "mean", "sampled"):
        if extra in found: print(extra, found[extra])
    for level, r in found["levels"].items():
        print(out, level, Comparison(**r["compared"]))


if __name__ == "__main__":
    main(tyro.cli(Settings))
