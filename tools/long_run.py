"""Make the stand-in's long run again: the adapters and the tables that come with the package.

    python tools/long_run.py --run runs/long

SFT on 400 demonstrations, with and without a think; PPO from there with three seeds, two at a time; every arm and every intervention on
the same test scenes. Many hours on two CPU cores. Stopped and called again, it goes on. What it made is taken over by `--keep`."""
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
import pandas as pd, torch, tyro
from thinkact_nb.env import PROFILES, SPLITS
from thinkact_nb.store import SHIPPED, Store, kept
from thinkact_nb.tasks import spread
from thinkact_nb.data import make_dataset
from thinkact_nb.evaluate import evaluate
from thinkact_nb.think import THINKS, intervene, transplant
from thinkact_nb.trainer import train_rl
from thinkact_nb.sft import train_sft
from thinkact_nb.pool import SimPool

SEEDS, LEVELS, SCENES, ENDS = (0, 1, 2), ("L0", "L1", "L2", "L3"), 306, 8  # ENDS: updates at either end of which the swaps are kept


@dataclass
class Settings:
    "How long to train, and what to do with the result."
    run: Path = Path("runs/long")
    demonstrations: int = 400
    updates: int = 100
    keep: bool = False  # put the tables and the adapters of seed 0 into the package


def folder(settings, seed): return settings.run if not seed else settings.run / f"seed{seed}"


def store_of(settings, seed=0): return Store(folder(settings, seed), replace(PROFILES["tiny"], demonstrations=settings.demonstrations), seed=seed)


def imitate(settings):
    "Demonstrations and the two SFT adapters; the other seeds begin from the same."
    store = store_of(settings)
    with SimPool(1) as pool: make_dataset(settings.demonstrations, store.begin("data"), pool, seed=SPLITS["train"])
    for stage in ("sft", "sft-nothink"):
        if not (store.run / stage / "log.json").exists(): train_sft(store, resume=True, think=stage == "sft")
    for seed in SEEDS[1:]: shutil.copytree(store.run / "sft", store_of(settings, seed).run / "sft", dirs_exist_ok=True)


def reinforce(settings, seed):
    "PPO with one seed of training."
    torch.set_num_threads(1)
    store = store_of(settings, seed)
    if (log := store.run / "rl" / "ppo" / "log.json").exists(): return
    with SimPool(1) as pool: rows = train_rl(store, pool, seed=seed, resume=True, updates=settings.updates)
    log.write_text(rows.to_json(orient="records", indent=0) + "\n", encoding="utf-8")


def measure(settings):
    "Every arm and every intervention on the same scenes."
    store = store_of(settings)
    with SimPool(1) as pool:
        for level in LEVELS:
            scenes = spread(SCENES, levels=(level,), seed=SPLITS["test"])
            others = [f"ppo seed {s}={folder(settings, s) / 'rl' / 'ppo'}" for s in SEEDS[1:]]
            evaluate(store, ["expert", "sft-nothink", "sft", "ppo", *others], scenes, pool, resume=True)
            for arm in ("sft", "ppo"):
                for kind in THINKS:
                    if not there(store, f"{arm}:{kind}", level): intervene(store, arm, kind, scenes, pool)
            for pair in (("ppo", "sft"), ("sft", "ppo")) if level == "L0" else (): transplant(store, *pair, scenes, pool)


def there(store, arm, level):
    file = store.run / "eval" / "interventions.parquet"
    return file.exists() and pd.read_parquet(file, columns=["arm", "level"]).eq([arm, level]).all(axis=1).sum() == SCENES


def swaps(settings):
    "Thinks and places of the swaps that seed 0 tried in its first and last updates."
    rows = pd.read_parquet(settings.run / "rl" / "ppo" / "rollouts.parquet").query("task == 'swap'")
    ends = {f"first {ENDS}": rows["update"] <= ENDS, f"last {ENDS}": rows["update"] > settings.updates - ENDS}
    return pd.concat([rows[which].assign(updates=name, aside=rows[which].action.str.extract("place (<loc..><loc..>)")[0]) for name, which in ends.items()])[["updates", "update", "level", "seed", "think", "action", "aside", "success"]]


def keep(settings):
    "Into the package: what the notebooks read and what a run without training may use."
    logs = [pd.read_json(folder(settings, s) / "rl" / "ppo" / "log.json").assign(seed=s) for s in SEEDS]
    tables = dict(episodes=pd.read_parquet(settings.run / "eval" / "episodes.parquet"), interventions=pd.read_parquet(settings.run / "eval" / "interventions.parquet"), long_log=pd.concat(logs), swaps=swaps(settings))
    for name, table in tables.items(): table.to_parquet(kept(f"{name}.parquet"), index=False, compression="zstd")
    shutil.copy(settings.run / "config.json", SHIPPED)
    for stage in ("sft", "rl/ppo"):
        for file in (SHIPPED / stage).iterdir(): shutil.copy(settings.run / stage / file.name, file)


def main(settings: Settings):
    imitate(settings)
    with ProcessPoolExecutor(2) as pool: list(pool.map(reinforce, [settings] * len(SEEDS), SEEDS))
    measure(settings)
    if settings.keep: keep(settings)


if __name__ == "__main__": main(tyro.cli(Settings))
