"""What SFT makes of the next stand-in and its language: how many demonstrations it needs.

    python benchmark/next/sft.py --n 900 --steps 340

One command is one run, on one thread; called again it goes on, and what it found goes to benchmark/next/sft.json.

The plan, written before the first run. The base is `benchmark/next/standin`, the language `benchmark/next/language.py`. 90, 180, 300, 900 and 2,700
demonstrations, rank 16, batch 16, rate 5e-3 with cosine and warm-up, no early stopping; 340 steps up to 900 demonstrations and 510 on 2,700; dropout 0,
and once .1 on 900; seeds 0 and 1. Judged greedily and at temperature 1 by 198 validation scenes, and greedily by the 306 test scenes, where the goals
are: 900 demonstrations 90 % and every task 75 %, 2,700 demonstrations 95 %, at temperature 1 75 % (900), true claims 95 %.

Amended after the first run (900, seed 0: 267 of 306 test scenes, 98 % of claims true; `superlative` 41 %, whose thinks choose rightly and whose actions
take another block's place): the language says the place of the chosen block again before the plan. `computed` in a name is the language before that,
`computed2` the one since."""
import json
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
import numpy as np
import torch
import tyro
import language
from thinkact_nb import model
from thinkact_nb.data import claims, make_dataset
from thinkact_nb.env import PROFILES, SPLITS, hardware
from thinkact_nb.pool import SimPool
from thinkact_nb.reward import rollout
from thinkact_nb.sft import train_sft
from thinkact_nb.store import Store
from thinkact_nb.tasks import spread
from thinkact_nb.words import load_processor

HERE = Path(__file__).parent
LOOKS = dict(validation=198, test=306)  # scenes


@dataclass
class Settings:
    "Which run."
    n: int = 900          # demonstrations
    steps: int = 340
    rate: float = 5e-3
    dropout: float = 0.   # of the adapters
    seed: int = 0
    lang: str = "computed2"
    base: Path = HERE / "standin"
    run: Path = Path("runs/next")


def judged(policy, profile, split, temperature):
    "What a policy's texts solve, and how many of their claims are true."
    scenes = spread(LOOKS[split], seed=SPLITS[split])
    episodes = rollout(*policy, profile, scenes, SimPool(0), temperature=temperature)
    solved, tasks, found = [episode.success for episode in episodes], {}, {}
    for scene, episode in zip(scenes, episodes):
        tasks.setdefault(scene.task, []).append(episode.success)
        for claim in claims(episode.think, scene):
            found.setdefault(claim.kind, []).append(claim.true)
    share = lambda groups: {name: round(float(np.mean(values)), 3) for name, values in groups.items()}
    every = [true for values in found.values() for true in values]
    return dict(scenes=len(scenes), solved=sum(solved), share=round(float(np.mean(solved)), 4), by_task=share(tasks), true_claims=round(float(np.mean(every)), 4),
                true_by_kind=share(found), texts=[episode.output for episode in episodes[:20]])


def main(settings: Settings):
    torch.set_num_threads(1)
    model.lora_config = partial(with_dropout, model.lora_config, settings.dropout)
    profile = replace(PROFILES["tiny"], model=str(settings.base.resolve()), demonstrations=settings.n, sft_learning_rate=settings.rate)
    name = f"{settings.n}-{settings.steps}-{settings.rate:g}-{settings.dropout:g}-{settings.lang}-{settings.base.name}-{settings.seed}"
    store = Store(settings.run / name, profile, seed=0)
    if not store.has("data"):
        make_dataset(settings.n, store.begin("data"), SimPool(0), seed=SPLITS["train"], lang=settings.lang)
        store.push("data")
    start = time.time()
    log = train_sft(store, seed=settings.seed, resume=True, steps=settings.steps, every=100, validation=36, patience=0)
    seconds = round(time.time() - start)
    policy = model.load_model(profile, str(store.run / "sft")), load_processor(profile)
    found = {f"{split}, T = {t:g}": judged(policy, profile, split, t) for split, t in (("validation", 0.), ("validation", 1.), ("test", 0.))}
    file = HERE / "sft.json"
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    asked = {k: str(v) if isinstance(v, Path) else v for k, v in vars(settings).items() if k not in ("run", "base")}
    kept[name] = asked | dict(seconds=seconds, loss=float(log.loss.dropna().iloc[-1]), cpus=hardware()["cpus"]) | found
    file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    for asked, row in found.items():
        print(asked, {k: v for k, v in row.items() if k != "texts"}, flush=True)


def with_dropout(make, dropout, profile):
    "The project's adapters, with another dropout."
    config = make(profile)
    config.lora_dropout = dropout
    return config


if __name__ == "__main__":
    assert language.COMPUTED
    main(tyro.cli(Settings))
