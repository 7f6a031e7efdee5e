"""Does RL on turns pay? PPO on whole episodes, from the policy that benchmark/loop.py taught turns, judged on the same test scenes and mishaps.

    python benchmark/loop_rl.py --seed 0

One command is one seed, on one thread. Stopped and called again it goes on; what it found goes to thinkact_nb/tables/loop_rl/, which turns/turn_rl reads.

The plan, written before the first run with these weights and this language. From the policy that comes with the package, SFT on turns of 900 episodes
(benchmark/loop.py): `train_turns`, 4 updates of 1,024 turns, about four hundred episodes each, every fourth without a mishap; rate 1.2e-3, λ 1 within a turn
and .9 from turn to turn; seeds 0, 1 and 2 of RL. (A former stand-in lost 5 points by 12 updates of 256 turns at 4e-4; a gradient of so few turns is nearly
all noise, so these are larger and fewer, and the rate is as much higher.) Judged greedily by 306 test scenes of L0, each under one of no mishap, slip, push
and miss in turn. Tests: exact McNemar on scenes for each seed; a t interval of the mean difference over the three seeds. That RL on turns does not pay is
said if the mean difference is below 5 points or the interval holds 0. By mishap, truth of claims, turns and tokens are description."""
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
import shutil
import pandas as pd
import torch
import tyro
from loop import judged
from thinkact_nb.env import PROFILES, hardware
from thinkact_nb.evaluate import compare
from thinkact_nb.pool import SimPool
from thinkact_nb.store import SHIPPED_TURNS, Store, table_file
from thinkact_nb.turn_rl import train_turns
from thinkact_nb.turns import MIX

SAID = ["grounding", "turns", "tokens", "mishaps", "noticed", "truly", "alarms"]


@dataclass
class Settings:
    "Which run."
    seed: int = 0          # of RL
    updates: int = 4
    turns: int = 1024      # of an update
    rate: float = 1.2e-3   # of RL
    turn_lam: float = .9   # λ from turn to turn
    test: int = 306        # scenes
    run: Path = Path("runs/results/loop_rl")


def main(settings: Settings):
    torch.set_num_threads(1)
    profile = replace(PROFILES["tiny"], rl_batch=settings.turns, rl_learning_rate=settings.rate)
    store = Store(settings.run / f"{settings.turn_lam:g}-{settings.rate:g}-{settings.updates}-seed{settings.seed}", profile, seed=0)
    if not store.has("sft", "adapter_config.json", tell=False): shutil.copytree(SHIPPED_TURNS, store.run / "sft", dirs_exist_ok=True)
    with SimPool(0) as pool:
        log = train_turns(store, pool, settings.seed, resume=True, updates=settings.updates, turn_lam=settings.turn_lam)
        minutes = log.filter(like="seconds_").sum().sum() / 60
        mishaps = [MIX[i % len(MIX)] for i in range(settings.test)]
        tables = [judged(settings, pool, profile, store.run / folder, "mix", disturb=mishaps).assign(arm=arm) for arm, folder in (("sft", "sft"), ("ppo", "rl/ppo"))]
    table = pd.concat(tables, ignore_index=True)
    by = table.assign(mishap=table.mishap.replace("", "none")).pivot_table(index="mishap", columns="arm", values="success", aggfunc=["sum", "count"])
    by.columns = ["_".join(names) for names in by.columns]
    solved = table.pivot_table(index="task", columns="arm", values="success", aggfunc="sum").astype(int)
    found = dict(asdict(settings) | dict(run=None), minutes=round(minutes, 1), machine=hardware(), compared=asdict(compare(table, "sft", "ppo")),
                 by_mishap=by.astype(int).to_dict("index"), solved_by_task=solved.to_dict("index"),
                 means=table.groupby("arm")[SAID].mean().round(4).to_dict("index"),
                 rollouts=[round(float(s), 4) for s in log.success], explained=[round(float(v), 4) for v in log.explained_variance])
    out = table_file("loop_rl") / f"{store.run.name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(out, compare(table, "sft", "ppo"))


if __name__ == "__main__":
    main(tyro.cli(Settings))
