"""SFT and RL on every level, and with other thinks before their actions: the tables of 07 and measure/think, and of the report that 09 shows.

    python benchmark/policies.py

The policies are those of benchmark/arms.py: SFT with and without a think, and `ppo` from there, one folder for each seed of training (`--rl`). Stopped and
called again it goes on; what it found goes to thinkact_nb/tables/.

The plan. All write greedily about the same 306 test scenes of each level; demonstrations and RL are of L0. Before the actions of SFT and of the first seed
of RL every kind of think is put in (`THINKS`), on every level, and on L0 each one's think before the other's action. Tests: exact McNemar on scenes of each
seed against SFT, Holm over the seeds of a level. Whether the think matters is the difference of `own` from every other kind, in the same scenes, by task;
all else is description."""
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
import pandas as pd
import torch
import tyro
from thinkact_nb.env import SPLITS
from thinkact_nb.evaluate import compare, evaluate
from thinkact_nb.pool import SimPool
from thinkact_nb.store import Store, table_file
from thinkact_nb.tasks import spread
from thinkact_nb.think import THINKS, intervene, transplant


@dataclass
class Settings:
    "Which policies, and how much."
    arms: Path = Path("runs/results/arms")  # where benchmark/arms.py trained
    sft: str = "180-340-0.005-0-en-0"    # a folder of benchmark/sft.py, beside it
    rl: tuple[str, ...] = tuple(f"180-ppo-0.0004-16-seed{seed}" for seed in range(3))  # folders there; the first begins `ppo`
    levels: tuple[str, ...] = ("L0", "L1", "L2", "L3")
    test: int = 306                      # scenes of each level
    run: Path = Path("runs/results/policies")


def gathered(settings):
    "A run folder of its own with the adapters of SFT and of the first seed of RL."
    first = settings.arms / settings.rl[0]
    store = Store(settings.run, Store(first).profile, seed=0)
    sources = {"sft": first, "rl/ppo": first, "sft-nothink": settings.arms.parent / "sft" / settings.sft}
    for stage, source in sources.items():
        shutil.copytree(source / stage, store.run / stage, dirs_exist_ok=True, ignore=shutil.ignore_patterns("checkpoints"))
    return store


def there(store, arm, scenes):
    "Whether every scene has its episode of an arm with a think put in."
    file = store.run / "eval" / "interventions.parquet"
    if not file.exists(): return False
    rows = pd.read_parquet(file, columns=["arm", "level"])
    return ((rows.arm == arm) & (rows.level == scenes[0].level)).sum() == len(scenes)


def measure(settings, store, pool):
    "Every arm on the scenes of every level, and every think before the actions of two."
    others = [f"ppo seed {seed}={settings.arms / name / 'rl' / 'ppo'}" for seed, name in enumerate(settings.rl) if seed]
    for level in settings.levels:
        scenes = spread(settings.test, levels=(level,), seed=SPLITS["test"])
        rows = evaluate(store, ["expert", "sft-nothink", "sft", "ppo", *others], scenes, pool, resume=True)
        print(level, compare(rows, "sft", "ppo"), flush=True)
        for arm in ("sft", "ppo"):
            for kind in THINKS:
                if not there(store, f"{arm}:{kind}", scenes): intervene(store, arm, kind, scenes, pool)
        for pair in (("ppo", "sft"), ("sft", "ppo")) if level == "L0" else ():
            if not there(store, ">".join(pair), scenes): transplant(store, *pair, scenes, pool)


def seeds(settings):
    "What each seed of RL took."
    for seed, name in enumerate(settings.rl):
        log = pd.read_json(settings.arms / name / "rl" / "ppo" / "log.json")
        yield dict(seed=seed, updates=len(log), minutes=round(log.filter(like="seconds_").sum().sum() / 60, 1))


def main(settings: Settings):
    torch.set_num_threads(1)
    store = gathered(settings)
    with SimPool(0) as pool: measure(settings, store, pool)
    for name in ("episodes", "interventions"):
        table = pd.read_parquet(store.run / "eval" / f"{name}.parquet")
        table.to_parquet(table_file(f"{name}.parquet"), index=False, compression="zstd")
    for name in ("config.json", "sft/log.json", "rl/ppo/log.json"):
        file = table_file("policies") / name
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(store.run / name, file)
    (table_file("policies") / "seeds.json").write_text(json.dumps(list(seeds(settings)), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Settings))
