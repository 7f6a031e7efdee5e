"""The study that 08 shows: its written hypotheses about SFT and PPO, two trials of Optuna's, each with its reason and what was decided.

    python benchmark/study.py

Stopped and called again it goes on, a trial that was cut off is made again; what it found goes to thinkact_nb/tables/.

The plan, written before the first run. The profile `tiny`, seed 0, one thread. The list of hypotheses in 08: all of SFT, judged greedily by 306 validation
scenes; of PPO the first seven, from the adapter of the first trial of SFT, judged by the rollouts of the later half of their updates, 1,024 episodes. A
change is adopted if the paired test says that it is better than what stands, p < .05. Nothing in a profile is changed by it without a run of its own."""
import shutil
from dataclasses import dataclass
from pathlib import Path
import torch
import tyro
from thinkact_nb.data import make_dataset
from thinkact_nb.env import PROFILES, SPLITS
from thinkact_nb.pool import SimPool
from thinkact_nb.store import Store, table_file
from thinkact_nb.tune import Study

SHOWN = ["arm", "task", "level", "perturbed", "seed", "sample", "decoding", "version", "success"]


@dataclass
class Settings:
    "How many trials."
    sft: int = 13
    ppo: int = 7
    scenes: int = 306  # that judge one of SFT
    run: Path = Path("runs/results/study")


def begun(settings, pool):
    "A run folder with the profile's demonstrations."
    store = Store(settings.run, PROFILES["tiny"], seed=0)
    if not store.has("data", tell=False):
        make_dataset(store.profile.demonstrations, store.begin("data"), pool, seed=SPLITS["train"])
        store.push("data")
    return store


def main(settings: Settings):
    torch.set_num_threads(1)
    with SimPool(0) as pool:
        store = begun(settings, pool)
        for stage, trials in (("sft", settings.sft), ("ppo", settings.ppo)):
            study = Study(store, stage, scenes=settings.scenes)
            table = study.table()
            missing = trials - (len(table) and int((table.stage == stage).sum()))
            if missing > 0: study.run(missing, pool)
            if not store.has("sft", tell=False):
                shutil.copytree(study.folder / "sft-000" / "sft", store.run / "sft", dirs_exist_ok=True, ignore=shutil.ignore_patterns("checkpoints"))
    for name in ("study.db", "trials.json"): shutil.copy(study.folder / name, table_file(name))
    study.episodes()[SHOWN].to_parquet(table_file("study.parquet"), index=False, compression="zstd")
    print(study.table()[["name", "change", "result", "decision"]].to_string(index=False))


if __name__ == "__main__":
    main(tyro.cli(Settings))
