"""The study that 08 shows: its written hypotheses about SFT and PPO, then Optuna's, each with its reason and what was decided.

    python benchmark/study.py --run runs/demo

The run must have the demonstrations and the SFT adapter of `make demo`. Stopped and called again it goes on; what it found goes to thinkact_nb/tables/.

The plan is the list of hypotheses in 08. Trials of SFT begin with 900 demonstrations, seed 0, and are judged greedily by 306 validation scenes, those of PPO
by the rollouts of their later half of updates. A change is adopted if the paired test says that it is better."""
import shutil
from dataclasses import dataclass
from pathlib import Path
import torch
import tyro
from thinkact_nb.pool import SimPool
from thinkact_nb.store import Store, table_file
from thinkact_nb.tune import Study

SHOWN = ["arm", "task", "level", "perturbed", "seed", "sample", "decoding", "version", "success"]


@dataclass
class Settings:
    "How many trials."
    sft: int = 28
    ppo: int = 12
    demonstrations: int = 900  # that an SFT trial begins with
    scenes: int = 306          # that judge one
    run: Path = Path("runs/demo")


def main(settings: Settings):
    torch.set_num_threads(1)
    store = Store(settings.run)
    with SimPool(0) as pool:
        for stage, trials, start in (("sft", settings.sft, dict(demonstrations=settings.demonstrations)), ("ppo", settings.ppo, {})):
            study = Study(store, stage, scenes=settings.scenes, **start)
            table = study.table()
            missing = trials - (len(table) and int((table.stage == stage).sum()))
            if missing > 0: study.run(missing, pool)
    for name in ("study.db", "trials.json"): shutil.copy(study.folder / name, table_file(name))
    study.episodes()[SHOWN].to_parquet(table_file("study.parquet"), index=False, compression="zstd")
    print(study.table()[["name", "change", "result", "decision"]].to_string(index=False))


if __name__ == "__main__":
    main(tyro.cli(Settings))
