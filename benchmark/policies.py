"""SFT and RL on every level, and with other thinks before their actions: the tables of 07 and measure/think, and of the report that 09 shows.

    python benchmark/policies.py

The policies are those of benchmark/rft.py: SFT on 180 demonstrations, with and without a think, and what two rounds of rejection sampling make of it
(`rft2`), one folder for each seed. Stopped and called again it goes on; what it found goes to thinkact_nb/tables/.

The plan, written before the first run. All write greedily about the same 306 test scenes of each level; demonstrations and RL are of L0. Before the actions
of SFT and of the first seed of RL every kind of think is put in (`THINKS`), on every level, and on L0 each one's think before the other's action. Tests:
exact McNemar on scenes of each seed against SFT, Holm over the seeds of a level. Whether the think matters is the difference of `own` from every other kind,
in the same scenes, by task; all else is description."""
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
import pandas as pd
import torch
import tyro
from sft import taught
from thinkact_nb.env import SPLITS
from thinkact_nb.evaluate import compare, evaluate
from thinkact_nb.pool import SimPool
from thinkact_nb.store import Store, table_file
from thinkact_nb.tasks import spread
from thinkact_nb.think import THINKS, intervene, transplant

ARM = "rft2"
RL = f"rl/{ARM}"


@dataclass
class Settings:
    "Which policies, and how much."
    own: Path = Path("runs/results/rft")  # where benchmark/rft.py trained; beside it, in sft/, what it began from
    start: int = 180                      # demonstrations
    seeds: tuple[int, ...] = (0, 1, 2)    # of RL; the first is `rft2`
    levels: tuple[str, ...] = ("L0", "L1", "L2", "L3")
    test: int = 306                      # scenes of each level
    run: Path = Path("runs/results/policies")


def folder(settings, seed): return settings.own / f"{settings.start}-seed{seed}"


def gathered(settings):
    "A run folder of its own with the adapters of SFT and of the first seed of RL."
    first = folder(settings, settings.seeds[0])
    quiet, stage = taught(settings.own.parent / "sft", settings.start, think=False)
    store = Store(settings.run, quiet.profile, seed=0)
    sources = {"sft": first, RL: first, stage: quiet.run}
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
    others = [f"{ARM} seed {seed}={folder(settings, seed) / RL}" for seed in settings.seeds[1:]]
    for level in settings.levels:
        scenes = spread(settings.test, levels=(level,), seed=SPLITS["test"])
        rows = evaluate(store, ["expert", "sft-nothink", "sft", ARM, *others], scenes, pool, resume=True)
        print(level, compare(rows, "sft", ARM), flush=True)
        for arm in ("sft", ARM):
            for kind in THINKS:
                if not there(store, f"{arm}:{kind}", scenes): intervene(store, arm, kind, scenes, pool)
        for pair in ((ARM, "sft"), ("sft", ARM)) if level == "L0" else ():
            if not there(store, ">".join(pair), scenes): transplant(store, *pair, scenes, pool)


def seeds(settings):
    "How many texts each seed of RL drew, and kept."
    for seed in settings.seeds:
        told = json.loads((table_file("rft") / f"{folder(settings, seed).name}.json").read_text(encoding="utf-8"))["told"]
        yield dict(seed=seed, texts=sum(r["texts"] for r in told), kept=sum(sum(r["kept"].values()) for r in told))


def main(settings: Settings):
    torch.set_num_threads(1)
    store = gathered(settings)
    with SimPool(0) as pool: measure(settings, store, pool)
    for name in ("episodes", "interventions"):
        table = pd.read_parquet(store.run / "eval" / f"{name}.parquet")
        table.to_parquet(table_file(f"{name}.parquet"), index=False, compression="zstd")
    for name in ("config.json", "sft/log.json", f"{RL}/log.json"):
        file = table_file("policies") / name
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(store.run / name, file)
    (table_file("policies") / "seeds.json").write_text(json.dumps(list(seeds(settings)), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Settings))
