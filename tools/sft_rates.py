"""Which learning rate SFT of the stand-in wants: the reason for `sft_learning_rate` of the profile `tiny`.

    python tools/sft_rates.py --run runs/rates

The plan, written before the first run. Arms: four rates. Each is trained on the same 900 demonstrations, three passes (171 steps), seed 0, nothing else
changed, and judged by 198 scenes of the validation split, 22 of each task, greedily. The highest success rate is taken; of equal ones, the one with
fewer parse failures, then the smaller. Two arms at a time, one thread each. Called again, it goes on."""
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
import torch
import tyro
from thinkact_nb.data import claims, make_dataset
from thinkact_nb.env import PROFILES, SPLITS
from thinkact_nb.store import Store
from thinkact_nb.words import load_processor
from thinkact_nb.model import load_model
from thinkact_nb.sft import Validation, train_sft
from thinkact_nb.sim import parse_output
from thinkact_nb.tasks import TASKS
from thinkact_nb.pool import SimPool

RATES = (1e-3, 2e-3, 5e-3, 1e-2)


@dataclass
class Settings:
    "Where, and how much."
    run: Path = Path("runs/rates")
    demonstrations: int = 900
    scenes: int = 198
    out: Path = Path("thinkact_nb/tables/sft_rates.json")  # the table that 04 shows


def arm(settings, rate):
    "One rate, trained and judged."
    torch.set_num_threads(1)
    folder = settings.run / f"{rate:g}"
    profile = replace(PROFILES["tiny"], demonstrations=settings.demonstrations, sft_learning_rate=rate)
    store = Store(folder, profile, seed=0)
    if (folder / "judged.json").exists():
        return json.loads((folder / "judged.json").read_text(encoding="utf-8"))
    if not store.has("data"):
        with SimPool(1) as pool:
            make_dataset(settings.demonstrations, store.begin("data"), pool, seed=SPLITS["train"])
        store.push("data")
    log = train_sft(store, resume=True, validation=36)
    looks = Validation(store, TASKS, ["L0"], settings.scenes)
    rows = looks.episodes(load_model(profile, str(store.path("sft"))), load_processor(profile))
    told = [true for scene, text in zip(looks.scenes, rows.output) for *_, true in claims(parse_output(text).think, scene)]
    by_task = {task: int(n) for task, n in rows.groupby("task").success.sum().items()}
    judged = dict(rate=rate, scenes=len(rows), parsed=int(rows.parsed.sum()), successes=int(rows.success.sum()), true_claims=round(sum(told) / len(told), 4),
                  action_loss=round(float(log.eval_action_loss.dropna().iloc[-1]), 4), steps=int(log.step.max()), by_task=by_task)
    (folder / "judged.json").write_text(json.dumps(judged) + "\n", encoding="utf-8")
    return judged


def main(settings: Settings):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        table = list(pool.map(arm, [settings] * len(RATES), RATES))
    for row in table:
        print(json.dumps(row))
    best = max(table, key=lambda r: (r["successes"], r["parsed"], -r["rate"]))
    settings.out.write_text(json.dumps(dict(arms=table, chosen=best["rate"]), indent=1) + "\n", encoding="utf-8")
    print("chosen:", best["rate"])


if __name__ == "__main__":
    main(tyro.cli(Settings))
