"""What a policy teaches itself: texts that it drew, that succeeded in the simulator and claimed nothing false, learned beside the demonstrations.

    python benchmark/rft.py --seed 0

One command is one seed, on one thread. Stopped and called again it goes on; what it found goes to thinkact_nb/tables/rft/, which reinforce/what_pays reads.

The plan, written before the first run. Rejection sampling, or expert iteration with the policy as its own expert: PPO reads an episode once, and a text that
succeeded can be read as often as a demonstration.

- Start: SFT on 180 demonstrations as benchmark/sft.py has it, seed 0.
- A round: the policy draws four texts at temperature 1 about each of 1,024 scenes of L0 of the RL split (4,096 episodes). Of a scene's texts that succeed and
  whose claims are all true the first is kept: the simulator says both, no expert is asked. SFT begins from the base again, on the 180 demonstrations and all
  texts kept so far, for as many steps as benchmark/sft.py has for so many rows, to the last. Rounds: one, then as many as time allows; each is judged.
- Seeds 0, 1 and 2: of the scenes, of the drawing and of the training.
- Judged greedily by the 306 test scenes, against the start: exact McNemar for each seed, a t interval of the mean difference over the seeds. That it does not
  pay is said if the mean is below 5 points or the interval holds 0.
- Controls: the start, which is trained out (more steps on the same demonstrations add nothing: benchmark/sft.py); `ppo` from the same start (benchmark/arms.py)."""
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import tyro
from sft import STEPS, TO_THE_END, taught
from thinkact_nb.data import as_row
from thinkact_nb.env import SPLITS, hardware
from thinkact_nb.evaluate import compare, evaluate
from thinkact_nb.family import load_processor
from thinkact_nb.language import claims
from thinkact_nb.model import free_memory, load_model
from thinkact_nb.pool import SimPool
from thinkact_nb.reward import rollout
from thinkact_nb.sft import train_sft
from thinkact_nb.store import Store, table_file
from thinkact_nb.tasks import spread
from thinkact_nb.trainer import SEED_SCENES

PART = 128   # scenes drawn at once, and kept if the run is stopped
BATCH = 128  # texts written at once
TEST = 306


@dataclass
class Settings:
    "Which run."
    start: int = 180     # demonstrations
    seed: int = 0
    rounds: int = 1
    scenes: int = 1024   # of a round
    texts: int = 4       # of a scene
    run: Path = Path("runs/results/rft")  # beside it, in sft/, the SFT of benchmark/sft.py


def is_good(episode, scene): return episode.success and all(claim.true for claim in claims(episode.think, scene))


def drawn(settings, store, stage_folder, number, pool):
    "The rows that a policy earns in a round, and what its episodes were: kept part by part."
    folder = store.run / f"round-{number}"
    folder.mkdir(parents=True, exist_ok=True)
    first = SPLITS["rl"] + settings.seed * SEED_SCENES + (number - 1) * settings.scenes
    scenes = spread(settings.scenes, seed=first)
    profile = replace(store.profile, eval_batch=BATCH)
    policy = None
    for begin in range(0, len(scenes), PART):
        file = folder / f"{begin:05d}.parquet"
        if file.exists(): continue
        policy = policy or (load_model(profile, str(stage_folder)), load_processor(profile))
        some = scenes[begin:begin + PART]
        episodes = rollout(*policy, profile, some, pool, temperature=1., samples=settings.texts, seed=1_000 * settings.seed + begin + number)
        images = pool.images(some, profile.image_size)
        rows = []
        for i, scene in enumerate(some):
            texts = episodes[i * settings.texts:(i + 1) * settings.texts]
            good = next((e for e in texts if is_good(e, scene)), None)
            told = dict(solved=sum(e.success for e in texts), good=sum(is_good(e, scene) for e in texts))
            rows.append(as_row(scene, images[i], scene.instruction, good.output if good else "", bool(good), asdict(scene) | told))
        table = pa.Table.from_pylist(rows)
        pq.write_table(table, file.with_suffix(".part"))
        file.with_suffix(".part").replace(file)
        print(file.name, sum(row["success"] for row in rows), "of", len(rows), flush=True)
    del policy
    free_memory()
    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def main(settings: Settings):
    torch.set_num_threads(1)
    begun, stage = taught(settings.run.parent / "sft", settings.start)
    demonstrations = pq.read_table(begun.run / "data" / "train.parquet")
    policy = begun.run / stage
    kept, told = [], []
    with SimPool(0) as pool:
        solved = {"sft": evaluate(begun, ["sft"], spread(TEST, seed=SPLITS["test"]), pool, resume=True)}
        for number in range(1, settings.rounds + 1):
            store = Store(settings.run / f"{settings.start}-seed{settings.seed}-round{number}", begun.profile, seed=0)
            rows = drawn(settings, Store(settings.run / f"{settings.start}-seed{settings.seed}", begun.profile, seed=0), policy, number, pool)
            kept += [row for row in rows if row["success"]]
            if not store.has("data"):
                own = pa.Table.from_pylist(kept, schema=demonstrations.schema)
                pq.write_table(pa.concat_tables([demonstrations, own]), store.begin("data") / "train.parquet")
                store.push("data", settings=begun.made("data"))
            total = len(demonstrations) + len(kept)
            if not (store.run / "sft" / "log.json").exists():
                train_sft(store, seed=settings.seed, resume=True, steps=STEPS[total > 900], **TO_THE_END)
            policy = store.run / "sft"
            solved[f"round {number}"] = evaluate(store, ["sft"], spread(TEST, seed=SPLITS["test"]), pool, resume=True).assign(arm=f"round {number}")
            scenes = [json.loads(row["scene"]) for row in rows]
            told.append(dict(round=number, rows=total, texts=settings.texts * len(rows), succeeded=sum(s["solved"] for s in scenes), wholly_true=sum(s["good"] for s in scenes),
                             kept=pd.Series([row["task"] for row in rows if row["success"]]).value_counts().to_dict()))
            table = pd.concat(solved.values(), ignore_index=True)
            by = table.pivot_table(index="task", columns="arm", values="success", aggfunc="sum").astype(int)
            told[-1] |= dict(compared=asdict(compare(table, "sft", f"round {number}")), true_claims=table.groupby("arm").grounding.mean().round(4).to_dict())
            found = dict(asdict(settings) | dict(run=None, rounds=number), machine=hardware(), told=told, solved_by_task=by.to_dict("index"))
            out = table_file("rft") / f"{settings.start}-seed{settings.seed}.json"
            out.parent.mkdir(exist_ok=True)
            out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            print(told[-1], flush=True)


if __name__ == "__main__":
    main(tyro.cli(Settings))
